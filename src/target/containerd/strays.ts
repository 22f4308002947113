import { type Digest, isDigest } from '../../core/digest.ts';
import { imageName, parseReference, type Reference } from '../../core/reference.ts';
import { ContainerdClient } from '../../oci/containerd/client.ts';
import type { ImageRecord } from '../../oci/containerd/wire.ts';
import { fullName } from '../../oci/image-store.ts';
import type { ContainerdState } from './inspect.ts';

/** Where images end up that were meant for kubelet: `ctr` without `-n`, and docker (registry.md 3.3). */
export const WRONG_NAMESPACES = ['default', 'moby'] as const;
/** The namespace that kubelet reads. */
export const KUBELET_NAMESPACE = 'k8s.io';

/** An image that kubelet does not find, because its record is elsewhere or under a short name. */
export interface Stray {
  /** The full name, under which kubelet would look for it. */
  readonly name: string;
  readonly reference: Reference;
  readonly namespace: string;
  /** The name of its record there. */
  readonly said: string;
  readonly target: ImageRecord['target'] & { readonly digest: Digest };
  /** What has its name in the right namespace: another image. */
  readonly taken: string | undefined;
}

type Known = Pick<ContainerdState, 'namespace' | 'namespaces' | 'records'>;

/** The stray that a record is. Records of CRI itself (`sha256:<config>`) name nothing. */
function strayOf(
  record: ImageRecord,
  namespace: string,
  known: ReadonlyMap<string, string>,
): Stray | undefined {
  const { name: said, target } = record;
  const { digest } = target;
  if (said.startsWith('sha256:') || !isDigest(digest)) return undefined;
  const name = fullName(said);
  if (name === undefined) return undefined;
  const taken = known.get(name);
  if (taken === digest) return undefined;
  const reference = parseReference(said);
  return { name: imageName(reference), reference, namespace, said, target: { ...target, digest }, taken };
}

/** Without those that a digest names where a tag does too: both come with the tag. */
function withoutDoubles(strays: readonly Stray[], there: ReadonlySet<string>): Stray[] {
  const tagged = new Set(strays.filter((s) => s.reference.tag !== undefined).map((s) => s.target.digest));
  const seen = new Set<string>();
  return strays.filter(({ name, reference, target }) => {
    if (seen.has(name)) return false;
    seen.add(name);
    return reference.tag !== undefined || !(tagged.has(target.digest) || there.has(target.digest));
  });
}

/**
 * The images that are in another namespace (`from`), or here under a short name, and not here under their full name.
 * Sorted by name.
 */
export async function findStrays(
  socket: string,
  known: Known,
  options: { readonly from?: readonly string[]; readonly signal: AbortSignal },
): Promise<Stray[]> {
  const { namespace, namespaces, records } = known;
  const { from = WRONG_NAMESPACES, signal } = options;
  const byName = new Map(records.map((record) => [record.name, record.target.digest]));
  const found = records.map((record) => strayOf(record, namespace, byName));
  for (const other of new Set(from)) {
    if (other === namespace || !namespaces.includes(other)) continue;
    const client = new ContainerdClient(socket, other);
    try {
      const theirs = await client.listImages(signal);
      found.push(...theirs.map((record) => strayOf(record, other, byName)));
    } finally {
      client.close();
    }
  }
  const strays = found.filter((stray) => stray !== undefined);
  const there = new Set(records.map((record) => record.target.digest));
  return withoutDoubles(strays, there).sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}
