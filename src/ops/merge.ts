import { resolve } from 'node:path';
import { Contents } from '../bundle/contents.ts';
import { type JointBundle, openGiven, openJoint } from '../bundle/joint.ts';
import { hasVolumes } from '../bundle/medium.ts';
import { removePartial } from '../bundle/partial.ts';
import { type BundlePlan, planBundle } from '../bundle/plan.ts';
import { mediumPool } from '../bundle/pool.ts';
import { type Bundle, openBundle } from '../bundle/reader.ts';
import { settleStopped } from '../bundle/volume-sink.ts';
import {
  type Form,
  formFor,
  type Place,
  pathOf,
  placesOf,
  volumeSizeIn,
  volumesAt,
} from '../bundle/volumes.ts';
import { openWriter } from '../bundle/writer.ts';
import type { WriterStats } from '../bundle/writer-stats.ts';
import { countOf } from '../core/count.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { kindOf } from '../io/files.ts';
import { type Counts, countsOf } from '../lock/counts.ts';
import type { Lock } from '../lock/schema.ts';
import { checkOpened } from './check-bundle.ts';
import { refuseInput } from './inputs.ts';
import { askForRepair, lackingBlobs, missingBase } from './left-out.ts';

export interface MergeOptions {
  /** Path of the complete bundle; a folder when it ends in `/`. */
  readonly out: string;
  /** A delta or a repair, and what it builds on, in any order. */
  readonly bundles: readonly string[];
  /** Bytes of each volume of a bundle in volumes. */
  readonly volumeSize?: number;
}

export interface MergeResult {
  readonly path: string;
  readonly name: string;
  readonly version: string;
  readonly lock: Digest;
  /** Bytes of the bundle. */
  readonly size: number;
  readonly blobs: number;
  /** `present`: the bundle was there and nothing was written. */
  readonly outcome: 'merged' | 'present';
  readonly stats: WriterStats | null;
  readonly artifacts: Counts;
}

/** The shape of the complete bundle. @throws the faults of documents and manifests */
async function openWhole(
  places: readonly Place[],
  context: Context,
): Promise<{ readonly joint: JointBundle; readonly plan: BundlePlan }> {
  const contents = new Contents();
  const tell = (artifact: Parameters<Contents['add']>[0]): void => contents.add(artifact);
  const joint = await openJoint(await openGiven(places), { signal: context.signal, strict: false, tell });
  try {
    if (joint.plan === undefined)
      throw errorOf(joint.faults, `${joint.medium.path}: its manifests cannot be read`);
    const size = joint.medium.entries.find('versions.lock')?.size ?? 0;
    const plan = planBundle({ value: joint.lock, digest: joint.lockDigest, size }, contents);
    const missing: Digest[] = [];
    for (const { digest } of plan.entries)
      if (digest !== undefined && !joint.has(digest)) missing.push(digest);
    if (missing.length > 0) {
      const isWhole = joint.info.base === null;
      const faults = isWhole ? lackingBlobs(joint, missing) : [missingBase(joint, missing)];
      throw errorOf(faults, `${joint.medium.path}: nothing was written`);
    }
    return { joint, plan };
  } catch (error) {
    await joint.close();
    throw error;
  }
}

/** What is at the path already: the complete bundle, or nothing. @throws TARGET_CONFLICT for anything else */
async function thereAlready(
  out: string,
  wanted: { readonly plan: BundlePlan; readonly kind: Form; readonly context: Context },
): Promise<boolean> {
  const { plan, kind, context } = wanted;
  const volumeSize = volumeSizeIn(kind);
  const place =
    volumeSize === undefined ? ((await kindOf(out)) === undefined ? undefined : out) : await volumesAt(out);
  if (place === undefined) return false;
  let there: Bundle | undefined;
  try {
    there = await openBundle(place, { signal: context.signal, strict: false });
    const isForm =
      volumeSize === undefined ? there.medium.kind === kind : hasVolumes(there.medium, volumeSize);
    // Every byte is read: what a merge calls complete must be.
    const isSame = isForm && there.plan?.id === plan.id;
    if (isSame && (await checkOpened(there, { deep: false, context })).faults.length === 0) return true;
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code === 'ABORTED') throw error;
  } finally {
    await there?.close();
  }
  throw new SealiftError(
    'TARGET_CONFLICT',
    `${out}: there is something else, or something damaged, already`,
    {
      hint: 'choose another path: a merge does not overwrite',
    },
  );
}

/** What none of the given bundles has whole, by what it is of. */
function damagedError(lacking: readonly Digest[], joint: JointBundle): SealiftError {
  const faults = lacking.map((digest) =>
    fault('BUNDLE_CHECKSUM_MISMATCH', `${digest} is damaged in every bundle that has it`, {
      details: { missing: [digest] },
    }),
  );
  return new SealiftError('BUNDLE_CHECKSUM_MISMATCH', `${countOf(lacking.length, 'blob')} damaged`, {
    faults,
    hint: askForRepair([joint, ...joint.suppliers].map(({ medium }) => medium)),
  });
}

/**
 * Joins a base and its deltas or repairs into one complete bundle, byte for byte the one that a pack of that lock writes.
 * Every blob is read and compared with its SHA-256; one that is damaged in one bundle is taken from the next. What was
 * interrupted is taken up.
 * @throws BUNDLE_BASE_MISSING, BUNDLE_CHECKSUM_MISMATCH, TARGET_CONFLICT, DISK_FULL, USAGE
 */
export async function merge(options: MergeOptions, context: Context): Promise<MergeResult> {
  const out = resolve(options.out);
  const inputs = await placesOf(options.bundles.map((b) => resolve(b)));
  if (inputs.some((place) => pathOf(place) === out)) {
    throw new SealiftError('USAGE', `${out} is one of the bundles that are merged`, {
      hint: 'name a new path for the result',
    });
  }
  await refuseInput({ path: out, inputs, what: 'the result' });
  const kind = formFor(options);
  await settleStopped(out, 'merge');
  const { joint, plan } = await openWhole(inputs, context);
  try {
    if (await thereAlready(out, { plan, kind, context })) {
      await removePartial(out);
      return resultOf(joint, { out, plan, outcome: 'present', stats: null });
    }
    const pools = [joint, ...joint.suppliers].map(({ medium }) => mediumPool(medium));
    const writer = await openWriter(out, { plan, kind, context, pools });
    try {
      const lacking = [...writer.missing()].flatMap(({ digest }) => digest ?? []);
      if (lacking.length > 0) throw damagedError(lacking, joint);
      context.emit({ type: 'phase', name: 'finish' });
      await writer.finish();
      return resultOf(joint, { out, plan, outcome: 'merged', stats: writer.stats });
    } finally {
      await writer.close();
    }
  } finally {
    await joint.close();
  }
}

function resultOf(
  { lock, lockDigest }: { readonly lock: Lock; readonly lockDigest: Digest },
  facts: { readonly out: string; readonly plan: BundlePlan } & Pick<MergeResult, 'outcome' | 'stats'>,
): MergeResult {
  const { out, plan, outcome, stats } = facts;
  return {
    path: out,
    name: lock.name,
    version: lock.version,
    lock: lockDigest,
    size: plan.size,
    blobs: plan.blobs,
    outcome,
    stats,
    artifacts: countsOf(lock),
  };
}
