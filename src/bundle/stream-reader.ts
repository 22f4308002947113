import { createHash, type Hash } from 'node:crypto';
import { type Digest, hexOf } from '../core/digest.ts';
import { errorOf, type Fault, fault } from '../core/errors.ts';
import { createBlake3 } from '../io/blake3.ts';
import type { ByteSource } from '../io/byte-source.ts';
import { digestOf } from '../io/verify.ts';
import type { Lock } from '../lock/schema.ts';
import { lockPieces } from '../lock/write.ts';
import type { BundleInfo } from './documents.ts';
import type { HashList } from './entries.ts';
import type { ManifestShelf } from './manifest-shelf.ts';
import { DOCUMENTS } from './names.ts';
import { type BundlePlan, type PlannedEntry, planBundle } from './plan.ts';
import type { TellArtifact } from './reader.ts';
import { readEnd, type StreamEnd, wrongEntry } from './stream-end.ts';
import {
  compareDocuments,
  finishManifests,
  ManifestFlow,
  readHead,
  readStreamedContents,
  type StreamHead,
} from './stream-head.ts';
import type { StreamTar } from './stream-tar.ts';

/** How the blobs of a stream are read. */
export interface Passing {
  /** Whether a blob's SHA-256 is to be computed; BLAKE3 always is. */
  readonly sha256: (entry: PlannedEntry) => boolean;
  /** Hears of content whose SHA-256 is wrong, instead of an error that ends everything. */
  readonly tell?: (found: Fault) => void;
  /** Asked before each blob: whether anybody still wants one; default always. */
  readonly isWanted?: () => boolean;
}

/** The content of one entry on its way: every byte is hashed for B3SUMS, and by SHA-256 where that is asked for. */
export class EntryBody {
  readonly entry: PlannedEntry;
  readonly #tar: StreamTar;
  readonly #blake = createBlake3();
  readonly #sha: Hash | undefined;
  readonly #tell: Passing['tell'];
  #left: number;

  constructor(tar: StreamTar, entry: PlannedEntry, how: Passing) {
    this.entry = entry;
    this.#tar = tar;
    this.#sha = how.sha256(entry) ? createHash('sha256') : undefined;
    this.#tell = how.tell;
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
    const { digest } = this.entry;
    const found = this.#sha?.digest('hex');
    if (found === undefined || digest === undefined || found === hexOf(digest)) return;
    const wrong = wrongEntry(this.#tar, this.entry, { hash: 'SHA-256', expected: hexOf(digest), found });
    if (this.#tell === undefined) throw this.#tar.wrong(wrong);
    this.#tell(wrong);
  }

  /** Reads over the rest. @returns the BLAKE3 */
  async finish(): Promise<string> {
    while ((await this.next()) !== undefined);
    return this.#blake.digest('hex');
  }
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
  /** The BLAKE3 of every entry that came so far. */
  readonly hashes: HashList;
  readonly #tar: StreamTar;

  constructor(head: StreamHead, plan: BundlePlan, hashes: HashList) {
    const { info, lock, lockDigest, manifests, tar } = head;
    this.info = info;
    this.lock = lock;
    this.lockDigest = lockDigest;
    this.manifests = manifests;
    this.plan = plan;
    this.#tar = tar;
    this.hashes = hashes;
  }

  get what(): string {
    return this.#tar.what;
  }

  /** The bytes of its lock once more. @throws BUNDLE_NOT_CANONICAL */
  lockBytes(): Buffer {
    const bytes = Buffer.concat([...lockPieces(this.lock)]);
    if (digestOf(bytes) === this.lockDigest) return bytes;
    const message = `${this.what}: versions.lock is not as sealift writes it`;
    throw this.#tar.wrong(fault('BUNDLE_NOT_CANONICAL', message));
  }

  /**
   * Passes every blob that is no manifest to `take`, one after the other; what it leaves is read over.
   * @returns false where nobody wanted the rest
   */
  async passBlobs(take: (body: EntryBody) => Promise<void>, how: Passing): Promise<boolean> {
    const { entries, manifestsEnd, blobs } = this.plan;
    for (let index = manifestsEnd; index < DOCUMENTS.length + blobs; index += 1) {
      if (how.isWanted?.() === false) return false;
      const entry = entries.at(index);
      await this.#tar.expect(entry.name, entry.size);
      const body = new EntryBody(this.#tar, entry, how);
      await take(body);
      this.hashes.set(index, await body.finish());
    }
    return true;
  }

  /** Compares what came with B3SUMS and reads to the last byte. */
  end(): Promise<StreamEnd> {
    return readEnd(this.#tar, { entries: this.plan.entries, hashes: this.hashes });
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
  const { info, lock, lockDigest, lockSize } = head;
  const { base } = info;
  const leftOut =
    base === null
      ? undefined
      : { of: base.of, isLeftOut: (digest: Digest) => base.leftOut.indexOf(digest) >= 0 };
  const plan = planBundle({ value: lock, digest: lockDigest, size: lockSize }, contents, leftOut);
  const faults = compareDocuments(head, plan);
  if (faults.length > 0)
    throw errorOf(faults, `${source.what}: the bundle is damaged (${faults.length} faults)`);
  await finishManifests(head, flow, plan);
  return new StreamedBundle(head, plan, flow.hashes);
}
