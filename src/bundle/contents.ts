import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { SealiftError } from '../core/errors.ts';
import { NumberList } from '../core/number-list.ts';
import { mapSequence, PackedList, type Sequence } from '../core/packed-list.ts';
import type { Graph, NodeKind } from '../oci/graph.ts';

/** What a bundle carries under one name: an image, a chart, a file, a Python package's file or what is about an image, with everything below it. */
export interface Artifact {
  readonly kind: 'image' | 'chart' | 'file' | 'package' | 'referrer';
  /** The name in the lock: an image's name, `chart-1.2.3`, the name of a file or of a package's file; of a referrer its image and its digest. */
  readonly name: string;
  readonly root: Descriptor;
  readonly graph: Graph;
}

/** A bundle that a delta builds on. Name and version are null where only its checksums were at hand. */
export interface BaseBundle {
  readonly name: string | null;
  readonly version: string | null;
  /** SHA-256 of its versions.lock. */
  readonly lock: Digest;
}

/** What a delta builds on: each of these bundles has everything that is left out. */
export interface Base {
  readonly of: readonly BaseBundle[];
  /** Whether a blob is left out where the content has it. Manifests are always carried, whatever this says. */
  isLeftOut(digest: Digest): boolean;
  /** Manifests of charts that a base at hand has: otherwise an archive that is left out is fetched, from which they follow. */
  readonly manifests?: ReadonlyMap<Digest, Uint8Array>;
}

const RANK: Readonly<Record<NodeKind, number>> = { index: 0, manifest: 0, config: 1, blob: 2 };

/** The blobs of a bundle by their numbers in its contents. */
export interface Order {
  readonly ids: Uint32Array;
  readonly left: Uint32Array;
  readonly manifests: number;
  readonly documents: number;
}

/** What `index.json` says of one artifact. */
export type NamedRoot = Pick<Artifact, 'kind' | 'name'> & { readonly root: Descriptor };

/** What the artifacts of a bundle say about its shape, gathered one by one: they themselves need not be kept. */
export class Contents {
  /** Every blob once. */
  readonly digests: DigestTable;
  /** By the number of the digest: bytes, and one more than its rank; 0 where it is none of these blobs. */
  readonly #sizes = new NumberList('float64');
  readonly #ranks = new NumberList('int32');
  readonly #roots = new PackedList<NamedRoot>();
  /** Blobs about whose size two manifests disagree, as a message. */
  readonly #disputes: string[] = [];

  /** @param digests where the digests are put: a list of entries may have most of them already */
  constructor(digests = new DigestTable()) {
    this.digests = digests;
  }

  add({ kind, name, root, graph }: Artifact): void {
    const { mediaType, digest, size } = root;
    this.#roots.push({ kind, name, root: { mediaType, digest, size } });
    for (const node of graph.nodes.values()) this.#addBlob(node.descriptor, RANK[node.kind]);
  }

  #addBlob({ digest, size }: Descriptor, rank: number): void {
    const id = this.digests.add(digest);
    const known = this.#ranks.at(id);
    if (known === 0) {
      this.#sizes.set(id, size);
      this.#ranks.set(id, rank + 1);
      return;
    }
    const other = this.#sizes.at(id);
    if (other !== size) {
      const [less, more] = [Math.min(other, size), Math.max(other, size)];
      this.#disputes.push(`${digest} is said to have ${less} and ${more} bytes`);
    }
    this.#ranks.set(id, Math.min(known, rank + 1));
  }

  /** What `index.json` names, in bundle order: images, charts, files, packages, referrers, each by name. */
  roots(): Sequence<NamedRoot> {
    const names = Array.from(this.#roots, ({ kind, name }, at) => ({ kind, name, at }));
    const places = sortArtifacts(names).map(({ at }) => at);
    // Each place is one of the list's own.
    return mapSequence(places, (at) => this.#roots.at(at) as NamedRoot);
  }

  /**
   * The numbers of every carried blob in tar order: manifests and indexes, configs, all others, each by hex; how many of them
   * are of the first kind, and of the first two; and those that are left out, by hex.
   * @throws OCI_MANIFEST_INVALID when two manifests disagree about a blob's size
   */
  order(base: Base | undefined): Order {
    const [dispute] = this.#disputes.sort();
    if (dispute !== undefined) throw new SealiftError('OCI_MANIFEST_INVALID', dispute);
    const ranks = this.#ranks;
    const all = new Uint32Array(this.digests.size).map((_, id) => id).filter((id) => ranks.at(id) > 0);
    const isLeft = (id: number): boolean =>
      ranks.at(id) > RANK.manifest + 1 && base?.isLeftOut(this.digests.at(id)) === true;
    const left = base === undefined ? new Uint32Array() : all.filter(isLeft);
    left.sort((a, b) => this.digests.compare(a, b));
    const ids = base === undefined ? all : all.filter((id) => !isLeft(id));
    ids.sort((a, b) => ranks.at(a) - ranks.at(b) || this.digests.compare(a, b));
    const below = (rank: number): number => ids.reduce((sum, id) => sum + (ranks.at(id) <= rank ? 1 : 0), 0);
    return { ids, left, manifests: below(RANK.config), documents: below(RANK.blob) };
  }

  sizeOf(id: number): number {
    return this.#sizes.at(id);
  }
}

/** What artifacts that are all there say. */
export function contentsOf(artifacts: Iterable<Artifact>): Contents {
  const contents = new Contents();
  for (const artifact of artifacts) contents.add(artifact);
  return contents;
}

/** The artifacts in bundle order: images, charts, files, packages, referrers, each by name. */
function sortArtifacts<T extends Pick<Artifact, 'kind' | 'name'>>(artifacts: readonly T[]): T[] {
  const rank = { image: 0, chart: 1, file: 2, package: 3, referrer: 4 };
  return [...artifacts].sort(
    (a, b) => rank[a.kind] - rank[b.kind] || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
}
