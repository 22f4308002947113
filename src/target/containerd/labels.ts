import type { Descriptor } from '../../core/descriptor.ts';
import { isImageConfigType, isManifestType } from '../../core/media.ts';
import type { Reference } from '../../core/reference.ts';
import type { Labels } from '../../oci/containerd/wire.ts';

const GC_CONTENT = 'containerd.io/gc.ref.content';
const SOURCE = 'containerd.io/distribution.source';
/** What containerd's CRI puts on an image that it manages, and on one that kubelet's image collection must not delete. */
const CRI_MANAGED = ['io.cri-containerd.image', 'managed'] as const;
export const CRI_PINNED = ['io.cri-containerd.pinned', 'pinned'] as const;
/** What a load puts on its lease, so that a check knows whose it is. */
export const LEASE_OF_LOAD = ['dev.sealift.lease', 'load'] as const;
/** Bytes of a label's key and value together; containerd refuses more (registry.md 3.2). */
const LABEL_LIMIT = 4096;

const DOCKER_LAYERS: ReadonlySet<string> = new Set([
  'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd',
  'application/vnd.docker.image.rootfs.foreign.diff.tar',
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  'application/vnd.erofs.layer.v1',
]);

function isLayer(mediaType: string): boolean {
  const [base = ''] = mediaType.split('+');
  return mediaType.startsWith('application/vnd.oci.image.layer.') || DOCKER_LAYERS.has(base);
}

/** The label's stem for one child; one that ends in a dot always gets a number (registry.md 3.2 point 5). */
function stemOf(child: Descriptor): string {
  if (isImageConfigType(child.mediaType)) return `${GC_CONTENT}.config`;
  if (isManifestType(child.mediaType)) return `${GC_CONTENT}.m.`;
  if (isLayer(child.mediaType)) return `${GC_CONTENT}.l.`;
  return `${GC_CONTENT}.`;
}

/**
 * The labels that keep a manifest's or an index's children from garbage collection, less those that are there.
 * On fresh content they are numbered as containerd numbers them. A label that is there is never changed: it may hold
 * a child that someone else brought (another platform), so a child of ours whose usual number is taken gets the next free one.
 */
export function missingGcLabels(children: readonly Descriptor[], there: Labels): Map<string, string> {
  const held = new Set([...there].filter(([key]) => key.startsWith(GC_CONTENT)).map(([, value]) => value));
  const next = new Map<string, number>();
  const missing = new Map<string, string>();
  for (const child of children) {
    const stem = stemOf(child);
    const keyOf = (n: number): string => (n > 0 || stem.endsWith('.') ? `${stem}${n}` : stem);
    let n = next.get(stem) ?? 0;
    next.set(stem, n + 1);
    if (held.has(child.digest)) continue;
    while (there.has(keyOf(n)) || missing.has(keyOf(n))) n++;
    missing.set(keyOf(n), child.digest);
  }
  return missing;
}

/**
 * The `distribution.source` labels that say from which repositories a blob is, less those that are there. The key has
 * the host without its port, because containerd itself reads and writes it so; the value is a sorted list. A list that
 * would pass containerd's limit is left as it is.
 */
export function missingSourceLabels(references: readonly Reference[], there: Labels): Map<string, string> {
  const byKey = new Map<string, Set<string>>();
  for (const { host, repository } of references) {
    const key = `${SOURCE}.${host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')}`;
    byKey.set(key, (byKey.get(key) ?? new Set()).add(repository));
  }
  const missing = new Map<string, string>();
  for (const [key, wanted] of byKey) {
    const before = (there.get(key) ?? '').split(',').filter((repository) => repository !== '');
    if ([...wanted].every((repository) => before.includes(repository))) continue;
    const value = [...new Set([...before, ...wanted])].sort().join(',');
    if (Buffer.byteLength(key) + Buffer.byteLength(value) <= LABEL_LIMIT) missing.set(key, value);
  }
  return missing;
}

/** The labels of an image record: known to CRI, and pinned against kubelet's image collection when asked for. */
export function recordLabels(options: { readonly pin: boolean }): Map<string, string> {
  return new Map(options.pin ? [CRI_MANAGED, CRI_PINNED] : [CRI_MANAGED]);
}

/** Whether every label of `wanted` is in `there` with the same value. */
export function hasLabels(there: Labels, wanted: Labels): boolean {
  return [...wanted].every(([key, value]) => there.get(key) === value);
}
