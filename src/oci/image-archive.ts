import type { Descriptor } from '../core/descriptor.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { isIndexType, MEDIA } from '../core/media.ts';
import { type Archive, openArchive } from '../io/archive.ts';
import { collect } from '../io/verify.ts';
import { openDockerArchive } from './docker-archive.ts';
import type { ImageStore } from './image-store.ts';
import { openLayout } from './layout.ts';
import { type ParsedManifest, parseManifest } from './manifest.ts';

type Options = { readonly signal: AbortSignal; readonly tempDir?: string };

/** Whether an archive looks like one that `openImageArchive` reads. */
export async function isImageArchive(archive: Archive): Promise<boolean> {
  return (
    (await archive.sizeOf('index.json')) !== undefined ||
    (await archive.sizeOf('manifest.json')) !== undefined
  );
}

/** A manifest; undefined for one that is wrong, which concerns only who wants that image. */
function readable(bytes: Buffer, root: Descriptor): ParsedManifest | undefined {
  try {
    return parseManifest(bytes, root);
  } catch (error) {
    if (error instanceof SealiftError) return undefined;
    throw error;
  }
}

/** Whether all images of a layout are of plain layers only, or of none. */
async function isUnpacked(layout: ImageStore, { signal }: Options): Promise<boolean> {
  for (const { root } of layout.images) {
    if (isIndexType(root.mediaType) || (await layout.sizeOf(root.digest)) === undefined) return false;
    const what = `${layout.name}: ${root.digest}`;
    const bytes = await collect(layout.open(root, { signal }), { limit: LIMITS.manifest, what });
    const parsed = readable(bytes, root);
    if (
      parsed === undefined ||
      parsed.kind === 'index' ||
      parsed.layers.some((l) => l.mediaType !== MEDIA.ociLayer)
    )
      return false;
  }
  return layout.images.length > 0;
}

/** What a layout has is found by its digest all the same: who knows that digest wants just these bytes. */
function withContentOf(layout: ImageStore | undefined, saved: ImageStore): ImageStore {
  if (layout === undefined) return saved;
  return {
    ...saved,
    sizeOf: async (digest) => (await saved.sizeOf(digest)) ?? (await layout.sizeOf(digest)),
    async *open(descriptor, options) {
      const isMade = (await saved.sizeOf(descriptor.digest)) !== undefined;
      yield* (isMade ? saved : layout).open(descriptor, options);
    },
  };
}

/**
 * Docker 25 and later save both kinds in one. With containerd's store the manifests of its layout are those of the
 * registry. With docker's own they are made while it saves, of unpacked layers (moby image/tarexport/save.go; at one time
 * of none at all): then the archive is what older ones are.
 */
async function openStore(archive: Archive, options: Options): Promise<ImageStore> {
  const isSaved = (await archive.sizeOf('manifest.json')) !== undefined;
  const isLayout = (await archive.sizeOf('index.json')) !== undefined;
  const layout = isLayout ? await openLayout(archive) : undefined;
  if (layout !== undefined && !(isSaved && (await isUnpacked(layout, options)))) return layout;
  if (isSaved) return withContentOf(layout, await openDockerArchive(archive, options));
  throw new SealiftError(
    'ARCHIVE_INVALID',
    `${archive.path}: neither an OCI layout nor an archive of docker save`,
    {
      hint: 'it has no index.json and no manifest.json',
    },
  );
}

/**
 * Opens an OCI layout (folder, tar, tar in gzip) or an archive of `docker save`, whichever is there.
 * @throws FILE_NOT_FOUND, ARCHIVE_INVALID, CONTENT_UNSUPPORTED, OCI_MANIFEST_INVALID
 */
export async function openImageArchive(path: string, options: Options): Promise<ImageStore> {
  const archive = await openArchive(path, options);
  try {
    return await openStore(archive, options);
  } catch (error) {
    await archive.close();
    throw error;
  }
}
