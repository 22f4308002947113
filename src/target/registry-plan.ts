import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, fault } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { chartPlace, filePlace, imageRepository, type Naming } from '../core/naming.ts';
import { mapBounded } from '../io/pool.ts';
import type { Registry } from '../oci/registry.ts';
import { carriedManifests } from '../oci/sparse.ts';
import { type Entry, failEntry, type Item } from './target.ts';

/** Requests that only ask, at once. */
const ASK_PARALLEL = 8;
/** Blobs that are asked for in repositories that are not there: more than are sent at once. */
const PROBES = 10;

/** Where one item goes on a registry. Without `tag` it is reachable by digest only. */
export interface Place {
  readonly repository: string;
  readonly tag: string | undefined;
}

export interface PlacedEntry extends Entry {
  readonly place: Place;
  /** Digests under which the root counts as present: its own, and what stands for it. */
  accepted: ReadonlySet<Digest>;
  /** Nothing was found under its name: then its manifests are put without asking for them first. */
  isNew: boolean;
}

/** One blob on one registry: where it is, and where it has to go. */
export interface BlobWork {
  readonly descriptor: Descriptor;
  /** Repositories that have it. */
  readonly present: string[];
  /** Repositories that lack it. */
  readonly wanted: string[];
  readonly users: PlacedEntry[];
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
  return filePlace({ name: item.name, sha256 }, options.prefix);
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

/** The blobs of an entry, without its manifests and indexes. */
function blobsOf(entry: PlacedEntry): Descriptor[] {
  return [...entry.item.graph.nodes.values()].flatMap(({ kind, descriptor }) =>
    kind === 'index' || kind === 'manifest' ? [] : [descriptor],
  );
}

/** Each blob with each repository that needs it, once: those of one repository stand together. */
function pairsOf(entries: readonly PlacedEntry[], works: ReadonlyMap<Digest, BlobWork>): Pair[] {
  const groups = new Map<string, PlacedEntry[]>();
  for (const entry of entries) {
    const group = groups.get(entry.place.repository);
    if (group === undefined) groups.set(entry.place.repository, [entry]);
    else group.push(entry);
  }
  const pairs: Pair[] = [];
  for (const [repository, group] of groups) {
    const own = new Set<BlobWork>();
    for (const { digest } of group.flatMap(blobsOf)) {
      const work = works.get(digest);
      if (work !== undefined) own.add(work);
    }
    for (const work of own) pairs.push({ work, repository });
  }
  return pairs;
}

/** Every (blob, repository) pair that the entries need, asked of the registry; presence recorded. */
export async function planBlobs(
  entries: readonly PlacedEntry[],
  options: { readonly registry: Registry; readonly signal: AbortSignal },
): Promise<Map<Digest, BlobWork>> {
  const works = new Map<Digest, BlobWork>();
  for (const entry of entries) {
    for (const descriptor of blobsOf(entry)) {
      const work = works.get(descriptor.digest);
      // A list that begins with one item has room for that one only; most blobs have one user.
      if (work === undefined)
        works.set(descriptor.digest, { descriptor, present: [], wanted: [], users: [entry] });
      else work.users.push(entry);
    }
  }
  const lacking = await lackingRepositories(entries, options);
  await askBlobs(pairsOf(entries, works), { ...options, lacking });
  for (const work of works.values()) {
    work.present.sort();
    work.wanted.sort();
    const first = work.users[0];
    if (first === undefined) continue;
    if (work.present.length === 0) first.writeBytes += work.descriptor.size;
    else first.presentBytes += work.descriptor.size;
  }
  return works;
}

interface Pair {
  readonly work: BlobWork;
  readonly repository: string;
}

/** Repositories of which the registry says that it does not have them. */
async function lackingRepositories(
  entries: readonly PlacedEntry[],
  options: { readonly registry: Registry; readonly signal: AbortSignal },
): Promise<ReadonlySet<string>> {
  const known = new Set(entries.filter((e) => !e.isNew).map((e) => e.place.repository));
  const names = [...new Set(entries.map((e) => e.place.repository))].filter((name) => !known.has(name));
  const pool = { limit: ASK_PARALLEL, signal: options.signal };
  const lacks = await mapBounded(names, pool, (name) => options.registry.lacks(name).catch(() => false));
  return new Set(names.filter((_, i) => lacks[i] === true));
}

/**
 * Asks for blobs. In repositories that are not there only a load that was stopped can have left some, and it sent them
 * in this order: when the first few are absent, so are the others, and nobody asks for them.
 */
async function askBlobs(
  pairs: readonly Pair[],
  options: {
    readonly registry: Registry;
    readonly signal: AbortSignal;
    readonly lacking: ReadonlySet<string>;
  },
): Promise<void> {
  const { registry, signal, lacking } = options;
  const ask = async ({ work, repository }: Pair): Promise<boolean> => {
    try {
      const has = await registry.hasBlob(repository, work.descriptor.digest);
      (has ? work.present : work.wanted).push(repository);
      return has;
    } catch (error) {
      for (const user of work.users) if (user.place.repository === repository) failEntry(user, error);
      return true;
    }
  };
  const pool = { limit: ASK_PARALLEL, signal };
  const absent = inSendingOrder(pairs.filter((p) => lacking.has(p.repository)));
  const probes = absent.splice(0, PROBES);
  const found = await mapBounded(probes, pool, ask);
  const rest = pairs.filter((p) => !lacking.has(p.repository));
  if (found.includes(true)) rest.push(...absent);
  else for (const { work, repository } of absent) work.wanted.push(repository);
  await mapBounded(rest, pool, ask);
}

/** The largest first, as they are sent. */
function inSendingOrder(pairs: readonly Pair[]): Pair[] {
  return [...pairs].sort((a, b) => b.work.descriptor.size - a.work.descriptor.size);
}

/** Whether the registry has every carried manifest: an index that it took may have come with other platforms. */
async function hasManifests(entry: PlacedEntry, registry: Registry): Promise<boolean> {
  for (const { digest } of carriedManifests(entry.item.graph)) {
    if ((await registry.resolve(entry.place.repository, digest)) !== digest) return false;
  }
  return true;
}

/** What is found under the entry's name now; present when its digest is accepted and all carried manifests are there. */
async function planName(
  entry: PlacedEntry,
  registry: Registry,
  isComplete: (entry: PlacedEntry, found: Digest) => Promise<boolean>,
): Promise<void> {
  const { repository, tag } = entry.place;
  for (const name of tag === undefined ? [...entry.accepted] : [tag]) {
    const found = await registry.resolve(repository, name, { askRepository: true });
    if (found === undefined) continue;
    entry.isNew = false;
    if (!entry.accepted.has(found)) {
      entry.notes.push(`${repository}:${name} is ${found} there and becomes ${entry.item.root.digest}`);
    } else if ((await hasManifests(entry, registry)) && (await isComplete(entry, found))) {
      entry.state = 'present';
      if (found !== entry.item.root.digest) entry.pushedDigest = found;
      for (const n of entry.item.graph.nodes.values()) entry.presentBytes += n.descriptor.size;
      return;
    }
  }
}

/** Asks for the names of all entries; a name that cannot be asked for is that entry's failure. */
export async function planNames(
  entries: readonly PlacedEntry[],
  options: {
    readonly registry: Registry;
    readonly signal: AbortSignal;
    /** Whether all that travels with an entry is there, where the entry itself is, under the digest that was found. */
    readonly isComplete: (entry: PlacedEntry, found: Digest) => Promise<boolean>;
  },
): Promise<void> {
  await mapBounded(entries, { limit: ASK_PARALLEL, signal: options.signal }, async (entry) => {
    try {
      await planName(entry, options.registry, options.isComplete);
    } catch (error) {
      failEntry(entry, error);
    }
  });
}
