import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { KIB, LIMITS } from '../core/limits.ts';
import { diskError, readNow } from '../io/files.ts';
import type { Joined, OpenFile } from '../io/open-file.ts';
import { readTarHeader, tarHeaderLength, tarPadding } from '../io/tar.ts';
import { DOCUMENTS, FIRST_ENTRY } from './names.ts';
import { type VolumeSet, volumePath } from './volumes.ts';

/** Some bytes of one file of a bundle: from `from` up to, not including, `to`. */
export interface Stretch {
  readonly file: string;
  readonly from: number;
  readonly to: number;
}

/** One volume: its path, its open file (-1 where it is missing), and which bytes of the space should be in it. */
export interface Part {
  readonly path: string;
  readonly file: number;
  readonly from: number;
  readonly to: number;
}

/** The open files of a bundle as one byte space. */
export interface Files {
  readonly file: OpenFile;
  /** Bytes of the space: for volumes what there should be, for a single file what there is. */
  readonly size: number;
  /** Volumes that lack, are too short or are too many. */
  readonly faults: readonly Fault[];
  /** The bytes of each volume; undefined for a single file. */
  readonly volumeSize: number | undefined;
  /** Every volume that there should be; none for a single file. */
  readonly parts: readonly Part[];
  /** Whether some of these bytes are in a volume that lacks or ends before them. */
  isAbsent(offset: number, length: number): boolean;
  /** In which files some bytes of the space lie. */
  whereIs(offset: number, length: number): Stretch[];
  close(): Promise<void>;
}

/** A single file. @throws FILE_UNREADABLE */
export async function openFileOf(path: string): Promise<Files> {
  const handle = await open(path, 'r').catch((error: unknown) => {
    throw diskError(error, path);
  });
  const { size } = await handle.stat();
  return {
    file: handle.fd,
    size,
    faults: [],
    volumeSize: undefined,
    parts: [],
    isAbsent: (offset, length) => offset + length > size,
    whereIs: (from, length) => [{ file: path, from, to: from + length }],
    close: () => handle.close(),
  };
}

/** An open volume. */
interface Opened {
  readonly path: string;
  readonly handle: FileHandle;
  readonly size: number;
}

async function openAll(set: VolumeSet): Promise<Map<number, Opened>> {
  const opened = new Map<number, Opened>();
  try {
    for (const [number, path] of [...set.files].sort(([a], [b]) => a - b)) {
      const handle = await open(path, 'r').catch((error: unknown) => {
        throw diskError(error, path);
      });
      opened.set(number, { path, handle, size: 0 });
      opened.set(number, { path, handle, size: (await handle.stat()).size });
    }
    return opened;
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
}

async function closeAll(opened: ReadonlyMap<number, Opened>): Promise<void> {
  for (const { handle } of opened.values()) await handle.close();
}

/** What all volumes but the last have: the first says it, unless the others agree that it is the first that is short. */
function volumeSizeOf(opened: ReadonlyMap<number, Opened>): number {
  const last = Math.max(...opened.keys());
  const votes = new Map<number, number>();
  for (const [number, { size }] of opened) {
    if (number < last || opened.size === 1) votes.set(size, (votes.get(size) ?? 0) + 1);
  }
  const [best] = [...votes].sort(([a, m], [b, n]) => n - m || b - a);
  return Math.max(1, best?.[0] ?? 0);
}

/** Bytes of the unsigned tar, as `sealift.json` near its beginning says; undefined where that cannot be read. */
export function statedSize(file: OpenFile): number | undefined {
  let at = 0;
  for (let i = 0; i < DOCUMENTS.length; i += 1) {
    const header = readTarHeader(readNow(file, at, 3 * 512));
    if (header === undefined) return undefined;
    const content = at + tarHeaderLength(header.size);
    if (header.name === 'sealift.json') {
      const text = readNow(file, content, Math.min(header.size, 4 * KIB)).toString('latin1');
      const digits = /\n {2}"size": "(\d{16})",\n/.exec(text)?.[1];
      return digits === undefined ? undefined : Number(digits);
    }
    at = content + header.size + tarPadding(header.size);
  }
  return undefined;
}

/** One byte space of so many volumes, the last of them with so many bytes. */
function join(opened: ReadonlyMap<number, Opened>, shape: Shape): Joined {
  const numbers = Array.from({ length: shape.count }, (_, i) => i + 1);
  return {
    files: numbers.map((n) => opened.get(n)?.handle.fd ?? -1),
    ends: numbers.map((n) => (n === shape.count ? shape.size : n * shape.volumeSize)),
  };
}

interface Shape {
  readonly volumeSize: number;
  readonly count: number;
  /** Of the whole. */
  readonly size: number;
}

/** The volumes from the first up to one that lacks: only these can be read before it is known how many there should be. */
function unbroken(opened: ReadonlyMap<number, Opened>, volumeSize: number): Shape {
  let count = 0;
  while (opened.has(count + 1)) count += 1;
  const last = Math.min(opened.get(count)?.size ?? 0, volumeSize);
  return { volumeSize, count, size: Math.max(0, count - 1) * volumeSize + last };
}

/**
 * How many volumes there should be and how long; `read` is what of them is read. A signature, which `size` does not count,
 * may lengthen the last one or make one more.
 * @throws CONTENT_TOO_LARGE for more than LIMITS.volumes, by a name or by what `sealift.json` states
 */
function shapeOf(
  set: VolumeSet,
  opened: ReadonlyMap<number, Opened>,
): { readonly shape: Shape; readonly read: Shape } {
  const volumeSize = volumeSizeOf(opened);
  const last = Math.max(...opened.keys());
  const found = (last - 1) * volumeSize + Math.min(opened.get(last)?.size ?? 0, volumeSize);
  const asFound = { volumeSize, count: last, size: found };
  const start = unbroken(opened, volumeSize);
  const stated = start.count === 0 ? undefined : statedSize(join(opened, start));
  const count = stated === undefined ? last : Math.ceil(stated / volumeSize);
  if (count > LIMITS.volumes) {
    const message = `${set.path}: ${count} volumes, more than ${LIMITS.volumes} volumes`;
    throw new SealiftError('CONTENT_TOO_LARGE', message);
  }
  // A number in a name is only a name: what may lack up to there is not read as zeros, terabytes of them perhaps.
  if (stated === undefined) return { shape: asFound, read: start };
  const isSigned = found > stated && last <= count + 1;
  const shape = isSigned ? asFound : { volumeSize, count, size: stated };
  return { shape, read: shape };
}

function faultsOf(set: VolumeSet, opened: ReadonlyMap<number, Opened>, shape: Shape): Fault[] {
  const faults: Fault[] = [];
  const { count, size, volumeSize } = shape;
  for (let number = 1; number <= count; number += 1) {
    const [from, to] = [(number - 1) * volumeSize, number === count ? size : number * volumeSize];
    const volume = opened.get(number);
    const path = volume?.path ?? volumePath(set.path, number, set.width);
    const details = { volume: path, offset: from, expected: to - from, found: volume?.size ?? 0 };
    if (volume === undefined) {
      const message = `${path} is missing: volume ${number} of ${count}, ${to - from} bytes`;
      const hint =
        'give all volumes, also from other folders: `sealift verify A/NAME.tar.001 B/NAME.tar.004`';
      faults.push(fault('BUNDLE_VOLUME_MISSING', message, { details, hint }));
    } else if (volume.size < to - from) {
      const message = `${path}: volume ${number} of ${count} has ${volume.size} of ${to - from} bytes`;
      faults.push(fault('BUNDLE_TRUNCATED', message, { details }));
    } else if (volume.size > to - from) {
      const message = `${path}: volume ${number} of ${count} has ${volume.size} bytes, more than ${to - from}`;
      faults.push(fault('BUNDLE_NOT_CANONICAL', message, { details }));
    }
  }
  for (const [number, { path, size: found }] of opened) {
    if (number <= count) continue;
    const message = `${path} does not belong to this bundle, which has ${count} volumes`;
    faults.push(fault('BUNDLE_ENTRY_EXTRA', message, { details: { volume: path, found } }));
  }
  return [...faults, ...misplacedFirst(opened)];
}

/** A volume that begins as only the first one does. */
function misplacedFirst(opened: ReadonlyMap<number, Opened>): Fault[] {
  const isFirst = ({ handle }: Opened): boolean =>
    readNow(handle.fd, 0, FIRST_ENTRY.length).equals(FIRST_ENTRY);
  return [...opened].flatMap(([number, volume]) => {
    if (number === 1 || !isFirst(volume)) return [];
    const message = `${volume.path} holds the bytes of volume 1`;
    return [fault('BUNDLE_VOLUME_WRONG', message, { details: { volume: volume.path, holds: 1 } })];
  });
}

function partsOf(set: VolumeSet, opened: ReadonlyMap<number, Opened>, shape: Shape): Part[] {
  const { count, size, volumeSize } = shape;
  return Array.from({ length: count }, (_, i) => ({
    path: opened.get(i + 1)?.path ?? volumePath(set.path, i + 1, set.width),
    file: opened.get(i + 1)?.handle.fd ?? -1,
    from: i * volumeSize,
    to: i + 1 === count ? size : (i + 1) * volumeSize,
  }));
}

/** In which volumes some bytes lie, and how long each of these is. */
function stretchesOf(
  set: VolumeSet,
  of: {
    readonly opened: ReadonlyMap<number, Opened>;
    readonly shape: Shape;
    readonly offset: number;
    readonly length: number;
  },
): (Stretch & { readonly size: number })[] {
  const { opened, offset, length } = of;
  const { volumeSize, count } = of.shape;
  const stretches: (Stretch & { readonly size: number })[] = [];
  const end = offset + Math.max(1, length);
  for (let at = offset; at < end; ) {
    const number = Math.min(count, Math.floor(at / volumeSize) + 1);
    const start = (number - 1) * volumeSize;
    const to = number === count ? end : Math.min(end, number * volumeSize);
    const volume = opened.get(number);
    const file = volume?.path ?? volumePath(set.path, number, set.width);
    stretches.push({ file, from: at - start, to: to - start, size: volume?.size ?? 0 });
    at = to;
  }
  return stretches;
}

/**
 * Volumes as one byte space. How many there should be and how long each is follows from the size that `sealift.json` states
 * and the length of the first: what lacks is a fault, and reads as zeros.
 * @throws FILE_UNREADABLE
 */
export async function openVolumes(set: VolumeSet): Promise<Files> {
  const opened = await openAll(set);
  try {
    const { shape, read } = shapeOf(set, opened);
    const whereIs = (offset: number, length: number): ReturnType<typeof stretchesOf> =>
      stretchesOf(set, { opened, shape, offset, length });
    return {
      file: join(opened, read),
      size: read.size,
      faults: faultsOf(set, opened, shape),
      volumeSize: shape.volumeSize,
      parts: partsOf(set, opened, shape),
      whereIs,
      isAbsent: (offset, length) => whereIs(offset, length).some(({ to, size }) => size < to),
      close: () => closeAll(opened),
    };
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
}

/** ` (b.tar.003 bytes 10 to 20, b.tar.004 …)`: where in volumes something lies; '' where there is one file. */
export function inVolumes(
  files: Pick<Files, 'whereIs' | 'volumeSize'> | undefined,
  offset: number,
  length: number,
): string {
  if (files?.volumeSize === undefined) return '';
  const parts = files
    .whereIs(offset, length)
    .map(({ file, from, to }) => `${basename(file)} bytes ${from} to ${Math.max(from, to - 1)}`);
  const shown = parts.length <= 4 ? parts : [...parts.slice(0, 3), `${parts.length - 3} more volumes`];
  return ` (${shown.join(', ')})`;
}
