import { hexOf } from '../../core/digest.ts';
import { SealiftError } from '../../core/errors.ts';
import { mapBounded } from '../../io/pool.ts';
import { type AddedItem, type Removal, type RemoveOptions, removing } from '../removal.ts';
import type { WebServer } from './server.ts';

/** Files that are deleted at once. */
const PARALLEL = 4;

/**
 * Takes packages out of an index of devpi. The address of a file there holds the beginning of its SHA-256, so what is
 * under it is what the load put there.
 * @param place.index `user/index`
 * @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED
 */
export function removeFromDevpi(
  { server, index }: { readonly server: WebServer; readonly index: string },
  items: readonly AddedItem[],
  { context, dryRun }: RemoveOptions,
): Promise<Removal[]> {
  const before = server.url(`${index}/+f/`).href;
  return mapBounded(items, { limit: PARALLEL, signal: context.signal }, (item) =>
    removing(item, async () => {
      const [address = ''] = item.added.names;
      const below = address.startsWith(before) ? address.slice(before.length) : '';
      const [, head, tail] = /^([0-9a-f]{3})\/([0-9a-f]{13})\/[^/?#]+$/.exec(below) ?? [];
      if (head === undefined || tail === undefined || !hexOf(item.content).startsWith(head + tail)) {
        throw new SealiftError('TARGET_CONFLICT', `${address}: is no file of ${before}`, {
          hint: 'the receipt was changed, or is of another server',
        });
      }
      const path = `${index}/+f/${below}`;
      const found = await server.send({ method: 'HEAD', path });
      await found.body.dump();
      if (found.status === 404 || found.status === 410) return 'gone';
      if (found.status !== 200) throw await server.fail(found, `HEAD ${below}`);
      if (dryRun) return 'remove';
      // An index that is not volatile gives nothing away without this.
      const gone = await server.send({ method: 'DELETE', path: `${path}?force=` });
      if (gone.status !== 404 && (gone.status < 200 || gone.status > 299)) {
        throw await server.fail(gone, `DELETE ${below}`);
      }
      await gone.body.dump();
      return 'removed';
    }),
  );
}
