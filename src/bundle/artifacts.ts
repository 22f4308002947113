import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { MEDIA } from '../core/media.ts';
import type { Sequence } from '../core/packed-list.ts';
import { countsOf } from '../lock/counts.ts';
import {
  type ChartLock,
  chartName,
  type FileLock,
  type ImageLock,
  type Lock,
  type PackageLock,
  type ReferrerLock,
} from '../lock/schema.ts';
import { EMPTY_CONFIG, fileArtifact } from '../oci/artifact.ts';
import { collectGraph, type Graph, type GraphNode } from '../oci/graph.ts';
import { parseManifest } from '../oci/manifest.ts';
import type { Artifact } from './contents.ts';

/** Reads the verified bytes of a manifest or index of one locked artifact. */
export type ReadManifest = (
  descriptor: Descriptor,
  of: { readonly image?: ImageLock; readonly chart?: ChartLock },
) => Promise<Uint8Array>;

/** What of an image's index is carried: what the lock names, or everything. */
export function keepOf(image: ImageLock): (child: Descriptor) => boolean {
  if (image.allPlatforms) return () => true;
  const kept = new Set<Digest>([...Object.values(image.platforms), ...image.others]);
  return (child) => kept.has(child.digest);
}

export async function imageArtifact(image: ImageLock, read: ReadManifest): Promise<Artifact> {
  const root: Descriptor = { mediaType: image.mediaType, digest: image.digest, size: image.size };
  const graph = await collectGraph(root, {
    read: (d) => read(d, { image }),
    keep: keepOf(image),
    foreignLayers: image.foreignLayers === true,
  });
  checkSubjects(image, graph);
  return { kind: 'image', name: image.ref, root, graph };
}

/** Everything that travels with an image is about something that is carried. @throws OCI_MANIFEST_INVALID */
function checkSubjects(image: ImageLock, graph: Graph): void {
  const referrers = image.referrers ?? [];
  const about = (subject: Digest): boolean => {
    const kind = graph.nodes.get(subject)?.kind;
    return kind === 'index' || kind === 'manifest' || referrers.some((r) => r.digest === subject);
  };
  const stray = referrers.find((r) => !about(r.subject));
  if (stray === undefined) return;
  throw new SealiftError(
    'OCI_MANIFEST_INVALID',
    `${image.ref}: ${stray.digest} is about ${stray.subject}, which is not carried`,
  );
}

/** The name of a referrer among the artifacts of a bundle. */
export function referrerName(image: ImageLock, digest: Digest): string {
  return `${image.ref} ${digest}`;
}

/**
 * What is about an image, with everything below it. One that is found by its own `subject` must name the one that the
 * lock says; one that is found by its tag need not name any.
 */
async function referrerArtifact(
  image: ImageLock,
  referrer: ReferrerLock,
  read: ReadManifest,
): Promise<Artifact> {
  const { mediaType, digest, size, subject, tag } = referrer;
  const root: Descriptor = { mediaType, digest, size };
  const graph = await collectGraph(root, { read: (d) => read(d, { image }) });
  if (tag === undefined) {
    const stated = parseManifest(await read(root, { image }), root).subject?.digest;
    if (stated !== subject) {
      throw new SealiftError(
        'OCI_MANIFEST_INVALID',
        `${image.ref}: the referrer ${digest} is about ${stated ?? 'nothing'}, the lock says ${subject}`,
      );
    }
  }
  return { kind: 'referrer', name: referrerName(image, digest), root, graph };
}

/** Each referrer of an image once, whatever ways lead to it. */
function referrersOf(image: ImageLock): ReferrerLock[] {
  const once = new Map<Digest, ReferrerLock>();
  for (const referrer of image.referrers ?? []) {
    // What must be proved stands first: an entry without a tag.
    const known = once.get(referrer.digest);
    if (known === undefined || known.tag !== undefined) once.set(referrer.digest, referrer);
  }
  return [...once.values()];
}

/** Built from a list of nodes, children first. */
function graphOf(nodes: readonly GraphNode[], root: Descriptor): Graph {
  return { root, nodes: new Map(nodes.map((n) => [n.descriptor.digest, n])) };
}

function leaf(descriptor: Descriptor, kind: 'config' | 'blob'): GraphNode {
  return { descriptor, kind, children: [], left: [] };
}

/** The descriptor of a chart's archive as its manifest names it. */
export function archiveOf(chart: ChartLock): Descriptor {
  return { mediaType: MEDIA.helmChart, digest: chart.integrity.archive, size: chart.size };
}

/**
 * A chart's content. One that came from a registry keeps its published manifest, which is read; for all others the lock
 * alone says everything, because their manifest follows a written rule.
 */
export async function chartArtifactOf(chart: ChartLock, read: ReadManifest): Promise<Artifact> {
  const root: Descriptor = chart.manifest;
  const name = chartName(chart);
  if (chart.source.type === 'oci') {
    const graph = await collectGraph(root, { read: (d) => read(d, { chart }) });
    return { kind: 'chart', name, root, graph };
  }
  const { provenanceDigest, provenanceSize } = chart.integrity;
  const layers: Descriptor[] = [archiveOf(chart)];
  if (provenanceDigest !== undefined && provenanceSize !== undefined) {
    layers.push({ mediaType: MEDIA.helmProvenance, digest: provenanceDigest, size: provenanceSize });
  }
  const children = [chart.config, ...layers];
  const nodes: GraphNode[] = [
    leaf(chart.config, 'config'),
    ...layers.map((l) => leaf(l, 'blob')),
    { descriptor: root, kind: 'manifest', children, left: [] },
  ];
  return { kind: 'chart', name, root, graph: graphOf(nodes, root) };
}

/** What the lock alone says of one file: its artifact, and the bytes of its manifest. */
export interface LoneFile {
  readonly artifact: Artifact;
  readonly manifest: Buffer;
}

/** A file's artifact and the bytes of its manifest. */
export function fileArtifactOf({ name, sha256, size }: FileLock): LoneFile {
  return loneFile({ kind: 'file', name }, { digest: sha256, size });
}

/** The same of a file of a Python package. */
export function packageArtifactOf({ file, sha256, size }: PackageLock): LoneFile {
  return loneFile({ kind: 'package', name: file }, { digest: sha256, size });
}

/** The descriptor of a file's or package's own bytes, as who loads it knows them. */
export function contentOf({ sha256, size }: FileLock | PackageLock): Descriptor {
  return { mediaType: 'application/octet-stream', digest: sha256, size };
}

function loneFile(
  of: { readonly kind: 'file' | 'package'; readonly name: string },
  content: { readonly digest: Digest; readonly size: number },
): LoneFile {
  const title = of.name.split('/').at(-1) ?? of.name;
  const { descriptor, bytes, layer } = fileArtifact({ title, content });
  const nodes: GraphNode[] = [
    leaf(EMPTY_CONFIG, 'config'),
    leaf(layer, 'blob'),
    { descriptor, kind: 'manifest', children: [EMPTY_CONFIG, layer], left: [] },
  ];
  return {
    manifest: bytes,
    artifact: { ...of, root: descriptor, graph: graphOf(nodes, descriptor) },
  };
}

/** One artifact that is still to be read. */
export interface ArtifactJob {
  readonly name: string;
  /** What it is of, where bytes of it may come from a registry; a referrer is of its image. */
  readonly image?: ImageLock;
  readonly chart?: ChartLock;
  readonly read: () => Promise<Artifact>;
}

/**
 * Every artifact that a lock names, in the lock's order: images, charts, files, packages, and what is about the images.
 * Each is to be read by itself and made when it is asked for.
 */
export class ArtifactJobs implements Sequence<ArtifactJob> {
  readonly #lock: Lock;
  readonly #read: ReadManifest;
  /** Of each referrer: the place of its image, and its own among those of the image. */
  readonly #referrers: (readonly [number, number])[] = [];

  constructor(lock: Lock, read: ReadManifest) {
    this.#lock = lock;
    this.#read = read;
    let at = 0;
    for (const image of lock.images) {
      for (let i = 0; i < referrersOf(image).length; i += 1) this.#referrers.push([at, i]);
      at += 1;
    }
  }

  get length(): number {
    return this.#alone + this.#referrers.length;
  }

  /** Artifacts that are about no other. */
  get #alone(): number {
    const { images, charts, files, packages } = countsOf(this.#lock);
    return images + charts + files + packages;
  }

  /** Whether bytes of an artifact may come from a registry. */
  isAsked(index: number): boolean {
    const { images, charts } = this.#lock;
    const chart = charts[index - images.length];
    if (chart !== undefined) return chart.source.type === 'oci';
    return index < images.length || index >= this.#alone;
  }

  at(index: number): ArtifactJob | undefined {
    const { images, charts, files, python } = this.#lock;
    if (index < images.length) return this.#image(index);
    let at = index - images.length;
    const chart = charts[at];
    const read = this.#read;
    if (chart !== undefined)
      return { name: chartName(chart), chart, read: () => chartArtifactOf(chart, read) };
    at -= charts.length;
    const file = files[at];
    if (file !== undefined) return { name: file.name, read: async () => fileArtifactOf(file).artifact };
    const found = python?.files[at - files.length];
    if (found !== undefined) return { name: found.file, read: async () => packageArtifactOf(found).artifact };
    return this.#referrer(index - this.#alone);
  }

  #image(index: number): ArtifactJob | undefined {
    const image = this.#lock.images.at(index);
    if (image === undefined) return undefined;
    return { name: image.ref, image, read: () => imageArtifact(image, this.#read) };
  }

  #referrer(index: number): ArtifactJob | undefined {
    const [at, i] = this.#referrers[index] ?? [-1, 0];
    const image = at < 0 ? undefined : this.#lock.images.at(at);
    const referrer = image === undefined ? undefined : referrersOf(image)[i];
    if (image === undefined || referrer === undefined) return undefined;
    const name = referrerName(image, referrer.digest);
    return { name, image, read: () => referrerArtifact(image, referrer, this.#read) };
  }

  *[Symbol.iterator](): Generator<ArtifactJob> {
    for (let index = 0; index < this.length; index += 1) {
      const job = this.at(index);
      if (job !== undefined) yield job;
    }
  }
}
