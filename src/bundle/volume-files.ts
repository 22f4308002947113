import { lstat, open } from 'node:fs/promises';
import { basename } from 'node:path';
import { type Fault, fault } from '../core/errors.ts';
import { diskError } from '../io/files.ts';
import { closeOpened, type OpenFile } from '../io/open-file.ts';
import { COPY_AGAIN, OWN_NUMBER } from './hints.ts';
import {
  closeVolumes,
  joinVolumes,
  lookAtVolumes,
  type Shape,
  shapeOf,
  type Volumes,
} from './volume-shape.ts';
import { type VolumeSet, volumePath } from './volumes.ts';

/** Some bytes of one file of a bundle: from `from` up to, not including, `to`. */
export interface Stretch {
  readonly file: string;
  readonly from: number;
  readonly to: number;
}

/** One volume: its path, whether it is there at all, and which bytes of the space should be in it. */
export interface Part {
  readonly path: string;
  readonly isThere: boolean;
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
  /** The next byte from this one on that is there; `size` where none is. */
  nextPresent(offset: number): number;
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
    nextPresent: (offset) => offset,
    whereIs: (from, length) => [{ file: path, from, to: from + length }],
    close: () => handle.close(),
  };
}

/** What is there instead of a volume, as the end of a sentence. */
async function insteadOf(path: string): Promise<string> {
  const there = await lstat(path).catch(() => undefined);
  if (there === undefined) return '';
  if (there.isSymbolicLink()) return '; the link of this name leads to no file';
  return there.isDirectory() ? '; what has this name is a folder' : '; what has this name is no file';
}

const ELSEWHERE = 'give all volumes, also from other folders: `sealift verify A/NAME.tar.001 B/NAME.tar.004`';

/** So many volumes that lack one behind the other are told in one line. */
const RUN = 10;

/** How many volumes lack from one number on. */
function missingRun(volumes: Volumes, { from, count }: { from: number; count: number }): number {
  let to = from;
  while (to <= count && !volumes.has(to)) to += 1;
  return to - from;
}

function runFault(set: VolumeSet, shape: Shape, run: { first: number; last: number }): Fault {
  const { first, last } = run;
  const { count, size, volumeSize } = shape;
  const from = (first - 1) * volumeSize;
  const bytes = (last === count ? size : last * volumeSize) - from;
  const [path, end] = [first, last].map((number) => volumePath(set.path, number, set.width));
  const message = `${path} to ${basename(end ?? '')} are missing: volumes ${first} to ${last} of ${count}, ${bytes} bytes`;
  return fault('BUNDLE_VOLUME_MISSING', message, {
    details: { volume: path, last: end, offset: from, expected: bytes, found: 0 },
    hint: ELSEWHERE,
  });
}

async function faultsOf(set: VolumeSet, volumes: Volumes, shape: Shape): Promise<Fault[]> {
  const faults: Fault[] = [];
  const { count, size, volumeSize } = shape;
  for (let number = 1; number <= count; number += 1) {
    const [from, to] = [(number - 1) * volumeSize, number === count ? size : number * volumeSize];
    const volume = volumes.get(number);
    const path = volume?.path ?? volumePath(set.path, number, set.width);
    const details = { volume: path, offset: from, expected: to - from, found: volume?.size ?? 0 };
    const run = missingRun(volumes, { from: number, count });
    if (run >= RUN) {
      faults.push(runFault(set, shape, { first: number, last: number + run - 1 }));
      number += run - 1;
    } else if (volume === undefined) {
      const message = `${path} is missing: volume ${number} of ${count}, ${to - from} bytes${await insteadOf(path)}`;
      faults.push(fault('BUNDLE_VOLUME_MISSING', message, { details, hint: ELSEWHERE }));
    } else if (volume.size < to - from) {
      const message = `${path}: volume ${number} of ${count} has ${volume.size} of ${to - from} bytes`;
      faults.push(fault('BUNDLE_TRUNCATED', message, { details, hint: COPY_AGAIN }));
    } else if (volume.size > to - from) {
      const message = `${path}: volume ${number} of ${count} has ${volume.size} bytes, more than ${to - from}`;
      faults.push(fault('BUNDLE_NOT_CANONICAL', message, { details, hint: COPY_AGAIN }));
    }
  }
  for (const [number, { path, size: found }] of volumes) {
    if (number <= count) continue;
    const message = `${path} does not belong to this bundle, which has ${count} volumes`;
    const hint = 'take it out of the folder, or give the volumes by name';
    faults.push(fault('BUNDLE_ENTRY_EXTRA', message, { details: { volume: path, found }, hint }));
  }
  return [...faults, ...misplacedFirst(volumes)];
}

/** A volume that begins as only the first one does. */
function misplacedFirst(volumes: Volumes): Fault[] {
  return [...volumes].flatMap(([number, { path, beginsBundle }]) => {
    if (number === 1 || !beginsBundle) return [];
    const details = { volume: path, holds: 1 };
    return [
      fault('BUNDLE_VOLUME_WRONG', `${path} holds the bytes of volume 1`, { details, hint: OWN_NUMBER }),
    ];
  });
}

function partsOf(set: VolumeSet, volumes: Volumes, shape: Shape): Part[] {
  const { count, size, volumeSize } = shape;
  return Array.from({ length: count }, (_, i) => ({
    path: volumes.get(i + 1)?.path ?? volumePath(set.path, i + 1, set.width),
    isThere: volumes.has(i + 1),
    from: i * volumeSize,
    to: i + 1 === count ? size : (i + 1) * volumeSize,
  }));
}

/** In which volumes some bytes lie, and how long each of these is. */
function stretchesOf(
  set: VolumeSet,
  of: {
    readonly volumes: Volumes;
    readonly shape: Shape;
    readonly offset: number;
    readonly length: number;
  },
): (Stretch & { readonly size: number })[] {
  const { volumes, offset, length } = of;
  const { volumeSize, count } = of.shape;
  const stretches: (Stretch & { readonly size: number })[] = [];
  const end = offset + Math.max(1, length);
  for (let at = offset; at < end; ) {
    const number = Math.min(count, Math.floor(at / volumeSize) + 1);
    const start = (number - 1) * volumeSize;
    const to = number === count ? end : Math.min(end, number * volumeSize);
    const volume = volumes.get(number);
    const file = volume?.path ?? volumePath(set.path, number, set.width);
    stretches.push({ file, from: at - start, to: to - start, size: volume?.size ?? 0 });
    at = to;
  }
  return stretches;
}

/** The next byte that is there, in a volume of which not all lacks. */
function nextPresentIn(parts: readonly Part[], volumes: Volumes, offset: number): number {
  for (const [i, { from, to }] of parts.entries()) {
    const end = Math.min(to, from + (volumes.get(i + 1)?.size ?? 0));
    if (offset < end) return Math.max(offset, from);
  }
  return parts.at(-1)?.to ?? offset;
}

/**
 * Volumes as one byte space. How many there should be and how long each is follows from the size that `sealift.json` states
 * and the length of the first: what lacks is a fault, and reads as zeros.
 * @param options.volumeSize bytes of a volume, where they are being written and so are not all there
 * @throws FILE_UNREADABLE
 */
export async function openVolumes(
  set: VolumeSet,
  options: { readonly volumeSize?: number } = {},
): Promise<Files> {
  const volumes = await lookAtVolumes(set);
  try {
    const { shape, read } = shapeOf(set, volumes, options.volumeSize);
    const parts = partsOf(set, volumes, shape);
    const isWhole = parts.every(({ from, to }, i) => (volumes.get(i + 1)?.size ?? 0) >= to - from);
    const whereIs = (offset: number, length: number): ReturnType<typeof stretchesOf> =>
      stretchesOf(set, { volumes, shape, offset, length });
    const file = joinVolumes(volumes, read);
    return {
      file,
      size: read.size,
      faults: await faultsOf(set, volumes, shape),
      volumeSize: shape.volumeSize,
      parts,
      whereIs,
      isAbsent: (offset, length) =>
        (!isWhole || offset + length > shape.size) &&
        whereIs(offset, length).some(({ to, size }) => size < to),
      nextPresent: (offset) => (isWhole ? offset : nextPresentIn(parts, volumes, offset)),
      close: async () => {
        closeOpened(file);
        await closeVolumes(volumes);
      },
    };
  } catch (error) {
    await closeVolumes(volumes);
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
