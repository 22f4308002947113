import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { onDisk, readNow, syncFolder, writeAll } from '../io/files.ts';
import { TAR_BLOCK, TAR_END, tarHeader, tarPadding } from '../io/tar.ts';
import { SIGNATURE } from './names.ts';
import { type Place, pathOf, volumePath } from './volumes.ts';

/** The bytes of a tar that lies in one file or in volumes, while its end is written. Positions are those of the whole tar. */
export interface TailSpace {
  readonly path: string;
  size(): number;
  read(position: number, length: number): Buffer;
  write(position: number, bytes: Uint8Array): void;
  /** Makes it so long, with zeros at the end; makes one more volume where the last one is full. */
  resize(size: number): void;
  sync(): Promise<void>;
  close(): void;
}

/** An open file of the end. */
interface Part {
  readonly path: string;
  readonly fd: number;
  /** Where in the tar its first byte is. */
  readonly start: number;
  readonly isNew: boolean;
}

const DESTINATION = { side: 'destination' } as const;

/** The last files of a tar, as one space: those from byte `from` on. */
class Parts implements TailSpace {
  readonly path: string;
  readonly #place: Place;
  readonly #volumeSize: number;
  readonly #parts: Part[] = [];

  constructor(place: Place, from: number, volumeSize: number) {
    this.path = pathOf(place);
    this.#place = place;
    this.#volumeSize = volumeSize;
    try {
      if (typeof place === 'string') this.#open(place, 0, false);
      else {
        const first = Math.floor(from / volumeSize) + 1;
        const last = Math.max(...place.files.keys());
        for (let n = Math.min(first, last); n <= last; n += 1) this.#open(this.#pathOf(n), n - 1, false);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Volumes that are made lie beside the last one. */
  #pathOf(number: number): string {
    const place = this.#place;
    if (typeof place === 'string') return place;
    const known = place.files.get(number);
    if (known !== undefined) return known;
    if (String(number).length > place.width) {
      throw new SealiftError('USAGE', `${place.path}: the signature would need volume ${number}`, {
        hint: 'sign with --detached: the signature then lies beside the volumes',
      });
    }
    const last = place.files.get(number - 1);
    const stem = last === undefined ? place.path : last.slice(0, -(place.width + 1));
    return volumePath(stem, number, place.width);
  }

  #open(path: string, index: number, isNew: boolean): Part {
    const fd = onDisk(() => openSync(path, isNew ? 'wx+' : 'r+', 0o644), path, DESTINATION);
    const part = { path, fd, start: index === 0 ? 0 : index * this.#volumeSize, isNew };
    this.#parts.push(part);
    return part;
  }

  size(): number {
    const last = this.#parts.at(-1);
    return last === undefined ? 0 : last.start + fstatSync(last.fd).size;
  }

  /** The stretches of a range, file by file. */
  *#stretches(position: number, length: number): Generator<{ part: Part; at: number; length: number }> {
    for (const [i, part] of this.#parts.entries()) {
      const end = this.#parts[i + 1]?.start ?? Number.POSITIVE_INFINITY;
      const from = Math.max(position, part.start);
      const to = Math.min(position + length, end);
      if (from < to) yield { part, at: from - part.start, length: to - from };
    }
  }

  read(position: number, length: number): Buffer {
    const pieces = [...this.#stretches(position, length)].map((s) =>
      onDisk(() => readNow(s.part.fd, s.at, s.length), s.part.path),
    );
    return Buffer.concat(pieces);
  }

  write(position: number, bytes: Uint8Array): void {
    let done = 0;
    for (const { part, at, length } of this.#stretches(position, bytes.length)) {
      writeAll(part.fd, bytes.subarray(done, done + length), { position: at, path: part.path });
      done += length;
    }
  }

  resize(size: number): void {
    for (let last = this.#parts.at(-1); last !== undefined; last = this.#parts.at(-1)) {
      if (last.start < size || !last.isNew) break;
      this.#parts.pop();
      closeSync(last.fd);
      rmSync(last.path, { force: true });
    }
    for (;;) {
      const last = this.#parts.at(-1);
      if (last === undefined || size < last.start) {
        throw new SealiftError('BUNDLE_NOT_CANONICAL', `${this.path}: a volume too many at its end`);
      }
      const length = Math.min(size - last.start, this.#volumeSize);
      onDisk(() => ftruncateSync(last.fd, length), last.path, DESTINATION);
      const index = last.start / this.#volumeSize + 1;
      if (last.start + length >= size) return;
      // The one before is full first: otherwise it would be taken for a damaged one.
      this.#open(this.#pathOf(index + 1), index, true);
    }
  }

  async sync(): Promise<void> {
    for (const { fd, path } of this.#parts) onDisk(() => fsyncSync(fd), path, DESTINATION);
    for (const { path, isNew } of this.#parts) if (isNew) await syncFolder(dirname(path));
  }

  close(): void {
    for (const { fd } of this.#parts.splice(0)) closeSync(fd);
  }
}

/**
 * Opens the end of a tar for writing.
 * @param options.from the first byte that may be written
 * @param options.volumeSize bytes of each volume but the last; undefined for a single file
 * @throws FILE_UNREADABLE, also where it is read-only
 */
export function openTail(
  place: Place,
  options: { readonly from: number; readonly volumeSize: number | undefined },
): TailSpace {
  return new Parts(place, options.from, options.volumeSize ?? Number.POSITIVE_INFINITY);
}

/** The last bytes of a signed tar: the entry of the signature, and the end of the archive. */
function tailOf(signature: Uint8Array): Buffer {
  const padding = Buffer.alloc(tarPadding(signature.length) + TAR_END);
  return Buffer.concat([tarHeader(SIGNATURE, signature.length), signature, padding]);
}

/**
 * Puts a signature where the two zero blocks of an unsigned tar end it, or in the place of another signature. The block
 * that makes it visible is written last, and gone first: stopped at any moment, the same call again gives the same end. When
 * it fails, what was there is put back as far as the disk lets it.
 * @param options.end where the entries end; no more than a signature follows there (`Opening.toSums`)
 * @returns whether anything was written
 * @throws DISK_FULL, FILE_UNREADABLE
 */
export async function writeTail(
  space: TailSpace,
  options: { readonly end: number; readonly signature: Uint8Array },
): Promise<boolean> {
  const { end } = options;
  const tail = tailOf(options.signature);
  const old = space.read(end, space.size() - end);
  if (old.equals(tail)) return false;
  try {
    if (old.subarray(0, TAR_BLOCK).some((byte) => byte !== 0)) {
      space.write(end, Buffer.alloc(TAR_BLOCK));
      await space.sync();
    }
    space.resize(end + tail.length);
    space.write(end + TAR_BLOCK, tail.subarray(TAR_BLOCK));
    await space.sync();
    space.write(end, tail.subarray(0, TAR_BLOCK));
    await space.sync();
  } catch (error) {
    try {
      space.write(end, old);
      space.resize(end + old.length);
    } catch {
      // What went wrong first is told; signing again begins with whatever is there.
    }
    throw error;
  }
  return true;
}
