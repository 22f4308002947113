import { resolve } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { parseLock } from '../lock/read.ts';
import type { SiteFile } from '../site/load.ts';
import { filesTarget } from '../target/files.ts';
import type { Target } from '../target/target.ts';
import type { Source } from './load-source.ts';
import type { PlannedTarget } from './planned-target.ts';
import type { RegistryPlace } from './registry-place.ts';
import type { SiteTools } from './site-server.ts';

/** Where a load writes. */
export interface TargetChoice {
  /** Registries, each with an optional path prefix. */
  readonly registries?: readonly RegistryPlace[];
  readonly containerd?: readonly { readonly socket: string; readonly namespaces: readonly string[] }[];
  /** Mark images in containerd as pinned, so that kubelet's garbage collection leaves them. */
  readonly pin?: boolean;
  /** Folders of unpacked charts. */
  readonly chartTrees?: readonly string[];
  readonly files?: readonly string[];
  /** Replace hand-edited chart trees and files with other bytes. */
  readonly force?: boolean;
}

/** Whether any target is named: then those of the site's file do not count. */
export function namesTargets(choice: TargetChoice): boolean {
  const { registries = [], containerd = [], chartTrees = [], files = [] } = choice;
  return registries.length + containerd.length + chartTrees.length + files.length > 0;
}

/** The bundle name of a lock text that Sealift wrote; undefined for anything else. */
function bundleOfLock(text: Buffer): string | undefined {
  try {
    return parseLock(text, 'versions.lock').name;
  } catch {
    return undefined;
  }
}

/**
 * The targets that are asked for. Each kind brings libraries of its own along: only what is asked for is imported.
 * @param tools.site the targets of the site's file, where no flag names one
 * @throws USAGE for none, for the same one twice, and for folders where the source holds images only
 */
export async function targetsOf(
  options: TargetChoice,
  source: Source,
  tools: SiteTools & { readonly site: SiteFile | undefined; readonly dryRun: boolean },
): Promise<PlannedTarget[]> {
  const { chartTrees = [], files = [] } = options;
  if (source.lock === undefined && chartTrees.length + files.length > 0) {
    throw new SealiftError('USAGE', `${source.path} holds images only: no --chart-tree and no --files`, {
      hint: 'load it into --registry or --containerd',
    });
  }
  const targets: PlannedTarget[] = (await namedTargets(options, source, tools)).map((target) => ({ target }));
  if (tools.site !== undefined && tools.site.targets.length > 0) {
    const { siteTargets } = await import('./site-targets.ts');
    const how = { force: options.force === true, tree: await treeOf(source) };
    targets.push(...(await siteTargets(tools.site, { ...tools, ...how })));
  }
  const names = targets.map(({ target }) => target.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new SealiftError('USAGE', `${twice} is given twice`);
  if (targets.length > 0) return targets;
  throw new SealiftError('USAGE', 'no target to load into', {
    hint: 'give at least one of --registry, --containerd, --chart-tree and --files, or name targets in site.yaml',
  });
}

/** What a chart tree must know of the bundle; undefined where it has no charts to speak of. */
export interface TreeBundle {
  readonly lock: { readonly bytes: Buffer; readonly bundle: string };
  readonly bundleOf: (text: Buffer) => string | undefined;
}

async function treeOf({ lock }: Source): Promise<TreeBundle | undefined> {
  return lock && { lock: { bytes: await lock.read(), bundle: lock.bundle }, bundleOf: bundleOfLock };
}

/** Those that flags name. */
async function namedTargets(options: TargetChoice, source: Source, tools: SiteTools): Promise<Target[]> {
  const { registries = [], containerd = [], chartTrees = [], files = [] } = options;
  const force = options.force === true;
  const targets: Target[] = [];
  if (registries.length > 0) {
    const { registryTargetOf } = await import('./registry-place.ts');
    targets.push(...registries.map((place) => registryTargetOf(place, tools)));
  }
  if (containerd.length > 0) {
    const { containerdTargets } = await import('../target/containerd/target.ts');
    targets.push(...containerd.flatMap((c) => containerdTargets({ ...c, pin: options.pin === true })));
  }
  const tree = chartTrees.length > 0 ? await treeOf(source) : undefined;
  if (tree !== undefined) {
    const { chartTreeTarget } = await import('../target/chart-tree.ts');
    targets.push(...chartTrees.map((dir) => chartTreeTarget({ dir: resolve(dir), force, ...tree })));
  }
  targets.push(...files.map((dir) => filesTarget({ dir: resolve(dir), force })));
  return targets;
}
