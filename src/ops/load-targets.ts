import { resolve } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { parseLock } from '../lock/read.ts';
import { filesTarget } from '../target/files.ts';
import type { Target } from '../target/target.ts';
import type { Source } from './load-source.ts';
import type { RegistryPlace, registryTargetOf } from './registry-place.ts';

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
 * @throws USAGE for none, for the same one twice, and for folders where the source holds images only
 */
export async function targetsOf(
  options: TargetChoice,
  source: Source,
  tools: Parameters<typeof registryTargetOf>[1],
): Promise<Target[]> {
  const { registries = [], containerd = [], chartTrees = [], files = [] } = options;
  const force = options.force === true;
  const { lock } = source;
  if (lock === undefined && chartTrees.length + files.length > 0) {
    throw new SealiftError('USAGE', `${source.path} holds images only: no --chart-tree and no --files`, {
      hint: 'load it into --registry or --containerd',
    });
  }
  const targets: Target[] = [];
  if (registries.length > 0) {
    const { registryTargetOf } = await import('./registry-place.ts');
    targets.push(...registries.map((place) => registryTargetOf(place, tools)));
  }
  if (containerd.length > 0) {
    const { containerdTargets } = await import('../target/containerd/target.ts');
    targets.push(...containerd.flatMap((c) => containerdTargets({ ...c, pin: options.pin === true })));
  }
  if (chartTrees.length > 0 && lock !== undefined) {
    const { chartTreeTarget } = await import('../target/chart-tree.ts');
    const own = { bytes: await lock.read(), bundle: lock.bundle };
    const how = { force, lock: own, bundleOf: bundleOfLock };
    targets.push(...chartTrees.map((dir) => chartTreeTarget({ dir: resolve(dir), ...how })));
  }
  targets.push(...files.map((dir) => filesTarget({ dir: resolve(dir), force })));
  const twice = targets.find((t, i) => targets.findIndex((o) => o.name === t.name) !== i);
  if (twice !== undefined) throw new SealiftError('USAGE', `${twice.name} is given twice`);
  if (targets.length > 0) return targets;
  throw new SealiftError('USAGE', 'no target to load into', {
    hint: 'give at least one of --registry, --containerd, --chart-tree and --files',
  });
}
