import { Readable } from 'node:stream';
import type { BundlePlan, PlannedEntry } from '../bundle/plan.ts';
import { type StreamOptions, writeStream } from '../bundle/stream-writer.ts';
import type { WriterStats } from '../bundle/writer-stats.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, SealiftError } from '../core/errors.ts';
import { MIB } from '../core/limits.ts';
import { type Output, streamSink, syncOutput } from '../io/byte-sink.ts';
import { eachBounded } from '../io/pool.ts';
import { collect, verified } from '../io/verify.ts';
import { type ChartLock, chartName } from '../lock/schema.ts';
import { chartDocuments } from './chart-documents.ts';
import type { BlobSource, PackTools, Sources } from './pack-sources.ts';
import { attempt } from './session.ts';

/** Archives that were fetched for their manifests and are kept for their own turn. Bytes. */
const CHARTS_KEPT = 32 * MIB;
const CHARTS_PARALLEL = 4;
/** Archives above this are fetched one by one: each is in memory as a whole. */
const CHART_LARGE = 8 * MIB;

/** @throws USAGE for an output that is a terminal */
export function refuseTerminal(output: Output): void {
  if (!('isTTY' in output) || output.isTTY !== true) return;
  throw new SealiftError('USAGE', 'stdout is a terminal: a bundle is not for reading', {
    hint: "hand it on, for example `sealift pack -o - | ssh site 'cat > bundle.tar'`, or name a file with -o",
  });
}

/**
 * Writes the bundle to an output, in order, the same bytes as into a file. Nothing lies on a disk, so a stream that ends
 * early begins anew the next time.
 * @throws as `writeStream`
 */
export async function streamOut(
  output: Output,
  job: {
    readonly plan: BundlePlan;
    readonly sources: Sources;
    readonly tools: PackTools;
    /** Signs it at its end; default not. */
    readonly sign: StreamOptions['sign'];
  },
): Promise<WriterStats> {
  const { plan, sources, tools, sign } = job;
  const { context } = tools;
  const archives = await readCharts(job);
  context.emit({ type: 'phase', name: 'blobs' });
  let bytes = 0;
  for (const { digest, size } of plan.entries) if (digest !== undefined) bytes += size;
  context.emit({ type: 'total', bytes, items: plan.blobs });
  const sourceOf = async (entry: PlannedEntry): Promise<BlobSource> => {
    const { digest, name } = entry;
    const kept = digest === undefined ? undefined : archives.get(digest);
    if (digest !== undefined) archives.delete(digest);
    const source = kept ?? (digest === undefined ? undefined : await sources.of(digest));
    if (source === undefined) throw new SealiftError('INTERNAL', `no source for ${name}`);
    return source;
  };
  const labelOf = ({ digest, name }: PlannedEntry): string =>
    (digest === undefined ? undefined : sources.label(digest)) ?? name;
  const sink = streamSink(output, { what: 'stdout', signal: context.signal });
  try {
    const stats = await writeStream(plan, {
      sink,
      context,
      sourceOf,
      labelOf,
      ...(sign === undefined ? {} : { sign }),
    });
    syncOutput(output);
    return stats;
  } catch (error) {
    // Whoever reads it sees an end, and a write that nobody takes holds nobody.
    output.destroy();
    throw error;
  }
}

/**
 * Manifests and configs of charts that no registry has stand before the archives that they follow from: those are
 * fetched first. What is made goes to the other manifests; archives are given back as far as they may be kept.
 */
async function readCharts(job: {
  readonly plan: BundlePlan;
  readonly sources: Sources;
  readonly tools: PackTools;
}): Promise<Map<Digest, Buffer>> {
  const { plan, sources, tools } = job;
  // A delta or a repair does not carry all of them, and its base may have some.
  const isUnknown = (digest: Digest): boolean =>
    plan.entries.findBlob(digest) !== undefined && !tools.manifests.has(digest);
  const charts = tools.lock.charts.filter(
    ({ source, manifest, config }) =>
      source.type !== 'oci' && (isUnknown(manifest.digest) || isUnknown(config.digest)),
  );
  const kept = new Map<Digest, Buffer>();
  const faults: Fault[] = [];
  let held = 0;
  const read = async (chart: ChartLock): Promise<void> => {
    const { archive } = chart.integrity;
    const bytes = await fetchArchive(chart, await sources.of(archive));
    const made = await chartDocuments(chart, Readable.from([bytes]));
    await tools.manifests.put(chart.manifest.digest, made.manifest);
    await tools.manifests.put(chart.config.digest, made.config);
    const isCarried = plan.entries.findBlob(archive) !== undefined;
    if (!isCarried || kept.has(archive) || held + bytes.length > CHARTS_KEPT) return;
    held += bytes.length;
    kept.set(archive, bytes);
  };
  const small = charts.filter(({ size }) => size <= CHART_LARGE);
  const large = charts.filter(({ size }) => size > CHART_LARGE);
  for (const [part, limit] of [[small, CHARTS_PARALLEL] as const, [large, 1] as const]) {
    await eachBounded(part, { limit, signal: tools.context.signal }, async (chart) => {
      const done = await attempt(() => read(chart));
      if ('fault' in done) faults.push(done.fault);
    });
  }
  if (faults.length > 0) throw errorOf(faults, `${faults.length} charts cannot be fetched`);
  return kept;
}

/** A chart's archive in memory, verified. */
export async function fetchArchive(chart: ChartLock, source: BlobSource | undefined): Promise<Buffer> {
  const what = chartName(chart);
  if (typeof source !== 'function') throw new SealiftError('INTERNAL', `no source for ${what}`);
  const expected = { digest: chart.integrity.archive, size: chart.size, what };
  for (let stream = source(); ; ) {
    try {
      return await collect(verified(stream(0), expected), { limit: chart.size, what });
    } catch (error) {
      stream = source(error);
    }
  }
}
