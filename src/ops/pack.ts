import { readdir } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { removePartial } from '../bundle/partial.ts';
import { type BundlePlan, type PlannedLock, planBundle } from '../bundle/plan.ts';
import { bundlePool } from '../bundle/pool.ts';
import { type Bundle, type KnownLock, openBundle } from '../bundle/reader.ts';
import { type BundleWriter, openWriter, type WriterStats } from '../bundle/writer.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { Output } from '../io/byte-sink.ts';
import { kindOf } from '../io/files.ts';
import type { HttpClient } from '../io/http.ts';
import { eachBounded } from '../io/pool.ts';
import { verified } from '../io/verify.ts';
import { type ChartLock, chartName, type Lock } from '../lock/schema.ts';
import { Registries } from '../source/registries.ts';
import { chartDocuments } from './chart-documents.ts';
import { checkOpened } from './check-bundle.ts';
import { lockPathOf, readLockFile, recompressedIn, refuseStale } from './lock.ts';
import { ManifestSpool } from './manifest-spool.ts';
import { gatherContents, type PackTools, type Sources } from './pack-sources.ts';
import { refuseTerminal, streamOut } from './pack-stream.ts';
import { attempt, withHttp } from './session.ts';
import { registriesConfig } from './wanted.ts';

/** Blobs received at once. */
const BLOBS_PARALLEL = 6;

export interface PackOptions {
  /** Path of sealift.yaml; where it is absent the lock alone decides. */
  readonly manifestPath: string;
  /** Default: `versions.lock` beside the manifest. */
  readonly lockPath?: string;
  /** Path of the bundle; a folder when it ends in `/`. */
  readonly out: string;
  /** Where the bundle goes in order, instead of `out`, which then only names it. */
  readonly output?: Output;
  /** Read a finished bundle's bytes again instead of believing its headers. */
  readonly verify?: boolean;
  /** Fail where a registry's limit on pulls would have to be waited for. */
  readonly noWait?: boolean;
}

export interface PackResult {
  readonly path: string;
  readonly kind: 'tar' | 'folder' | 'stream';
  /** Bytes of the bundle. */
  readonly size: number;
  readonly entries: number;
  readonly blobs: number;
  readonly lock: Digest;
  /** `present`: the bundle was there and nothing was written. */
  readonly outcome: 'packed' | 'present';
  /** Whether a bundle that was there had its bytes read, or only its documents, headers and length. */
  readonly compared: 'bytes' | 'headers' | null;
  readonly stats: WriterStats | null;
  readonly artifacts: { readonly images: number; readonly charts: number; readonly files: number };
}

/**
 * Writes the bundle that the lock describes. A bundle that is there and matches is left alone; an interrupted pack is
 * taken up; blobs of an older bundle at the same path are used again.
 * @throws LOCK_STALE, LOCK_NOT_FOUND, DISK_FULL, and one error with every content that cannot be had
 */
export function pack(options: PackOptions, context: Context): Promise<PackResult> {
  const work = async (http: HttpClient): Promise<PackResult> => {
    if (options.output !== undefined) refuseTerminal(options.output);
    const { lock, digest, size } = await readLockFile(lockPathOf(options));
    if (lock.images.length + lock.charts.length + lock.files.length === 0) {
      throw new SealiftError('MANIFEST_EMPTY', 'the lock names nothing to carry', {
        hint: 'add images, charts or files to sealift.yaml and run `sealift lock`',
      });
    }
    const known = (await kindOf(options.manifestPath)) !== undefined;
    const state = known ? await refuseStale(options.manifestPath, lock, { http, context }) : undefined;
    const root = state?.root ?? dirname(resolve(options.lockPath ?? options.manifestPath));
    const config = registriesConfig(state?.manifest.registries ?? {}, root);
    const access = {
      http,
      context,
      root,
      registries: new Registries({ http, context, config, mayRecompress: recompressedIn(lock) }),
    };
    if (options.output !== undefined) {
      const wanted = { value: lock, digest, size };
      return packStream(wanted, { output: options.output, name: options.out, access, context });
    }
    const out = resolve(options.out);
    const kind = options.out.endsWith('/') ? 'folder' : 'tar';
    await refuseOtherKind(out, kind);
    const there = await openExisting(out, { known: { lock, digest }, context });
    try {
      const finished =
        there === undefined ? undefined : await finishedResult(there, { digest, options, kind, context });
      if (finished !== undefined) {
        await removePartial(out);
        return finished;
      }
      const manifests = await ManifestSpool.open(context);
      try {
        const tools: PackTools = { context, access, lock, manifests };
        const { contents, sources } = await gatherContents(tools, there);
        const plan = planBundle({ value: lock, digest, size }, contents);
        await there?.close();
        const stats = await write({ plan, out, kind, sources, tools });
        return result({ plan, out, kind, lock, digest, outcome: 'packed', compared: null, stats });
      } finally {
        await manifests.close();
      }
    } finally {
      await there?.close();
      await access.registries.close();
    }
  };
  return withHttp(context, work, { waitForLimits: options.noWait !== true });
}

/** Packs into an output instead of a path: nothing that was there is used, nothing is left behind. */
async function packStream(
  wanted: PlannedLock,
  to: { readonly output: Output; readonly name: string } & Pick<PackTools, 'access' | 'context'>,
): Promise<PackResult> {
  const { access, context, output, name } = to;
  const { value: lock, digest } = wanted;
  const manifests = await ManifestSpool.open(context);
  try {
    const tools: PackTools = { context, access, lock, manifests };
    const { contents, sources } = await gatherContents(tools, undefined);
    const plan = planBundle(wanted, contents);
    const stats = await streamOut(output, { plan, sources, tools });
    const facts = { plan, out: name, kind: 'stream', lock, digest, outcome: 'packed' } as const;
    return result({ ...facts, compared: null, stats });
  } finally {
    await manifests.close();
    await access.registries.close();
  }
}

async function refuseOtherKind(out: string, kind: 'tar' | 'folder'): Promise<void> {
  const found = await kindOf(out);
  if (found === undefined || (found === 'file') === (kind === 'tar')) return;
  throw new SealiftError('USAGE', `${out} is a ${found}`, {
    hint:
      found === 'folder'
        ? 'end the path with / to write a folder'
        : 'leave out the / at the end to write a file',
  });
}

/** The bundle at the target path, damaged or not; undefined when there is none that can be read. */
async function openExisting(
  out: string,
  { known, context }: { readonly known: KnownLock; readonly context: Context },
): Promise<Bundle | undefined> {
  const kind = await kindOf(out);
  if (kind === undefined || (kind === 'folder' && (await readdir(out)).length === 0)) return undefined;
  try {
    const there = await openBundle(out, { signal: context.signal, strict: false, known });
    const foreign =
      kind === 'folder' ? there.medium.faults.find((f) => f.code === 'BUNDLE_ENTRY_EXTRA') : undefined;
    if (foreign === undefined) return there;
    await there.close();
    throw new SealiftError('TARGET_CONFLICT', foreign.message, {
      hint: 'a bundle in a folder is replaced as a whole: move other files out of it, or choose another folder with -o',
    });
  } catch (error) {
    if (error instanceof SealiftError && error.code === 'TARGET_CONFLICT') throw error;
    if (!(error instanceof SealiftError) || error.code === 'ABORTED') throw error;
    throw new SealiftError('TARGET_CONFLICT', `${out}: there is something that is not a bundle of sealift`, {
      cause: error,
      hint: 'move it away or choose another path with -o: what is there is not overwritten',
    });
  }
}

async function finishedResult(
  there: Bundle,
  about: {
    readonly digest: Digest;
    readonly options: PackOptions;
    readonly kind: 'tar' | 'folder';
    readonly context: Context;
  },
): Promise<PackResult | undefined> {
  const { plan, lock } = there;
  if (there.lockDigest !== about.digest || there.faults.length > 0 || plan === undefined) return undefined;
  const read = about.options.verify === true;
  if (read && (await checkOpened(there, { deep: true, context: about.context })).faults.length > 0)
    return undefined;
  const out = there.medium.path;
  const compared = read ? 'bytes' : 'headers';
  return result({
    plan,
    out,
    kind: about.kind,
    lock,
    digest: about.digest,
    outcome: 'present',
    compared,
    stats: null,
  });
}

function result(facts: {
  readonly plan: BundlePlan;
  readonly out: string;
  readonly kind: PackResult['kind'];
  readonly lock: Lock;
  readonly digest: Digest;
  readonly outcome: PackResult['outcome'];
  readonly compared: PackResult['compared'];
  readonly stats: WriterStats | null;
}): PackResult {
  const { plan, lock, out, kind, outcome, compared, stats } = facts;
  return {
    path: out,
    kind,
    size: plan.size,
    entries: plan.entries.length,
    blobs: plan.blobs,
    lock: facts.digest,
    outcome,
    compared,
    stats,
    artifacts: { images: lock.images.length, charts: lock.charts.length, files: lock.files.length },
  };
}

async function write(job: {
  readonly plan: BundlePlan;
  readonly out: string;
  readonly kind: 'tar' | 'folder';
  readonly sources: Sources;
  readonly tools: PackTools;
}): Promise<WriterStats> {
  const { plan, out, kind, sources, tools } = job;
  const { context } = tools;
  const old = await bundlePool(out);
  context.emit({ type: 'phase', name: 'blobs' });
  const writer = await openWriter(out, { plan, kind, context, pools: old === undefined ? [] : [old] });
  try {
    const { bytes, items, indexes } = toFetch(writer, tools.lock);
    context.emit({ type: 'total', bytes, items });
    indexes.sort(sendingOrder(plan));
    const faults = await fillAll(writer, { plan, indexes, sources, tools });
    if (faults.length > 0) throw errorOf(faults, `${faults.length} blobs cannot be fetched`);
    for (const chart of tools.lock.charts) await fillChartDocuments(writer, chart, context);
    context.emit({ type: 'phase', name: 'finish' });
    await writer.finish();
    return writer.stats;
  } finally {
    await writer.close();
  }
}

/** What is missing, and the places of those that are fetched. */
function toFetch(
  writer: BundleWriter,
  lock: Lock,
): { readonly bytes: number; readonly items: number; readonly indexes: number[] } {
  const made = madeFromCharts(lock);
  const indexes: number[] = [];
  let [bytes, items] = [0, 0];
  for (const { digest, index, size } of writer.missing()) {
    bytes += size;
    items += 1;
    if (digest === undefined || !made.has(digest)) indexes.push(index);
  }
  return { bytes, items, indexes };
}

/** Manifests are there already; then the largest, so that no long one is left for the end. */
function sendingOrder({ entries, manifestsEnd }: BundlePlan): (a: number, b: number) => number {
  const rank = (index: number): number => (index < manifestsEnd ? 0 : 1);
  return (a, b) => rank(a) - rank(b) || entries.sizeAt(b) - entries.sizeAt(a);
}

async function fillAll(
  writer: BundleWriter,
  job: {
    readonly plan: BundlePlan;
    readonly indexes: readonly number[];
    readonly sources: Sources;
    readonly tools: PackTools;
  },
): Promise<Fault[]> {
  const { context } = job.tools;
  const { sources } = job;
  const limits = { limit: BLOBS_PARALLEL, signal: context.signal };
  const faults: Fault[] = [];
  await eachBounded(job.indexes, limits, async (index, at) => {
    const done = await attempt(async () => {
      const entry = job.plan.entries.at(index);
      const { name, size, digest } = entry;
      const source = digest === undefined ? undefined : await sources.of(digest);
      if (digest === undefined || source === undefined) {
        throw new SealiftError('INTERNAL', `no source for ${name}`);
      }
      context.emit({ type: 'start', id: name, label: sources.label(digest) ?? name, size });
      try {
        if (typeof source === 'function') await writer.fill(entry, source);
        else await writer.put(entry, source);
      } catch (error) {
        context.emit({ type: 'end', id: name, outcome: 'failed' });
        throw error;
      }
      context.emit({ type: 'end', id: name, outcome: 'done' });
    });
    if ('fault' in done) faults[at] = done.fault;
  });
  // In the order of the entries, without the gaps of those that are there.
  return faults.filter(() => true);
}

/** Manifests and configs that no source has: they follow from the archive by the written rule. */
function madeFromCharts(lock: Lock): Set<Digest> {
  return new Set(
    lock.charts.filter((c) => c.source.type !== 'oci').flatMap((c) => [c.manifest.digest, c.config.digest]),
  );
}

async function fillChartDocuments(writer: BundleWriter, chart: ChartLock, context: Context): Promise<void> {
  if (chart.source.type === 'oci') return;
  const wanted = new Set([chart.manifest.digest, chart.config.digest]);
  const entries = [...wanted].flatMap((digest) => writer.missingBlob(digest) ?? []);
  if (entries.length === 0) return;
  const { archive } = chart.integrity;
  const what = chartName(chart);
  const bytes = verified(writer.read(archive), { digest: archive, size: chart.size, what });
  const made = await chartDocuments(chart, bytes);
  for (const entry of entries) {
    const document = entry.digest === made.descriptor.digest ? made.manifest : made.config;
    context.emit({ type: 'start', id: entry.name, label: what, size: entry.size });
    await writer.put(entry, document);
    context.emit({ type: 'end', id: entry.name, outcome: 'done' });
  }
}
