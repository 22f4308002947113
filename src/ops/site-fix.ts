import { resolve } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { CopiedImage, PinnedImage } from '../target/containerd/fix.ts';
import { holdTargets } from './holds.ts';
import { imageNames } from './names.ts';
import { chosenSite, type SiteChoice } from './site.ts';
import { noTargets } from './site-check.ts';

export interface SiteFixOptions extends SiteChoice {
  /** Namespaces that are looked into; default those where `ctr` and docker put images. */
  readonly from?: readonly string[];
  /** Names of images; default all. */
  readonly only?: readonly string[];
  /** Label images against kubelet's image collection: those that are copied, and those that are there. */
  readonly pin: boolean;
  /** Only say what would be done. */
  readonly dryRun: boolean;
}

/** What was done, or would be, in one namespace of a containerd. */
export interface FixedTarget {
  /** In the site's file. */
  readonly name: string;
  readonly socket: string;
  readonly namespace: string;
  readonly copies: readonly CopiedImage[];
  readonly pins: readonly PinnedImage[];
}

export interface SiteFixResult {
  readonly site: string;
  readonly dryRun: boolean;
  readonly targets: readonly FixedTarget[];
  readonly failed: number;
}

/**
 * Shows kubelet the images that lie where it does not look, for each containerd of the site (`fixContainerd`).
 * @throws USAGE where the site has no containerd; TARGET_UNREACHABLE, TARGET_BUSY, AUTH_DENIED
 */
export async function siteFix(options: SiteFixOptions, context: Context): Promise<SiteFixResult> {
  const site = await chosenSite(options);
  if (site === undefined || site.targets.length === 0) throw noTargets(site);
  const nodes = site.targets.flatMap((target) => (target.type === 'containerd' ? [target] : []));
  if (nodes.length === 0) {
    throw new SealiftError('USAGE', `${site.path}: none of these targets is a containerd`, {
      hint: 'site fix mends containerd only; what `sealift site check` says is to be done elsewhere is done by hand',
    });
  }
  const { fixContainerd } = await import('../target/containerd/fix.ts');
  const wanted = new Set(options.only);
  const isWanted = (name: string): boolean =>
    wanted.size === 0 || imageNames(name).some((one) => wanted.has(one));
  const { pin, dryRun, from } = options;
  const targets: FixedTarget[] = [];
  for (const { name, socket: path, namespaces } of nodes) {
    const socket = resolve(path);
    for (const namespace of namespaces) {
      const target = { kind: 'containerd', name: `containerd ${socket} ${namespace}` } as const;
      const release = dryRun ? async (): Promise<void> => {} : await holdTargets([target], {});
      try {
        const how = { socket, namespace, pin, isWanted, dryRun, ...(from === undefined ? {} : { from }) };
        targets.push({ name, socket, namespace, ...(await fixContainerd(how, context)) });
      } finally {
        await release();
      }
    }
  }
  const failed = targets
    .flatMap((t) => [...t.copies, ...t.pins])
    .filter((one) => one.state === 'failed').length;
  return { site: site.path, dryRun, targets, failed };
}
