import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { createGunzip } from 'node:zlib';
import { SealiftError } from '../core/errors.ts';
import { MIB } from '../core/limits.ts';
import { diskError, errnoOf, kindOf, readAt, readRange } from './files.ts';
import { Spool } from './spool.ts';
import { indexTar } from './tar-index.ts';

/** Files by their relative name, out of a tar, a compressed tar or a folder. Holds open files until `close`. */
export interface Archive {
  readonly kind: 'tar' | 'folder';
  readonly path: string;
  /** Bytes of a file; undefined when there is none of this name. @throws ARCHIVE_INVALID */
  sizeOf(name: string): Promise<number | undefined>;
  /**
   * Streams a file from byte `from` (default 0), not verified.
   * @throws ARCHIVE_INVALID when there is none of this name
   */
  read(name: string, from?: number): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

export interface ArchiveOptions {
  readonly signal: AbortSignal;
  /** Where a compressed archive is unpacked to; default the system's folder for temporary files. */
  readonly tempDir?: string;
}

/** First bytes of compressed files, and what to call them. */
const MAGIC: readonly (readonly [hex: string, name: string])[] = [
  ['1f8b', 'gzip'],
  ['28b52ffd', 'zstd'],
  ['fd377a58', 'xz'],
  ['425a68', 'bzip2'],
];

/** What compressed a file, told by its first bytes; undefined for anything else. */
export function compressionOf(start: Buffer): string | undefined {
  const hex = start.toString('hex');
  return MAGIC.find(([magic]) => hex.startsWith(magic))?.[1];
}

function missing(path: string, name: string): SealiftError {
  return new SealiftError('ARCHIVE_INVALID', `${path}: no ${JSON.stringify(name.slice(0, 200))} in it`);
}

/** Unpacks to a file that has no name, so that nothing is left however the program ends. */
async function gunzipped(
  handle: FileHandle,
  about: { readonly path: string; readonly options: ArchiveOptions },
): Promise<FileHandle> {
  const { path, options } = about;
  const out = await Spool.open(
    { what: path, purpose: `to unpack ${path}`, instead: 'uncompress the archive yourself' },
    options,
  );
  const source = handle.createReadStream({ start: 0, autoClose: false, highWaterMark: MIB });
  try {
    const gunzip = createGunzip({ chunkSize: 256 * 1024 });
    source.on('error', (error) => gunzip.destroy(error));
    for await (const chunk of source.pipe(gunzip) as AsyncIterable<Buffer>) await out.write(chunk);
    return out.handle;
  } catch (error) {
    await out.close();
    if (error instanceof SealiftError) throw error;
    if (!errnoOf(error).startsWith('Z_')) throw diskError(error, path);
    const why = error instanceof Error ? error.message : '';
    throw new SealiftError('ARCHIVE_INVALID', `${path}: cannot be uncompressed: ${why}`, { cause: error });
  } finally {
    source.destroy();
  }
}

/** The tar inside a file: the file itself, or what it holds compressed. */
async function plainHandle(path: string, options: ArchiveOptions): Promise<FileHandle> {
  const handle = await open(path, 'r');
  try {
    const compression = compressionOf(await readAt(handle, 0, 6));
    if (compression === undefined) return handle;
    if (compression !== 'gzip') {
      throw new SealiftError('CONTENT_UNSUPPORTED', `${path}: compressed with ${compression}`, {
        hint: 'uncompress it first; only gzip is read',
      });
    }
    const out = await gunzipped(handle, { path, options });
    await handle.close();
    return out;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function tarArchive(path: string, options: ArchiveOptions): Promise<Archive> {
  const handle = await plainHandle(path, options);
  try {
    const { size } = await handle.stat();
    const index = await indexTar(handle, { path, size, signal: options.signal });
    return {
      kind: 'tar',
      path,
      sizeOf: async (name) => index.find(name)?.size,
      async *read(name, from = 0) {
        const file = index.find(name);
        if (file === undefined) throw missing(path, name);
        yield* readRange(handle, { position: file.offset + from, length: file.size - from });
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Opens a regular file of a folder; links, pipes and devices are not there. */
async function openPlain(path: string): Promise<FileHandle | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'ENAMETOOLONG'].includes(errnoOf(error))) return undefined;
    throw diskError(error, path);
  }
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  return undefined;
}

function folderArchive(path: string): Archive {
  return {
    kind: 'folder',
    path,
    async sizeOf(name) {
      const handle = await openPlain(join(path, name));
      try {
        return (await handle?.stat())?.size;
      } finally {
        await handle?.close();
      }
    },
    async *read(name, from = 0) {
      const handle = await openPlain(join(path, name));
      if (handle === undefined) throw missing(path, name);
      try {
        const { size } = await handle.stat();
        yield* readRange(handle, { position: from, length: size - from });
      } finally {
        await handle.close();
      }
    },
    close: async () => {},
  };
}

/**
 * Opens the files of a tar, a tar in gzip, or a folder.
 * @throws FILE_NOT_FOUND, ARCHIVE_INVALID, CONTENT_UNSUPPORTED, FILE_UNREADABLE; DISK_FULL while unpacking
 */
export async function openArchive(path: string, options: ArchiveOptions): Promise<Archive> {
  const kind = await kindOf(path);
  if (kind === undefined || kind === 'other') {
    const why = kind === undefined ? 'no such file or folder' : 'neither a file nor a folder';
    throw new SealiftError('FILE_NOT_FOUND', `${path}: ${why}`);
  }
  try {
    return kind === 'folder' ? folderArchive(path) : await tarArchive(path, options);
  } catch (error) {
    throw diskError(error, path);
  }
}
