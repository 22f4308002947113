import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { NumberList } from '../core/number-list.ts';
import { TextTable } from '../core/text-table.ts';
import type { Graph, GraphNode, NodeKind } from './graph.ts';

const KINDS: readonly NodeKind[] = ['index', 'manifest', 'config', 'blob'];

/** Where a graph's numbers lie in the store; and the number of its root's digest, and of what its descriptor says beside. */
interface Span {
  readonly from: number;
  readonly to: number;
  readonly digest: number;
  readonly word: number;
}

/** A graph that a store keeps: few numbers, its descriptors are made when they are asked for. */
class KeptGraph implements Graph, Span {
  readonly from: number;
  readonly to: number;
  readonly digest: number;
  readonly word: number;
  readonly #store: GraphStore;

  constructor(store: GraphStore, { from, to, digest, word }: Span) {
    this.from = from;
    this.to = to;
    this.digest = digest;
    this.word = word;
    this.#store = store;
  }

  get root(): Descriptor {
    return this.#store.descriptor(this.digest, this.word);
  }

  get nodes(): Graph['nodes'] {
    return this.#store.nodes(this);
  }
}

/**
 * Keeps very many graphs compactly: digests once, what descriptors say beside them once, and the rest as numbers. The nodes
 * of a graph are made when they are asked for; those of the graph that was asked last are kept.
 */
export class GraphStore {
  readonly #digests: DigestTable;
  /** Of each digest, one more than its bytes; 0 where no graph has it. */
  readonly #sizes = new NumberList('float64');
  /** What descriptors say beside digest and size, as JSON. */
  readonly #words = new TextTable();
  /** Of all graphs, one after the other. */
  readonly #numbers = new NumberList('int32');
  #last: { readonly from: number; readonly nodes: Graph['nodes'] } | undefined;

  /** @param digests where the digests are put: a list of entries may have them already */
  constructor(digests = new DigestTable()) {
    this.#digests = digests;
  }

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
          const size = this.#sizes.at(known) - 1;
          if (size >= 0 && size !== each.size) return graph;
          written.push(this.#digest(each), this.#word(each));
        }
      }
    }
    const from = this.#numbers.length;
    for (const number of written) this.#numbers.push(number);
    const { root } = graph;
    const span = { from, to: this.#numbers.length, digest: this.#digest(root), word: this.#word(root) };
    return new KeptGraph(this, span);
  }

  #digest({ digest, size }: Descriptor): number {
    const number = this.#digests.add(digest);
    this.#sizes.set(number, size + 1);
    return number;
  }

  #word({ digest: _, size: __, ...words }: Descriptor): number {
    return this.#words.add(JSON.stringify(words));
  }

  /** The descriptor of numbers that this store gave. */
  descriptor(digest: number, word: number): Descriptor {
    const { mediaType, ...words } = JSON.parse(this.#words.at(word) ?? '{}') as Omit<
      Descriptor,
      'digest' | 'size'
    >;
    return { mediaType, digest: this.#digests.at(digest), size: this.#sizes.at(digest) - 1, ...words };
  }

  /** The nodes of a graph that this store keeps. */
  nodes({ from, to }: Span): Graph['nodes'] {
    if (this.#last?.from === from) return this.#last.nodes;
    const nodes = new Map<Digest, GraphNode>();
    let at = from;
    const next = (): number => this.#numbers.at(at++);
    const list = (): Descriptor[] | undefined => {
      const length = next();
      return length === 0
        ? undefined
        : Array.from({ length: length - 1 }, () => this.descriptor(next(), next()));
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
  }
}
