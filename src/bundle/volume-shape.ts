import { type FileHandle, open } from 'node:fs/promises';
import { SealiftError } from '../core/errors.ts';
import { KIB, LIMITS } from '../core/limits.ts';
import { diskError, readThrough } from '../io/files.ts';
import { closeOpened, type Joined, joinFiles, KEPT_OPEN, type OpenFile } from '../io/open-file.ts';
import { readTarHeader, tarHeaderLength, tarPadding } from '../io/tar.ts';
import { DOCUMENTS, FIRST_ENTRY } from './names.ts';
import type { VolumeSet } from './volumes.ts';

/** A volume that is there. */
export interface Volume {
  readonly path: string;
  /** Kept open; undefined where there are too many for that. */
  readonly handle: FileHandle | undefined;
  readonly size: number;
  /** Whether it begins as only the first volume does. */
  readonly beginsBundle: boolean;
}

/** The volumes that are there, by their numbers from 1 on. */
export type Volumes = ReadonlyMap<number, Volume>;

/** How many volumes there should be, how long each is, and the bytes of the whole. */
export interface Shape {
  readonly volumeSize: number;
  readonly count: number;
  readonly size: number;
}

async function openVolume(path: string, isKept: boolean): Promise<Volume> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'r');
    const { size } = await handle.stat();
    const begin = readThrough(handle.fd, { position: 0, length: FIRST_ENTRY.length });
    const volume = { path, handle, size, beginsBundle: begin.equals(FIRST_ENTRY) };
    if (isKept) return volume;
    await handle.close();
    return { ...volume, handle: undefined };
  } catch (error) {
    await handle?.close();
    throw diskError(error, path);
  }
}

/** Looks at every volume, and keeps them open where they are not too many. @throws FILE_UNREADABLE */
export async function lookAtVolumes({ files }: VolumeSet): Promise<Map<number, Volume>> {
  const found = new Map<number, Volume>();
  try {
    for (const [number, path] of [...files].sort(([a], [b]) => a - b)) {
      found.set(number, await openVolume(path, files.size <= KEPT_OPEN));
    }
    return found;
  } catch (error) {
    await closeVolumes(found);
    throw error;
  }
}

export async function closeVolumes(volumes: Volumes): Promise<void> {
  for (const { handle } of volumes.values()) await handle?.close();
}

/** What all volumes but the last have: the first says it, unless the others agree that it is the first that is short. */
function volumeSizeOf(volumes: Volumes): number {
  const last = Math.max(...volumes.keys());
  const votes = new Map<number, number>();
  for (const [number, { size }] of volumes) {
    if (number < last || volumes.size === 1) votes.set(size, (votes.get(size) ?? 0) + 1);
  }
  const [best] = [...votes].sort(([a, m], [b, n]) => n - m || b - a);
  return Math.max(1, best?.[0] ?? 0);
}

/** Bytes of the unsigned tar, as `sealift.json` near its beginning says; undefined where that cannot be read. */
function statedSize(file: OpenFile): number | undefined {
  const read = (position: number, length: number): Buffer => readThrough(file, { position, length });
  let at = 0;
  for (let i = 0; i < DOCUMENTS.length; i += 1) {
    const header = readTarHeader(read(at, 3 * 512));
    if (header === undefined) return undefined;
    const content = at + tarHeaderLength(header.size);
    if (header.name === 'sealift.json') {
      const text = read(content, Math.min(header.size, 4 * KIB)).toString('latin1');
      const digits = /\n {2}"size": "(\d{16})",\n/.exec(text)?.[1];
      return digits === undefined ? undefined : Number(digits);
    }
    at = content + header.size + tarPadding(header.size);
  }
  return undefined;
}

/** One byte space of so many volumes, the last of them with so many bytes. */
export function joinVolumes(volumes: Volumes, shape: Shape): Joined {
  const numbers = Array.from({ length: shape.count }, (_, i) => i + 1);
  return joinFiles({
    files: numbers.map((n) => volumes.get(n)?.handle?.fd ?? volumes.get(n)?.path ?? -1),
    ends: numbers.map((n) => (n === shape.count ? shape.size : n * shape.volumeSize)),
    flags: 'r',
  });
}

/** The volumes from the first up to one that lacks: only these can be read before it is known how many there should be. */
function unbroken(volumes: Volumes, volumeSize: number): Shape {
  let count = 0;
  while (volumes.has(count + 1)) count += 1;
  const last = Math.min(volumes.get(count)?.size ?? 0, volumeSize);
  return { volumeSize, count, size: Math.max(0, count - 1) * volumeSize + last };
}

function statedIn(volumes: Volumes, start: Shape): number | undefined {
  if (start.count === 0) return undefined;
  const joined = joinVolumes(volumes, start);
  try {
    return statedSize(joined);
  } finally {
    closeOpened(joined);
  }
}

/**
 * How many volumes there should be and how long; `read` is what of them is read. A signature, which `size` does not count,
 * may lengthen the last one or make one more.
 * @param known bytes of a volume, where that is known: what is being written is not all there
 * @throws CONTENT_TOO_LARGE for more than LIMITS.volumes, by a name or by what `sealift.json` states
 */
export function shapeOf(
  set: VolumeSet,
  volumes: Volumes,
  known?: number,
): { readonly shape: Shape; readonly read: Shape } {
  const volumeSize = known ?? volumeSizeOf(volumes);
  const last = Math.max(...volumes.keys());
  const found = (last - 1) * volumeSize + Math.min(volumes.get(last)?.size ?? 0, volumeSize);
  const asFound = { volumeSize, count: last, size: found };
  if (known !== undefined) return { shape: asFound, read: asFound };
  const start = unbroken(volumes, volumeSize);
  const stated = statedIn(volumes, start);
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
