import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, fault } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { chartPlace, filePlace, imageRepository, type Naming } from '../core/naming.ts';
import { eachBounded } from '../io/pool.ts';
import type { Registry } from '../oci/registry.ts';
import { carriedManifests } from '../oci/sparse.ts';
import { type ConflictRule, meetConflict } from './registry-conflicts.ts';
import { type Addition, type Entry, failEntry, type Item } from './target.ts';

/** Requests that only ask, at once. */
const ASK_PARALLEL = 8;

/** Where one item goes on a registry. Without `tag` it is reachable by digest only. */
export interface Place {
  readonly repository: string;
  readonly tag: string | undefined;
}

export interface PlacedEntry extends Entry {
  readonly place: Place;
  /** Digests under which the root counts as present; absent: only its own. */
  accepted?: readonly Digest[];
  /** The registry knows no repository of its name: then its manifests are put without asking for them first. */
  isNew: boolean;
}

/** An entry of a registry. A class, because V8 makes a shape of its own for each object that begins with another's fields. */
export class RegistryEntry implements PlacedEntry {
  readonly item: Item;
  readonly place: Place;
  state: Entry['state'] = 'write';
  presentBytes = 0;
  writeBytes = 0;
  readonly notes: string[] = [];
  isNew = true;
  readonly #host: string;

  declare found?: string;
  declare added?: Addition;
  declare accepted?: readonly Digest[];
  declare pushedDigest?: Digest;
  declare fault?: Fault;

  constructor(item: Item, at: { readonly host: string; readonly place: Place }) {
    this.item = item;
    this.place = at.place;
    this.#host = at.host;
  }

  get as(): string {
    const { repository, tag } = this.place;
    const name = tag === undefined ? `@${this.item.root.digest}` : `:${tag}`;
    return repository === '' ? this.item.name : `${this.#host}/${repository}${name}`;
  }
}

/** The place of an item by the naming rules of core/naming. */
export function placeOf(item: Item, options: { readonly prefix: string; readonly naming: Naming }): Place {
  if (item.kind === 'image') {
    return { repository: imageRepository(item.reference, options), tag: item.reference.tag };
  }
  if (item.kind === 'chart') {
    return chartPlace({ name: item.chartName, version: item.version }, options.prefix);
  }
  const sha256 = item.content.digest.slice('sha256:'.length);
  const name = item.kind === 'package' ? `packages/${item.name}` : item.name;
  return filePlace({ name, sha256 }, options.prefix);
}

/** Items of different content that would get one name: every pair, before anything is written. */
export function findCollisions(placed: readonly { readonly item: Item; readonly place: Place }[]): Fault[] {
  const byName = new Map<string, Item>();
  const faults: Fault[] = [];
  for (const { item, place } of placed) {
    if (place.tag === undefined) continue;
    const name = `${place.repository}:${place.tag}`;
    const other = byName.get(name);
    if (other === undefined) byName.set(name, item);
    else if (other.root.digest !== item.root.digest) {
      faults.push(
        fault('TARGET_NAME_COLLISION', `${other.name} and ${item.name} would both be ${name} on the target`, {
          hint: 'keep the source host in the name with --naming keep-host, or load them one by one with --only',
        }),
      );
    }
  }
  return faults;
}

/**
 * Tells what it means that something else stands for the original index: its signatures are about other bytes, and who
 * asks for it by digest does not find it (registry.md 1.6).
 */
export function noteReplaced(
  entry: PlacedEntry,
  about: { readonly pushed: Digest; readonly context: Context },
): void {
  const { item } = entry;
  const { digest } = item.root;
  entry.pushedDigest = about.pushed;
  entry.notes.push(`stands there as ${about.pushed}: signatures and pins of ${digest} do not count for it`);
  if (item.kind !== 'image' || item.reference.digest === undefined) return;
  const message = `${entry.as}: is pinned to an index that this registry does not take, so nothing is found under that digest`;
  const hint =
    'carry all its platforms (platforms: all), or refer to it by a tag or by the digest of one platform';
  about.context.emit({ type: 'warning', fault: fault('IMAGE_PLATFORM_MISSING', message, { hint }) });
}

/** Throws all collisions as one error. */
export function refuseCollisions(placed: readonly { readonly item: Item; readonly place: Place }[]): void {
  const faults = findCollisions(placed);
  if (faults.length > 0) throw errorOf(faults, `${faults.length} names on the target would be taken twice`);
}

/** Whether the registry has every carried manifest: an index that it took may have come with other platforms. */
async function hasManifests(entry: PlacedEntry, registry: Registry): Promise<boolean> {
  for (const { digest } of carriedManifests(entry.item.graph)) {
    if ((await registry.resolve(entry.place.repository, digest)) !== digest) return false;
  }
  return true;
}

interface NameOptions {
  readonly registry: Registry;
  /** Whether all that travels with an entry is there, where the entry itself is, under the digest that was found. */
  readonly isComplete: (entry: PlacedEntry, found: Digest) => Promise<boolean>;
  readonly rule: ConflictRule;
}

/** What is found under the entry's name now; present when its digest is accepted and all carried manifests are there. */
async function planName(entry: PlacedEntry, options: NameOptions): Promise<void> {
  const { registry, isComplete, rule } = options;
  const { repository, tag } = entry.place;
  const accepted = entry.accepted ?? [entry.item.root.digest];
  for (const name of tag === undefined ? accepted : [tag]) {
    const found = await registry.resolve(repository, name, { askRepository: true });
    if (found === undefined) continue;
    entry.isNew = false;
    entry.found = found;
    if (!accepted.includes(found)) meetConflict(entry, found, rule);
    else if ((await hasManifests(entry, registry)) && (await isComplete(entry, found))) {
      entry.state = 'present';
      if (found !== entry.item.root.digest) entry.pushedDigest = found;
      for (const n of entry.item.graph.nodes.values()) entry.presentBytes += n.descriptor.size;
      return;
    }
  }
  if (entry.found !== undefined) return;
  entry.added = { names: tag === undefined ? [] : [tag], manifests: [] };
  // Under other names of the repository the same manifests may be there; then they are not ours to take back.
  // Some say that they know no repository of which they have only manifests without a tag.
  const isUnknown = await registry.lacks(repository);
  const own = entry.item.root.digest;
  entry.isNew = isUnknown && (tag === undefined || (await registry.describe(repository, own)) === undefined);
}

/** Asks for the names of all entries; a name that cannot be asked for is that entry's failure. */
export async function planNames(
  entries: readonly PlacedEntry[],
  options: NameOptions & { readonly signal: AbortSignal },
): Promise<void> {
  await eachBounded(entries, { limit: ASK_PARALLEL, signal: options.signal }, async (entry) => {
    try {
      await planName(entry, options);
    } catch (error) {
      failEntry(entry, error);
    }
  });
}
