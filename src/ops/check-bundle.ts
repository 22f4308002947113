import { resolve } from 'node:path';
import type { Ahead } from '../bundle/ahead.ts';
import { archiveOf } from '../bundle/artifacts.ts';
import { checkBytes } from '../bundle/check.ts';
import { blobName } from '../bundle/entries.ts';
import { closeGiven, type Given, type JointBundle, openGiven, openJoint } from '../bundle/joint.ts';
import type { Sweep } from '../bundle/sweep.ts';
import type { Place } from '../bundle/volumes.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { type Counts, countsOf } from '../lock/counts.ts';
import { chartName, type Lock } from '../lock/schema.ts';
import type { Trust, TrustPolicy } from '../trust/policy.ts';
import { checkArchives } from './archive-items.ts';
import { chainOf, compareWithLock, type GivenLock, readGivenLock } from './given-lock.ts';
import { type ImageArchives, openImageArchives } from './image-archives.ts';
import { absentFaults, checkLeftOut, leftOutFacts } from './left-out.ts';
import { repairRequest, writeRequest } from './repair.ts';
import { judgeGiven, policyOf, refuseForeign } from './trust.ts';
import { isDeep, type VerifyOptions, type VerifyResult } from './verify.ts';

/** What of an open bundle is checked; the rest, which grows with the number of images, may be let go. */
export type CheckedBundle = Omit<JointBundle, 'plan' | 'lock' | 'lockDigest'> & {
  readonly lock: Pick<Lock, 'charts'>;
};

/** The same where it is all that there is. */
type Single = Omit<CheckedBundle, 'suppliers'>;

const OTHER_CHART =
  'the lock and the archive disagree: lock and pack it again where it was made, and take the bundle from there';

/** Every chart's archive unpacked in memory, its tree hash compared with the lock. */
async function checkTrees(
  bundle: Single,
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
          hint: OTHER_CHART,
        }),
      );
    } catch (error) {
      if (isAbort(error)) throw error;
      const inner = faultOf(error);
      const message = `${name}: its archive cannot be read: ${inner.message}`;
      faults.push(fault('BUNDLE_TREE_MISMATCH', message, { hint: OTHER_CHART }));
    }
  }
  return faults;
}

/** Everything about a bundle that is open: structure, bytes, graphs, trees. */
export async function checkOpened(
  bundle: Single,
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

const NO_SIGNATURE = { state: 'none', keyId: null, at: null } as const;

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
    refuseForeign(await policyOf(options, context), path);
    const found = await checkArchives(archives, context);
    const [format = 'oci-layout'] = kinds;
    const facts = {
      path,
      format,
      name,
      version: null,
      lock: null,
      chain: 'digests' as const,
      signature: NO_SIGNATURE,
      leftOut: null,
      request: null,
    };
    return { ...facts, images: images.length, charts: 0, files: 0, packages: 0, ...found };
  } finally {
    await archives.close();
  }
}

/** An open bundle, and what its lock says. */
interface Opened {
  readonly bundle: CheckedBundle;
  readonly lockFaults: readonly Fault[];
  readonly facts: Counts & {
    readonly name: string;
    readonly version: string;
    readonly lock: Digest;
  };
}

/** Opens a bundle, and of what its lock and its plan say keeps only what the check of its bytes needs. */
async function openChecked(
  all: Given,
  options: { readonly given: GivenLock | undefined },
  context: Context,
): Promise<Opened> {
  const { signal } = context;
  const opened = await openJoint(all, { signal, strict: false });
  try {
    const { plan: _, lock, lockDigest, ...rest } = opened;
    const lockFaults =
      options.given === undefined
        ? []
        : compareWithLock({ path: opened.medium.path, lock, lockDigest }, options.given);
    return {
      bundle: { ...rest, lock: { charts: lock.charts } },
      lockFaults,
      facts: {
        name: lock.name,
        version: lock.version,
        lock: lockDigest,
        ...countsOf(lock),
      },
    };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** Writes down what has to be brought once more, where that is asked for and something is damaged. */
async function askForRepair(
  bundle: CheckedBundle,
  about: {
    readonly found: readonly Fault[];
    readonly facts: Opened['facts'];
    readonly requestPath: string | undefined;
  },
): Promise<VerifyResult['request']> {
  const { found, facts, requestPath } = about;
  if (requestPath === undefined || found.length === 0) return null;
  const { medium, implied } = bundle;
  const { name, version, lock } = facts;
  const isPlanned = implied !== undefined;
  const request = await repairRequest({ name, version, lock }, { medium, faults: found, isPlanned });
  await writeRequest(requestPath, request);
  return { path: resolve(requestPath), blobs: request.blobs.length };
}

/** Verifies what is at these places. @param options.ahead what began to hash it already */
export async function verifyOpened(
  places: readonly Place[],
  options: VerifyOptions & { readonly ahead: Ahead | undefined },
  context: Context,
): Promise<VerifyResult> {
  const { ahead } = options;
  const [only = ''] = places;
  const isPlain = ahead === undefined && places.length === 1 && typeof only === 'string';
  const archives = isPlain ? await openImageArchives(only, context) : undefined;
  if (archives !== undefined) return verifyArchives(archives, options, context);
  const policy = await policyOf(options, context);
  const medium = ahead?.medium;
  const opened = medium === undefined ? await openGiven(places) : { medium, info: undefined, suppliers: [] };
  const { trust, given, isOwn } = await judgeFirst(opened, options, policy);
  const untrusted = [...(given?.trust.faults ?? []), ...trust.faults];
  const opening = openChecked(opened, { given }, context);
  const { bundle, lockFaults, facts } = await opening.catch((error: unknown) => {
    throw withTrust(error, untrusted);
  });
  try {
    // A signature of another bundle vouches for the lock, and the lock for digests, not for the list inside this one.
    const deep = isDeep(options) || !isOwn;
    const { faults, ...read } = await checkOpened(bundle, { deep, context, sweep: ahead?.sweep });
    const rest = await checkLeftOut(bundle, context);
    const { state, keyId, at } = trust;
    const found = [...faults, ...rest.faults, ...absentFaults(bundle, rest)];
    return {
      path: bundle.medium.path,
      format: 'bundle',
      ...facts,
      chain: chainOf({ trust, given, deep }),
      signature: { state, keyId, at },
      ...read,
      leftOut: leftOutFacts(bundle, rest),
      request: await askForRepair(bundle, { found, facts, requestPath: options.requestPath }),
      faults: [...untrusted, ...lockFaults, ...found],
    };
  } finally {
    await bundle.close();
  }
}

/** What decides about trust comes before all else that a bundle says. */
async function judgeFirst(
  all: Given,
  { lockPath }: VerifyOptions,
  policy: TrustPolicy | undefined,
): Promise<{ readonly trust: Trust; readonly isOwn: boolean; readonly given: GivenLock | undefined }> {
  try {
    const { given, own } = await readGivenLock(lockPath, policy);
    return { given, ...(await judgeGiven(all, own)) };
  } catch (error) {
    await closeGiven(all);
    throw error;
  }
}

/** What cannot be opened may still be known to be untrusted, and that is told first. */
function withTrust(error: unknown, faults: readonly Fault[]): unknown {
  if (faults.length === 0 || !(error instanceof SealiftError) || isAbort(error)) return error;
  const rest = error.faults.length > 0 ? error.faults : [faultOf(error)];
  return errorOf([...faults, ...rest], error.message);
}
