import { isAbsolute, resolve } from 'node:path';
import { fault, isAbort, SealiftError } from '../../core/errors.ts';
import type { Context } from '../../core/events.ts';
import { isNamespace } from '../../core/namespace.ts';
import { kindOf, spaceOf } from '../../io/files.ts';
import { createTurns, type Turns } from '../../io/pool.ts';
import { ContainerdClient } from '../../oci/containerd/client.ts';
import { knock } from '../../oci/containerd/socket.ts';
import { onDisk } from '../space.ts';
import type { Item, Target, TargetOptions, TargetRun } from '../target.ts';
import { type Plan, planImages } from './plan.ts';
import { ContainerdRun } from './run.ts';

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
  const wrong = namespaces.find((n) => !isNamespace(n));
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

/**
 * Warns where the disk of containerd's content seems to have too little room. Only that: containerd may run in a container,
 * and then a folder of this name is another one here.
 */
async function warnOfSpace(
  client: ContainerdClient,
  plan: Plan,
  about: { readonly name: string; readonly context: Context },
): Promise<void> {
  const { name, context } = about;
  const lacking = plan.pieces.filter((piece) => piece.found === undefined);
  const need = lacking.reduce((sum, piece) => sum + onDisk(piece.descriptor.size), 0);
  try {
    const root = await client.contentRoot(context.signal);
    if (!isAbsolute(root) || (await kindOf(root)) !== 'folder') return;
    const { free } = await spaceOf(root);
    if (need <= free) return;
    const message = `${name}: ${need} bytes are needed, ${free} are free at ${root}: ${need - free} too few`;
    const hint = 'free some space there, unless containerd runs in a container with a disk of its own';
    const details = { need, free };
    context.emit({ type: 'warning', fault: fault('DISK_FULL', message, { hint, details }) });
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    // A containerd that does not say is no reason not to load.
  }
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
    address: `${socket} ${namespace}`,
    store: socket,
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
        await warnOfSpace(client, plan, { name, context });
        context.emit({ type: 'note', message: `${name}: containerd ${version}` });
        return new ContainerdRun({ client, plan, name, namespace, turns, context, source });
      } catch (error) {
        client.close();
        throw error;
      }
    },
  };
}
