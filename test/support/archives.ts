/** OCI layouts and archives of `docker save` made from generated images, and tars of any shape. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { tarHeader, tarPadding } from '../../src/io/tar.ts';
import { digestOf } from '../../src/io/verify.ts';
import { changedHeader } from '../bundle/tar-parts.ts';
import type { FleetImage } from './fleet.ts';

/** Files by their name, in order. */
export type Files = ReadonlyMap<string, Buffer>;

/** One entry of a tar; `type` is the type flag of its header, `link` where it points to. */
export interface TarPart {
  readonly name: string;
  readonly body?: Buffer;
  readonly type?: string;
  readonly link?: string;
  /** What the header says instead of the body's length, as text of 12 bytes. */
  readonly size?: string;
}

/** The bytes of a tar with these entries. */
export function tarOf(parts: readonly TarPart[], end: Buffer = Buffer.alloc(1024)): Buffer {
  const made = parts.flatMap(({ name, body = Buffer.alloc(0), type = '0', link = '', size }) => {
    const plain = tarHeader('x', body.length);
    const fields = { 0: name.padEnd(100, '\0'), 156: type, 157: link.padEnd(100, '\0') };
    const header = changedHeader(plain, size === undefined ? fields : { ...fields, 124: size });
    return [header, body, Buffer.alloc(tarPadding(body.length))];
  });
  return Buffer.concat([...made, end]);
}

export function partsOfFiles(files: Files): TarPart[] {
  return [...files].map(([name, body]) => ({ name, body }));
}

export async function writeFolder(dir: string, files: Files): Promise<string> {
  for (const [name, body] of files) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await writeFile(join(dir, name), body);
  }
  return dir;
}

function blobFile(digest: string): string {
  return `blobs/sha256/${digest.slice(7)}`;
}

/** The annotations of an image in `index.json`. */
export type Naming = (image: FleetImage) => Readonly<Record<string, string>>;

/** An OCI layout of images with everything below them. */
export function layoutFiles(images: readonly FleetImage[], naming: Naming): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  files.set('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'));
  const manifests = images.map((image) => {
    const { mediaType, digest, bytes } = image.index;
    const annotations = naming(image);
    return { mediaType, digest, size: bytes.length, annotations };
  });
  files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests })));
  for (const image of images) {
    for (const m of [...image.manifests, image.index]) files.set(blobFile(m.digest), m.bytes);
    for (const [digest, blob] of image.blobs) files.set(blobFile(digest), blob.bytes());
  }
  return files;
}

interface Manifest {
  readonly config: { readonly digest: `sha256:${string}` };
  readonly layers: readonly { readonly digest: `sha256:${string}` }[];
}

export interface SavedImage {
  readonly files: Map<string, Buffer>;
  readonly config: Buffer;
  readonly configDigest: string;
  /** Digests of the uncompressed layers. */
  readonly diffIds: readonly string[];
}

/**
 * What `docker save` since version 25 writes of an image in docker's own store: the same, as blobs of an OCI layout, whose
 * manifest it makes itself (at one time without any layer).
 */
export function savedLayout(
  image: FleetImage,
  options: { readonly name: string; readonly layers: boolean },
): SavedImage {
  const saved = savedFiles(image, [options.name]);
  const { config, diffIds } = saved;
  const plain = [...saved.files].flatMap(([name, bytes]) => (name.endsWith('layer.tar') ? [bytes] : []));
  const files = new Map<string, Buffer>([['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')]]);
  const put = (mediaType: string, bytes: Buffer) => {
    const digest = digestOf(bytes);
    files.set(blobFile(digest), bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const type = (what: string): string => `application/vnd.oci.image.${what}`;
  const layers = plain.map((bytes) => put(type('layer.v1.tar'), bytes));
  const manifest = {
    schemaVersion: 2,
    mediaType: type('manifest.v1+json'),
    config: put(type('config.v1+json'), config),
    layers: options.layers ? layers : [],
  };
  const root = put(manifest.mediaType, Buffer.from(JSON.stringify(manifest)));
  const annotations = { 'io.containerd.image.name': options.name };
  const index = { schemaVersion: 2, manifests: [{ ...root, annotations }] };
  files.set('index.json', Buffer.from(JSON.stringify(index)));
  const item = {
    Config: blobFile(saved.configDigest),
    RepoTags: [options.name],
    Layers: diffIds.map(blobFile),
  };
  files.set('manifest.json', Buffer.from(JSON.stringify([item])));
  return { ...saved, files };
}

/** What `docker save` before version 25 writes for the first platform of an image: uncompressed layers, no manifest. */
export function savedFiles(image: FleetImage, tags: readonly string[] | null): SavedImage {
  const first = image.manifests[0] ?? image.index;
  const manifest: Manifest = JSON.parse(first.bytes.toString());
  const bytesOf = (digest: `sha256:${string}`): Buffer => image.blobs.get(digest)?.bytes() ?? Buffer.alloc(0);
  const config = bytesOf(manifest.config.digest);
  const layers = manifest.layers.map((l) => gunzipSync(bytesOf(l.digest)));
  const diffIds = layers.map(digestOf);
  const names = diffIds.map((d) => `${d.slice(7, 71)}/layer.tar`);
  const configName = `${manifest.config.digest.slice(7)}.json`;
  const files = new Map<string, Buffer>();
  for (const [i, layer] of layers.entries()) files.set(names[i] ?? '', layer);
  files.set(configName, config);
  files.set(
    'manifest.json',
    Buffer.from(JSON.stringify([{ Config: configName, RepoTags: tags, Layers: names }])),
  );
  return { files, config, configDigest: manifest.config.digest, diffIds };
}
