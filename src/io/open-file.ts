import { readSync, writeSync } from 'node:fs';

/**
 * A byte space that lies in several open files, one behind the other. Plain data, so that threads of this process can have
 * it. What a file lacks of its part, and a file that is not there (-1), reads as zeros: then it is the checksums that say so.
 */
export interface Joined {
  readonly files: readonly number[];
  /** Where the part of each file ends in the byte space; ascending. */
  readonly ends: readonly number[];
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
  const file = joined.files[index];
  const end = joined.ends[index];
  if (file === undefined || end === undefined) return undefined;
  return { file, position: position - (joined.ends[index - 1] ?? 0), left: end - position };
}

/**
 * Reads some bytes synchronously, at least one unless the end is reached.
 * @returns how many; 0 at the end
 */
export function readSome(file: OpenFile, buffer: Buffer, { position, from, length }: At): number {
  if (typeof file === 'number') return readSync(file, buffer, from, length, position);
  const at = locate(file, position);
  if (at === undefined) return 0;
  const want = Math.min(length, at.left);
  const got = at.file < 0 ? 0 : readSync(at.file, buffer, from, want, at.position);
  if (got > 0) return got;
  buffer.fill(0, from, from + want);
  return want;
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
