import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { LIMITS } from '../core/limits.ts';
import { collect } from '../io/verify.ts';
import { carriedManifests, filterIndexes, type Substitute } from '../oci/sparse.ts';
import type { Item, TargetOptions } from './target.ts';

/**
 * What a registry gets for an index of which only some platforms are carried (registry.md 1.6). `auto` offers the
 * original and, where the registry refuses it, the single manifest when one is carried and the filtered index otherwise.
 */
export type IndexPolicy = 'auto' | 'original' | 'filtered' | 'single';

/** The substitutes of an item's indexes, and the one manifest that stands for it when just one is carried. */
export interface Shapes {
  readonly filtered: ReadonlyMap<Digest, Substitute | undefined>;
  readonly single: Descriptor | undefined;
}

/** What most items have: nothing was left out. */
const WHOLE: Shapes = { filtered: new Map(), single: undefined };

/** What the indexes of an item become where the originals are not taken. */
export async function shapesOf(item: Item, options: TargetOptions): Promise<Shapes> {
  const filtered = await filterIndexes(item.graph, (d) => readManifest(d, options));
  if (filtered.size === 0) return WHOLE;
  const manifests = carriedManifests(item.graph);
  const only = manifests.length === 1 ? manifests[0] : undefined;
  return { filtered, single: only };
}

/** A manifest of the bundle, verified. */
export function readManifest(descriptor: Descriptor, options: TargetOptions): Promise<Buffer> {
  const bytes = options.source.open(descriptor, { signal: options.context.signal });
  return collect(bytes, { limit: LIMITS.manifest, what: descriptor.digest });
}

/** Digests that count as present under the item's name: with a policy that forces one form, only that one. */
export function acceptedOf(item: Item, shape: Shapes, policy: IndexPolicy): readonly Digest[] {
  const root = item.root.digest;
  const filtered = shape.filtered.get(root)?.descriptor.digest;
  if (filtered === undefined || policy === 'original') return [root];
  const single = shape.single?.digest;
  if (policy === 'filtered') return [filtered];
  if (policy === 'single') return [single ?? filtered];
  return [root, filtered, ...(single === undefined ? [] : [single])];
}
