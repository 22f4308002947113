import { setImmediate } from 'node:timers/promises';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError, readThrough } from '../io/files.ts';
import { type OpenFile, readSome } from '../io/open-file.ts';
import { readTarHeader, TAR_BLOCK, TAR_END, tarHeaderLength, tarPadding } from '../io/tar.ts';
import { type EntryList, type FoundEntry, foundEntries } from './entries.ts';
import { COPY_AGAIN } from './hints.ts';
import { B3SUMS, DOCUMENTS, SIGNATURE } from './names.ts';
import { type Files, inVolumes } from './volume-files.ts';

const BLOB_NAME = /^blobs\/sha256\/[0-9a-f]{64}$/;
/** How much is searched at a time for the next header, in bytes. */
const SEARCH = 1024 * TAR_BLOCK;
/** How much is read at once where entries are small, in bytes. */
const NEAR = 128 * TAR_BLOCK;
/** Pieces that a damaged disk could not read, after which it is not this or that entry but the disk itself. */
const LOST = 100_000;
/** Headers that are read before others may speak. */
const BREATH = 512;

/** Whether a bundle may hold an entry of this name at all. */
export function isBundleName(name: string): boolean {
  return BLOB_NAME.test(name) || name === B3SUMS || name === SIGNATURE || DOCUMENTS.includes(name);
}

/** A fault of the bytes between contents. @param at where it is, and of which files */
export function notCanonical(
  path: string,
  why: string,
  at: { readonly offset: number; readonly files: Pick<Files, 'whereIs' | 'volumeSize'> },
): Fault {
  const { offset, files } = at;
  const place = inVolumes(files, offset, 1);
  const message = `${path}: ${why} at byte ${offset}${place}`;
  return fault('BUNDLE_NOT_CANONICAL', message, { details: { offset }, hint: COPY_AGAIN });
}

/** What the headers of a tar say. Offsets are those of the content, in bytes. */
export interface Scan {
  /** All but the signature. */
  readonly entries: EntryList;
  /** The last entry of a signed bundle. */
  signature: FoundEntry | undefined;
  /** Where the entries end: there the signature begins, or the end of the archive. */
  end: number;
  readonly faults: Fault[];
}

interface Reading extends Scan {
  readonly files: Files;
  readonly read: ReadNear;
  readonly path: string;
  /** Pieces that the disk could not read. */
  lost: number;
}

/** Bytes of the file as far as the disk can read them. @throws FILE_UNREADABLE where it hardly can */
function readAnyway(reading: Pick<Reading, 'files' | 'path' | 'lost'>, at: number, length: number): Buffer {
  return readThrough(reading.files.file, { position: at, length }, () => {
    reading.lost += 1;
    if (reading.lost > LOST) {
      throw diskError(Object.assign(new Error('most of it cannot be read'), { code: 'EIO' }), reading.path);
    }
  });
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((b) => b === 0);
}

/** Bytes of the file, valid until the next call; fewer than asked only at its end. */
type ReadNear = (position: number, length: number) => Buffer;

/**
 * Reads headers, synchronously: from the page cache that takes less time than a round trip to the thread pool. After a
 * short way the next ones are expected near too, and are read along.
 */
function readNear(file: OpenFile): ReadNear {
  const buffer = Buffer.allocUnsafeSlow(NEAR);
  let from = 0;
  let to = 0;
  return (position, length) => {
    if (position < from || position + length > to) {
      const want = position >= from && position < to + NEAR ? NEAR : length;
      from = position;
      for (to = from; to < from + want; ) {
        const got = readSome(file, buffer, { position: to, from: to - from, length: from + want - to });
        if (got === 0) break;
        to += got;
      }
    }
    return buffer.subarray(position - from, Math.min(to, position + length) - from);
  };
}

/** Looks for the next block that is a canonical header, from a block boundary on; only used to go on after damage. */
async function nextHeader(reading: Reading, from: number): Promise<number | undefined> {
  const { files } = reading;
  const { size } = files;
  for (let at = from; at < size; at += SEARCH) {
    // Volumes that lack are zeros, gigabytes of them perhaps.
    at = Math.max(at, Math.floor(files.nextPresent(at) / TAR_BLOCK) * TAR_BLOCK);
    if (at >= size) break;
    const bytes = readAnyway(reading, at, Math.min(SEARCH + 2 * TAR_BLOCK, size - at));
    await setImmediate();
    for (let i = 0; i < SEARCH && i + TAR_BLOCK <= bytes.length; i += TAR_BLOCK) {
      if (bytes.toString('latin1', i + 257, i + 262) !== 'ustar') continue;
      const found = readTarHeader(bytes.subarray(i));
      if (found !== undefined && isBundleName(found.name)) return at + i;
    }
  }
  return undefined;
}

/** What may be a header, also where the disk cannot read all that is near it. */
function readHeader(reading: Reading, at: number): Buffer {
  try {
    return reading.read(at, 3 * TAR_BLOCK);
  } catch {
    return readAnyway(reading, at, 3 * TAR_BLOCK);
  }
}

/** What stands at `at`: the next entry, the end of the archive, or why it is neither. */
async function lookAt(
  reading: Reading,
  at: number,
): Promise<{ readonly name: string; readonly size: number } | { readonly why: string } | 'end'> {
  const { size } = reading.files;
  const { lost } = reading;
  const bytes = readHeader(reading, at);
  if (bytes.length < TAR_BLOCK) return 'end';
  if (isZero(bytes.subarray(0, TAR_BLOCK))) {
    // The size settles it for a whole archive; otherwise zeros may be a lost header with more behind them.
    const more = size > at + TAR_END ? await nextHeader(reading, at + TAR_BLOCK) : undefined;
    const isAbsent = reading.files.isAbsent(at, TAR_BLOCK);
    return more === undefined
      ? 'end'
      : { why: isAbsent ? 'a header lacks with its volume' : 'zeros where a header belongs' };
  }
  const header = readTarHeader(bytes);
  if (header === undefined) {
    return { why: reading.lost > lost ? 'a header that the disk cannot read' : 'not a canonical header' };
  }
  return isBundleName(header.name) ? header : { why: `unknown entry "${header.name}"` };
}

/** More than any end that a signature was ever begun in. Bytes. */
const LONGEST_END = TAR_BLOCK + LIMITS.signatureText + TAR_END;

/** Behind B3SUMS is at most the signature, however torn: what is more was not written by signing, and is not written over. */
function checkRest({ files, path, faults }: Reading, at: number): void {
  const rest = files.size - at;
  if (rest > LONGEST_END)
    faults.push(notCanonical(path, `${rest} bytes behind ${B3SUMS}`, { offset: at, files }));
}

/** Exactly two zero blocks, and nothing behind them. */
function checkEnd(reading: Reading, at: number): void {
  const { files, path, faults } = reading;
  const { size } = files;
  // Of volumes that lack it was said already.
  if (files.parts.length > 0 && files.isAbsent(at, Math.min(TAR_END, Math.max(1, size - at)))) return;
  const missing = at + TAR_END - size;
  if (missing !== 0) {
    const [code, what] =
      missing > 0
        ? (['BUNDLE_TRUNCATED', 'bytes lack'] as const)
        : (['BUNDLE_NOT_CANONICAL', 'bytes too many'] as const);
    faults.push(
      fault(code, `${path}: ${Math.abs(missing)} ${what} at the end of the archive, byte ${at}`, {
        details: { offset: at, expected: at + TAR_END, found: size },
        hint: COPY_AGAIN,
      }),
    );
  }
  const bad = readAnyway(reading, at, TAR_END).findIndex((b) => b !== 0);
  if (bad >= 0)
    faults.push(notCanonical(path, 'the end of the archive is not zero', { offset: at + bad, files }));
}

/** Takes the signature out of the entries: it is behind B3SUMS, once, with nothing behind it. */
function takeSignature(reading: Reading, found: FoundEntry): void {
  const { entries, files, path, faults, signature } = reading;
  const last = entries.length === 0 ? undefined : entries.at(entries.length - 1).name;
  const { offset, size } = found;
  if (last !== B3SUMS || signature !== undefined) {
    faults.push(notCanonical(path, `${SIGNATURE} is not behind ${B3SUMS}`, { offset, files }));
    return;
  }
  reading.signature = found;
  const bad = readAnyway(reading, offset + size, tarPadding(size)).findIndex((b) => b !== 0);
  if (bad < 0) return;
  const at = { offset: offset + size + bad, files };
  faults.push(notCanonical(path, `padding behind ${SIGNATURE} is not zero`, at));
}

/**
 * Reads all headers of a tar and compares each byte for byte with the one that this name and size must have. After
 * damage it goes on at the next header, so that one bad block does not hide the rest.
 * @param options.toSums ends behind B3SUMS: what follows is only the signature, which may be half written
 * @throws CONTENT_TOO_LARGE for more than LIMITS.bundleEntries, good or bad
 */
export async function scanTar(
  files: Files,
  path: string,
  options: { readonly toSums?: boolean | undefined } = {},
): Promise<Scan> {
  const { size } = files;
  const reading: Reading = {
    files,
    read: readNear(files.file),
    path,
    entries: foundEntries(),
    signature: undefined,
    end: 0,
    faults: [],
    lost: 0,
  };
  const { entries, faults } = reading;
  let at = 0;
  for (;;) {
    if (entries.length % BREATH === BREATH - 1) await setImmediate();
    if (faults.length > LIMITS.bundleEntries)
      throw new SealiftError('CONTENT_TOO_LARGE', `${path}: more than ${LIMITS.bundleEntries} bad headers`);
    const found = await lookAt(reading, at);
    if (found === 'end') break;
    if ('why' in found) {
      faults.push(notCanonical(path, found.why, { offset: at, files }));
      const next = await nextHeader(reading, at + TAR_BLOCK);
      if (next === undefined) return reading;
      at = next;
      continue;
    }
    const offset = at + tarHeaderLength(found.size);
    if (offset + found.size > size) {
      const details = { entry: found.name, offset, expected: found.size, found: Math.max(0, size - offset) };
      const what = `${found.name} needs ${found.size} bytes from byte ${offset}, the file ends at byte ${size}`;
      faults.push(fault('BUNDLE_TRUNCATED', `${path}: ${what}`, { details, hint: COPY_AGAIN }));
      return reading;
    }
    at = offset + found.size + tarPadding(found.size);
    if (found.name === SIGNATURE) {
      takeSignature(reading, { ...found, offset });
      continue;
    }
    if (reading.signature !== undefined) {
      faults.push(notCanonical(path, `${found.name} is behind ${SIGNATURE}`, { offset, files }));
    }
    if (entries.length >= LIMITS.bundleEntries)
      throw new SealiftError('CONTENT_TOO_LARGE', `${path}: more than ${LIMITS.bundleEntries} entries`);
    entries.push({ name: found.name, size: found.size, offset });
    reading.end = at;
    if (options.toSums !== true || found.name !== B3SUMS) continue;
    checkRest(reading, at);
    return reading;
  }
  checkEnd(reading, at);
  return reading;
}
