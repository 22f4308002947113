import { resolve } from 'node:path';
import { type Artifact, B3SUMS } from '../bundle/plan.ts';
import { openBundle } from '../bundle/reader.ts';
import type { Digest } from '../core/digest.ts';
import type { Context } from '../core/events.ts';
import { digestOf } from '../io/verify.ts';
import { chartName, type Lock } from '../lock/schema.ts';
import { isSparse } from '../oci/graph.ts';

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
}

export interface LsResult {
  readonly path: string;
  readonly name: string;
  readonly version: string;
  /** SHA-256 of its versions.lock. */
  readonly lock: Digest;
  /** Bytes of the bundle, and of all blobs once. */
  readonly size: number;
  readonly blobBytes: number;
  readonly blobs: number;
  /** Bytes that sharing saves: the sum of all artifacts less `blobBytes`. */
  readonly sharedBytes: number;
  readonly artifacts: readonly Listed[];
}

function whyOf(lock: Lock, artifact: Artifact): readonly string[] {
  if (artifact.kind === 'image') return lock.images.find((i) => i.ref === artifact.name)?.usedBy ?? [];
  if (artifact.kind === 'chart') return lock.charts.find((c) => chartName(c) === artifact.name)?.usedBy ?? [];
  return [];
}

function platformsOf(lock: Lock, artifact: Artifact): string[] {
  if (artifact.kind !== 'image') return [];
  return Object.keys(lock.images.find((i) => i.ref === artifact.name)?.platforms ?? {});
}

/**
 * Lists what a bundle holds, from its documents and manifests; blobs are not read.
 * @throws BUNDLE_NOT_FOUND and every fault of the structure
 */
export async function ls(path: string, context: Context): Promise<LsResult> {
  const bundle = await openBundle(resolve(path), { signal: context.signal });
  try {
    const users = new Map<Digest, number>();
    for (const { graph } of bundle.artifacts) {
      for (const digest of graph.nodes.keys()) users.set(digest, (users.get(digest) ?? 0) + 1);
    }
    const artifacts = bundle.artifacts.map((artifact): Listed => {
      const nodes = [...artifact.graph.nodes.values()];
      const sum = (of: typeof nodes): number => of.reduce((total, n) => total + n.descriptor.size, 0);
      return {
        kind: artifact.kind,
        name: artifact.name,
        digest: artifact.root.digest,
        size: sum(nodes),
        shared: sum(nodes.filter((n) => (users.get(n.descriptor.digest) ?? 0) > 1)),
        platforms: platformsOf(bundle.lock, artifact),
        sparse: isSparse(artifact.graph),
        usedBy: whyOf(bundle.lock, artifact),
      };
    });
    const blobs = [...(bundle.plan?.blobs.values() ?? [])];
    const blobBytes = blobs.reduce((total, b) => total + b.size, 0);
    return {
      path: bundle.medium.path,
      name: bundle.lock.name,
      version: bundle.lock.version,
      lock: digestOf(bundle.lockBytes),
      size: bundle.medium.size,
      blobBytes,
      blobs: blobs.length,
      sharedBytes: artifacts.reduce((total, a) => total + a.size, 0) - blobBytes,
      artifacts,
    };
  } finally {
    await bundle.close();
  }
}

/** The blobs of a bundle with their sizes, for comparing two. */
export async function blobsOf(
  path: string,
  context: Context,
): Promise<{ lock: Lock; blobs: Map<Digest, number> }> {
  const bundle = await openBundle(resolve(path), { signal: context.signal });
  try {
    const blobs = new Map<Digest, number>();
    for (const entry of bundle.plan?.entries ?? []) {
      if (entry.digest !== undefined && entry.name !== B3SUMS) blobs.set(entry.digest, entry.size);
    }
    return { lock: bundle.lock, blobs };
  } finally {
    await bundle.close();
  }
}
