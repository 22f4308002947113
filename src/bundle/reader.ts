import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, hexOf } from '../core/digest.ts';
import { errorOf, type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { collect, digestOf, verified } from '../io/verify.ts';
import { parseLock } from '../lock/read.ts';
import type { Lock } from '../lock/schema.ts';
import type { ContentReader } from '../oci/content.ts';
import { artifactJobs } from './artifacts.ts';
import { type BundleInfo, parseB3Sums, parseInfo } from './documents.ts';
import { type FoundEntry, type Medium, openMedium } from './medium.ts';
import { type Artifact, B3SUMS, type BundlePlan, blobName, planBundle } from './plan.ts';

/** An opened bundle: its documents read, its structure compared with what its lock implies. Blobs are not read yet. */
export interface Bundle extends ContentReader {
  readonly medium: Medium;
  readonly info: BundleInfo;
  readonly lock: Lock;
  readonly lockBytes: Buffer;
  /** undefined when a manifest is damaged or missing; `faults` says which. */
  readonly plan: BundlePlan | undefined;
  /** Those whose manifests could all be read. */
  readonly artifacts: readonly Artifact[];
  /** BLAKE3 (64 hex digits) by entry name, as B3SUMS states. */
  readonly b3: ReadonlyMap<string, string>;
  /** Everything wrong so far; empty means documents, headers and graphs are as they must be. */
  readonly faults: readonly Fault[];
  has(digest: Digest): boolean;
  close(): Promise<void>;
}

/** Opens content by digest out of a medium. */
function contentOf(medium: Medium): ContentReader & { find(digest: Digest): FoundEntry | undefined } {
  const byName = new Map(medium.entries.map((e) => [e.name, e]));
  const find = (digest: Digest): FoundEntry | undefined => byName.get(blobName(digest));
  return {
    find,
    open(descriptor, { signal, offset = 0 }) {
      const entry = find(descriptor.digest);
      if (entry === undefined) {
        throw new SealiftError('BUNDLE_ENTRY_MISSING', `${medium.path}: no ${blobName(descriptor.digest)}`, {
          side: 'source',
        });
      }
      const what = `${medium.path}: ${entry.name}`;
      const bytes = interruptible(medium.read(entry, offset), signal);
      return offset > 0 ? bytes : asBundleFault(verified(bytes, { ...descriptor, what }), entry);
    },
  };
}

async function* interruptible(source: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    if (signal.aborted) throw new SealiftError('ABORTED', 'stopped');
    yield chunk;
  }
}

/** A wrong byte that comes out of a bundle is a fault of the bundle, whoever reads it. */
async function* asBundleFault(
  source: AsyncIterable<Uint8Array>,
  entry: FoundEntry,
): AsyncGenerator<Uint8Array> {
  try {
    yield* source;
  } catch (error) {
    if (!(error instanceof SealiftError) || !error.code.startsWith('CONTENT_')) throw error;
    throw new SealiftError('BUNDLE_CHECKSUM_MISMATCH', error.message, {
      side: 'source',
      cause: error,
      details: { ...error.details, entry: entry.name, offset: entry.offset },
      hint: 'the bundle is damaged: run `sealift verify` on it to see everything that is, and copy it again',
    });
  }
}

async function readDocument(medium: Medium, name: string): Promise<Buffer> {
  const entry = medium.entries.find((e) => e.name === name);
  if (entry === undefined) {
    throw new SealiftError('BUNDLE_ENTRY_MISSING', `${medium.path}: no ${name}`, {
      hint: 'this is not a bundle of sealift, or its beginning is damaged',
    });
  }
  return collect(medium.read(entry), { limit: LIMITS.bundleDocument, what: `${medium.path}: ${name}` });
}

/** Compares what was found with the plan: order, names, sizes, and the bytes of the documents. */
async function compareWithPlan(medium: Medium, plan: BundlePlan): Promise<Fault[]> {
  const faults: Fault[] = [];
  const found = new Map<string, FoundEntry>();
  for (const e of medium.entries) {
    if (found.has(e.name)) {
      faults.push(
        fault('BUNDLE_NOT_CANONICAL', `${medium.path}: ${e.name} is there twice (byte ${e.offset})`),
      );
    }
    found.set(e.name, e);
  }
  const planned = new Set(plan.entries.map((e) => e.name));
  for (const e of medium.entries) {
    if (planned.has(e.name)) continue;
    faults.push(
      fault('BUNDLE_ENTRY_EXTRA', `${medium.path}: ${e.name} at byte ${e.offset} is not in the lock`, {
        details: { entry: e.name, offset: e.offset },
      }),
    );
  }
  for (const p of plan.entries) {
    const e = found.get(p.name);
    if (e === undefined) {
      faults.push(
        fault('BUNDLE_ENTRY_MISSING', `${medium.path}: ${p.name} (${p.size} bytes) is missing`, {
          details: { entry: p.name, expected: p.size },
        }),
      );
    } else if (e.size !== p.size) {
      faults.push(
        fault(
          'BUNDLE_NOT_CANONICAL',
          `${medium.path}: ${p.name}: expected ${p.size} bytes, found ${e.size}`,
          {
            details: { entry: p.name, offset: e.offset, expected: p.size, found: e.size },
          },
        ),
      );
    } else if (p.bytes !== undefined && !(await readDocument(medium, p.name)).equals(p.bytes)) {
      faults.push(
        fault('BUNDLE_CHECKSUM_MISMATCH', `${medium.path}: ${p.name} is not what the lock implies`, {
          details: { entry: p.name, offset: e.offset },
        }),
      );
    }
  }
  if (medium.kind === 'tar' && faults.length === 0) {
    const bad = plan.entries.findIndex((p, i) => medium.entries[i]?.name !== p.name);
    if (bad >= 0) {
      const e = medium.entries[bad];
      faults.push(
        fault('BUNDLE_NOT_CANONICAL', `${medium.path}: ${e?.name} at byte ${e?.offset} is out of order`),
      );
    }
  }
  return faults;
}

function compareB3Names(names: readonly string[], medium: Medium, plan: BundlePlan | undefined): Fault[] {
  const expected = (plan?.entries ?? medium.entries).map((e) => e.name).filter((n) => n !== B3SUMS);
  if (expected.length === names.length && expected.every((n, i) => n === names[i])) return [];
  return [
    fault('BUNDLE_NOT_CANONICAL', `${medium.path}: B3SUMS does not list exactly the entries, in order`),
  ];
}

/** Reads every artifact that it can; a damaged or missing manifest is a fault, the others go on. */
async function readArtifacts(
  lock: Lock,
  content: ContentReader,
  about: { readonly signal: AbortSignal; readonly path: string },
): Promise<{ artifacts: Artifact[]; faults: Fault[] }> {
  const artifacts: Artifact[] = [];
  const faults: Fault[] = [];
  const read = (d: Descriptor): Promise<Buffer> =>
    collect(content.open(d, { signal: about.signal }), {
      limit: LIMITS.manifest,
      what: `${about.path}: ${blobName(d.digest)}`,
    });
  for (const job of artifactJobs(lock, read)) {
    try {
      artifacts.push(await job.read());
    } catch (error) {
      if (isAbort(error)) throw error;
      const { message, details } = faultOf(error);
      const more = details === undefined ? {} : { details };
      faults.push(fault('BUNDLE_GRAPH_INCOMPLETE', `${job.name}: ${message}`, more));
    }
  }
  return { artifacts, faults };
}

/**
 * Opens a bundle and checks everything but the bytes of its blobs: headers, order, documents, the lock, every manifest.
 * With `strict` (default) any fault is thrown; without it they are all in `faults`.
 * @throws BUNDLE_NOT_FOUND, BUNDLE_TOO_NEW, BUNDLE_NOT_CANONICAL …
 */
export async function openBundle(
  path: string,
  options: { readonly signal: AbortSignal; readonly strict?: boolean },
): Promise<Bundle> {
  const medium = await openMedium(path);
  try {
    const bundle = await readBundle(medium, options.signal);
    if (options.strict !== false && bundle.faults.length > 0) {
      throw errorOf(bundle.faults, `${path}: the bundle is damaged (${bundle.faults.length} faults)`);
    }
    return bundle;
  } catch (error) {
    await medium.close();
    throw error;
  }
}

async function readBundle(medium: Medium, signal: AbortSignal): Promise<Bundle> {
  const faults: Fault[] = [...medium.faults];
  const documents = await readEssentials(medium, faults);
  const { info, lock, lockBytes } = documents;
  if (digestOf(lockBytes) !== info.lock) {
    faults.push(
      fault(
        'BUNDLE_CHECKSUM_MISMATCH',
        `${medium.path}: versions.lock has ${hexOf(digestOf(lockBytes))}, sealift.json says ${hexOf(info.lock)}`,
        { details: { entry: 'versions.lock' } },
      ),
    );
  }
  if (medium.kind === 'tar' && medium.size < info.size) {
    faults.push(
      fault('BUNDLE_TRUNCATED', `${medium.path}: has ${medium.size} of ${info.size} bytes`, {
        details: { expected: info.size, found: medium.size },
      }),
    );
  }
  const content = contentOf(medium);
  const read = await readArtifacts(lock, content, { signal, path: medium.path });
  faults.push(...read.faults);
  let plan: BundlePlan | undefined;
  if (read.faults.length === 0) {
    plan = planBundle({ value: lock, bytes: lockBytes }, read.artifacts);
    faults.push(...(await compareWithPlan(medium, plan)));
  }
  const sums = medium.entries.some((e) => e.name === B3SUMS)
    ? await readDocument(medium, B3SUMS)
    : Buffer.alloc(0);
  const b3 = parseB3Sums(sums);
  faults.push(...b3.faults);
  if (b3.faults.length === 0) faults.push(...compareB3Names([...b3.hashes.keys()], medium, plan));
  return {
    medium,
    info,
    lock,
    lockBytes,
    plan,
    artifacts: read.artifacts,
    b3: b3.hashes,
    faults,
    open: content.open,
    has: (digest) => content.find(digest) !== undefined,
    close: () => medium.close(),
  };
}

/** Without a readable sealift.json and versions.lock nothing can be said; the structural faults come along. */
async function readEssentials(
  medium: Medium,
  faults: readonly Fault[],
): Promise<{ info: BundleInfo; lock: Lock; lockBytes: Buffer }> {
  try {
    const info = parseInfo(await readDocument(medium, 'sealift.json'), medium.path);
    const lockBytes = await readDocument(medium, 'versions.lock');
    return { info, lockBytes, lock: parseLock(lockBytes, `${medium.path}: versions.lock`) };
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code === 'BUNDLE_TOO_NEW' || error.code === 'ABORTED')
      throw error;
    const own = faultOf(error);
    const as = own.code.startsWith('BUNDLE_') ? own : fault('BUNDLE_NOT_CANONICAL', own.message);
    const all = [...faults, as, ...error.faults.slice(0, 20)];
    throw errorOf(all, `${medium.path}: not a readable bundle: ${own.message}`, as.code);
  }
}
