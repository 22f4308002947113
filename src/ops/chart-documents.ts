import { SealiftError } from '../core/errors.ts';
import { readChartArchive } from '../helm/archive.ts';
import { chartArtifact } from '../helm/artifact.ts';
import { type ChartLock, chartName } from '../lock/schema.ts';

/**
 * The manifest and config of a chart that no registry has: they follow from its archive by the written rule.
 * @param bytes the archive, verified
 * @throws BUNDLE_TREE_MISMATCH for an archive that unpacks to something else than the lock says
 */
export async function chartDocuments(
  chart: ChartLock,
  bytes: AsyncIterable<Uint8Array>,
): Promise<ReturnType<typeof chartArtifact>> {
  const { archive, provenanceDigest, provenanceSize, tree } = chart.integrity;
  const what = chartName(chart);
  const content = await readChartArchive(bytes, { what });
  if (content.tree !== tree) {
    const message = `${what}: the tree is ${content.tree}, the lock says ${tree}`;
    throw new SealiftError('BUNDLE_TREE_MISMATCH', message);
  }
  return chartArtifact(content.chart, {
    archive: { digest: archive, size: chart.size },
    ...(provenanceDigest === undefined || provenanceSize === undefined
      ? {}
      : { provenance: { digest: provenanceDigest, size: provenanceSize } }),
  });
}
