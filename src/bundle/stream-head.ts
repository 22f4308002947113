import { createHash, type Hash } from 'node:crypto';
import type { Blake3Hasher } from '@napi-rs/blake-hash';
import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, hexOf } from '../core/digest.ts';
import { errorOf, type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { NumberList } from '../core/number-list.ts';
import { createBlake3 } from '../io/blake3.ts';
import type { ByteSource } from '../io/byte-source.ts';
import { digestOf } from '../io/verify.ts';
import { parseLock } from '../lock/read.ts';
import type { Lock } from '../lock/schema.ts';
import { ArtifactJobs } from './artifacts.ts';
import { Contents } from './contents.ts';
import { type BundleInfo, parseInfo } from './documents.ts';
import { blobName, digestOfName, type FoundEntry, HashList } from './entries.ts';
import { ManifestShelf } from './manifest-shelf.ts';
import { DOCUMENTS } from './names.ts';
import type { BundlePlan } from './plan.ts';
import type { TellArtifact } from './reader.ts';
import { wrongEntry } from './stream-end.ts';
import { StreamTar } from './stream-tar.ts';

/** A document that came, and what it hashes to. */
interface CameDocument extends FoundEntry {
  readonly digest: Digest;
  readonly blake3: string;
}

/** What is known before the plan is. */
export interface StreamHead {
  readonly tar: StreamTar;
  readonly info: BundleInfo;
  readonly lock: Lock;
  readonly lockDigest: Digest;
  readonly lockSize: number;
  readonly documents: readonly CameDocument[];
  readonly manifests: ManifestShelf;
}

/** The most that each document may have; those that are kept are parsed. */
function limitOf(name: string): number {
  return name === 'versions.lock' ? LIMITS.lockText : LIMITS.bundleDocument;
}
const KEPT: ReadonlySet<string> = new Set(['versions.lock', 'sealift.json']);

/** Reads one document; bytes only of those that are kept. */
async function readStreamedDocument(
  tar: StreamTar,
  name: string,
): Promise<{ readonly document: CameDocument; readonly bytes: Buffer }> {
  const entry = await tar.next();
  if (entry?.name !== name) {
    const at = entry?.offset ?? 0;
    throw tar.notCanonical(at, `expected ${name}, found ${entry?.name ?? 'the end'}`);
  }
  if (entry.size > limitOf(name)) {
    const message = `${tar.what}: ${name}: more than ${limitOf(name)} bytes`;
    throw new SealiftError('CONTENT_TOO_LARGE', message, { side: 'source' });
  }
  const sha: Hash = createHash('sha256');
  const blake: Blake3Hasher = createBlake3();
  const bytes = KEPT.has(name) ? await tar.whole() : Buffer.alloc(0);
  sha.update(bytes);
  blake.update(bytes);
  for (let piece = await tar.piece(); piece !== undefined; piece = await tar.piece()) {
    sha.update(piece);
    blake.update(piece);
  }
  const digest: Digest = `sha256:${sha.digest('hex')}`;
  return { document: { ...entry, digest, blake3: blake.digest('hex') }, bytes };
}

/** What is no bundle of ours is told by its first entry. */
export async function readHead(source: ByteSource): Promise<StreamHead> {
  const tar = new StreamTar(source);
  const documents: CameDocument[] = [];
  const kept = new Map<string, Buffer>();
  for (const name of DOCUMENTS) {
    try {
      const { document, bytes } = await readStreamedDocument(tar, name);
      documents.push(document);
      if (KEPT.has(name)) kept.set(name, bytes);
    } catch (error) {
      if (documents.length > 0 || !(error instanceof SealiftError)) throw error;
      throw notABundle(source, error);
    }
  }
  const [lockBytes, infoBytes] = [kept.get('versions.lock'), kept.get('sealift.json')];
  const place = documents.find((d) => d.name === 'versions.lock');
  if (lockBytes === undefined || infoBytes === undefined || place === undefined) {
    throw new SealiftError('INTERNAL', 'documents were not kept');
  }
  const info = parseInfo(infoBytes, tar.what);
  if (place.digest !== info.lock) {
    const what = `SHA-256 expected ${hexOf(info.lock)} (sealift.json), found ${hexOf(place.digest)}`;
    throw tar.wrong(
      fault('BUNDLE_CHECKSUM_MISMATCH', `${tar.what}: versions.lock at byte ${place.offset}: ${what}`, {
        details: { entry: 'versions.lock', offset: place.offset },
      }),
    );
  }
  const lock = lockOf(lockBytes, tar.what);
  const facts = { tar, info, lock, lockDigest: place.digest, lockSize: place.size, documents };
  return { ...facts, manifests: new ManifestShelf() };
}

/** A lock that cannot be read is a fault of the bundle. */
function lockOf(bytes: Buffer, what: string): Lock {
  try {
    return parseLock(bytes, `${what}: versions.lock`);
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    const all = [fault('BUNDLE_NOT_CANONICAL', error.message), ...error.faults.slice(0, 20)];
    throw errorOf(all, `${what}: not a readable bundle: ${error.message}`, 'BUNDLE_NOT_CANONICAL');
  }
}

function notABundle(source: ByteSource, cause: SealiftError): SealiftError {
  // What keeps the bytes from coming says nothing about them.
  if (!cause.code.startsWith('BUNDLE_') && cause.code !== 'CONTENT_TOO_LARGE') return cause;
  const { what, position } = source;
  if (position === 0 && cause.code === 'BUNDLE_TRUNCATED') {
    return new SealiftError('BUNDLE_TRUNCATED', `${what}: ended before anything came`, {
      cause,
      hint: 'look at what the program said that should send the bundle',
      side: 'source',
    });
  }
  return new SealiftError('BUNDLE_NOT_CANONICAL', `${what}: does not begin as a bundle of sealift`, {
    cause,
    hint: 'only a bundle in one file can be read like this: volumes are joined with `cat`, archives of other tools are loaded from files',
    side: 'source',
  });
}

/** Manifests as they come: in the order of their digests, each kept when it is what its name says. */
export class ManifestFlow {
  readonly #head: StreamHead;
  /** The BLAKE3 of every entry that came, by its place in the archive. */
  readonly hashes = new HashList(DOCUMENTS.length);
  /** Bytes of each manifest that came, in order. */
  readonly #sizes = new NumberList('float64');

  constructor(head: StreamHead) {
    this.#head = head;
    for (const [index, { blake3 }] of head.documents.entries()) this.hashes.set(index, blake3);
  }

  /** The manifest that came as so many, from 0; undefined where it did not yet. */
  at(index: number): { readonly digest: Digest; readonly size: number } | undefined {
    const { manifests } = this.#head;
    if (index < 0 || index >= manifests.length) return undefined;
    return { digest: manifests.at(index), size: this.#sizes.at(index) };
  }

  /** Reads on until this one came. @throws BUNDLE_ENTRY_MISSING when it cannot come any more */
  async find(wanted: Digest): Promise<Buffer> {
    const { manifests, tar } = this.#head;
    for (;;) {
      const bytes = manifests.read(wanted);
      if (bytes !== undefined) return bytes;
      const last = this.at(manifests.length - 1)?.digest ?? '';
      const entry = last > wanted ? undefined : await tar.next();
      const digest = entry === undefined ? undefined : digestOfName(entry.name);
      if (entry === undefined || digest === undefined || digest > wanted || digest <= last) {
        const message = `${tar.what}: ${blobName(wanted)} is missing`;
        throw tar.wrong(
          fault('BUNDLE_ENTRY_MISSING', message, {
            details: { entry: blobName(wanted), offset: entry?.offset ?? 0 },
          }),
        );
      }
      await this.keep(entry, digest);
    }
  }

  /** Keeps the entry that was begun. */
  async keep(entry: FoundEntry, digest: Digest): Promise<void> {
    const { manifests, tar } = this.#head;
    if (entry.size > LIMITS.manifest) {
      const message = `${tar.what}: ${entry.name}: more than ${LIMITS.manifest} bytes`;
      throw new SealiftError('CONTENT_TOO_LARGE', message, { side: 'source' });
    }
    const bytes = await tar.whole();
    const found = digestOf(bytes);
    if (found !== digest) {
      const sums = { hash: 'SHA-256', expected: hexOf(digest), found: hexOf(found) } as const;
      throw tar.wrong(wrongEntry(tar, entry, sums));
    }
    this.hashes.set(DOCUMENTS.length + manifests.length, createBlake3().update(bytes).digest('hex'));
    this.#sizes.push(entry.size);
    manifests.add(digest, bytes);
  }
}

/** Every artifact of the lock, each manifest read when it is asked for. */
export async function readStreamedContents(
  head: StreamHead,
  flow: ManifestFlow,
  tell: TellArtifact | undefined,
): Promise<Contents> {
  const contents = new Contents();
  const read = async (d: Descriptor): Promise<Buffer> => {
    const bytes = await flow.find(d.digest);
    if (bytes.length === d.size) return bytes;
    const message = `${blobName(d.digest)}: expected ${d.size} bytes, found ${bytes.length}`;
    throw head.tar.wrong(fault('BUNDLE_NOT_CANONICAL', `${head.tar.what}: ${message}`));
  };
  for (const job of new ArtifactJobs(head.lock, read)) {
    try {
      const artifact = await job.read();
      contents.add(artifact);
      tell?.(artifact, contents.digests);
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError) || error.side === 'source') throw error;
      const { message, details } = faultOf(error);
      const more = details === undefined ? {} : { details };
      throw head.tar.wrong(fault('BUNDLE_GRAPH_INCOMPLETE', `${job.name}: ${message}`, more));
    }
  }
  return contents;
}

/** Documents that are not what the lock implies. */
export function compareDocuments({ documents, tar }: StreamHead, plan: BundlePlan): Fault[] {
  return documents.flatMap(({ name, digest, size, offset }) => {
    const planned = plan.entries.find(name);
    if (planned?.text?.digest === digest && planned.size === size) return [];
    const message = `${tar.what}: ${name} at byte ${offset} is not what the lock implies`;
    return [fault('BUNDLE_CHECKSUM_MISMATCH', message, { details: { entry: name, offset } })];
  });
}

/** What came must be the first manifests of the plan; the others follow, which only the lock names. */
export async function finishManifests(head: StreamHead, flow: ManifestFlow, plan: BundlePlan): Promise<void> {
  const { tar } = head;
  for (let index = DOCUMENTS.length; index < plan.manifestsEnd; index += 1) {
    const planned = plan.entries.at(index);
    const came = flow.at(index - DOCUMENTS.length);
    if (came === undefined) {
      const entry = await tar.expect(planned.name, planned.size);
      if (planned.digest !== undefined) await flow.keep(entry, planned.digest);
    } else if (came.digest !== planned.digest || came.size !== planned.size) {
      const message = `${tar.what}: ${blobName(came.digest)} is not in the lock, or not where ${planned.name} is`;
      throw tar.wrong(fault('BUNDLE_NOT_CANONICAL', message, { details: { entry: blobName(came.digest) } }));
    }
  }
}
