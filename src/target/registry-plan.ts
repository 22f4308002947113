import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, fault } from '../core/errors.ts';
import { chartPlace, filePlace, imageRepository, type Naming } from '../core/naming.ts';
import { mapBounded } from '../io/pool.ts';
import type { Registry } from '../oci/registry.ts';
import type { Entry, Item } from './target.ts';

/** Requests that only ask, at once. */
const ASK_PARALLEL = 8;

/** Where one item goes on a registry. Without `tag` it is reachable by digest only. */
export interface Place {
  readonly repository: string;
  readonly tag: string | undefined;
}

export interface PlacedEntry extends Entry {
  readonly place: Place;
  /** Digests under which the root counts as present: its own, and what stands for it. */
  readonly accepted: ReadonlySet<Digest>;
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

/** Throws all collisions as one error. */
export function refuseCollisions(placed: readonly { readonly item: Item; readonly place: Place }[]): void {
  const faults = findCollisions(placed);
  if (faults.length > 0) throw errorOf(faults, `${faults.length} names on the target would be taken twice`);
}

/** Every (blob, repository) pair that the entries need, asked of the registry; presence recorded. */
export async function planBlobs(
  entries: readonly PlacedEntry[],
  options: { readonly registry: Registry; readonly signal: AbortSignal },
): Promise<Map<Digest, BlobWork>> {
  const works = new Map<Digest, BlobWork>();
  const pairs = new Map<string, { readonly work: BlobWork; readonly repository: string }>();
  for (const entry of entries) {
    for (const { descriptor, kind } of entry.item.graph.nodes.values()) {
      if (kind === 'index' || kind === 'manifest') continue;
      const work = works.get(descriptor.digest) ?? { descriptor, present: [], wanted: [], users: [] };
      works.set(descriptor.digest, work);
      if (!work.users.includes(entry)) work.users.push(entry);
      const { repository } = entry.place;
      pairs.set(`${repository} ${descriptor.digest}`, { work, repository });
    }
  }
  await mapBounded(
    [...pairs.values()],
    { limit: ASK_PARALLEL, signal: options.signal },
    async ({ work, repository }) => {
      const has = await options.registry.hasBlob(repository, work.descriptor.digest);
      (has ? work.present : work.wanted).push(repository);
    },
  );
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

/** The digest under which each entry's name is found now; entries whose digest is accepted are present. */
export async function planNames(
  entries: readonly PlacedEntry[],
  options: { readonly registry: Registry; readonly signal: AbortSignal },
): Promise<void> {
  await mapBounded(entries, { limit: ASK_PARALLEL, signal: options.signal }, async (entry) => {
    const { repository, tag } = entry.place;
    const names = tag === undefined ? [...entry.accepted] : [tag];
    for (const name of names) {
      const found = await options.registry.resolve(repository, name);
      if (found === undefined) continue;
      if (entry.accepted.has(found)) {
        entry.state = 'present';
        if (found !== entry.item.root.digest) entry.pushedDigest = found;
        for (const n of entry.item.graph.nodes.values()) entry.presentBytes += n.descriptor.size;
        return;
      }
      entry.notes.push(`${repository}:${name} is ${found} there and becomes ${entry.item.root.digest}`);
    }
  });
}
