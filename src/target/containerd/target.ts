import { resolve } from 'node:path';
import { SealiftError } from '../../core/errors.ts';
import { isNamespace } from '../../core/namespace.ts';
import { createTurns, type Turns } from '../../io/pool.ts';
import { ContainerdClient } from '../../oci/containerd/client.ts';
import { knock } from '../../oci/containerd/socket.ts';
import type { Item, Target, TargetOptions, TargetRun } from '../target.ts';
import { planImages } from './plan.ts';
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
        context.emit({ type: 'note', message: `${name}: containerd ${version}` });
        return new ContainerdRun({ client, plan, name, namespace, turns, context, source });
      } catch (error) {
        client.close();
        throw error;
      }
    },
  };
}
