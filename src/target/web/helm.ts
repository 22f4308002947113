import { MEDIA } from '../../core/media.ts';
import type { ChartItem, Target } from '../target.ts';
import { type AssetEntry, assetEntry } from './asset.ts';
import { type AssetOptions, planAssets } from './asset-run.ts';
import { awaitListed } from './helm-index.ts';

export interface HelmTargetOptions extends Omit<AssetOptions, 'finish'> {
  /** How long the index may take to list a chart, in milliseconds; default LIMITS.chartListedMs. */
  readonly listedMs?: number;
}

/** A helm repository of a Nexus (registry.md 2.6): the archive and the provenance as they were published, and the index. */
export function helmTarget(options: HelmTargetOptions): Target {
  const { server, repository } = options;
  return {
    kind: 'helm',
    name: `helm ${server.base.href}repository/${repository}`,
    isSeenAtOnce: true,
    accepts: ({ kind }) => kind === 'chart',
    plan: (items, run) => {
      const entries = items.flatMap((item) => (item.kind === 'chart' ? chartEntries(item, options) : []));
      return planAssets(entries, {
        ...options,
        ...run,
        finish: (of) => awaitListed({ ...options, ...of, context: run.context }),
      });
    },
  };
}

/** The index names exactly `<name>-<version>.tgz`, whatever a file is called (helm.md 1.9). */
function chartEntries(item: ChartItem, options: HelmTargetOptions): AssetEntry[] {
  const name = `${item.chartName}-${item.version}.tgz`;
  const chart = assetEntry(item, options, { name, blob: item.archive });
  const provenance = [...item.graph.nodes.values()].find(
    ({ descriptor }) => descriptor.mediaType === MEDIA.helmProvenance,
  );
  if (provenance === undefined) return [chart];
  const blob = provenance.descriptor;
  return [chart, assetEntry(item, options, { name: `${name}.prov`, blob, after: chart })];
}
