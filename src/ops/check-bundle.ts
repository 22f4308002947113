import type { Ahead } from '../bundle/ahead.ts';
import { archiveOf } from '../bundle/artifacts.ts';
import { checkBytes } from '../bundle/check.ts';
import { blobName } from '../bundle/entries.ts';
import type { Medium } from '../bundle/medium.ts';
import { type Bundle, openBundle } from '../bundle/reader.ts';
import type { Sweep } from '../bundle/sweep.ts';
import { hexOf } from '../core/digest.ts';
import { type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { readFileLimited } from '../io/files.ts';
import { digestOf } from '../io/verify.ts';
import { diffLocks } from '../lock/diff.ts';
import { parseLock } from '../lock/read.ts';
import { chartName, type Lock } from '../lock/schema.ts';
import { checkArchives } from './archive-items.ts';
import { type ImageArchives, openImageArchives } from './image-archives.ts';
import { isDeep, type VerifyOptions, type VerifyResult } from './verify.ts';

/** What of an open bundle is checked; the rest, which grows with the number of images, may be let go. */
export type CheckedBundle = Omit<Bundle, 'plan' | 'lock' | 'lockDigest'> & {
  readonly lock: Pick<Lock, 'charts'>;
};

/** Every chart's archive unpacked in memory, its tree hash compared with the lock. */
async function checkTrees(
  bundle: CheckedBundle,
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
  bundle: CheckedBundle,
  options: { readonly deep: boolean; readonly context: Context; readonly sweep?: Sweep | undefined },
): Promise<{ readonly faults: Fault[]; readonly bytes: number; readonly entries: number }> {
  const { context, sweep } = options;
  const report = await checkBytes(bundle, { sha256: options.deep, context, sweep });
  const damaged = new Set(report.faults.map((f) => f.details?.entry));
  const trees = await checkTrees(bundle, { damaged, context });
  return {
    faults: unique([...bundle.faults, ...report.faults, ...bundle.incomplete, ...trees]),
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

async function compareWithLock(
  bundle: Pick<Bundle, 'medium' | 'lock' | 'lockDigest'>,
  lockPath: string,
): Promise<Fault[]> {
  const bytes = await readFileLimited(lockPath, {
    limit: LIMITS.lockText,
    missing: 'FILE_NOT_FOUND',
    hint: 'give the lock that came with the bundle another way',
  });
  const digest = digestOf(bytes);
  if (digest === bundle.lockDigest) return [];
  const given = parseLock(bytes, lockPath);
  const { added, removed, changed } = diffLocks(given, bundle.lock);
  const hint = 'this bundle was packed from another lock: use the bundle that belongs to this lock';
  const headline = fault(
    'BUNDLE_LOCK_DIFFERS',
    `${bundle.medium.path}: its lock is ${hexOf(bundle.lockDigest)}, ${lockPath} is ${hexOf(digest)}`,
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

/** Opens a bundle, and of what its lock and its plan say keeps only what the check of its bytes needs. */
async function openChecked(
  path: string,
  options: { readonly lockPath: string | undefined; readonly medium: Medium | undefined },
  context: Context,
): Promise<{
  readonly bundle: CheckedBundle;
  readonly lockFaults: readonly Fault[];
  readonly facts: Pick<VerifyResult, 'name' | 'version' | 'lock' | 'images' | 'charts' | 'files'>;
}> {
  const { signal } = context;
  const opened = await openBundle(path, { signal, strict: false, medium: options.medium });
  try {
    const { plan: _, lock, lockDigest, ...rest } = opened;
    const lockFaults = options.lockPath === undefined ? [] : await compareWithLock(opened, options.lockPath);
    return {
      bundle: { ...rest, lock: { charts: lock.charts } },
      lockFaults,
      facts: {
        name: lock.name,
        version: lock.version,
        lock: lockDigest,
        images: lock.images.length,
        charts: lock.charts.length,
        files: lock.files.length,
      },
    };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** Verifies what is at a path. @param options.ahead what began to hash it already */
export async function verifyOpened(
  path: string,
  options: VerifyOptions & { readonly ahead: Ahead | undefined },
  context: Context,
): Promise<VerifyResult> {
  const { ahead } = options;
  const archives = ahead === undefined ? await openImageArchives(path, context) : undefined;
  if (archives !== undefined) return verifyArchives(archives, options, context);
  const { lockPath } = options;
  const opening = { lockPath, medium: ahead?.medium };
  const { bundle, lockFaults, facts } = await openChecked(path, opening, context);
  try {
    const deep = isDeep(options);
    const { faults, ...read } = await checkOpened(bundle, { deep, context, sweep: ahead?.sweep });
    const chain = lockPath !== undefined ? 'lock' : deep ? 'digests' : 'b3sums';
    return { path, format: 'bundle', ...facts, chain, ...read, faults: [...lockFaults, ...faults] };
  } finally {
    await bundle.close();
  }
}
