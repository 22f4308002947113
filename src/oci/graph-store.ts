import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { TextTable } from '../core/text-table.ts';
import type { Graph, GraphNode, NodeKind } from './graph.ts';

const KINDS: readonly NodeKind[] = ['index', 'manifest', 'config', 'blob'];
/** Numbers for which there is room at first. */
const ROOM = 1024;

/** Where a graph's numbers lie in the store. */
interface Span {
  readonly from: number;
  readonly to: number;
}

/** A graph that a store keeps. */
class KeptGraph implements Graph {
  readonly root: Descriptor;
  readonly #span: Span;
  readonly #nodesOf: (span: Span) => Graph['nodes'];

  constructor(root: Descriptor, span: Span, nodesOf: (span: Span) => Graph['nodes']) {
    this.root = root;
    this.#span = span;
    this.#nodesOf = nodesOf;
  }

  get nodes(): Graph['nodes'] {
    return this.#nodesOf(this.#span);
  }
}

/**
 * Keeps very many graphs compactly: digests once, what descriptors say beside them once, and the rest as numbers. The nodes
 * of a graph are made when they are asked for; those of the graph that was asked last are kept.
 */
export class GraphStore {
  readonly #digests = new DigestTable();
  /** Of each digest, bytes. */
  readonly #sizes: number[] = [];
  /** What descriptors say beside digest and size, as JSON. */
  readonly #words = new TextTable();
  /** Of all graphs, one after the other: outside the heap, where a collector need not look at them. */
  #numbers = new Int32Array(ROOM);
  #length = 0;
  #last: { readonly from: number; readonly nodes: Graph['nodes'] } | undefined;

  /** The same graph, kept here. One that disagrees with others about a size is given back as it is. */
  keep(graph: Graph): Graph {
    const written: number[] = [];
    for (const { descriptor, kind, children, left, foreign } of graph.nodes.values()) {
      written.push(KINDS.indexOf(kind));
      // One more than there are: 0 says that there is no such list.
      for (const list of [[descriptor], children, left, foreign]) {
        written.push(list === undefined ? 0 : list.length + 1);
        for (const each of list ?? []) {
          const known = this.#digests.indexOf(each.digest);
          if (known >= 0 && this.#sizes[known] !== each.size) return graph;
          written.push(this.#digest(each), this.#word(each));
        }
      }
    }
    const from = this.#length;
    this.#append(written);
    return new KeptGraph(graph.root, { from, to: this.#length }, this.#nodes);
  }

  #append(written: readonly number[]): void {
    const length = this.#length + written.length;
    if (length > this.#numbers.length) {
      const more = new Int32Array(Math.max(length, 2 * this.#numbers.length));
      more.set(this.#numbers);
      this.#numbers = more;
    }
    this.#numbers.set(written, this.#length);
    this.#length = length;
  }

  #digest({ digest, size }: Descriptor): number {
    const number = this.#digests.add(digest);
    this.#sizes[number] = size;
    return number;
  }

  #word({ digest: _, size: __, ...words }: Descriptor): number {
    return this.#words.add(JSON.stringify(words));
  }

  #descriptor(digest: number, word: number): Descriptor {
    const { mediaType, ...words } = JSON.parse(this.#words.at(word) ?? '{}') as Omit<
      Descriptor,
      'digest' | 'size'
    >;
    return { mediaType, digest: this.#digests.at(digest), size: this.#sizes[digest] ?? 0, ...words };
  }

  readonly #nodes = ({ from, to }: Span): Graph['nodes'] => {
    if (this.#last?.from === from) return this.#last.nodes;
    const nodes = new Map<Digest, GraphNode>();
    let at = from;
    const next = (): number => this.#numbers[at++] ?? 0;
    const list = (): Descriptor[] | undefined => {
      const length = next();
      return length === 0
        ? undefined
        : Array.from({ length: length - 1 }, () => this.#descriptor(next(), next()));
    };
    while (at < to) {
      const kind = KINDS[next()] ?? 'blob';
      const [[descriptor] = [], children = [], left = [], foreign] = [list(), list(), list(), list()];
      if (descriptor === undefined) continue;
      const more = foreign === undefined ? {} : { foreign };
      nodes.set(descriptor.digest, { descriptor, kind, children, left, ...more });
    }
    this.#last = { from, nodes };
    return nodes;
  };
}
