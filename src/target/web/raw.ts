import { countOf } from '../../core/count.ts';
import type { Item, Target } from '../target.ts';
import { assetEntry } from './asset.ts';
import { type AssetOptions, planAssets } from './asset-run.ts';

export type RawTargetOptions = Omit<AssetOptions, 'finish'>;

/** A raw repository of a Nexus (registry.md 2.4): each file under its name. Permissions are not kept there. */
export function rawTarget(options: RawTargetOptions): Target {
  const { server, repository } = options;
  return {
    kind: 'raw',
    name: `raw ${server.base.href}repository/${repository}`,
    isSeenAtOnce: true,
    accepts: ({ kind }) => kind === 'file',
    plan: async (items, run) => {
      const files = items.flatMap((item) => (item.kind === 'file' ? [item] : []));
      const programs = files.filter(({ mode }) => (mode & 0o111) !== 0).length;
      if (programs > 0) {
        const message = `raw repositories keep no permissions: ${countOf(programs, 'file')} of ${repository} must be made executable after download`;
        run.context.emit({ type: 'note', message });
      }
      const entries = files.map((item: Item & { kind: 'file' }) =>
        assetEntry(item, options, { name: item.name, blob: item.content }),
      );
      return planAssets(entries, { ...options, ...run });
    },
  };
}
