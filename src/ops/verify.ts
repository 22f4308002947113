import { resolve } from 'node:path';
import { archiveOf } from '../bundle/artifacts.ts';
import { checkBytes, checkGraphs } from '../bundle/check.ts';
import { blobName } from '../bundle/plan.ts';
import { type Bundle, openBundle } from '../bundle/reader.ts';
import { hexOf } from '../core/digest.ts';
import { type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { readFileLimited } from '../io/files.ts';
import { digestOf } from '../io/verify.ts';
import { diffLocks } from '../lock/diff.ts';
import { parseLock } from '../lock/read.ts';
import { chartName } from '../lock/schema.ts';
import { checkArchives, type Format } from './archive-items.ts';
import { type ImageArchives, openImageArchives } from './image-archives.ts';

export interface VerifyOptions {
  readonly bundle: string;
  /** A versions.lock that came another way: the bundle must be exactly its content. */
  readonly lockPath?: string;
  /** SHA-256 of every blob besides BLAKE3. Always done with `lockPath`. */
  readonly deep?: boolean;
}

/** What the bytes were compared with, strongest first. */
export type Chain = 'lock' | 'digests' | 'b3sums';

export interface VerifyResult {
  readonly path: string;
  readonly format: Format;
  readonly name: string;
  /** Null, as the lock, of what another tool made. */
  readonly version: string | null;
  readonly lock: string | null;
  /** `lock`: a lock given from outside → SHA-256 of every blob. `digests`: SHA-256 against the digests inside. `b3sums`: BLAKE3 against the list inside, which finds damage, not forgery. */
  readonly chain: Chain;
  readonly entries: number;
  /** Bytes of content that were read and hashed. */
  readonly bytes: number;
  readonly images: number;
  readonly charts: number;
  readonly files: number;
  readonly faults: readonly Fault[];
}

/** Every chart's archive unpacked in memory, its tree hash compared with the lock. */
async function checkTrees(
  bundle: Bundle,
  options: { readonly damaged: ReadonlySet<unknown>; readonly context: Context },
): Promise<Fault[]> {
  const { damaged, context } = options;
  const faults: Fault[] = [];
  if (bundle.lock.charts.length === 0) return faults;
  // It brings a YAML parser along, which costs more than reading a small bundle.
  const { readChartArchive } = await import('../helm/archive.ts');
  for (const chart of bundle.lock.charts) {
    const name = chartName(chart);
    const { archive } = chart.integrity;
    // What is missing or damaged was said already.
    if (!bundle.has(archive) || damaged.has(blobName(archive))) continue;
    try {
      const bytes = bundle.open(archiveOf(chart), { signal: context.signal });
      const { tree } = await readChartArchive(bytes, { what: name });
      if (tree === chart.integrity.tree) continue;
      faults.push(
        fault('BUNDLE_TREE_MISMATCH', `${name}: expected tree ${chart.integrity.tree}, found ${tree}`, {
          details: { name, expected: chart.integrity.tree, found: tree },
        }),
      );
    } catch (error) {
      if (isAbort(error)) throw error;
      const inner = faultOf(error);
      faults.push(fault('BUNDLE_TREE_MISMATCH', `${name}: its archive cannot be read: ${inner.message}`));
    }
  }
  return faults;
}

/** Everything about a bundle that is open: structure, bytes, graphs, trees. */
export async function checkOpened(
  bundle: Bundle,
  options: { readonly deep: boolean; readonly context: Context },
): Promise<{ readonly faults: Fault[]; readonly bytes: number; readonly entries: number }> {
  const { context } = options;
  const report = await checkBytes(bundle, { sha256: options.deep, context });
  const damaged = new Set(report.faults.map((f) => f.details?.entry));
  const trees = await checkTrees(bundle, { damaged, context });
  return {
    faults: unique([...bundle.faults, ...report.faults, ...checkGraphs(bundle), ...trees]),
    bytes: report.bytes,
    entries: report.entries,
  };
}

/** One fault may be seen from two sides; the first saying stays. */
function unique(faults: readonly Fault[]): Fault[] {
  const seen = new Set<string>();
  return faults.filter((f) => {
    const key = `${f.code} ${f.message}`;
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

async function compareWithLock(bundle: Bundle, lockPath: string): Promise<Fault[]> {
  const bytes = await readFileLimited(lockPath, {
    limit: LIMITS.lockText,
    missing: 'FILE_NOT_FOUND',
    hint: 'give the lock that came with the bundle another way',
  });
  if (bytes.equals(bundle.lockBytes)) return [];
  const given = parseLock(bytes, lockPath);
  const { added, removed, changed } = diffLocks(given, bundle.lock);
  const hint = 'this bundle was packed from another lock: use the bundle that belongs to this lock';
  const headline = fault(
    'BUNDLE_LOCK_DIFFERS',
    `${bundle.medium.path}: its lock is ${hexOf(digestOf(bundle.lockBytes))}, ${lockPath} is ${hexOf(digestOf(bytes))}`,
    { hint },
  );
  return [
    headline,
    ...added.map((e) =>
      fault('BUNDLE_LOCK_DIFFERS', `${e.kind} ${e.name} is in the bundle and not in ${lockPath}`),
    ),
    ...removed.map((e) =>
      fault('BUNDLE_LOCK_DIFFERS', `${e.kind} ${e.name} is in ${lockPath} and not in the bundle`),
    ),
    ...changed.map((e) => {
      const what = e.changes.map((c) => `${c.fact} ${c.from ?? 'none'} → ${c.to ?? 'none'}`).join(', ');
      return fault('BUNDLE_LOCK_DIFFERS', `${e.kind} ${e.name} differs from ${lockPath}: ${what}`);
    }),
  ];
}

/** What can be said of an archive that another tool made: that every image is whole and every byte is that of its digest. */
async function verifyArchives(
  archives: ImageArchives,
  options: VerifyOptions,
  context: Context,
): Promise<VerifyResult> {
  try {
    const { path, name, kinds, images } = archives;
    if (options.lockPath !== undefined) {
      throw new SealiftError('USAGE', `${path} is no bundle of sealift: it has no lock to compare`, {
        hint: 'leave --lock out; to pack only what the lock says, name it as a mirror in sealift.yaml and run `sealift pack`',
      });
    }
    const found = await checkArchives(archives, context);
    const [format = 'oci-layout'] = kinds;
    const facts = { path, format, name, version: null, lock: null, chain: 'digests' as const };
    return { ...facts, images: images.length, charts: 0, files: 0, ...found };
  } finally {
    await archives.close();
  }
}

/**
 * Verifies a bundle wholly and returns every fault; what another tool made is compared with the digests inside.
 * @throws BUNDLE_NOT_FOUND, BUNDLE_TOO_NEW; a bundle whose lock or sealift.json cannot be read throws with its faults
 */
export async function verify(options: VerifyOptions, context: Context): Promise<VerifyResult> {
  const path = resolve(options.bundle);
  const archives = await openImageArchives(path, context);
  if (archives !== undefined) return verifyArchives(archives, options, context);
  const bundle = await openBundle(path, { signal: context.signal, strict: false });
  try {
    const withLock = options.lockPath !== undefined;
    const deep = withLock || options.deep === true;
    const lockFaults = options.lockPath === undefined ? [] : await compareWithLock(bundle, options.lockPath);
    const { faults, bytes, entries } = await checkOpened(bundle, { deep, context });
    const { lock } = bundle;
    return {
      path,
      format: 'bundle',
      name: lock.name,
      version: lock.version,
      lock: digestOf(bundle.lockBytes),
      chain: withLock ? 'lock' : deep ? 'digests' : 'b3sums',
      entries,
      bytes,
      images: lock.images.length,
      charts: lock.charts.length,
      files: lock.files.length,
      faults: [...lockFaults, ...faults],
    };
  } finally {
    await bundle.close();
  }
}

/** Throws what `verify` found. */
export function refuseDamaged(result: VerifyResult): void {
  if (result.faults.length === 0) return;
  const first = result.faults[0];
  throw new SealiftError(
    first?.code ?? 'BUNDLE_CHECKSUM_MISMATCH',
    `${result.path}: ${result.faults.length} faults`,
    {
      faults: result.faults,
    },
  );
}
