import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type ErrorCode, SealiftError } from '../core/errors.ts';
import { type OpenFile, readSome, writeSome } from './open-file.ts';

/** The `code` of a Node system error, or '' for anything else. */
export function errnoOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

/** A name beside `path` that nothing else uses: `.<name>.<random>.tmp`. */
export function besidePath(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
}

/**
 * Removes what stopped runs left beside paths of one folder, under names of `besidePath`. Whoever calls it holds the folder,
 * so that nobody writes there.
 */
export async function clearBeside(folder: string, names: ReadonlySet<string>): Promise<void> {
  const found = await readdir(folder).catch(() => []);
  for (const each of found) {
    const [, name] = /^\.(.+)\.[0-9a-f]{12}\.tmp$/.exec(each) ?? [];
    if (name === undefined || !names.has(name)) continue;
    await rm(join(folder, each), { recursive: true, force: true }).catch(() => {});
  }
}

/** Makes a rename in `folder` survive a power cut. File systems that refuse to sync a folder are let be. */
export async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, 'r');
    await handle.sync();
  } catch {
    // FAT and some network mounts cannot sync a folder; the data itself is synced by the caller.
  } finally {
    await handle?.close();
  }
}

/**
 * Writes a whole small file: beside, fsync, rename. The folder is made when absent. An existing file is replaced at
 * once or not at all.
 * @param options.mode permission bits, default 0o644 under the umask
 * @param options.owner who shall have the file, where we may decide that
 */
export async function writeFileAtomic(
  path: string,
  data: Uint8Array | string,
  options: {
    readonly mode?: number;
    readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
  } = {},
): Promise<void> {
  const temp = besidePath(path);
  try {
    await mkdir(dirname(path), { recursive: true });
    const handle = await open(temp, 'wx', options.mode ?? 0o644);
    try {
      const { owner } = options;
      // Only root may give files away; for all others the file is their own already.
      if (owner !== undefined) await handle.chown(owner.uid, owner.gid).catch(() => {});
      await handle.writeFile(data);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temp, path);
  } catch (error) {
    // What went wrong first is what counts.
    await rm(temp, { force: true }).catch(() => {});
    throw diskError(error, path);
  }
  await syncFolder(dirname(path));
}

/**
 * Writes only when the bytes differ from what is there.
 * @returns whether the file was written
 */
export async function writeFileIfChanged(path: string, data: Uint8Array): Promise<boolean> {
  const before = await readFileIfExists(path);
  if (before?.equals(data) === true) return false;
  await writeFileAtomic(path, data);
  return true;
}

/** True when nothing is at a path, also because something above it is a file (`HOME=/dev/null`). */
function isMissing(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR';
}

/** The bytes of a file, or undefined when there is none. */
export async function readFileIfExists(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw diskError(error, path);
  }
}

/**
 * The bytes of a file that a person named, at most `limit` bytes.
 * @throws `missing` when it is not there, CONTENT_TOO_LARGE, FILE_UNREADABLE
 */
export async function readFileLimited(
  path: string,
  options: { readonly limit: number; readonly missing: ErrorCode; readonly hint?: string },
): Promise<Buffer> {
  const hint = options.hint === undefined ? {} : { hint: options.hint };
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    if (isMissing(error)) throw new SealiftError(options.missing, `${path}: no such file`, hint);
    throw diskError(error, path);
  }
  try {
    const tooLarge = (size: string): SealiftError =>
      new SealiftError('CONTENT_TOO_LARGE', `${path}: ${size} bytes, the limit is ${options.limit} bytes`);
    const found = await handle.stat();
    if (found.isDirectory()) throw new SealiftError('FILE_UNREADABLE', `${path}: is a folder`, hint);
    if (found.size > options.limit) throw tooLarge(String(found.size));
    const chunks: Buffer[] = [];
    let read = 0;
    // Not by the size alone: devices and pipes have none, and a file may grow.
    for await (const chunk of handle.createReadStream({ autoClose: false }) as AsyncIterable<Buffer>) {
      read += chunk.length;
      if (read > options.limit) throw tooLarge(`more than ${options.limit}`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks, read);
  } catch (error) {
    throw diskError(error, path);
  } finally {
    await handle.close();
  }
}

/** What is at a path: nothing, a file or a folder. */
export async function kindOf(path: string): Promise<'file' | 'folder' | 'other' | undefined> {
  try {
    const s = await stat(path);
    return s.isFile() ? 'file' : s.isDirectory() ? 'folder' : 'other';
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw diskError(error, path);
  }
}

/**
 * The file system that holds `folder`, or will: its nearest existing parent is asked, links followed. `free` are bytes for
 * an ordinary user; Infinity where the file system does not know its own size, as many network and FUSE mounts do not.
 */
export async function spaceOf(folder: string): Promise<{ readonly device: number; readonly free: number }> {
  for (let at = folder; ; at = dirname(at)) {
    try {
      const { dev } = await stat(at);
      const { blocks, bavail, bsize } = await statfs(at);
      return { device: dev, free: blocks === 0 ? Number.POSITIVE_INFINITY : bavail * bsize };
    } catch (error) {
      if (!isMissing(error) || dirname(at) === at) throw diskError(error, at);
    }
  }
}

/** Free bytes on the file system that holds `folder`, or will (`spaceOf`). */
export async function freeSpace(folder: string): Promise<number> {
  return (await spaceOf(folder)).free;
}

/** FAT and exFAT, by the numbers of Linux (statfs(2)). */
const FILLING: readonly number[] = [0x4d44, 0x2011bab0];

/**
 * Whether the file system of a folder has no holes: what is written far behind the end of a file has all before it filled
 * with zeros, which are then written twice.
 */
export async function fillsHoles(folder: string): Promise<boolean> {
  return FILLING.includes((await statfs(folder)).type);
}

/** Reads exactly `length` bytes at `position`; fewer only at the end of the file. */
export async function readAt(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

/** Streams `length` bytes from `position` in chunks of `chunk` bytes (default 1 MiB); ends early at the end of the file. */
export async function* readRange(
  handle: FileHandle,
  range: { readonly position: number; readonly length: number; readonly chunk?: number },
): AsyncGenerator<Buffer> {
  const chunk = range.chunk ?? 1024 * 1024;
  for (let done = 0; done < range.length; ) {
    const part = await readAt(handle, range.position + done, Math.min(chunk, range.length - done));
    if (part.length === 0) return;
    done += part.length;
    yield part;
  }
}

/** Whose a path is that a disk fails with. `destination`: ours, that we write; whoever sends content has no part in it. */
export interface DiskSide {
  readonly side?: 'destination';
}

const FAULTY =
  'the disk gives errors or was taken away (`dmesg` says more): run the same command again, or use another disk';

/** What to do where the system opens no more files or connections for us. */
export const FEW_FILES =
  'this user may open too few files at once: raise the limit (`ulimit -n 1024`) and run the same command again';

/** What to do about an error of a disk that is neither full nor refuses us. */
const HINTS: Readonly<Record<string, string>> = {
  EFBIG:
    'the file system, or a limit of this user (`ulimit -f`), allows no file this large; FAT32 ends at 4 GiB',
  EIO: FAULTY,
  EMFILE: FEW_FILES,
  ENFILE: FEW_FILES,
  ENODEV: FAULTY,
  ENXIO: FAULTY,
  ESTALE: FAULTY,
};

/** Turns a disk's errors into ours; ours pass unchanged. */
export function diskError(error: unknown, path: string, { side }: DiskSide = {}): unknown {
  const code = errnoOf(error);
  if (error instanceof SealiftError || !/^E[A-Z]+$/.test(code)) return error;
  const about = { cause: error, ...(side === undefined ? {} : { side }) };
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new SealiftError('DISK_FULL', `${path}: no space left on the disk`, {
      ...about,
      hint: 'free some space and run the same command again: it goes on where it stopped',
    });
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new SealiftError(
      'FILE_UNREADABLE',
      `${path}: ${code === 'EROFS' ? 'read-only' : 'not permitted'}`,
      { ...about, hint: 'check the owner and the mode of the path, or run as a user who may' },
    );
  }
  const said = error instanceof Error ? error.message : code;
  const hint = HINTS[code];
  return new SealiftError('FILE_UNREADABLE', `${path}: ${said}`, {
    ...about,
    ...(hint === undefined ? {} : { hint }),
  });
}

/**
 * Some bytes of an open file, read synchronously: from the page cache that takes a tenth of a round trip to the thread
 * pool. Fewer than asked only at the end of the file.
 */
export function readNow(file: OpenFile, position: number, length: number): Buffer {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const got = readSome(file, buffer, {
      position: position + filled,
      from: filled,
      length: length - filled,
    });
    if (got === 0) break;
    filled += got;
  }
  return buffer.subarray(0, filled);
}

/** Pieces in which a damaged disk is read: a sector of a disc. Bytes. */
const SECTOR = 2048;

/**
 * The same of a disk that may be damaged: what it cannot read is 0xff, which is no header and no padding.
 * @param lost hears of each piece that cannot be read
 */
export function readThrough(
  file: OpenFile,
  range: { readonly position: number; readonly length: number },
  lost: (position: number) => void = () => {},
): Buffer {
  const { position, length } = range;
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const at = position + filled;
    try {
      const got = readSome(file, buffer, { position: at, from: filled, length: length - filled });
      if (got === 0) break;
      filled += got;
    } catch (error) {
      if (errnoOf(error) !== 'EIO') throw error;
      lost(at);
      const rest = Math.min(SECTOR - (at % SECTOR), length - filled);
      buffer.fill(0xff, filled, filled + rest);
      filled += rest;
    }
  }
  return buffer.subarray(0, filled);
}

/** Does something with a disk, whose errors become ours. @throws DISK_FULL, FILE_UNREADABLE */
export function onDisk<T>(work: () => T, path: string, whose: DiskSide = {}): T {
  try {
    return work();
  } catch (error) {
    throw diskError(error, path, whose);
  }
}

/**
 * Writes all bytes, from `position` on. Synchronous: to the page cache that is faster than a thread-pool round trip.
 * @throws DISK_FULL, FILE_UNREADABLE, both with side `destination`
 */
export function writeAll(file: OpenFile, chunk: Uint8Array, at: { position: number; path: string }): void {
  const side = 'destination';
  for (let done = 0; done < chunk.length; ) {
    const range = { position: at.position + done, from: done, length: chunk.length - done };
    const write = (): number => writeSome(file, chunk, range);
    done += onDisk(write, at.path, { side });
  }
}
