import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { NumberList } from '../core/number-list.ts';
import { TextTable } from '../core/text-table.ts';
import { mapBounded } from '../io/pool.ts';
import type { Registry } from '../oci/registry.ts';
import type { PlacedEntry } from './registry-plan.ts';
import { failEntry } from './target.ts';

/** Requests that only ask, at once. */
const ASK_PARALLEL = 8;
/** Blobs that are asked for in repositories that are not there: more than are sent at once. */
const PROBES = 10;

/** One blob on one registry: where it is, and where it has to go. */
export interface BlobWork {
  readonly descriptor: Descriptor;
  /** Repositories that have it, sorted. */
  readonly present: readonly string[];
  /** Repositories that lack it, sorted. */
  readonly wanted: readonly string[];
  readonly users: readonly PlacedEntry[];
}

/** What is known of one use of a blob; `same`: another entry of the same repository uses it too and stands for both. */
const STATE = { unknown: 0, same: 1, present: 2, wanted: 3 };
const NO_USE = -1;

/** The blobs of an entry, without its manifests and indexes. */
function blobsOf(entry: PlacedEntry): Descriptor[] {
  return [...entry.item.graph.nodes.values()].flatMap(({ kind, descriptor }) =>
    kind === 'index' || kind === 'manifest' ? [] : [descriptor],
  );
}

/** The numbers of the entries of each repository. */
function byRepository(entries: readonly PlacedEntry[]): Map<string, number[]> {
  const groups = new Map<string, number[]>();
  for (const [user, { place }] of entries.entries()) {
    const group = groups.get(place.repository);
    if (group === undefined) groups.set(place.repository, [user]);
    else group.push(user);
  }
  return groups;
}

/**
 * Every blob that entries need, with each entry that uses it; the uses of one repository stand together. There may be very
 * many: they are numbers, and what is to do about a blob is made when it is asked for.
 */
export class BlobWorks {
  readonly #entries: readonly PlacedEntry[];
  readonly #digests = new DigestTable();
  /** Of each blob: bytes, and the number of its media type. */
  readonly #sizes = new NumberList('float64');
  readonly #types = new NumberList('int32');
  readonly #mediaTypes = new TextTable();
  /** Of each blob: the use that was added last. */
  readonly #heads = new NumberList('int32');
  /** Of each use: its entry, its blob, what is known, and the use of the same blob that was added before. */
  readonly #users = new NumberList('int32');
  readonly #blobs = new NumberList('int32');
  readonly #states = new NumberList('int32');
  readonly #nexts = new NumberList('int32');

  constructor(entries: readonly PlacedEntry[]) {
    this.#entries = entries;
    for (const group of byRepository(entries).values()) {
      const own = new Set<number>();
      for (const user of group) {
        const entry = entries[user];
        for (const blob of entry === undefined ? [] : blobsOf(entry)) this.#add(blob, user, own);
      }
    }
  }

  #add({ digest, size, mediaType }: Descriptor, user: number, own: Set<number>): void {
    const known = this.#digests.size;
    const blob = this.#digests.add(digest);
    if (blob === known) {
      this.#sizes.push(size);
      this.#types.push(this.#mediaTypes.add(mediaType));
      this.#heads.push(NO_USE);
    }
    const use = this.#users.push(user);
    this.#blobs.push(blob);
    this.#states.push(own.has(blob) ? STATE.same : STATE.unknown);
    this.#nexts.push(this.#heads.at(blob));
    this.#heads.set(blob, use);
    own.add(blob);
  }

  *#usesOf(blob: number): Generator<number> {
    for (let use = this.#heads.at(blob); use !== NO_USE; use = this.#nexts.at(use)) yield use;
  }

  #usersOf(blob: number): PlacedEntry[] {
    return Array.from(this.#usesOf(blob), (use) => this.#users.at(use))
      .sort((a, b) => a - b)
      .flatMap((user) => this.#entries[user] ?? []);
  }

  #repositoryOf(use: number): string {
    return this.#entries[this.#users.at(use)]?.place.repository ?? '';
  }

  #sizeOf(use: number): number {
    return this.#sizes.at(this.#blobs.at(use));
  }

  /** The numbers of all blobs in the order in which they are sent: the largest first. */
  inOrder(): number[] {
    const blobs = Array.from({ length: this.#sizes.length }, (_, blob) => blob);
    return blobs.sort((a, b) => this.#sizes.at(b) - this.#sizes.at(a));
  }

  /** Which of these blobs no repository has that needs them: they would be read. */
  *needs(isAbsent: (digest: Digest) => boolean): Generator<Digest> {
    for (let blob = 0; blob < this.#sizes.length; blob += 1) {
      const digest = this.#digests.at(blob);
      const { present, wanted } = isAbsent(digest) ? this.at(blob) : { present: [], wanted: [] };
      if (present.length === 0 && wanted.length > 0) yield digest;
    }
  }

  at(blob: number): BlobWork {
    const where = (state: number): string[] =>
      [...this.#usesOf(blob)]
        .filter((use) => this.#states.at(use) === state)
        .map((use) => this.#repositoryOf(use))
        .sort();
    const mediaType = this.#mediaTypes.at(this.#types.at(blob)) ?? '';
    return {
      descriptor: { mediaType, digest: this.#digests.at(blob), size: this.#sizes.at(blob) },
      present: where(STATE.present),
      wanted: where(STATE.wanted),
      users: this.#usersOf(blob),
    };
  }

  /** What is to do about a blob; undefined where no entry needs it. */
  find(digest: Digest): BlobWork | undefined {
    const blob = this.#digests.indexOf(digest);
    return blob < 0 ? undefined : this.at(blob);
  }

  /**
   * Asks for each blob in each repository that needs it. In repositories that are not there only a load that was stopped
   * can have left some, and it sent them in this order: when the first few are absent, so are the others, and nobody asks
   * for them.
   */
  async ask(options: AskOptions & { readonly lacking: ReadonlySet<string> }): Promise<void> {
    const { signal, lacking } = options;
    const rest: number[] = [];
    const absent: number[] = [];
    for (let use = 0; use < this.#states.length; use += 1) {
      if (this.#states.at(use) === STATE.unknown)
        (lacking.has(this.#repositoryOf(use)) ? absent : rest).push(use);
    }
    absent.sort((a, b) => this.#sizeOf(b) - this.#sizeOf(a));
    const pool = { limit: ASK_PARALLEL, signal };
    const ask = (use: number): Promise<boolean> => this.#ask(use, options.registry);
    const found = await mapBounded(absent.splice(0, PROBES), pool, ask);
    if (found.includes(true)) for (const use of absent) rest.push(use);
    else for (const use of absent) this.#states.set(use, STATE.wanted);
    await mapBounded(rest, pool, ask);
  }

  async #ask(use: number, registry: Registry): Promise<boolean> {
    const repository = this.#repositoryOf(use);
    const blob = this.#blobs.at(use);
    try {
      const has = await registry.hasBlob(repository, this.#digests.at(blob));
      this.#states.set(use, has ? STATE.present : STATE.wanted);
      return has;
    } catch (error) {
      for (const other of this.#usesOf(blob)) {
        const user = this.#entries[this.#users.at(other)];
        if (user?.place.repository === repository) failEntry(user, error);
      }
      return true;
    }
  }

  /** Tells entries what of them is there and what is sent: a blob that several use counts for the first. */
  count(): void {
    for (let blob = 0; blob < this.#sizes.length; blob += 1) {
      let [user, isThere] = [this.#entries.length, false];
      for (const use of this.#usesOf(blob)) {
        user = Math.min(user, this.#users.at(use));
        isThere ||= this.#states.at(use) === STATE.present;
      }
      const first = this.#entries[user];
      if (first !== undefined) first[isThere ? 'presentBytes' : 'writeBytes'] += this.#sizes.at(blob);
    }
  }
}

interface AskOptions {
  readonly registry: Registry;
  readonly signal: AbortSignal;
}

/** Every (blob, repository) pair that the entries need, asked of the registry; presence recorded. */
export async function planBlobs(entries: readonly PlacedEntry[], options: AskOptions): Promise<BlobWorks> {
  const works = new BlobWorks(entries);
  await works.ask({ ...options, lacking: await lackingRepositories(entries, options) });
  works.count();
  return works;
}

/** Repositories of which the registry says that it does not have them. */
async function lackingRepositories(
  entries: readonly PlacedEntry[],
  options: AskOptions,
): Promise<ReadonlySet<string>> {
  const known = new Set(entries.filter((e) => !e.isNew).map((e) => e.place.repository));
  const names = [...new Set(entries.map((e) => e.place.repository))].filter((name) => !known.has(name));
  const pool = { limit: ASK_PARALLEL, signal: options.signal };
  const lacks = await mapBounded(names, pool, (name) => options.registry.lacks(name).catch(() => false));
  return new Set(names.filter((_, i) => lacks[i] === true));
}
