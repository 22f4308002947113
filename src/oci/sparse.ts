import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { digestOf } from '../io/verify.ts';
import { type Graph, isSparse } from './graph.ts';

/** A manifest or index that stands for an original one, because a target refuses indexes with absent children. */
export interface Substitute {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
}

type JsonObject = { [key: string]: unknown };

function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A child's entry with another digest and size; embedded content (`data`) would be that of the old digest. */
function pointTo(child: JsonObject, other: Descriptor): JsonObject {
  const { data: _old, ...rest } = child;
  return { ...rest, digest: other.digest, size: other.size };
}

/** The carried image manifests below the root, in index order. */
export function carriedManifests(graph: Graph): Descriptor[] {
  return [...graph.nodes.values()].filter((n) => n.kind === 'manifest').map((n) => n.descriptor);
}

/**
 * The indexes of a sparse graph with only the carried children left, children first: the original JSON with `manifests`
 * filtered, key order kept, no white space, so the same input gives the same digest everywhere (registry.md 1.6 b).
 * Empty for a graph from which nothing was left out; undefined for a nested index below which nothing is carried: it is
 * dropped from its parent.
 * @param read the verified bytes of an index of the graph
 */
export async function filterIndexes(
  graph: Graph,
  read: (descriptor: Descriptor) => Promise<Uint8Array>,
): Promise<ReadonlyMap<Digest, Substitute | undefined>> {
  const substitutes = new Map<Digest, Substitute | undefined>();
  if (!isSparse(graph)) return substitutes;
  for (const node of graph.nodes.values()) {
    if (node.kind !== 'index') continue;
    const kept = new Set(node.children.map((c) => c.digest));
    if (node.left.length === 0 && !node.children.some((c) => substitutes.has(c.digest))) continue;
    const original: unknown = JSON.parse(Buffer.from(await read(node.descriptor)).toString('utf8'));
    if (!isJsonObject(original) || !Array.isArray(original.manifests)) {
      throw new SealiftError('OCI_MANIFEST_INVALID', `${node.descriptor.digest}: not an index`);
    }
    const manifests = original.manifests.filter(isJsonObject).flatMap((child) => {
      const { digest } = child;
      if (typeof digest !== 'string' || !isDigest(digest) || !kept.has(digest)) return [];
      if (!substitutes.has(digest)) return [child];
      const other = substitutes.get(digest)?.descriptor;
      return other === undefined ? [] : [pointTo(child, other)];
    });
    if (manifests.length === 0 && node.descriptor.digest !== graph.root.digest) {
      substitutes.set(node.descriptor.digest, undefined);
      continue;
    }
    const bytes = Buffer.from(JSON.stringify({ ...original, manifests }));
    const { data: _old, ...rest } = node.descriptor;
    const descriptor = { ...rest, digest: digestOf(bytes), size: bytes.length };
    substitutes.set(node.descriptor.digest, { descriptor, bytes });
  }
  return substitutes;
}
