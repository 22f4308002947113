import { type Fault, fault } from '../core/errors.ts';
import { KIB, MIB } from '../core/limits.ts';
import { readNow } from '../io/files.ts';
import type { Joined } from '../io/open-file.ts';
import { throwIfAborted } from '../io/pool.ts';
import { tarHeader, tarHeaderLength } from '../io/tar.ts';
import type { FoundEntry } from './entries.ts';
import { hashRange } from './hash.ts';
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

function fits({ file }: Part, headers: readonly PlacedHeader[]): boolean {
  return file >= 0 && headers.every(({ at, bytes }) => readNow(file, at, bytes.length).equals(bytes));
}

function wrongFault(part: Part, holds: number): Fault {
  return fault('BUNDLE_VOLUME_WRONG', `${part.path} holds the bytes of volume ${holds}`, {
    details: { volume: part.path, holds },
    hint: 'give each volume its own number again, or copy it once more',
  });
}

/** Whether two files of one length have the same bytes. */
function isSame(a: Part, b: Part): boolean {
  const length = a.to - a.from;
  if (length !== b.to - b.from) return false;
  for (let at = 0; at < length; at += PIECE) {
    const want = Math.min(PIECE, length - at);
    if (!readNow(a.file, at, want).equals(readNow(b.file, at, want))) return false;
  }
  return true;
}

/** Another volume with the same bytes; -1 where there is none. */
function copiedFrom(parts: readonly Part[], own: number): number {
  const part = parts[own];
  if (part === undefined || part.file < 0) return -1;
  return parts.findIndex((other, i) => i !== own && other.file >= 0 && isSame(part, other));
}

/** Volumes whose headers are those of another one: they were swapped, or copied under a wrong number. */
export function misplacedVolumes({ files }: Medium, plan: BundlePlan): Fault[] {
  const parts = files?.parts ?? [];
  const headers = headersOf(parts, plan);
  return parts.flatMap((part, own) => {
    if (part.file < 0 || fits(part, headers[own] ?? [])) return [];
    const fitting = headers.findIndex((list, i) => i !== own && list.length > 0 && fits(part, list));
    const other = fitting < 0 ? copiedFrom(parts, own) : fitting;
    return other < 0 ? [] : [wrongFault(part, other + 1)];
  });
}

/** The byte space with two volumes in each other's place. */
function swapped({ files, ends }: Joined, i: number, j: number): Joined {
  const order = [...files];
  [order[i], order[j]] = [files[j] ?? -1, files[i] ?? -1];
  return { files: order, ends };
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
  const isWhole = ({ file: fd, from, to }: Part): boolean =>
    fd >= 0 && from >= entry.offset && to <= entry.offset + entry.size;
  const inside = parts.flatMap((part, i) => (isWhole(part) ? [i] : []));
  if (typeof file === 'number') return [];
  for (const i of inside) {
    const [part, other] = [parts[i], copiedFrom(parts, i)];
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
      const range = {
        file: swapped(file, i, j),
        position: entry.offset,
        length: entry.size,
        what: entry.name,
      };
      const found = await hashRange({ ...range, sha256: false, blake3: true }, { signal, note: () => {} });
      if (found.blake3 === entry.blake3) return [wrongFault(a, j + 1), wrongFault(b, i + 1)];
    }
  }
  return [];
}
