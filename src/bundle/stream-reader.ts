import { createHash, type Hash } from 'node:crypto';
import { type Digest, hexOf } from '../core/digest.ts';
import { errorOf, type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { createBlake3 } from '../io/blake3.ts';
import type { ByteSource } from '../io/byte-source.ts';
import type { Lock } from '../lock/schema.ts';
import { type BundleInfo, readSums } from './documents.ts';
import { type FoundEntry, HashList } from './entries.ts';
import type { ManifestShelf } from './manifest-shelf.ts';
import { B3SUMS, DOCUMENTS, SIGNATURE } from './names.ts';
import { type BundlePlan, type PlannedEntry, planBundle } from './plan.ts';
import type { TellArtifact } from './reader.ts';
import {
  compareDocuments,
  finishManifests,
  ManifestFlow,
  readHead,
  readStreamedContents,
  type StreamHead,
} from './stream-head.ts';
import { type StreamTar, streamError } from './stream-tar.ts';

/** Faults of a list that are told one by one. */
const FAULTS_SHOWN = 100;

/** The content of one entry on its way: every byte is hashed for B3SUMS, and by SHA-256 where that is asked for. */
export class EntryBody {
  readonly entry: PlannedEntry;
  readonly #tar: StreamTar;
  readonly #blake = createBlake3();
  readonly #sha: Hash | undefined;
  readonly #offset: number;
  #left: number;

  constructor(
    tar: StreamTar,
    entry: PlannedEntry,
    about: { readonly offset: number; readonly sha256: boolean },
  ) {
    this.entry = entry;
    this.#tar = tar;
    this.#offset = about.offset;
    this.#sha = about.sha256 ? createHash('sha256') : undefined;
    this.#left = entry.size;
    if (entry.size === 0) this.#check();
  }

  /** The next bytes; undefined at the end. The last are given only when all are what they must be. @throws BUNDLE_… */
  async next(): Promise<Buffer | undefined> {
    const bytes = await this.#tar.piece();
    if (bytes === undefined) return undefined;
    this.#blake.update(bytes);
    this.#sha?.update(bytes);
    this.#left -= bytes.length;
    if (this.#left === 0) this.#check();
    return bytes;
  }

  #check(): void {
    const { digest, name, size } = this.entry;
    const found = this.#sha?.digest('hex');
    if (found === undefined || digest === undefined || found === hexOf(digest)) return;
    const what = `${this.#tar.what}: ${name} at byte ${this.#offset} (${size} bytes)`;
    const sums = { hash: 'SHA-256', expected: hexOf(digest), found };
    throw streamError(
      fault('BUNDLE_CHECKSUM_MISMATCH', `${what}: SHA-256 expected ${sums.expected}, found ${found}`, {
        details: { entry: name, offset: this.#offset, size, ...sums },
      }),
    );
  }

  /** Reads over the rest. @returns the BLAKE3 */
  async finish(): Promise<string> {
    while ((await this.next()) !== undefined);
    return this.#blake.digest('hex');
  }
}

/** What stood at the end of a stream. */
export interface StreamEnd {
  /** BLAKE2b-512 of B3SUMS: what a signature signs. */
  readonly b3sums: Buffer;
  /** The signature; undefined where there is none. */
  readonly signature: Buffer | undefined;
  /** Lines of B3SUMS that disagree with what came. */
  readonly faults: readonly Fault[];
}

/**
 * A bundle that comes in order and once. Its documents and manifests are read when it is opened, so its whole plan is
 * known; then its blobs pass, and at the end what B3SUMS says of all of them. Memory: the manifests, compressed, and some
 * numbers of each entry.
 */
export class StreamedBundle {
  readonly info: BundleInfo;
  readonly lock: Lock;
  readonly lockDigest: Digest;
  readonly plan: BundlePlan;
  readonly manifests: ManifestShelf;
  readonly #tar: StreamTar;
  readonly #hashes: HashList;

  constructor(head: StreamHead, plan: BundlePlan, hashes: HashList) {
    const { info, lock, lockDigest, manifests, tar } = head;
    this.info = info;
    this.lock = lock;
    this.lockDigest = lockDigest;
    this.manifests = manifests;
    this.plan = plan;
    this.#tar = tar;
    this.#hashes = hashes;
  }

  get what(): string {
    return this.#tar.what;
  }

  /**
   * Passes every blob that is no manifest to `take`, one after the other; what it leaves is read over.
   * @param options.sha256 whether a blob's SHA-256 is to be computed; BLAKE3 always is
   */
  async passBlobs(
    take: (body: EntryBody) => Promise<void>,
    options: { readonly sha256: (entry: PlannedEntry) => boolean },
  ): Promise<void> {
    const { entries, manifestsEnd, blobs } = this.plan;
    for (let index = manifestsEnd; index < DOCUMENTS.length + blobs; index += 1) {
      const entry = entries.at(index);
      const { offset } = await this.#tar.expect(entry.name, entry.size);
      const body = new EntryBody(this.#tar, entry, { offset, sha256: options.sha256(entry) });
      await take(body);
      this.#hashes.set(index, await body.finish());
    }
  }

  /** Compares what came with B3SUMS and reads to the last byte. */
  async end(): Promise<StreamEnd> {
    const sums = this.plan.entries.find(B3SUMS);
    if (sums === undefined) throw new SealiftError('INTERNAL', 'a plan without B3SUMS');
    const { offset } = await this.#tar.expect(sums.name, sums.size);
    const hash = createHash('blake2b512');
    const faults = await this.#compareSums({ ...sums, offset }, hash);
    const signature = await this.#signature();
    await this.#tar.end();
    return { b3sums: hash.digest(), signature, faults };
  }

  async #compareSums(sums: FoundEntry, hash: Hash): Promise<Fault[]> {
    const { entries } = this.plan;
    const tar = this.#tar;
    const details = { entry: B3SUMS, offset: sums.offset };
    const faults: Fault[] = [];
    let [index, isInOrder] = [0, true];
    const pieces = async function* (): AsyncGenerator<Buffer> {
      for (let piece = await tar.piece(); piece !== undefined; piece = await tar.piece()) {
        hash.update(piece);
        yield piece;
      }
    };
    const read = await readSums(pieces(), B3SUMS, ({ hex, name }) => {
      const entry = index < entries.length ? entries.at(index) : undefined;
      isInOrder &&= entry?.name === name && name !== B3SUMS;
      if (!isInOrder || entry === undefined) return;
      const found = this.#hashes.at(index) ?? '';
      index += 1;
      if (found === hex || faults.length >= FAULTS_SHOWN) return;
      const what = `${tar.what}: ${name} at byte ${entry.offset} (${entry.size} bytes)`;
      const both = { hash: 'BLAKE3', expected: hex, found };
      faults.push(
        fault('BUNDLE_CHECKSUM_MISMATCH', `${what}: BLAKE3 expected ${hex}, found ${found}`, {
          details: { entry: name, offset: entry.offset, size: entry.size, ...both },
        }),
      );
    });
    // A list that ends in the middle of a line is read to its end all the same.
    while ((await tar.piece()) !== undefined);
    for (const each of read) faults.push(fault(each.code, `${tar.what}: ${each.message}`, { details }));
    if (read.length === 0 && (!isInOrder || index !== entries.length - 1)) {
      const message = `${tar.what}: B3SUMS does not list exactly the entries, in order`;
      faults.push(fault('BUNDLE_NOT_CANONICAL', message, { details }));
    }
    return faults;
  }

  async #signature(): Promise<Buffer | undefined> {
    const entry = await this.#tar.next();
    if (entry === undefined) return undefined;
    if (entry.name !== SIGNATURE || entry.size > LIMITS.signatureText) {
      throw this.#tar.notCanonical(entry.offset, `${entry.name} behind ${B3SUMS}`);
    }
    const pieces: Buffer[] = [];
    for (let p = await this.#tar.piece(); p !== undefined; p = await this.#tar.piece()) pieces.push(p);
    if ((await this.#tar.next()) !== undefined) {
      throw this.#tar.notCanonical(entry.offset, `an entry behind ${SIGNATURE}`);
    }
    return Buffer.concat(pieces);
  }
}

/**
 * Reads a stream up to its first blob that is no manifest, and checks all of it but what B3SUMS will say.
 * @throws BUNDLE_TRUNCATED, BUNDLE_NOT_CANONICAL, BUNDLE_CHECKSUM_MISMATCH, BUNDLE_ENTRY_MISSING, BUNDLE_GRAPH_INCOMPLETE,
 *   BUNDLE_TOO_NEW, CONTENT_TOO_LARGE, LOCK_INVALID, FILE_UNREADABLE, ABORTED
 */
export async function openStream(
  source: ByteSource,
  options: { /** Hears of every artifact. */ readonly tell?: TellArtifact } = {},
): Promise<StreamedBundle> {
  const head = await readHead(source);
  const flow = new ManifestFlow(head);
  const contents = await readStreamedContents(head, flow, options.tell);
  const { lock, lockDigest, lockSize, documents } = head;
  const plan = planBundle({ value: lock, digest: lockDigest, size: lockSize }, contents);
  const faults = compareDocuments(head, plan);
  if (faults.length > 0)
    throw errorOf(faults, `${source.what}: the bundle is damaged (${faults.length} faults)`);
  await finishManifests(head, flow, plan);
  const hashes = new HashList(plan.entries.length);
  for (const [index, { blake3 }] of documents.entries()) hashes.set(index, blake3);
  for (const [at, { blake3 }] of flow.came.entries()) hashes.set(DOCUMENTS.length + at, blake3);
  return new StreamedBundle(head, plan, hashes);
}
