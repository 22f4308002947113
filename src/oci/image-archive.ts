import { SealiftError } from '../core/errors.ts';
import { type Archive, openArchive } from '../io/archive.ts';
import { openDockerArchive } from './docker-archive.ts';
import type { ImageStore } from './image-store.ts';
import { openLayout } from './layout.ts';

type Options = { readonly signal: AbortSignal; readonly tempDir?: string };

/** Whether an archive looks like one that `openImageArchive` reads. */
export async function isImageArchive(archive: Archive): Promise<boolean> {
  return (
    (await archive.sizeOf('index.json')) !== undefined ||
    (await archive.sizeOf('manifest.json')) !== undefined
  );
}

async function openStore(archive: Archive, options: Options): Promise<ImageStore> {
  // Newer dockers write both: the layout has manifests and digests, manifest.json only names files.
  if ((await archive.sizeOf('index.json')) !== undefined) return openLayout(archive);
  if ((await archive.sizeOf('manifest.json')) !== undefined) return openDockerArchive(archive, options);
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
