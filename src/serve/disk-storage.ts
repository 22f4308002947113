import { randomUUID } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Readable } from 'node:stream';
import { type Digest, hexOf } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { diskError, errnoOf, readFileIfExists, syncFolder, writeFileAtomic } from '../io/files.ts';
import type { Span } from './answer.ts';
import { type Incoming, isSafePath, type Storage } from './storage.ts';

/** Nothing there, or a file where a folder of the path should be. */
const ABSENT = new Set(['ENOENT', 'ENOTDIR']);

async function namesIn(path: string, kind: 'files' | 'folders'): Promise<string[]> {
  const entries = await orAbsent<Dirent[]>(path, {
    run: () => readdir(path, { withFileTypes: true }),
    absent: () => [],
  });
  // Names with a leading dot are temporary files of a write that was killed.
  return entries
    .filter((e) => (kind === 'files' ? e.isFile() : e.isDirectory()) && !e.name.startsWith('.'))
    .map((e) => e.name)
    .sort();
}

async function receiveInto(incoming: string, blobs: string): Promise<Incoming> {
  const temp = join(incoming, randomUUID());
  const handle = await open(temp, 'wx', 0o644);
  let isOpen = true;
  const close = async (): Promise<void> => {
    if (!isOpen) return;
    isOpen = false;
    await handle.close();
  };
  return {
    async write(chunk) {
      try {
        for (let done = 0; done < chunk.length; ) {
          const { bytesWritten } = await handle.write(chunk, done, chunk.length - done);
          done += bytesWritten;
        }
      } catch (error) {
        throw diskError(error, temp);
      }
    },
    async commit(digest) {
      try {
        await handle.sync();
        await close();
        // Over an older file of that name too: the new bytes are proven, the old ones may have rotted.
        await rename(temp, join(blobs, hexOf(digest)));
        await syncFolder(blobs);
      } catch (error) {
        throw diskError(error, temp);
      }
    },
    async discard() {
      await close();
      await rm(temp, { force: true });
    },
  };
}

/** What a failing disk says, and `absent` where there is just nothing at `path`. */
async function orAbsent<T>(
  path: string,
  options: { readonly run: () => Promise<T>; readonly absent: () => T },
): Promise<T> {
  try {
    return await options.run();
  } catch (error) {
    if (ABSENT.has(errnoOf(error))) return options.absent();
    throw diskError(error, path);
  }
}

/** The part of a blob file as a stream. */
function openPart(path: string, span: Span): Promise<Readable> {
  return orAbsent<Readable>(path, {
    run: async () => {
      const handle = await open(path, 'r');
      if (span.length > 0) {
        const end = span.start + span.length - 1;
        return handle.createReadStream({ start: span.start, end, highWaterMark: 256 * 1024 });
      }
      await handle.close();
      return Readable.from([]);
    },
    absent: () => {
      throw new SealiftError('CONTENT_NOT_FOUND', `${basename(path)}: no such blob`);
    },
  });
}

async function prepare(
  dir: string,
  folders: { readonly blobs: string; readonly incoming: string },
): Promise<void> {
  try {
    await mkdir(folders.blobs, { recursive: true });
    await rm(folders.incoming, { recursive: true, force: true });
    await mkdir(folders.incoming, { recursive: true });
  } catch (error) {
    throw diskError(error, dir);
  }
}

/**
 * Storage over a directory, for one registry at a time:
 * ```
 * blobs/sha256/<hex>          all content, manifests too
 * repositories/<name>/_*\/     links and tags, see repository.ts
 * incoming/<uuid>             uploads under way; emptied when the storage is opened
 * ```
 */
export async function diskStorage(dir: string): Promise<Storage> {
  const blobs = join(dir, 'blobs', 'sha256');
  const incoming = join(dir, 'incoming');
  await prepare(dir, { blobs, incoming });
  const blobPath = (digest: Digest): string => join(blobs, hexOf(digest));
  const place = (folder: string, name?: string): string => {
    const path = name === undefined ? folder : `${folder}/${name}`;
    if (isSafePath(path)) return join(dir, path);
    throw new SealiftError('INTERNAL', `"${path}" is not a name that storage takes`);
  };

  return {
    receive: () => receiveInto(incoming, blobs),
    blobSize: (digest) =>
      orAbsent<number | undefined>(blobPath(digest), {
        run: async () => (await stat(blobPath(digest))).size,
        absent: () => undefined,
      }),
    openBlob: (digest, span) => openPart(blobPath(digest), span),
    async readDocument(folder, name) {
      return (await readFileIfExists(place(folder, name)))?.toString('utf8');
    },
    async writeDocument(folder, name, { text }) {
      await writeFileAtomic(place(folder, name), text);
    },
    async removeDocument(folder, name) {
      const path = place(folder, name);
      const run = (): Promise<boolean> => rm(path).then(() => true);
      return await orAbsent(path, { run, absent: () => false });
    },
    listDocuments: (folder) => namesIn(place(folder), 'files'),
    listFolders: (folder) => namesIn(place(folder), 'folders'),
  };
}
