import { closeSync, fstatSync, openSync, readSync, statSync, writeSync } from 'node:fs';

/**
 * A byte space that lies in several files, one behind the other. Plain data, so that threads of this process can have it.
 * What a file lacks of its part, and a file that is not there, reads as zeros: then it is the checksums that say so.
 */
export interface Joined {
  /** Each is open in this process, or the path of one that is opened when it is needed; -1 for one that is not there. */
  readonly files: readonly (number | string)[];
  /** Where the part of each file ends in the byte space; ascending. */
  readonly ends: readonly number[];
  /** How those are opened that are paths. */
  readonly flags: 'r' | 'r+';
  /** No other one of this process has it: under it a thread finds what it has opened. */
  readonly id: number;
}

/** A file that is open in this process, or several that make one byte space. */
export type OpenFile = number | Joined;

/** Where to read or write. Bytes. */
export interface At {
  readonly position: number;
  /** Where in the buffer to begin, and how much of it is meant. */
  readonly from: number;
  readonly length: number;
}

/** More files of one byte space are not kept open: a process may have a thousand, and other spaces want some too. */
export const KEPT_OPEN = 128;
/** Files that one thread keeps open of those that it opened by their paths: the ones that it used last. */
const OPENED = 16;

let ids = 0;

/** Makes one byte space of files. Only the main thread does: the numbers of two threads would be the same. */
export function joinFiles(parts: Pick<Joined, 'files' | 'ends' | 'flags'>): Joined {
  ids += 1;
  return { ...parts, id: ids };
}

const opened = new Map<string, number>();

function close(key: string): void {
  const fd = opened.get(key);
  opened.delete(key);
  if (fd !== undefined) closeSync(fd);
}

/** The open file of a part. @throws what the system says when it cannot be opened */
function fileOf({ files, flags, id }: Joined, index: number): number {
  const file = files[index] ?? -1;
  if (typeof file === 'number') return file;
  const key = `${id} ${index}`;
  const fd = opened.get(key) ?? openSync(file, flags);
  // The one that was used last is the last to go.
  opened.delete(key);
  opened.set(key, fd);
  const [oldest] = opened.keys();
  if (oldest !== undefined && opened.size > OPENED) close(oldest);
  return fd;
}

/** Closes what this thread has opened of it by a path. Another thread keeps a few until it opens others, or ends. */
export function closeOpened(file: OpenFile): void {
  if (typeof file === 'number') return;
  for (const key of [...opened.keys()]) if (key.startsWith(`${file.id} `)) close(key);
}

/** The first file whose part ends behind a position. */
function partAt({ ends }: Joined, position: number): number {
  let [low, high] = [0, ends.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ends[middle] ?? 0) > position) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** A part of the byte space, in the file that has it; undefined behind the end. */
function locate(
  joined: Joined,
  position: number,
): { readonly file: number; readonly position: number; readonly left: number } | undefined {
  const index = partAt(joined, position);
  const end = joined.ends[index];
  if (end === undefined) return undefined;
  const start = joined.ends[index - 1] ?? 0;
  return { file: fileOf(joined, index), position: position - start, left: end - position };
}

/**
 * Reads some bytes synchronously, at least one unless the end is reached.
 * @returns how many; 0 at the end
 */
export function readSome(file: OpenFile, buffer: Buffer, at: At): number {
  const got = readThere(file, buffer, at);
  if (got > 0 || typeof file === 'number') return got;
  const { from, position, length } = at;
  const want = Math.min(length, locate(file, position)?.left ?? 0);
  buffer.fill(0, from, from + want);
  return want;
}

/** The same, but what a file lacks of its part is an end as well: for bytes that nobody checks afterwards. */
export function readThere(file: OpenFile, buffer: Buffer, { position, from, length }: At): number {
  if (typeof file === 'number') return readSync(file, buffer, from, length, position);
  const at = locate(file, position);
  if (at === undefined || at.file < 0) return 0;
  return readSync(at.file, buffer, from, Math.min(length, at.left), at.position);
}

/**
 * Writes some bytes synchronously, at least one.
 * @returns how many
 */
export function writeSome(file: OpenFile, bytes: Uint8Array, { position, from, length }: At): number {
  if (typeof file === 'number') return writeSync(file, bytes, from, length, position);
  const at = locate(file, position);
  if (at === undefined) throw new RangeError(`byte ${position} is behind the last file`);
  return writeSync(at.file, bytes, from, Math.min(length, at.left), at.position);
}

/** Changes when somebody writes to one of the files, or puts another one in the place of a path. */
export function stampOf(file: OpenFile | string): string {
  if (typeof file === 'object') return file.files.map((each) => (each === -1 ? '' : stampOf(each))).join(' ');
  const { ino, size, mtimeMs, ctimeMs } = typeof file === 'string' ? statSync(file) : fstatSync(file);
  return `${ino}-${size}-${mtimeMs}-${ctimeMs}`;
}
