import { type Digest, isDigest } from '../../core/digest.ts';
import { isAbort, SealiftError } from '../../core/errors.ts';
import { eachBounded, mapBounded } from '../../io/pool.ts';
import { type AddedItem, type Removal, type RemoveOptions, removing } from '../removal.ts';
import { assetPath } from './asset.ts';
import { hashThere } from './hash-there.ts';
import { NexusAdmin, type NexusAsset, type NexusComponent } from './nexus-admin.ts';
import type { WebServer } from './server.ts';

/** Components that are deleted at once. */
const PARALLEL = 4;

export interface NexusPlace {
  readonly server: WebServer;
  readonly repository: string;
}

/** The path in its repository of a file's address. @throws TARGET_CONFLICT for one that is not in it */
function pathOf(address: string, { server, repository }: NexusPlace): string {
  const before = new URL(`repository/${encodeURIComponent(repository)}/`, server.base).href;
  if (URL.canParse(address) && new URL(address).href.startsWith(before)) {
    const path = new URL(address).href.slice(before.length);
    if (path !== '' && !/[?#]/.test(path)) return decodeURIComponent(path);
  }
  throw new SealiftError('TARGET_CONFLICT', `${address}: is not in ${before}`, {
    hint: 'the receipt was changed, or is of another server',
  });
}

/** One item with the path of its file, and of what stands beside it (a `.prov`). */
interface Wanted {
  readonly item: AddedItem;
  readonly paths: readonly string[];
}

/** Where a file of an item is there. */
interface There {
  readonly component: NexusComponent;
  readonly asset: NexusAsset;
}

async function digestThere(server: WebServer, asset: NexusAsset, path: string): Promise<Digest> {
  const stated = `sha256:${asset.checksum?.sha256 ?? ''}`;
  if (isDigest(stated)) return stated;
  // Older servers keep no SHA-256 of raw files.
  return hashThere(server, path);
}

/** What of the repository is wanted, by path; one pass over its list, of which the rest is let go. */
async function findThere(
  admin: NexusAdmin,
  repository: string,
  wanted: readonly Wanted[],
): Promise<ReadonlyMap<string, There>> {
  const paths = new Set(wanted.flatMap((one) => one.paths));
  const there = new Map<string, There>();
  for await (const component of admin.components(repository)) {
    for (const asset of component.assets) {
      const path = asset.path.replace(/^\/+/, '');
      if (paths.has(path)) there.set(path, { component, asset });
    }
  }
  return there;
}

/**
 * Takes charts, packages or files out of a hosted repository of Nexus, where they are still what the load put there. A
 * version goes with its last file.
 * @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED
 */
export async function removeFromNexus(
  place: NexusPlace,
  items: readonly AddedItem[],
  { context, dryRun }: RemoveOptions,
): Promise<Removal[]> {
  const { server, repository } = place;
  const admin = new NexusAdmin(server);
  const removals: Removal[] = [];
  const wanted: Wanted[] = [];
  for (const item of items) {
    const refused = await removing(item, async () => {
      wanted.push({ item, paths: item.added.names.map((name) => pathOf(name, place)) });
      return 'remove';
    });
    if (refused.state === 'failed') removals.push(refused);
  }
  const there = await findThere(admin, repository, wanted);
  const limits = { limit: PARALLEL, signal: context.signal };
  const judged = await mapBounded(wanted, limits, ({ item, paths }) =>
    removing(item, async () => {
      const [own = ''] = paths;
      const found = there.get(own);
      if (found === undefined) return 'gone';
      return (await digestThere(server, found.asset, assetPath(place, own))) === item.content
        ? 'remove'
        : 'changed';
    }),
  );
  if (!dryRun) await removeAll(admin, { judged, wanted, there, limits });
  return [...removals, ...judged];
}

/**
 * Removes a repository that the load made, once nobody has anything in it.
 * @returns what is to be told about it
 */
export async function removeMade({ server, repository }: NexusPlace, dryRun: boolean): Promise<string> {
  const what = `the repository ${repository}, which the load made`;
  if (dryRun) return `${what}, goes with it when it is empty then`;
  const admin = new NexusAdmin(server);
  for await (const { assets } of admin.components(repository)) {
    if (assets.length > 0) return `${what}, stays: something else is in it`;
  }
  try {
    await admin.removeRepository(repository);
    return `${what}, was removed: it was empty`;
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    return `${what}, is empty and stays: ${error.message}`;
  }
}

async function removeAll(
  admin: NexusAdmin,
  work: {
    readonly judged: readonly Removal[];
    readonly wanted: readonly Wanted[];
    readonly there: ReadonlyMap<string, There>;
    readonly limits: { readonly limit: number; readonly signal: AbortSignal };
  },
): Promise<void> {
  const { judged, wanted, there } = work;
  const going = wanted.filter((_, at) => judged[at]?.state === 'remove');
  const assets = new Set(going.flatMap(({ paths }) => paths.map((path) => there.get(path)?.asset.id)));
  await eachBounded(judged, work.limits, async (removal, at) => {
    const paths = wanted[at]?.paths ?? [];
    if (removal.state !== 'remove') return;
    const done = await removing(removal.item, async () => {
      for (const path of paths) {
        const found = there.get(path);
        if (found === undefined) continue;
        const { component, asset } = found;
        const isLast = component.assets.every(({ id }) => assets.has(id));
        await (isLast ? admin.remove('components', component.id) : admin.remove('assets', asset.id));
      }
      return 'removed';
    });
    Object.assign(removal, done);
  });
}
