import { ANNOTATION, type Descriptor } from '../core/descriptor.ts';
import { type Digest, hexOf } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { MEDIA } from '../core/media.ts';
import type { Archive } from '../io/archive.ts';
import { collect } from '../io/verify.ts';
import { fullName, type ImageStore, notThere, openContent, type StoredImage } from './image-store.ts';
import { parseManifest } from './manifest.ts';

function blobFile(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

/**
 * What an entry of `index.json` is called: by `io.containerd.image.name`, else by `org.opencontainers.image.ref.name`
 * when that is more than a tag, as containerd reads it. A bare tag says nothing about the repository, so it is no name.
 */
function namesOf({ annotations = {} }: Descriptor): Pick<StoredImage, 'names' | 'said'> {
  const own = annotations[ANNOTATION.containerdName];
  const ref = annotations[ANNOTATION.refName];
  const text = own ?? ref;
  if (text === undefined) return { names: [], said: [] };
  const name = own !== undefined || /[/:@]/.test(text) ? fullName(text) : undefined;
  return { names: name === undefined ? [] : [name], said: [text] };
}

/** One image for each root, with all its names. */
function imagesOf(manifests: readonly Descriptor[]): StoredImage[] {
  const images = new Map<Digest, StoredImage>();
  for (const root of manifests) {
    // What Sealift carries besides images (charts, files) has a name of its own.
    if (root.annotations?.[ANNOTATION.sealiftName] !== undefined) continue;
    const { names, said } = namesOf(root);
    const known = images.get(root.digest);
    images.set(root.digest, {
      root: known?.root ?? root,
      names: [...new Set([...(known?.names ?? []), ...names])],
      said: [...new Set([...(known?.said ?? []), ...said])],
    });
  }
  return [...images.values()];
}

/**
 * Opens an OCI image layout (image-spec image-layout.md) in a folder or a tar. Only `oci-layout` and `index.json` are
 * read; content may lack.
 * @throws ARCHIVE_INVALID, OCI_MANIFEST_INVALID
 */
export async function openLayout(archive: Archive): Promise<ImageStore> {
  const { path } = archive;
  const size = await archive.sizeOf('index.json');
  if (size === undefined) throw new SealiftError('ARCHIVE_INVALID', `${path}: no index.json in it`);
  const bytes = await collect(archive.read('index.json'), {
    limit: LIMITS.bundleDocument,
    what: `${path}: index.json`,
  });
  const index = parseManifest(bytes, { mediaType: MEDIA.ociIndex, digest: `${path}: index.json` });
  const images = imagesOf(index.kind === 'index' ? index.manifests : []);
  return {
    name: path,
    kind: 'oci-layout',
    images,
    sizeOf: (digest) => archive.sizeOf(blobFile(digest)),
    async *open(descriptor, options) {
      const file = blobFile(descriptor.digest);
      if ((await archive.sizeOf(file)) === undefined) throw notThere(path, descriptor.digest);
      yield* openContent(archive, { file, descriptor }, options);
    },
    close: () => archive.close(),
  };
}
