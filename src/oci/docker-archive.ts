import { createHash } from 'node:crypto';
import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, digestOfHex, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { MEDIA } from '../core/media.ts';
import { type Archive, compressionOf } from '../io/archive.ts';
import { throwIfAborted } from '../io/pool.ts';
import { collect, digestOf } from '../io/verify.ts';
import { fullName, type ImageStore, notThere, openContent, type StoredImage } from './image-store.ts';

/** One image of `manifest.json`: `Config` and `Layers` are names of files, `RepoTags` are Docker's short names. */
interface Saved {
  readonly config: string;
  readonly layers: readonly string[];
  readonly tags: readonly string[];
}

/** Where content lies: in a file of the archive, or made here. */
type Place = { readonly file: string; readonly size: number } | { readonly bytes: Buffer };

interface Reading {
  readonly archive: Archive;
  readonly signal: AbortSignal;
  readonly places: Map<Digest, Place>;
  /** Layers that were looked at: several images share them. */
  readonly layers: Map<string, Descriptor>;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((v) => typeof v === 'string');
}

function invalid(path: string, why: string): SealiftError {
  return new SealiftError('ARCHIVE_INVALID', `${path}: ${why}`, {
    hint: 'it is not what `docker save` writes; save the image again',
  });
}

function parseJson(bytes: Buffer, where: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    throw invalid(where, 'not JSON');
  }
}

async function readSaved({ archive }: Reading): Promise<Saved[]> {
  const where = `${archive.path}: manifest.json`;
  const bytes = await collect(archive.read('manifest.json'), { limit: LIMITS.manifest, what: where });
  const list = parseJson(bytes, where);
  if (!Array.isArray(list)) throw invalid(where, 'not a list of images');
  if (list.length > LIMITS.indexChildren) {
    throw invalid(where, `${list.length} images, the limit is ${LIMITS.indexChildren}`);
  }
  let layers = 0;
  return list.map((entry: unknown): Saved => {
    if (!isObject(entry) || typeof entry.Config !== 'string' || !isTexts(entry.Layers))
      throw invalid(where, 'an image without Config or Layers');
    layers += entry.Layers.length;
    if (entry.Layers.length > LIMITS.layersPerManifest) {
      const found = `an image with ${entry.Layers.length} layers`;
      throw invalid(where, `${found}, the limit is ${LIMITS.layersPerManifest}`);
    }
    if (layers > LIMITS.savedLayers) {
      throw invalid(where, `more than ${LIMITS.savedLayers} layers of all images together`);
    }
    const tags = isTexts(entry.RepoTags) ? entry.RepoTags : [];
    return { config: entry.Config, layers: entry.Layers, tags };
  });
}

async function sizeOf(archive: Archive, file: string): Promise<number> {
  const size = await archive.sizeOf(file);
  if (size !== undefined) return size;
  throw invalid(
    archive.path,
    `manifest.json names ${JSON.stringify(file.slice(0, 200))}, which is not in it`,
  );
}

/** `rootfs.diff_ids` of an image config: the digests of its layers, uncompressed (image-spec config.md). */
function diffIdsOf(config: Buffer, where: string): Digest[] {
  const body = parseJson(config, where);
  const ids = isObject(body) && isObject(body.rootfs) ? body.rootfs.diff_ids : undefined;
  if (!isTexts(ids) || !ids.every(isDigest)) throw invalid(where, 'a config without rootfs.diff_ids');
  return ids.filter(isDigest);
}

async function hashFile({ archive, signal }: Reading, file: string): Promise<Digest> {
  const hash = createHash('sha256');
  for await (const chunk of archive.read(file)) {
    throwIfAborted(signal);
    hash.update(chunk);
  }
  return digestOfHex(hash.digest('hex'));
}

const SUFFIX: Readonly<Record<string, string>> = { gzip: '+gzip', zstd: '+zstd' };

/** A layer: plain tar as docker writes it has the digest that the config says, a compressed one (crane) is hashed. */
async function layerOf(reading: Reading, file: string, diffId: Digest): Promise<Descriptor> {
  const { archive, layers, places } = reading;
  const key = `${diffId} ${file}`;
  const known = layers.get(key);
  if (known !== undefined) return known;
  const size = await sizeOf(archive, file);
  let start: Buffer = Buffer.alloc(0);
  for await (const chunk of archive.read(file)) {
    start = chunk.subarray(0, 6);
    break;
  }
  const compression = compressionOf(start);
  const suffix = compression === undefined ? '' : SUFFIX[compression];
  if (suffix === undefined) throw invalid(archive.path, `a layer compressed with ${compression}`);
  const digest = suffix === '' ? diffId : await hashFile(reading, file);
  const descriptor: Descriptor = { mediaType: `${MEDIA.ociLayer}${suffix}`, digest, size };
  layers.set(key, descriptor);
  if (!places.has(digest)) places.set(digest, { file, size });
  return descriptor;
}

function described(said: readonly string[], config: Digest, diffIds: readonly Digest[]): string {
  const shown = diffIds.slice(0, 3).join(', ') + (diffIds.length > 3 ? `, ${diffIds.length - 3} more` : '');
  const tags = said.length === 0 ? 'an image without a name' : said.slice(0, 3).join(', ');
  return `${tags}: config ${config}, layers (diff ids) ${shown || 'none'}`;
}

/** The image with a manifest made for it: same archive, same bytes. */
async function imageOf(reading: Reading, saved: Saved): Promise<StoredImage> {
  const { archive, places } = reading;
  const where = `${archive.path}: ${saved.config.slice(0, 200)}`;
  await sizeOf(archive, saved.config);
  const config = await collect(archive.read(saved.config), { limit: LIMITS.config, what: where });
  const diffIds = diffIdsOf(config, where);
  if (diffIds.length !== saved.layers.length) {
    throw invalid(where, `${diffIds.length} diff ids for ${saved.layers.length} layers`);
  }
  const layers: Descriptor[] = [];
  for (const [i, file] of saved.layers.entries()) {
    const diffId = diffIds[i];
    if (diffId !== undefined) layers.push(await layerOf(reading, file, diffId));
  }
  const configDigest = digestOf(config);
  places.set(configDigest, { file: saved.config, size: config.length });
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      config: { mediaType: MEDIA.ociConfig, digest: configDigest, size: config.length },
      layers,
    }),
  );
  const root = { mediaType: MEDIA.ociManifest, digest: digestOf(bytes), size: bytes.length };
  places.set(root.digest, { bytes });
  const names = saved.tags.flatMap((tag) => fullName(tag) ?? []);
  const made = described(saved.tags, configDigest, diffIds);
  return { names: [...new Set(names)], said: saved.tags, root, made };
}

/**
 * Opens an archive of `docker save` (moby image-spec v1.2: `manifest.json`). It holds no manifests: for each image one is
 * made, of the layers as they lie there, so its digest is not the one of the registry that it came from.
 * @throws ARCHIVE_INVALID
 */
export async function openDockerArchive(
  archive: Archive,
  options: { readonly signal: AbortSignal },
): Promise<ImageStore> {
  const { path } = archive;
  const places = new Map<Digest, Place>();
  const reading: Reading = { archive, signal: options.signal, places, layers: new Map() };
  const images: StoredImage[] = [];
  for (const saved of await readSaved(reading)) images.push(await imageOf(reading, saved));
  return {
    name: path,
    kind: 'docker-archive',
    images,
    sizeOf: async (digest) => {
      const place = places.get(digest);
      return place === undefined ? undefined : 'bytes' in place ? place.bytes.length : place.size;
    },
    async *open(descriptor, { signal, offset = 0 }) {
      const place = places.get(descriptor.digest);
      if (place === undefined) throw notThere(path, descriptor.digest);
      if ('bytes' in place) yield place.bytes.subarray(offset);
      else yield* openContent(archive, { file: place.file, descriptor }, { signal, offset });
    },
    close: () => archive.close(),
  };
}
