import { resolve } from 'node:path';
import { mapBounded } from '../../io/pool.ts';
import { ContainerdClient } from '../../oci/containerd/client.ts';
import { knock } from '../../oci/containerd/socket.ts';
import { type AddedItem, type Removal, type RemoveOptions, removing } from '../removal.ts';

/** Records that are removed at the same time. */
const PARALLEL = 4;

/**
 * Takes image records out of a namespace that still lead to what the load put there; containerd collects the content that
 * nothing leads to any more.
 * @param place.socket absolute
 * @throws TARGET_UNREACHABLE
 */
export async function removeImages(
  place: { readonly socket: string; readonly namespace: string },
  items: readonly AddedItem[],
  { context, dryRun, counted }: RemoveOptions,
): Promise<Removal[]> {
  const { signal } = context;
  const socket = resolve(place.socket);
  await knock(socket, signal);
  const client = new ContainerdClient(socket, place.namespace);
  try {
    await client.version(signal);
    return await mapBounded(items, { limit: PARALLEL, signal }, (item, stop) =>
      removing(item, async ({ notes }) => {
        const ours: string[] = [];
        let others = 0;
        let kept = 0;
        for (const name of item.added.names) {
          if (name.includes('@') && counted?.has(item.content) === true) {
            kept += 1;
            notes.push(`${name} stays: a later load counts on it`);
            continue;
          }
          const record = await client.getImage(name, stop);
          if (record === undefined) continue;
          if (record.target.digest === item.content) ours.push(name);
          else {
            others += 1;
            notes.push(`${name} leads to ${record.target.digest.slice(0, 80)} now, and stays`);
          }
        }
        if (!dryRun) for (const name of ours) await client.deleteImage(name, stop);
        if (ours.length > 0) return dryRun ? 'remove' : 'removed';
        if (kept > 0) return 'kept';
        return others > 0 ? 'changed' : 'gone';
      }),
    );
  } finally {
    client.close();
  }
}
