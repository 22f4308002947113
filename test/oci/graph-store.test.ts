import { describe, expect, it } from 'vitest';
import type { Descriptor } from '../../src/core/descriptor.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { Graph, GraphNode } from '../../src/oci/graph.ts';
import { GraphStore } from '../../src/oci/graph-store.ts';

const descriptor = (name: string, more: Partial<Descriptor> = {}): Descriptor => ({
  mediaType: `application/${name.length}`,
  digest: digestOf(name),
  size: name.length,
  ...more,
});

function graphOf(name: string): Graph {
  const config = descriptor(`${name} config`);
  const layer = descriptor('shared', { urls: ['https://a.example/x'], annotations: { a: 'b' } });
  const manifest = descriptor(`${name} manifest`, { platform: { os: 'linux', architecture: 'arm64' } });
  const left = [descriptor(`${name} other`, { platform: { os: 'windows', architecture: 'amd64' } })];
  const root = descriptor(`${name} index`);
  const nodes: GraphNode[] = [
    { descriptor: config, kind: 'config', children: [], left: [] },
    { descriptor: layer, kind: 'blob', children: [], left: [] },
    { descriptor: manifest, kind: 'manifest', children: [config, layer], left: [], foreign: [layer] },
    { descriptor: root, kind: 'index', children: [manifest], left },
  ];
  return { root, nodes: new Map(nodes.map((n) => [n.descriptor.digest, n])) };
}

describe('a store of graphs', () => {
  it('gives every graph back as it was, in the order of its nodes, whichever is asked', () => {
    const store = new GraphStore();
    const graphs = ['a', 'bb', 'ccc'].map(graphOf);
    const kept = graphs.map((g) => store.keep(g));
    for (const i of [2, 0, 1, 1, 0]) {
      expect(kept[i]?.root).toEqual(graphs[i]?.root);
      // As JSON: what is made of a descriptor may depend on the order of its keys.
      expect(JSON.stringify([...(kept[i]?.nodes ?? [])])).toBe(JSON.stringify([...(graphs[i]?.nodes ?? [])]));
    }
  });

  it('does not change a graph that disagrees with another about a size', () => {
    const store = new GraphStore();
    store.keep(graphOf('a'));
    const { root, nodes } = graphOf('a');
    const other = new Map(
      [...nodes].map(([d, n]) => [d, { ...n, descriptor: { ...n.descriptor, size: 99 } }]),
    );
    expect([...store.keep({ root, nodes: other }).nodes]).toEqual([...other]);
  });
});
