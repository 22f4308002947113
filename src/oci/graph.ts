import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { isForeignLayer, isIndexType, isManifestType } from '../core/media.ts';
import { parseManifest } from './manifest.ts';

export type NodeKind = 'index' | 'manifest' | 'config' | 'blob';

/** One piece of content and what it names. */
export interface GraphNode {
  readonly descriptor: Descriptor;
  readonly kind: NodeKind;
  /** Children that belong to the graph, in the order in which the manifest names them. */
  readonly children: readonly Descriptor[];
  /** Children that an index names and that were left out (other platforms). */
  readonly left: readonly Descriptor[];
  /** Layers that registries need not hold and that were left out; absent when there are none. */
  readonly foreign?: readonly Descriptor[];
}

/** A content graph. `nodes` is ordered: children before parents, the root last. */
export interface Graph {
  readonly root: Descriptor;
  readonly nodes: ReadonlyMap<Digest, GraphNode>;
}

export interface CollectOptions {
  /** The verified bytes of a manifest or index. */
  readonly read: (descriptor: Descriptor) => Promise<Uint8Array>;
  /**
   * Which manifests of an index belong; default all. Nested indexes always do: what is below them cannot be known without
   * them, and containerd reads them whatever platform it looks for.
   */
  readonly keep?: (child: Descriptor) => boolean;
  /** Carry foreign layers too; default false, because registries seldom have them and their publishers ask for that. */
  readonly foreignLayers?: boolean;
}

/** Most nodes have no children: one empty list serves all of them. */
const NONE: readonly Descriptor[] = [];

function isNamer(node: GraphNode): boolean {
  return node.kind === 'index' || node.kind === 'manifest';
}

/** Registries keep manifests and blobs apart: one digest cannot be carried as both. */
function ambiguous(root: Descriptor, descriptor: Descriptor): SealiftError {
  const message = `${root.digest}: ${descriptor.digest} is named both as a manifest and as a blob`;
  return new SealiftError('OCI_MANIFEST_INVALID', message);
}

/**
 * Walks from `root` and gathers everything that it carries. Only manifests and indexes are read.
 * @throws what `read` and `parseManifest` throw; OCI_MANIFEST_INVALID for a graph that is too deep, too large or ambiguous
 */
export async function collectGraph(root: Descriptor, options: CollectOptions): Promise<Graph> {
  const nodes = new Map<Digest, GraphNode>();
  const keep = options.keep ?? (() => true);

  const leaf = (descriptor: Descriptor, kind: 'config' | 'blob'): void => {
    const known = nodes.get(descriptor.digest);
    if (known === undefined) add({ descriptor, kind, children: NONE, left: NONE });
    else if (isNamer(known)) throw ambiguous(root, descriptor);
  };
  const add = (node: GraphNode): void => {
    if (nodes.size >= LIMITS.bundleEntries) {
      throw new SealiftError(
        'OCI_MANIFEST_INVALID',
        `${root.digest}: more than ${LIMITS.bundleEntries} parts`,
      );
    }
    nodes.set(node.descriptor.digest, node);
  };

  const visit = async (descriptor: Descriptor, depth: number): Promise<void> => {
    const known = nodes.get(descriptor.digest);
    if (known !== undefined && !isNamer(known)) throw ambiguous(root, descriptor);
    if (known !== undefined) return;
    if (depth > LIMITS.indexDepth) {
      throw new SealiftError(
        'OCI_MANIFEST_INVALID',
        `${root.digest}: indexes are nested deeper than ${LIMITS.indexDepth} levels`,
      );
    }
    const parsed = parseManifest(await options.read(descriptor), descriptor);
    if (parsed.kind === 'manifest') {
      if (parsed.config !== undefined) leaf(parsed.config, 'config');
      const foreign = parsed.layers.filter((l) => !options.foreignLayers && isForeignLayer(l.mediaType));
      const layers = parsed.layers.filter((l) => !foreign.includes(l));
      for (const layer of layers) leaf(layer, 'blob');
      const children = [...(parsed.config === undefined ? [] : [parsed.config]), ...layers];
      const without = foreign.length === 0 ? {} : { foreign };
      add({ descriptor, kind: 'manifest', children, left: NONE, ...without });
      return;
    }
    const children: Descriptor[] = [];
    const left: Descriptor[] = [];
    for (const child of parsed.manifests) {
      const nested = isIndexType(child.mediaType);
      const kept = nested || keep(child);
      if (nested || (kept && isManifestType(child.mediaType))) await visit(child, depth + 1);
      else if (kept) leaf(child, 'blob');
      (kept ? children : left).push(child);
    }
    add({ descriptor, kind: 'index', children, left: left.length === 0 ? NONE : left });
  };

  await visit(root, 0);
  return { root, nodes };
}

/** Whether something that an index of the graph names is not carried. */
export function isSparse(graph: Graph): boolean {
  for (const node of graph.nodes.values()) if (node.left.length > 0) return true;
  return false;
}

/** The foreign layers that a graph was collected without, each once. */
export function foreignLayers(graph: Graph): Descriptor[] {
  const found = new Map<Digest, Descriptor>();
  for (const node of graph.nodes.values()) {
    for (const layer of node.foreign ?? []) found.set(layer.digest, layer);
  }
  return [...found.values()];
}
