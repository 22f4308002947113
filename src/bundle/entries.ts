import { type Digest, digestOfHex } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { NumberList } from '../core/number-list.ts';

/** An entry as it lies in the archive. Offset (of the content) and size in bytes; in a folder every offset is 0. */
export interface FoundEntry {
  readonly name: string;
  readonly size: number;
  readonly offset: number;
}

/** The entry name of a blob. */
export function blobName(digest: Digest): string {
  return `blobs/sha256/${digest.slice('sha256:'.length)}`;
}

const BLOB = /^blobs\/sha256\/([0-9a-f]{64})$/;

/** The digest that an entry's name promises; undefined for documents. */
export function digestOfName(name: string): Digest | undefined {
  const hex = BLOB.exec(name)?.[1];
  return hex === undefined ? undefined : digestOfHex(hex);
}

/**
 * The entries of an archive in their order. There may be a million: each is kept as numbers, and made into an object
 * when it is asked for.
 */
export class EntryList<E extends FoundEntry = FoundEntry> implements Iterable<E> {
  readonly #make: (entry: FoundEntry, index: number, digest: Digest | undefined) => E;
  /** Perhaps of more than these entries. */
  readonly digests: DigestTable;
  /** The few names that are not of blobs, and where each is first. */
  readonly #names: string[] = [];
  readonly #named = new Map<string, { readonly id: number; readonly first: number }>();
  readonly #offsets = new NumberList('float64');
  readonly #sizes = new NumberList('float64');
  /** Of each entry: the number of its digest, or of its name counted down from -1. */
  readonly #ids = new NumberList('int32');
  /** Of each digest: one more than the first entry with it. */
  readonly #firsts = new NumberList('int32');

  /** @param digests where the digests of entries are put: another list may have the same ones */
  constructor(
    make: (entry: FoundEntry, index: number, digest: Digest | undefined) => E,
    digests = new DigestTable(),
  ) {
    this.#make = make;
    this.digests = digests;
  }

  get length(): number {
    return this.#ids.length;
  }

  push({ name, size, offset }: FoundEntry): void {
    const index = this.length;
    this.#offsets.push(offset);
    this.#sizes.push(size);
    const digest = digestOfName(name);
    if (digest === undefined) {
      this.#ids.push(this.#named.get(name)?.id ?? this.#addName(name, index));
      return;
    }
    const id = this.digests.add(digest);
    this.#ids.push(id);
    if (this.#firsts.at(id) === 0) this.#firsts.set(id, index + 1);
  }

  #addName(name: string, first: number): number {
    const id = -this.#names.push(name);
    this.#named.set(name, { id, first });
    return id;
  }

  /** @throws RangeError for an index that is not below `length` */
  at(index: number): E {
    if (index < 0 || index >= this.length) throw new RangeError(`no entry ${index}`);
    const id = this.#ids.at(index);
    const digest = id < 0 ? undefined : this.digests.at(id);
    const name = digest === undefined ? (this.#names[-id - 1] ?? '') : blobName(digest);
    return this.#make({ name, size: this.#sizes.at(index), offset: this.#offsets.at(index) }, index, digest);
  }

  sizeAt(index: number): number {
    return this.#sizes.at(index);
  }

  /** Bytes of all entries together. */
  bytes(): number {
    let sum = 0;
    for (let index = 0; index < this.length; index += 1) sum += this.sizeAt(index);
    return sum;
  }

  /** Where the first entry of this name is; -1 where there is none. */
  indexOf(name: string): number {
    const digest = digestOfName(name);
    return digest === undefined ? (this.#named.get(name)?.first ?? -1) : this.indexOfBlob(digest);
  }

  indexOfBlob(digest: Digest): number {
    const id = this.digests.indexOf(digest);
    return id < 0 ? -1 : this.#firsts.at(id) - 1;
  }

  /** The first entry of this name. */
  find(name: string): E | undefined {
    const index = this.indexOf(name);
    return index < 0 ? undefined : this.at(index);
  }

  findBlob(digest: Digest): E | undefined {
    const index = this.indexOfBlob(digest);
    return index < 0 ? undefined : this.at(index);
  }

  *[Symbol.iterator](): Generator<E> {
    for (let index = 0; index < this.length; index += 1) yield this.at(index);
  }
}

/** Entries as they are found. */
export function foundEntries(entries: Iterable<FoundEntry> = []): EntryList {
  const list = new EntryList((entry) => entry);
  for (const entry of entries) list.push(entry);
  return list;
}

/** One hash of 32 bytes for each entry of a list, by index: 64 hex digits outside, compact inside. */
export class HashList {
  #bytes: Buffer;
  #known: Uint8Array;

  /** @param length for how many there is room at first */
  constructor(length: number) {
    this.#bytes = Buffer.allocUnsafeSlow(32 * length);
    this.#known = new Uint8Array(length);
  }

  #grow(length: number): void {
    const [bytes, known] = [this.#bytes, this.#known];
    this.#bytes = Buffer.allocUnsafeSlow(32 * length);
    this.#known = new Uint8Array(length);
    bytes.copy(this.#bytes);
    this.#known.set(known);
  }

  set(index: number, hex: string): void {
    if (index >= this.#known.length) this.#grow(2 * index + 1);
    this.#bytes.write(hex, 32 * index, 'hex');
    this.#known[index] = 1;
  }

  has(index: number): boolean {
    return this.#known[index] === 1;
  }

  at(index: number): string | undefined {
    return this.has(index) ? this.#bytes.toString('hex', 32 * index, 32 * (index + 1)) : undefined;
  }
}
