import { join } from 'node:path';
import type { Descriptor } from '../core/descriptor.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS, MIB } from '../core/limits.ts';
import { MEDIA } from '../core/media.ts';
import { parseReference, type Reference } from '../core/reference.ts';
import { packChartDirectory, type VendorFile } from '../helm/pack-dir.ts';
import type { HttpClient } from '../io/http.ts';
import { collect, verified } from '../io/verify.ts';
import { type ChartLock, chartName } from '../lock/schema.ts';
import { downloadUrl } from './download.ts';
import type { Registries } from './registries.ts';

/** What charts are fetched with. */
export interface ChartAccess {
  readonly registries: Registries;
  readonly http: HttpClient;
  readonly context: Context;
  /** The folder of sealift.yaml: `path` charts are relative to it. */
  readonly root: string;
}

/** The repository and tag of an `oci://` chart reference. */
export function ociReference(ref: string): Reference {
  return parseReference(ref.slice('oci://'.length));
}

/** Memory of a packed folder is bounded by this. */
const PACKED_LIMIT = LIMITS.chartUnpacked + 8 * MIB;

/** Packs a chart folder in memory. Charts are small; larger ones than LIMITS.chartUnpacked are refused while packing. */
export async function packFolder(
  dir: string,
  vendor: readonly VendorFile[],
): Promise<{ readonly bytes: Buffer; readonly packed: Awaited<ReturnType<typeof packChartDirectory>> }> {
  const chunks: Buffer[] = [];
  let size = 0;
  const packed = await packChartDirectory(dir, {
    vendor,
    write: (chunk) => {
      size += chunk.length;
      if (size > PACKED_LIMIT)
        throw new SealiftError('CONTENT_TOO_LARGE', `${dir}: a chart this large is not packed`);
      chunks.push(Buffer.from(chunk));
    },
  });
  return { bytes: Buffer.concat(chunks), packed };
}

/** The whole archive of a locked chart, verified, in memory: for dependencies that go into another chart's archive. */
export async function fetchArchive(
  chart: ChartLock,
  access: ChartAccess,
  all: readonly ChartLock[],
): Promise<Buffer> {
  const what = chartName(chart);
  const expected = { digest: chart.integrity.archive, size: chart.size, what };
  const bytes = verified(openArchive(chart, { access, all }), expected);
  return collect(bytes, { limit: PACKED_LIMIT, what });
}

/** The fetched dependencies of a `path` chart, as files for its charts/ folder. */
export async function vendorOf(
  chart: ChartLock,
  access: ChartAccess,
  all: readonly ChartLock[],
): Promise<VendorFile[]> {
  const vendor: VendorFile[] = [];
  // Without the chart itself, so that a lock that goes in a circle ends.
  const others = all.filter((c) => c !== chart);
  for (const dependency of chart.dependencies) {
    if (dependency.from !== 'fetched') continue;
    const found = others.find((c) => c.name === dependency.name && c.version === dependency.version);
    if (found === undefined) {
      throw new SealiftError(
        'LOCK_INVALID',
        `${chartName(chart)} needs ${chartName(dependency)}, which the lock lacks`,
        {
          hint: 'run `sealift lock` to make it anew',
        },
      );
    }
    vendor.push({ path: `charts/${chartName(found)}.tgz`, data: await fetchArchive(found, access, others) });
  }
  return vendor;
}

/**
 * Streams the archive of a locked chart from byte `offset`, unverified.
 * @throws CONTENT_NOT_FOUND, NETWORK_FAILED, CHART_INVALID …
 */
export async function* openArchive(
  chart: ChartLock,
  options: { readonly access: ChartAccess; readonly all: readonly ChartLock[]; readonly offset?: number },
): AsyncGenerator<Uint8Array> {
  const { access, offset = 0 } = options;
  const { source } = chart;
  if (source.type === 'http') {
    yield* downloadUrl(source.url, { ...access, repository: source.repo, offset, size: chart.size });
  } else if (source.type === 'oci') {
    const descriptor: Descriptor = {
      mediaType: MEDIA.helmChart,
      digest: chart.integrity.archive,
      size: chart.size,
    };
    const of = ociReference(source.ref);
    // Its whole is in memory where it goes on to, too (`fetchArchive`); a pack asks registries by itself.
    yield (await access.registries.readWhole(of, descriptor, PACKED_LIMIT)).subarray(offset);
  } else {
    const vendor = await vendorOf(chart, access, options.all);
    const { bytes } = await packFolder(join(access.root, source.path), vendor);
    yield bytes.subarray(offset);
  }
}
