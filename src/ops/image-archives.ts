import { open, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { B3SUMS, DOCUMENTS, FIRST_ENTRY } from '../bundle/names.ts';
import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { type Fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { isIndexType, isManifestType } from '../core/media.ts';
import { formatPlatform, isUnknownPlatform } from '../core/platform.ts';
import { compressionOf, openArchive } from '../io/archive.ts';
import { kindOf, readAt } from '../io/files.ts';
import { collect } from '../io/verify.ts';
import type { ContentReader } from '../oci/content.ts';
import { collectGraph, type Graph } from '../oci/graph.ts';
import { isImageArchive, openImageArchive } from '../oci/image-archive.ts';
import type { ImageStore, StoredImage } from '../oci/image-store.ts';
import { parseManifest, platformOfConfig } from '../oci/manifest.ts';

/** An image of an archive that another tool made, with everything below it that is there. */
export interface ArchivedImage extends StoredImage {
  readonly graph: Graph;
  /** Platform → manifest digest. */
  readonly platforms: Readonly<Record<string, Digest>>;
}

/** What another tool made instead of a bundle: no lock says what it must hold, its digests are all there is. */
export interface ImageArchives extends ContentReader {
  readonly path: string;
  readonly name: string;
  /** What the archives are; of a folder of archives each kind once. */
  readonly kinds: readonly ImageStore['kind'][];
  readonly images: readonly ArchivedImage[];
  /** Images that are not whole, and archives that cannot be read. */
  readonly faults: readonly Fault[];
  close(): Promise<void>;
}

/** Entries that only a bundle of sealift has. */
const OWN: readonly string[] = [...DOCUMENTS.filter((n) => n !== 'oci-layout' && n !== 'index.json'), B3SUMS];
const ARCHIVE_NAME = /\.(?:tar|tar\.gz|tgz)$/;

/**
 * What a file begins as. A bundle is known by its first entry alone, byte for byte: one that was cut off must not pass for
 * an archive of another tool, and its headers need not all be read. What is in gzip is unpacked but once.
 */
async function beginning(path: string): Promise<'bundle' | 'gzip' | 'other'> {
  const handle = await open(path, 'r');
  try {
    const bytes = await readAt(handle, 0, FIRST_ENTRY.length);
    if (bytes.equals(FIRST_ENTRY)) return 'bundle';
    return compressionOf(bytes) === 'gzip' ? 'gzip' : 'other';
  } finally {
    await handle.close();
  }
}

/** The archives at a path; none when it is a bundle of sealift, damaged or not, or nothing that is known. */
async function archivesAt(path: string, context: Context): Promise<string[]> {
  const kind = await kindOf(path);
  if (kind === undefined || kind === 'other') return [];
  const begins = kind === 'file' ? await beginning(path) : 'other';
  if (begins !== 'other') return begins === 'gzip' ? [path] : [];
  try {
    const archive = await openArchive(path, context);
    try {
      for (const name of OWN) if ((await archive.sizeOf(name)) !== undefined) return [];
      if (await isImageArchive(archive)) return [path];
    } finally {
      await archive.close();
    }
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code !== 'ARCHIVE_INVALID') throw error;
    return [];
  }
  if (kind === 'file') return [];
  const names = (await readdir(path)).filter((n) => ARCHIVE_NAME.test(n)).sort();
  if (names.length > LIMITS.imageListFiles) {
    throw new SealiftError('CONTENT_TOO_LARGE', `${path}: more than ${LIMITS.imageListFiles} archives`);
  }
  return names.map((name) => join(path, name));
}

/** A wrong byte of what is loaded is a fault of the source: everything stops. */
async function* asSource(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* bytes;
  } catch (error) {
    if (!(error instanceof SealiftError) || isAbort(error)) throw error;
    throw new SealiftError('BUNDLE_CHECKSUM_MISMATCH', error.message, {
      side: 'source',
      cause: error,
      hint: 'the archive is damaged: copy it again, or make it again where it came from',
      ...(error.details === undefined ? {} : { details: error.details }),
    });
  }
}

type Read = (descriptor: Descriptor) => Promise<Buffer>;

/** Manifests below an index that are there: some tools write only some platforms. An index is read once, however often it is named. */
async function presentBelow(store: ImageStore, read: Read, root: Descriptor): Promise<ReadonlySet<Digest>> {
  const present = new Set<Digest>();
  const walked = new Set<Digest>();
  const walk = async (index: Descriptor, depth: number): Promise<void> => {
    if (!isIndexType(index.mediaType) || depth > LIMITS.indexDepth || walked.has(index.digest)) return;
    walked.add(index.digest);
    const parsed = parseManifest(await read(index), index);
    for (const child of parsed.kind === 'index' ? parsed.manifests : []) {
      if (!present.has(child.digest) && (await store.sizeOf(child.digest)) === undefined) continue;
      present.add(child.digest);
      await walk(child, depth + 1);
    }
  };
  await walk(root, 0);
  return present;
}

/** Everything below an image must be there in its size. */
async function refuseHoles(store: ImageStore, graph: Graph, what: string): Promise<void> {
  const nodes = [...graph.nodes.values()];
  if (!nodes.some((n) => n.kind === 'manifest')) throw incomplete(what, 'none of its manifests is there');
  for (const { descriptor } of nodes) {
    const size = await store.sizeOf(descriptor.digest);
    if (size === descriptor.size) continue;
    const found = size === undefined ? 'is not there' : `has ${size} bytes, expected ${descriptor.size}`;
    throw incomplete(what, `${descriptor.digest} ${found}`);
  }
}

function incomplete(what: string, why: string): SealiftError {
  return new SealiftError('BUNDLE_GRAPH_INCOMPLETE', `${what}: ${why}`, {
    hint: 'make the archive again where the image is whole',
    side: 'source',
  });
}

async function platformsOf(
  graph: Graph,
  store: ImageStore,
  context: Context,
): Promise<Record<string, Digest>> {
  const found: [string, Digest][] = [];
  for (const node of graph.nodes.values()) {
    for (const child of node.kind === 'index' ? node.children : []) {
      const { platform } = child;
      if (platform !== undefined && !isUnknownPlatform(platform) && isManifestType(child.mediaType))
        found.push([formatPlatform(platform), child.digest]);
    }
  }
  const root = graph.nodes.get(graph.root.digest);
  const config = root?.kind === 'manifest' ? root.children[0] : undefined;
  if (config !== undefined && graph.nodes.get(config.digest)?.kind === 'config') {
    const bytes = store.open(config, { signal: context.signal });
    const text = await collect(bytes, { limit: LIMITS.config, what: config.digest });
    const platform = platformOfConfig(text, config.digest);
    if (platform !== undefined) found.push([formatPlatform(platform), graph.root.digest]);
  }
  return Object.fromEntries(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** How an image is called in messages: by its names, or what stands there instead. */
export function shownName({ names, said, root }: StoredImage): string {
  return names[0] ?? said[0] ?? `(no name) ${root.digest}`;
}

async function readImage(store: ImageStore, image: StoredImage, context: Context): Promise<ArchivedImage> {
  const what = `${store.name}: ${shownName(image)}`;
  const read: Read = (d) =>
    collect(store.open(d, { signal: context.signal }), {
      limit: LIMITS.manifest,
      what: `${what}: ${d.digest}`,
    });
  const present = await presentBelow(store, read, image.root);
  const keep = (child: Descriptor): boolean => present.has(child.digest);
  const graph = await collectGraph(image.root, { read, keep });
  await refuseHoles(store, graph, what);
  return { ...image, graph, platforms: await platformsOf(graph, store, context) };
}

/** Opens all stores; what cannot be read is a fault, the others go on. */
async function readAll(
  paths: readonly string[],
  context: Context,
): Promise<{ stores: ImageStore[]; images: ArchivedImage[]; faults: Fault[] }> {
  const [stores, images, faults]: [ImageStore[], ArchivedImage[], Fault[]] = [[], [], []];
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError)) throw error;
      const own = faultOf(error);
      faults.push(own.code === 'CONTENT_NOT_FOUND' ? { ...own, code: 'BUNDLE_GRAPH_INCOMPLETE' } : own);
    }
  };
  try {
    for (const path of paths) {
      await attempt(async () => {
        const store = await openImageArchive(path, context);
        stores.push(store);
        for (const image of store.images)
          await attempt(async () => void images.push(await readImage(store, image, context)));
      });
    }
  } catch (error) {
    for (const store of stores) await store.close();
    throw error;
  }
  return { stores, images, faults };
}

/**
 * Opens what another tool wrote: an OCI layout (folder or tar), an archive of `docker save`, or a folder of such archives;
 * each may be in gzip. All manifests are read, layers are not.
 * @returns undefined for a bundle of sealift, damaged or not, and for anything unknown
 */
export async function openImageArchives(path: string, context: Context): Promise<ImageArchives | undefined> {
  const paths = await archivesAt(path, context);
  if (paths.length === 0) return undefined;
  const { stores, images, faults } = await readAll(paths, context);
  const holding = new Map<Digest, ImageStore>();
  for (const store of stores) {
    for (const image of images) {
      for (const digest of image.graph.nodes.keys()) {
        if (!holding.has(digest) && (await store.sizeOf(digest)) !== undefined) holding.set(digest, store);
      }
    }
  }
  return {
    path,
    name: basename(path).replace(ARCHIVE_NAME, ''),
    kinds: [...new Set(stores.map((s) => s.kind))],
    images,
    faults,
    open(descriptor, options) {
      const store = holding.get(descriptor.digest);
      if (store !== undefined) return asSource(store.open(descriptor, options));
      throw new SealiftError('BUNDLE_ENTRY_MISSING', `${path}: no ${descriptor.digest}`, { side: 'source' });
    },
    async close() {
      for (const store of stores) await store.close();
    },
  };
}
