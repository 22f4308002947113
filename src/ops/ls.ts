import { resolve } from 'node:path';
import type { Readable } from 'node:stream';
import type { Artifact, BaseBundle } from '../bundle/contents.ts';
import { openGiven, openJoint } from '../bundle/joint.ts';
import { B3SUMS } from '../bundle/names.ts';
import { type Bundle, openBundle, type TellArtifact } from '../bundle/reader.ts';
import { placesOf } from '../bundle/volumes.ts';
import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { errorOf } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { NumberList } from '../core/number-list.ts';
import { chartName, type Lock, type PythonLock } from '../lock/schema.ts';
import { type Graph, isSparse } from '../oci/graph.ts';
import { GraphStore } from '../oci/graph-store.ts';
import { addressIn } from './address.ts';
import type { Format } from './archive-items.ts';
import { type ImageArchives, openImageArchives, shownName } from './image-archives.ts';
import { judgeBundle } from './trust.ts';

/** One artifact of a bundle. Sizes in bytes. */
export interface Listed {
  readonly kind: Artifact['kind'];
  readonly name: string;
  /** Of the manifest or index. */
  readonly digest: Digest;
  /** Everything below it. */
  readonly size: number;
  /** The part of `size` that other artifacts of the bundle use too. */
  readonly shared: number;
  readonly platforms: readonly string[];
  /** Only some of what the index names is carried. */
  readonly sparse: boolean;
  /** `usedBy` of the lock; where a file comes from. */
  readonly usedBy: readonly string[];
  /** The image whose bytes it carries under its own name, and why they are not what a registry had. */
  readonly replacedBy: string | null;
  readonly recompressed: string | null;
}

export interface LsResult {
  readonly path: string;
  readonly format: Format;
  readonly name: string;
  /** Null, as the lock, of what another tool made. */
  readonly version: string | null;
  /** SHA-256 of its versions.lock. */
  readonly lock: Digest | null;
  /** Bytes of the bundle, and of all blobs once. */
  readonly size: number;
  readonly blobBytes: number;
  readonly blobs: number;
  /** Bytes that sharing saves: the sum of all artifacts less `blobBytes`. */
  readonly sharedBytes: number;
  /** Of a delta or a repair: what it builds on, what of the blobs is in it and what is not. */
  readonly base: {
    readonly of: readonly BaseBundle[];
    readonly carried: { readonly blobs: number; readonly bytes: number };
    readonly leftOut: { readonly blobs: number; readonly bytes: number };
  } | null;
  /** The key id that its signature names, inside or beside it; nothing is checked. Null where there is none. */
  readonly signedBy: string | null;
  readonly artifacts: readonly Listed[];
  /** What its lock says of Python packages; null where it has none. */
  readonly python: PythonLock | null;
}

type Facts = Pick<Listed, 'kind' | 'name' | 'platforms' | 'usedBy' | 'replacedBy' | 'recompressed'>;

/** What the lock says of an artifact. */
function factsOf(
  lock: Lock,
  of: {
    readonly artifact: Artifact;
    /** Where each image is in the lock. */
    readonly places: ReadonlyMap<string, number>;
  },
): Facts {
  const { kind, name } = of.artifact;
  const place = kind === 'image' ? of.places.get(name) : undefined;
  const image = place === undefined ? undefined : lock.images.at(place);
  const chart = kind === 'chart' ? lock.charts.find((c) => chartName(c) === name) : undefined;
  return {
    kind,
    name,
    platforms: Object.keys(image?.platforms ?? {}),
    usedBy: (image ?? chart)?.usedBy ?? [],
    replacedBy: image?.replacedBy ?? null,
    recompressed: image?.recompressed ?? null,
  };
}

interface Content {
  readonly artifacts: readonly Listed[];
  readonly blobs: number;
  readonly blobBytes: number;
  readonly sharedBytes: number;
}

/** Artifacts with the facts that their graphs tell. */
function contentOf(artifacts: readonly (Facts & { readonly graph: Graph })[]): Content {
  const digests = new DigestTable();
  /** By the number of the digest: how many have it, and its bytes. */
  const users = new NumberList('int32');
  const sizes = new NumberList('float64');
  for (const { graph } of artifacts) {
    for (const [digest, { descriptor }] of graph.nodes) {
      const id = digests.add(digest);
      users.set(id, users.at(id) + 1);
      sizes.set(id, descriptor.size);
    }
  }
  const isShared = (digest: Digest): boolean => users.at(digests.indexOf(digest)) > 1;
  const listed = artifacts.map(({ graph, ...facts }): Listed => {
    const nodes = [...graph.nodes.values()];
    const sum = (of: typeof nodes): number => of.reduce((total, n) => total + n.descriptor.size, 0);
    return {
      ...facts,
      digest: graph.root.digest,
      size: sum(nodes),
      shared: sum(nodes.filter((n) => isShared(n.descriptor.digest))),
      sparse: isSparse(graph),
    };
  });
  let blobBytes = 0;
  for (let id = 0; id < digests.size; id += 1) blobBytes += sizes.at(id);
  const sharedBytes = listed.reduce((total, a) => total + a.size, 0) - blobBytes;
  return { artifacts: listed, blobs: digests.size, blobBytes, sharedBytes };
}

async function lsArchives(archives: ImageArchives): Promise<LsResult> {
  try {
    const { path, name, kinds, images, faults } = archives;
    if (faults.length > 0) throw errorOf(faults, `${path}: ${faults.length} faults`);
    const content = contentOf(
      images.flatMap((image) => {
        const names = image.names.length === 0 ? [shownName(image)] : image.names;
        const { graph } = image;
        const facts = { platforms: Object.keys(image.platforms), replacedBy: null, recompressed: null };
        return names.map((name) => ({ kind: 'image' as const, name, usedBy: [], graph, ...facts }));
      }),
    );
    const [format = 'oci-layout'] = kinds;
    return {
      path,
      format,
      name,
      version: null,
      lock: null,
      size: content.blobBytes,
      base: null,
      signedBy: null,
      python: null,
      ...content,
    };
  } finally {
    await archives.close();
  }
}

/** A bundle as it is listed. */
export interface Listing extends Pick<LsResult, 'path' | 'size' | 'signedBy'> {
  readonly bundle: Pick<Bundle, 'info' | 'lock' | 'lockDigest' | 'plan'>;
  readonly artifacts: readonly Artifact[];
}

/** Keeps artifacts as they are told; there may be very many. */
export function artifactKeeper(): { readonly artifacts: readonly Artifact[]; readonly tell: TellArtifact } {
  const artifacts: Artifact[] = [];
  let graphs: GraphStore | undefined;
  const tell: TellArtifact = (artifact, digests) => {
    graphs ??= new GraphStore(digests);
    artifacts.push({ ...artifact, graph: graphs.keep(artifact.graph) });
  };
  return { artifacts, tell };
}

/** Lists an opened bundle. */
export function lsBundle({ bundle, artifacts, ...facts }: Listing): LsResult {
  const { lock, lockDigest } = bundle;
  const places = new Map(Array.from(lock.images, ({ ref }, at) => [ref, at]));
  const content = contentOf(
    artifacts.map((artifact) => ({ ...factsOf(lock, { artifact, places }), graph: artifact.graph })),
  );
  const { name, version } = lock;
  const base = baseFacts(bundle);
  const python = lock.python ?? null;
  return { ...facts, format: 'bundle', name, version, lock: lockDigest, base, python, ...content };
}

/**
 * Lists what a bundle holds, from its documents and manifests; blobs are not read. What another tool made is listed too.
 * @param given a path or the address of a file on a server; or several paths: volumes from several folders, or a delta and
 *   what it builds on
 * @param input where a bundle comes from in order, instead of `given`
 * @throws BUNDLE_NOT_FOUND, USAGE and every fault of the structure
 */
export async function ls(
  given: string | readonly string[],
  context: Context,
  input?: Readable,
): Promise<LsResult> {
  const words = typeof given === 'string' ? [given] : given;
  if (input !== undefined) {
    return (await import('./ls-stream.ts')).lsPipe(input, { others: words.slice(1), context });
  }
  const address = addressIn(words);
  if (address !== undefined) return (await import('./ls-stream.ts')).lsRemote(address, context);
  const places = await placesOf(words.map((word) => resolve(word)));
  const [only] = places;
  const isPlain = places.length === 1 && typeof only === 'string';
  const archives = isPlain ? await openImageArchives(only, context) : undefined;
  if (archives !== undefined) return lsArchives(archives);
  const { artifacts, tell } = artifactKeeper();
  const bundle = await openJoint(await openGiven(places), { signal: context.signal, tell });
  try {
    const { path, size } = bundle.medium;
    const signedBy = (await judgeBundle(bundle.medium, undefined)).keyId;
    return lsBundle({ bundle, artifacts, path, size, signedBy });
  } finally {
    await bundle.close();
  }
}

function baseFacts({ info, plan }: Pick<Bundle, 'info' | 'plan'>): LsResult['base'] {
  if (info.base === null || plan === undefined) return null;
  const carried = { blobs: 0, bytes: 0 };
  for (const { digest, size } of plan.entries) {
    if (digest === undefined) continue;
    carried.blobs += 1;
    carried.bytes += size;
  }
  return { of: info.base.of, carried, leftOut: plan.leftOut };
}

/** The blobs of a bundle with their sizes, and the bytes below each `<kind> <name>`, as a comparison of two names it. */
export async function blobsOf(
  path: string,
  context: Context,
): Promise<{ lock: Lock; blobs: Map<Digest, number>; sizes: Map<string, number> }> {
  const sizes = new Map<string, number>();
  const tell = ({ kind, name, graph }: Artifact): void => {
    let sum = 0;
    for (const { descriptor } of graph.nodes.values()) sum += descriptor.size;
    sizes.set(`${kind} ${name}`, sum);
  };
  const bundle = await openBundle(resolve(path), { signal: context.signal, tell });
  try {
    const blobs = new Map<Digest, number>();
    for (const entry of bundle.plan?.entries ?? []) {
      if (entry.digest !== undefined && entry.name !== B3SUMS) blobs.set(entry.digest, entry.size);
    }
    for (const { file, name, version } of bundle.lock.python?.files ?? []) {
      const project = `package ${name}==${version}`;
      sizes.set(project, (sizes.get(project) ?? 0) + (sizes.get(`package ${file}`) ?? 0));
    }
    return { lock: bundle.lock, blobs, sizes };
  } finally {
    await bundle.close();
  }
}
