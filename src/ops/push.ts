import { resolve } from 'node:path';
import {
  type BundleLabel,
  bundleManifest,
  type Chunk,
  chunkTitles,
  parseBundleManifest,
  splitBytes,
} from '../bundle/chunks.ts';
import type { BaseBundle } from '../bundle/contents.ts';
import { type FileRange, type Hashing, startHashing } from '../bundle/hash.ts';
import { passOn } from '../bundle/pass-on.ts';
import { type Bundle, openBundle } from '../bundle/reader.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { KIB, MIB } from '../core/limits.ts';
import { kindOf } from '../io/files.ts';
import { mapBounded } from '../io/pool.ts';
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES } from '../oci/artifact.ts';
import { Registry } from '../oci/registry.ts';
import { isRefusal, LOST_BLOB } from '../target/registry-refusals.ts';
import { signaturePaths } from '../trust/places.ts';
import { type BundlePlace, formatBundlePlace } from './bundle-place.ts';
import { withHttp } from './session.ts';

/** Bytes of a chunk: no registry that is known refuses so much, and a break costs no more than this. */
export const CHUNK_SIZE = 512 * MIB;

/** Chunks that are hashed or sent at once. */
const CHUNKS_PARALLEL = 4;
/** Stays in the processor's cache from the read to the socket. */
const PIECE = 256 * KIB;

export interface PushOptions {
  /** Path of the bundle. */
  readonly bundle: string;
  /** With a tag. */
  readonly to: BundlePlace;
  /** Bytes; default CHUNK_SIZE. Another one makes another artifact. */
  readonly chunkSize?: number;
}

/** So many chunks and their bytes. */
export interface ChunkCount {
  readonly chunks: number;
  readonly bytes: number;
}

export interface PushResult extends BundleLabel {
  readonly place: string;
  /** Of the manifest: `oci://HOST/REPOSITORY@DIGEST` is this bundle for ever. */
  readonly digest: Digest;
  /** Bytes of the bundle. */
  readonly size: number;
  readonly chunkSize: number;
  /** What a delta or a repair builds on; null for a complete bundle. */
  readonly base: readonly BaseBundle[] | null;
  readonly sent: ChunkCount;
  /** What the registry had already. */
  readonly present: ChunkCount;
  /** `present`: the tag leads to this bundle already, and nothing was written. */
  readonly outcome: 'pushed' | 'present';
}

/** What is needed to bring one chunk to the registry. */
interface Work {
  readonly registry: Registry;
  readonly repository: string;
  readonly hashing: Hashing;
  readonly bundle: Bundle;
  readonly context: Context;
}

/**
 * Puts a bundle into a registry as an artifact whose layers are its bytes in chunks. The file is read in place; chunks that
 * are there are not sent, so an interrupted push goes on. The tag comes last.
 * @throws BUNDLE_… when its structure is damaged; USAGE for a folder, or a place without a tag; what the registry says
 */
export async function push(options: PushOptions, context: Context): Promise<PushResult> {
  const { to, chunkSize = CHUNK_SIZE } = options;
  if (to.tag === undefined) {
    throw new SealiftError('USAGE', `${formatBundlePlace(to)}: a bundle is pushed under a tag`, {
      hint: 'write oci://HOST/REPOSITORY:TAG; the tag is often the version of the bundle',
    });
  }
  const bundle = await openBundle(resolve(options.bundle), { signal: context.signal });
  const hashing = startHashing(bundle.medium.size);
  try {
    const { medium } = bundle;
    if (medium.kind === 'folder') {
      throw new SealiftError('USAGE', `${options.bundle} is a folder; only a bundle in one file is pushed`, {
        hint: 'make one file of it, which needs no network: `sealift merge NAME.tar FOLDER`',
      });
    }
    const spans = splitBytes(medium.size, chunkSize);
    await tellLeftBehind(medium.path, context);
    return await withHttp(context, (http) => {
      const registry = new Registry(to.host, { http, context, config: to.config });
      const work: Work = { registry, repository: to.repository, hashing, bundle, context };
      return pushSpans(work, { tag: to.tag ?? '', spans, to, chunkSize });
    });
  } finally {
    await hashing.close();
    await bundle.close();
  }
}

/** Only what is in the bundle is pushed. */
async function tellLeftBehind(path: string, context: Context): Promise<void> {
  for (const at of signaturePaths(path)) {
    if ((await kindOf(at)) === undefined) continue;
    const message = `${at} is not pushed: \`sealift sign\` without --detached puts a signature into the bundle`;
    context.emit({ type: 'note', message });
  }
}

async function pushSpans(
  work: Work,
  job: {
    readonly spans: ReturnType<typeof splitBytes>;
    readonly tag: string;
    readonly to: BundlePlace;
    readonly chunkSize: number;
  },
): Promise<PushResult> {
  const { registry, repository, bundle, context } = work;
  const { spans, tag, to, chunkSize } = job;
  const { size } = bundle.medium;
  await registry.ping();
  context.emit({ type: 'phase', name: 'push' });
  context.emit({ type: 'total', bytes: size, items: spans.length });
  const label = { name: bundle.lock.name, version: bundle.lock.version, lock: bundle.lockDigest };
  const titles = chunkTitles(label, spans.length);
  const sent = { chunks: 0, bytes: 0 };
  const present = { chunks: 0, bytes: 0 };
  const limits = { limit: CHUNKS_PARALLEL, signal: context.signal };
  const numbered = spans.map((span, i) => ({ ...span, title: titles[i] ?? '' }));
  const chunks = await mapBounded(numbered, limits, async (span) => {
    const chunk = { ...span, digest: await hashChunk(work, span) };
    const isPresent = await isChunkThere(work, chunk);
    if (!isPresent) await sendChunk(work, chunk);
    const tally = isPresent ? present : sent;
    tally.chunks += 1;
    tally.bytes += chunk.size;
    return chunk;
  });
  const manifest = bundleManifest(label, chunks);
  const { digest } = manifest.descriptor;
  // What we could not pull ourselves is not put where others find it.
  parseBundleManifest(manifest, formatBundlePlace(to));
  const isThere = sent.chunks === 0 && (await registry.resolve(repository, tag)) === digest;
  if (!isThere) {
    await putManifest(work, { manifest, tag }).catch(async (error: unknown) => {
      if (!isRefusal(error, LOST_BLOB) || present.chunks === 0) throw error;
      // Some registries say that a blob is there and then do not find it (nexus-public #264).
      await mapBounded(chunks, limits, (chunk) => sendChunk(work, chunk));
      await putManifest(work, { manifest, tag });
    });
  }
  const base = bundle.info.base?.of ?? null;
  const about = { ...label, place: formatBundlePlace(to), digest, size, chunkSize, base };
  return { ...about, sent, present, outcome: isThere ? 'present' : 'pushed' };
}

/** A range of the bundle's own bytes, across its entries. */
function rangeOf({ medium }: Bundle, span: { readonly offset: number; readonly size: number }): FileRange {
  const { file } = medium.range(medium.entries.at(0));
  return { file, position: span.offset, length: span.size, what: medium.path };
}

async function hashChunk({ hashing, bundle, context }: Work, span: Omit<Chunk, 'digest'>): Promise<Digest> {
  const range = rangeOf(bundle, span);
  const job = { ...range, sha256: true, blake3: false };
  const { bytes, sha256 } = await hashing.run(job, { signal: context.signal, note: () => {} });
  if (bytes === span.size) return `sha256:${sha256}`;
  throw new SealiftError('BUNDLE_TRUNCATED', `${range.what}: ended at byte ${span.offset + bytes}`, {
    hint: 'the file was cut while it was read',
  });
}

async function isChunkThere({ registry, repository, context }: Work, chunk: Chunk): Promise<boolean> {
  const { digest, size, title } = chunk;
  if (!(await registry.hasBlob(repository, digest))) return false;
  const id = `${registry.host}/${repository} ${digest}`;
  context.emit({ type: 'start', id, label: title, size });
  context.emit({ type: 'progress', id, bytes: size });
  context.emit({ type: 'end', id, outcome: 'present' });
  return true;
}

async function sendChunk(work: Work, chunk: Chunk): Promise<void> {
  const { registry, repository, context } = work;
  const { digest, size, title } = chunk;
  const id = `${registry.host}/${repository} ${digest}`;
  context.emit({ type: 'start', id, label: title, size });
  const range = rangeOf(work.bundle, chunk);
  let shown = 0;
  const open = async function* (): AsyncGenerator<Uint8Array> {
    context.emit({ type: 'progress', id, bytes: -shown });
    shown = 0;
    for await (const piece of passOn(range, { blake3: undefined, chunk: PIECE, signal: context.signal })) {
      shown += piece.length;
      context.emit({ type: 'progress', id, bytes: piece.length });
      yield piece;
    }
  };
  try {
    await registry.writeBlob(repository, { mediaType: 'application/octet-stream', digest, size }, open);
  } catch (error) {
    context.emit({ type: 'end', id, outcome: 'failed' });
    await refuseChanged(work, chunk, error);
    throw error;
  }
  context.emit({ type: 'end', id, outcome: 'done' });
}

/** After a refusal: the file may have changed since it was hashed. @throws CONTENT_DIGEST_MISMATCH then */
async function refuseChanged(work: Work, chunk: Chunk, error: unknown): Promise<void> {
  const { status, stored } = (error instanceof SealiftError ? error.details : undefined) ?? {};
  if (status !== 400 && stored === undefined) return;
  if ((await hashChunk(work, chunk)) === chunk.digest) return;
  const { path } = work.bundle.medium;
  throw new SealiftError('CONTENT_DIGEST_MISMATCH', `${path}: changed while it was pushed`, {
    hint: 'run the same command again when nobody writes the file any more',
    side: 'source',
  });
}

async function putManifest(
  { registry, repository }: Work,
  { manifest, tag }: { readonly manifest: ReturnType<typeof bundleManifest>; readonly tag: string },
): Promise<void> {
  if (!(await registry.hasBlob(repository, EMPTY_CONFIG.digest))) {
    const bytes = EMPTY_CONFIG_BYTES;
    await registry.writeBlob(repository, EMPTY_CONFIG, async function* () {
      yield bytes;
    });
  }
  await registry.putManifest(repository, tag, manifest);
  const found = await registry.resolve(repository, tag);
  if (found === manifest.descriptor.digest) return;
  throw new SealiftError(
    'TARGET_FAILED',
    `${registry.host}/${repository}:${tag} is ${found ?? 'absent'} after the push`,
    { hint: 'somebody else may push the same tag, or the registry is behind a cache; run the push again' },
  );
}
