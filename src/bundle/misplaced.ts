import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { KIB, MIB } from '../core/limits.ts';
import { readThrough } from '../io/files.ts';
import { closeOpened, type Joined, joinFiles } from '../io/open-file.ts';
import { throwIfAborted } from '../io/pool.ts';
import { tarHeader, tarHeaderLength } from '../io/tar.ts';
import type { FoundEntry } from './entries.ts';
import { hashRange } from './hash.ts';
import { OWN_NUMBER } from './hints.ts';
import type { Medium } from './medium.ts';
import type { BundlePlan } from './plan.ts';
import type { Files, Part } from './volume-files.ts';

/** Headers of one volume that are compared. */
const HEADERS = 16;
/** Orders of volumes that are tried to explain one damaged blob, and what is read for that at most. */
const TRIES = 45;
const TRIED_BYTES = 64 * 1024 * MIB;
/** What is compared at once of two volumes. */
const PIECE = 256 * KIB;

interface PlacedHeader {
  readonly at: number;
  readonly bytes: Buffer;
}

/** Some headers that lie wholly in each volume, by its place among the parts. */
function headersOf(parts: readonly Part[], plan: BundlePlan): PlacedHeader[][] {
  const headers: PlacedHeader[][] = parts.map(() => []);
  let part = 0;
  for (const { name, size, offset } of plan.entries) {
    const from = offset - tarHeaderLength(size);
    while (part < parts.length && (parts[part]?.to ?? 0) <= from) part += 1;
    const { from: start = 0, to = 0 } = parts[part] ?? {};
    const own = headers[part];
    if (own === undefined || own.length >= HEADERS || offset > to) continue;
    own.push({ at: from - start, bytes: tarHeader(name, size) });
  }
  return headers;
}

/** Bytes of one volume, from `at` on; never those of the next one. */
function readPart({ file }: Files, { from, to }: Part, at: number, length: number): Buffer {
  return readThrough(file, { position: from + at, length: Math.min(length, to - from - at) });
}

function fits(files: Files, part: Part, headers: readonly PlacedHeader[]): boolean {
  const isThere = ({ at, bytes }: PlacedHeader): boolean =>
    at + bytes.length <= part.to - part.from && readPart(files, part, at, bytes.length).equals(bytes);
  return part.isThere && headers.every(isThere);
}

function wrongFault(part: Part, holds: number): Fault {
  return fault('BUNDLE_VOLUME_WRONG', `${part.path} holds the bytes of volume ${holds}`, {
    details: { volume: part.path, holds },
    hint: OWN_NUMBER,
  });
}

/** Whether two volumes of one length have the same bytes. */
function isSame(files: Files, a: Part, b: Part): boolean {
  const length = a.to - a.from;
  if (length !== b.to - b.from) return false;
  for (let at = 0; at < length; at += PIECE) {
    const want = Math.min(PIECE, length - at);
    if (!readPart(files, a, at, want).equals(readPart(files, b, at, want))) return false;
  }
  return true;
}

/** Another volume with the same bytes; -1 where there is none. */
function copiedFrom(files: Files, own: number): number {
  const { parts } = files;
  const part = parts[own];
  if (part === undefined || !part.isThere) return -1;
  return parts.findIndex((other, i) => i !== own && other.isThere && isSame(files, part, other));
}

/** Volumes whose headers are those of another one: they were swapped, or copied under a wrong number. */
export function misplacedVolumes({ files }: Medium, plan: BundlePlan): Fault[] {
  if (files === undefined) return [];
  const { parts } = files;
  const headers = headersOf(parts, plan);
  return parts.flatMap((part, own) => {
    if (!part.isThere || fits(files, part, headers[own] ?? [])) return [];
    const fitting = headers.findIndex((list, i) => i !== own && list.length > 0 && fits(files, part, list));
    const other = fitting < 0 ? copiedFrom(files, own) : fitting;
    return other < 0 ? [] : [wrongFault(part, other + 1)];
  });
}

/** The byte space with two volumes in each other's place. */
function swapped({ files, ends, flags }: Joined, i: number, j: number): Joined {
  const order = [...files];
  [order[i], order[j]] = [files[j] ?? -1, files[i] ?? -1];
  return joinFiles({ files: order, ends, flags });
}

/** The BLAKE3 of an entry in another order of the volumes; undefined where the disk cannot read it. */
async function blake3Of(file: Joined, entry: FoundEntry, signal: AbortSignal): Promise<string | undefined> {
  const range = { file, position: entry.offset, length: entry.size, what: entry.name };
  try {
    return (await hashRange({ ...range, sha256: false, blake3: true }, { signal, note: () => {} })).blake3;
  } catch (error) {
    if (error instanceof SealiftError && error.code === 'FILE_UNREADABLE') return undefined;
    throw error;
  }
}

/**
 * Looks why a blob is damaged that fills whole volumes, where no header tells them apart: one of them may have the bytes of
 * another one, or two may be swapped. Nothing that is only supposed is told.
 * @param entry a damaged one, and the BLAKE3 that it should have
 */
export async function misplacedInside(
  files: Files,
  entry: FoundEntry & { readonly blake3: string },
  signal: AbortSignal,
): Promise<Fault[]> {
  const { parts, file } = files;
  const isWhole = ({ isThere, from, to }: Part): boolean =>
    isThere && from >= entry.offset && to <= entry.offset + entry.size;
  const inside = parts.flatMap((part, i) => (isWhole(part) ? [i] : []));
  if (typeof file === 'number') return [];
  for (const i of inside) {
    const [part, other] = [parts[i], copiedFrom(files, i)];
    if (part !== undefined && other >= 0) return [wrongFault(part, other + 1)];
  }
  const budget = Math.min(TRIES, Math.floor(TRIED_BYTES / Math.max(1, entry.size)));
  let tries = 0;
  for (const i of inside) {
    for (const j of inside) {
      const [a, b] = [parts[i], parts[j]];
      if (j <= i || a === undefined || b === undefined) continue;
      throwIfAborted(signal);
      if (++tries > budget) return [];
      const order = swapped(file, i, j);
      try {
        if ((await blake3Of(order, entry, signal)) === entry.blake3) {
          return [wrongFault(a, j + 1), wrongFault(b, i + 1)];
        }
      } finally {
        closeOpened(order);
      }
    }
  }
  return [];
}
