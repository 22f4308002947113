import { access } from 'node:fs/promises';
import { connect } from 'node:net';
import { resolve } from 'node:path';
import { SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { errnoOf } from '../../io/files.ts';
import { ContainerdClient } from '../../oci/containerd/client.ts';
import type { Item, Target, TargetOptions, TargetRun } from '../target.ts';
import { planImages } from './plan.ts';
import { ContainerdRun } from './run.ts';
import { createTurns, type Turns } from './turns.ts';

/** Where the sockets of containerd are: its own, k3s and rke2, microk8s, k0s (registry.md 3.1). */
const KNOWN_SOCKETS = [
  '/run/containerd/containerd.sock',
  '/run/k3s/containerd/containerd.sock',
  '/var/snap/microk8s/common/run/containerd.sock',
  '/run/k0s/containerd.sock',
] as const;

/** containerd's rule for identifiers: at most 76 characters. */
const NAMESPACE = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const NAMESPACE_LIMIT = 76;

export interface ContainerdOptions {
  /** Path of the socket; `unix://` before it is fine. */
  readonly socket: string;
  /** At least one; kubelet's is `k8s.io`. */
  readonly namespaces: readonly string[];
  /** Label the images so that kubelet's image collection never deletes them. */
  readonly pin: boolean;
}

/**
 * One target for each namespace of one containerd. Only images are accepted.
 * @throws USAGE for a namespace that containerd would refuse, or none
 */
export function containerdTargets(options: ContainerdOptions): Target[] {
  const socket = resolve(options.socket.replace(/^unix:(?:\/\/)?/, ''));
  const namespaces = [...new Set(options.namespaces)];
  const wrong = namespaces.find((n) => n.length > NAMESPACE_LIMIT || !NAMESPACE.test(n));
  if (namespaces.length === 0 || wrong !== undefined) {
    throw new SealiftError(
      'USAGE',
      wrong === undefined
        ? `containerd ${socket}: no namespace`
        : `"${wrong.slice(0, 100)}" is not a containerd namespace`,
      { hint: 'kubelet reads the namespace k8s.io: --namespace k8s.io' },
    );
  }
  const turns = createTurns();
  return namespaces.map((namespace) => containerdTarget({ socket, namespace, pin: options.pin, turns }));
}

function containerdTarget(options: {
  readonly socket: string;
  readonly namespace: string;
  readonly pin: boolean;
  readonly turns: Turns;
}): Target {
  const { socket, namespace, pin, turns } = options;
  const name = `containerd ${socket} ${namespace}`;
  return {
    kind: 'containerd',
    name,
    accepts: (item: Item) => item.kind === 'image',
    plan: async (items: readonly Item[], { context, source }: TargetOptions): Promise<TargetRun> => {
      await knock(socket, context.signal);
      const client = new ContainerdClient(socket, namespace);
      try {
        const version = await client.version(context.signal);
        const images = items.filter((item) => item.kind === 'image');
        const signed = images.filter((item) => (item.referrers?.length ?? 0) > 0).length;
        if (signed > 0) {
          const message = `${name}: signatures and referrers of ${signed} images are not loaded: containerd has no place for them`;
          context.emit({ type: 'note', message });
        }
        const plan = await planImages(client, images, { pin, signal: context.signal });
        const made = plan.namespaceExists ? '' : `; the namespace ${namespace} is not there yet`;
        context.emit({ type: 'note', message: `${name}: containerd ${version}${made}` });
        return new ContainerdRun({ client, plan, name, namespace, turns, context, source });
      } catch (error) {
        client.close();
        throw error;
      }
    },
  };
}

/**
 * Opens the socket once by hand: gRPC says only "unavailable", the system says why.
 * @throws TARGET_UNREACHABLE; ABORTED
 */
async function knock(socket: string, signal: AbortSignal): Promise<void> {
  const errno = await new Promise<string>((done) => {
    const connection = connect({ path: socket, signal, timeout: LIMITS.connectMs });
    const end = (code: string): void => {
      connection.destroy();
      done(code);
    };
    connection.once('connect', () => end(''));
    connection.once('timeout', () => end('ETIMEDOUT'));
    connection.once('error', (error) => end(signal.aborted ? 'ABORTED' : errnoOf(error)));
  });
  if (errno === '') return;
  if (errno === 'ABORTED') throw new SealiftError('ABORTED', 'stopped');
  const what = `containerd ${socket}`;
  if (errno === 'EACCES' || errno === 'EPERM') {
    throw new SealiftError('TARGET_UNREACHABLE', `${what}: not permitted to open the socket`, {
      hint: "containerd's socket belongs to root: run the same command with sudo",
      side: 'destination',
      details: { errno },
    });
  }
  const others = await existing(KNOWN_SOCKETS.filter((path) => path !== socket));
  const places =
    others.length > 0 ? `there is one at ${others.join(', ')}` : `usual places: ${KNOWN_SOCKETS.join(', ')}`;
  const why =
    errno === 'ENOENT' ? 'no such socket' : errno === 'ECONNREFUSED' ? 'nobody listens on it' : errno;
  throw new SealiftError('TARGET_UNREACHABLE', `${what}: ${why}`, {
    hint: `check that containerd runs, and the path (${places})`,
    side: 'destination',
    details: { errno },
  });
}

async function existing(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    paths.map((path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    ),
  );
  return paths.filter((_, i) => found[i] === true);
}
