import { dirname } from 'node:path';
import { Readable } from 'node:stream';
import type { BundlePlan, PlannedEntry } from '../bundle/plan.ts';
import { bundlePool } from '../bundle/pool.ts';
import type { Form } from '../bundle/volumes.ts';
import { type BundleWriter, openWriter } from '../bundle/writer.ts';
import type { WriterStats } from '../bundle/writer-stats.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { fillsHoles } from '../io/files.ts';
import { eachBounded } from '../io/pool.ts';
import { verified } from '../io/verify.ts';
import { type ChartLock, chartName, type Lock } from '../lock/schema.ts';
import { chartDocuments } from './chart-documents.ts';
import type { PackTools, Sources } from './pack-sources.ts';
import { fetchArchive } from './pack-stream.ts';
import { attempt } from './session.ts';

/** Blobs received at once. */
const BLOBS_PARALLEL = 6;

/** Fills a bundle from its sources and puts it in place. @throws one error with every blob that cannot be had */
export async function fillBundle(job: {
  readonly plan: BundlePlan;
  readonly out: string;
  readonly kind: Form;
  readonly sources: Sources;
  readonly tools: PackTools;
  /** As in PackOptions. */
  readonly beside?: number;
}): Promise<WriterStats> {
  const { plan, out, kind, sources, tools, beside = 0 } = job;
  const { context } = tools;
  const old = await bundlePool(out);
  context.emit({ type: 'phase', name: 'blobs' });
  const writer = await openWriter(out, {
    plan,
    kind,
    context,
    pools: old === undefined ? [] : [old],
    beside,
  });
  try {
    const { bytes, items, indexes } = toFetch(writer, tools.lock);
    context.emit({ type: 'total', bytes, items });
    const isInOrder = kind !== 'folder' && (await fillsHoles(dirname(out)));
    indexes.sort(isInOrder ? (a, b) => a - b : sendingOrder(plan));
    const faults = await fillAll(writer, { plan, indexes, sources, tools });
    if (faults.length > 0) throw errorOf(faults, `${faults.length} blobs cannot be fetched`);
    for (const chart of tools.lock.charts)
      await fillChartDocuments(writer, chart, { plan, sources, context });
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

async function fillChartDocuments(
  writer: BundleWriter,
  chart: ChartLock,
  job: { readonly plan: BundlePlan; readonly sources: Sources; readonly context: Context },
): Promise<void> {
  if (chart.source.type === 'oci') return;
  const { plan, sources, context } = job;
  const wanted = new Set([chart.manifest.digest, chart.config.digest]);
  const entries: PlannedEntry[] = [];
  for (const digest of wanted) {
    const entry = writer.missingBlob(digest);
    const known = entry === undefined ? undefined : await sources.of(digest);
    if (entry !== undefined && known instanceof Uint8Array) await writer.put(entry, known);
    else if (entry !== undefined) entries.push(entry);
  }
  if (entries.length === 0) return;
  const { archive } = chart.integrity;
  const what = chartName(chart);
  // A delta may leave the archive out, and still carries the manifest that follows from it.
  const bytes =
    plan.entries.findBlob(archive) !== undefined
      ? verified(writer.read(archive), { digest: archive, size: chart.size, what })
      : Readable.from([await fetchArchive(chart, await sources.of(archive))]);
  const made = await chartDocuments(chart, bytes);
  for (const entry of entries) {
    const document = entry.digest === made.descriptor.digest ? made.manifest : made.config;
    context.emit({ type: 'start', id: entry.name, label: what, size: entry.size });
    await writer.put(entry, document);
    context.emit({ type: 'end', id: entry.name, outcome: 'done' });
  }
}
