import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, hexOf } from '../core/digest.ts';
import type { DigestTable } from '../core/digest-table.ts';
import { errorOf, type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { collect, digestOf, verified } from '../io/verify.ts';
import { parseLock } from '../lock/read.ts';
import type { Lock } from '../lock/schema.ts';
import type { ContentReader } from '../oci/content.ts';
import { ArtifactJobs } from './artifacts.ts';
import { compareWithPlan, openDocument, readB3Sums, readDocument } from './compare.ts';
import { type Artifact, Contents } from './contents.ts';
import { type BundleInfo, parseInfo, readSums } from './documents.ts';
import { blobName, type FoundEntry, HashList } from './entries.ts';
import { COPY_AGAIN } from './hints.ts';
import { type Medium, openMedium } from './medium.ts';
import { misplacedVolumes } from './misplaced.ts';
import { DOCUMENTS } from './names.ts';
import { passOn } from './pass-on.ts';
import { type BundlePlan, planBundle } from './plan.ts';
import type { Place } from './volumes.ts';

/** What is needed to read and judge the bytes of a bundle. */
export interface OpenContent extends ContentReader {
  readonly medium: Medium;
  /** SHA-256 of the documents by name, 64 hex digits, as the lock implies; undefined where the plan is. */
  readonly implied: ReadonlyMap<string, string> | undefined;
  /** BLAKE3 of the medium's entries, as B3SUMS states. */
  readonly b3: HashList;
}

/** An opened bundle: its documents read, its structure compared with what its lock implies. Blobs are not read yet. */
export interface Bundle extends OpenContent {
  readonly info: BundleInfo;
  readonly lock: Lock;
  /** SHA-256 of its bytes. */
  readonly lockDigest: Digest;
  /** undefined when a manifest is damaged or missing; `faults` says which. */
  readonly plan: BundlePlan | undefined;
  /** Everything wrong so far; empty means documents, headers and graphs are as they must be. */
  readonly faults: readonly Fault[];
  /** Every image and artifact whose graph is not wholly there: what it misses. */
  readonly incomplete: readonly Fault[];
  has(digest: Digest): boolean;
  close(): Promise<void>;
}

/** Blobs by digest out of a medium, verified as they are read. */
export interface MediumContent extends ContentReader {
  /** Whether it has an entry of this digest, whose bytes are all there. */
  has(digest: Digest): boolean;
  /** The BLAKE3 of entries, once they are known. */
  trust(hashes: HashList): void;
}

/** Opens content by digest out of a medium. */
export function contentOf(medium: Medium): MediumContent {
  let b3 = new HashList(0);
  return {
    has: (digest) => {
      const entry = medium.entries.findBlob(digest);
      return entry !== undefined && medium.files?.isAbsent(entry.offset, entry.size) !== true;
    },
    trust: (hashes) => {
      b3 = hashes;
    },
    open(descriptor, { signal, offset = 0, passOn: chunk }) {
      const index = medium.entries.indexOfBlob(descriptor.digest);
      if (index < 0) {
        throw new SealiftError('BUNDLE_ENTRY_MISSING', `${medium.path}: no ${blobName(descriptor.digest)}`, {
          side: 'source',
        });
      }
      const entry = medium.entries.at(index);
      const blake3 = b3.at(index);
      if (chunk !== undefined && blake3 !== undefined && entry.size === descriptor.size) {
        const range = medium.range(entry);
        const rest = { ...range, position: range.position + offset, length: range.length - offset };
        return asBundleFault(passOn(rest, { blake3: offset > 0 ? undefined : blake3, chunk, signal }), entry);
      }
      const what = `${medium.path}: ${entry.name}`;
      const bytes = interruptible(medium.read(entry, offset), signal);
      return asBundleFault(offset > 0 ? bytes : verified(bytes, { ...descriptor, what }), entry);
    },
  };
}

/** Passes bytes on until it is stopped. @throws ABORTED */
export async function* interruptible(
  source: AsyncIterable<Buffer>,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    if (signal.aborted) throw new SealiftError('ABORTED', 'stopped');
    yield chunk;
  }
}

const DAMAGED =
  'the bundle is damaged: run `sealift verify` on it to see everything that is, and copy it again';

/** A wrong byte that comes out of a bundle, or one that the disk cannot read, is a fault of the bundle, whoever reads it. */
export async function* asBundleFault(
  source: AsyncIterable<Uint8Array>,
  entry: FoundEntry,
): AsyncGenerator<Uint8Array> {
  try {
    yield* source;
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    if (!error.code.startsWith('CONTENT_') && error.code !== 'FILE_UNREADABLE') throw error;
    throw new SealiftError('BUNDLE_CHECKSUM_MISMATCH', error.message, {
      side: 'source',
      cause: error,
      details: { ...error.details, entry: entry.name, offset: entry.offset },
      // A medium that was taken away is no damage.
      hint: (error.code === 'FILE_UNREADABLE' ? error.hint : undefined) ?? DAMAGED,
    });
  }
}

/** What the manifests of a bundle say. */
interface ReadContents {
  readonly contents: Contents;
  /** Manifests that are damaged or missing. */
  readonly faults: readonly Fault[];
  readonly incomplete: readonly Fault[];
}

function missingBlobs({ name, graph }: Artifact, isKnown: (digest: Digest) => boolean): Fault[] {
  const missing = [...graph.nodes.keys()].filter((d) => !isKnown(d));
  if (missing.length === 0) return [];
  const message = `${name}: ${missing.length} of its blobs are missing, first ${missing[0]}`;
  return [fault('BUNDLE_GRAPH_INCOMPLETE', message, { details: { name, missing }, hint: COPY_AGAIN })];
}

/** Reads every artifact that it can; a damaged or missing manifest is a fault, the others go on. */
async function readContents(
  lock: Lock,
  content: MediumContent,
  about: {
    readonly signal: AbortSignal;
    readonly path: string;
    readonly tell: TellArtifact | undefined;
    readonly digests: DigestTable;
    readonly isLeftOut: (digest: Digest) => boolean;
  },
): Promise<ReadContents> {
  const contents = new Contents(about.digests);
  const faults: Fault[] = [];
  const incomplete: Fault[] = [];
  const read = (d: Descriptor): Promise<Buffer> =>
    collect(content.open(d, { signal: about.signal }), {
      limit: LIMITS.manifest,
      what: `${about.path}: ${blobName(d.digest)}`,
    });
  for (const job of new ArtifactJobs(lock, read)) {
    try {
      const artifact = await job.read();
      contents.add(artifact);
      incomplete.push(...missingBlobs(artifact, (d) => content.has(d) || about.isLeftOut(d)));
      about.tell?.(artifact, about.digests);
    } catch (error) {
      if (isAbort(error)) throw error;
      const { message, details } = faultOf(error);
      const more = details === undefined ? {} : { details };
      const what = `${job.name}: ${message}`;
      faults.push(fault('BUNDLE_GRAPH_INCOMPLETE', what, { ...more, hint: COPY_AGAIN }));
    }
  }
  return { contents, faults, incomplete };
}

/** A lock, and the digest of its bytes. */
export interface KnownLock {
  readonly lock: Lock;
  readonly digest: Digest;
}

/** Hears of each artifact whose manifests could all be read, and where the digests of the bundle's entries are. */
export type TellArtifact = (artifact: Artifact, digests: DigestTable) => void;

/** How a bundle is opened. */
export interface OpenOptions {
  readonly signal: AbortSignal;
  readonly strict?: boolean;
  /** Opened already; it is closed with the bundle. */
  readonly medium?: Medium | undefined;
  /** A lock that was read already: that of the bundle is not read once more when its bytes are the same. */
  readonly known?: KnownLock | undefined;
  /** Hears of every artifact: the bundle itself does not keep them, there may be very many. */
  readonly tell?: TellArtifact;
}

/**
 * Opens a bundle and checks everything but the bytes of its blobs: headers, order, documents, the lock, every manifest.
 * With `strict` (default) any fault is thrown; without it they are all in `faults`.
 * @throws BUNDLE_NOT_FOUND, BUNDLE_TOO_NEW, BUNDLE_NOT_CANONICAL …
 */
export async function openBundle(place: Place, options: OpenOptions): Promise<Bundle> {
  const medium = options.medium ?? (await openMedium(place));
  try {
    const bundle = await readBundle(medium, options);
    if (options.strict !== false && bundle.faults.length > 0) {
      throw errorOf(bundle.faults, `${medium.path}: the bundle is damaged (${bundle.faults.length} faults)`);
    }
    return bundle;
  } catch (error) {
    await medium.close();
    throw error;
  }
}

async function readBundle(
  medium: Medium,
  options: {
    readonly signal: AbortSignal;
    readonly known?: KnownLock | undefined;
    readonly tell?: TellArtifact;
  },
): Promise<Bundle> {
  const { signal, known, tell } = options;
  const faults: Fault[] = [...medium.faults];
  // One by one: there may be more than a call takes arguments.
  const note = (found: readonly Fault[]): void => {
    for (const one of found) faults.push(one);
  };
  const { info, lock, lockDigest } = await readEssentials(medium, { faults, known });
  if (medium.kind === 'tar' && medium.size < info.size) {
    faults.push(
      fault('BUNDLE_TRUNCATED', `${medium.path}: has ${medium.size} of ${info.size} bytes`, {
        details: { expected: info.size, found: medium.size },
        hint: COPY_AGAIN,
      }),
    );
  }
  const content = contentOf(medium);
  const isLeftOut = (digest: Digest): boolean => (info.base?.leftOut.indexOf(digest) ?? -1) >= 0;
  const read = await readContents(lock, content, {
    signal,
    path: medium.path,
    tell,
    digests: medium.entries.digests,
    isLeftOut,
  });
  note(read.faults);
  let plan: BundlePlan | undefined;
  if (read.faults.length === 0) {
    const size = medium.entries.find('versions.lock')?.size ?? 0;
    const base = info.base === null ? undefined : { of: info.base.of, isLeftOut };
    plan = planBundle({ value: lock, digest: lockDigest, size }, read.contents, base);
    const differences = await compareWithPlan(medium, plan);
    // Why it is so stands before what follows from it.
    if (differences.length > 0) faults.unshift(...misplacedVolumes(medium, plan));
    note(differences);
  }
  const sums = await readB3Sums(medium, plan);
  note(sums.faults);
  content.trust(sums.hashes);
  return {
    medium,
    info,
    lock,
    lockDigest,
    plan,
    implied: plan === undefined ? undefined : impliedSums(plan),
    b3: sums.hashes,
    faults,
    incomplete: read.incomplete,
    open: content.open,
    has: content.has,
    close: () => medium.close(),
  };
}

function impliedSums({ entries }: BundlePlan): ReadonlyMap<string, string> {
  return new Map(
    DOCUMENTS.flatMap((name) => {
      const text = entries.find(name)?.text;
      return text === undefined ? [] : [[name, hexOf(text.digest)]];
    }),
  );
}

/** `sealift.json` and `versions.lock`: without them nothing can be said, so then the structural faults come along. */
async function readEssentials(
  medium: Medium,
  { faults, known }: { readonly faults: readonly Fault[]; readonly known: KnownLock | undefined },
): Promise<{ info: BundleInfo; lock: Lock; lockDigest: Digest }> {
  let info: BundleInfo;
  try {
    info = await readInfo(medium);
    const bytes = await readDocument(medium, 'versions.lock');
    const found = digestOf(bytes);
    // When the list agrees with the lock, it is sealift.json that is wrong: the comparison with the plan will say so.
    if (found !== info.lock && (await listedSha(medium, 'versions.lock')) !== hexOf(found)) {
      const what = `SHA-256 expected ${hexOf(info.lock)} (sealift.json), found ${hexOf(found)}`;
      throw documentError(medium, 'versions.lock', what);
    }
    const lock = known?.digest === found ? known.lock : parseLock(bytes, `${medium.path}: versions.lock`);
    return { info, lock, lockDigest: found };
  } catch (error) {
    if (!(error instanceof SealiftError) || isAbort(error)) throw error;
    if (error.code === 'BUNDLE_TOO_NEW' || error.code === 'FILE_UNREADABLE') throw error;
    const own = faultOf(error);
    const as = own.code.startsWith('BUNDLE_') ? own : fault('BUNDLE_NOT_CANONICAL', own.message);
    // Where a volume lacks, that is why.
    const [cause = as] = medium.files?.faults ?? [];
    const all = [cause, ...[as, ...faults, ...error.faults.slice(0, 20)].filter((f) => f !== cause)];
    throw errorOf(all, `${medium.path}: not a readable bundle: ${cause.message}`, cause.code);
  }
}

/** Reads `sealift.json`; when SHA256SUMS says that its bytes are not the right ones, that is said before what they ask for. */
export async function readInfo(medium: Medium): Promise<BundleInfo> {
  const bytes = await readDocument(medium, 'sealift.json');
  try {
    return parseInfo(bytes, medium.path);
  } catch (error) {
    const expected = await listedSha(medium, 'sealift.json');
    const found = hexOf(digestOf(bytes));
    if (expected === undefined || expected === found) throw error;
    const why = error instanceof Error ? `: ${error.message}` : '';
    throw documentError(
      medium,
      'sealift.json',
      `SHA-256 expected ${expected} (SHA256SUMS), found ${found}${why}`,
    );
  }
}

/** What SHA256SUMS says about a document, as 64 hex digits, when it can be read that far. */
async function listedSha(medium: Medium, name: string): Promise<string | undefined> {
  let found: string | undefined;
  try {
    await readSums(openDocument(medium, 'SHA256SUMS'), 'SHA256SUMS', (line) => {
      if (line.name === name) found ??= line.hex;
    });
  } catch {
    // What cannot be read says nothing.
  }
  return found;
}

function documentError(medium: Medium, name: string, what: string): SealiftError {
  const offset = medium.entries.find(name)?.offset ?? 0;
  return new SealiftError('BUNDLE_CHECKSUM_MISMATCH', `${medium.path}: ${name} at byte ${offset}: ${what}`, {
    details: { entry: name, offset },
    hint: 'the bundle is damaged: copy it again from where it was made',
  });
}
