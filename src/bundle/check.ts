import { hexOf } from '../core/digest.ts';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { throwIfAborted } from '../io/pool.ts';
import { sweepMedium } from './ahead.ts';
import { openDocument } from './compare.ts';
import { readSums } from './documents.ts';
import { digestOfName, type FoundEntry } from './entries.ts';
import { type HashResult, hashRange } from './hash.ts';
import { COPY_AGAIN, OTHER_DISK } from './hints.ts';
import { misplacedInside } from './misplaced.ts';
import { B3SUMS, DOCUMENTS } from './names.ts';
import type { OpenContent } from './reader.ts';
import type { Sweep, SweptHashes } from './sweep.ts';
import { inVolumes } from './volume-files.ts';

/** How the bytes were judged. */
export interface HashReport {
  readonly entries: number;
  /** Bytes of content that were read. */
  readonly bytes: number;
  readonly sha256: boolean;
  readonly faults: readonly Fault[];
}

/** What a check of bytes works with. */
interface Judging {
  readonly bundle: OpenContent;
  readonly sha256: boolean;
  readonly context: Context;
  /** SHA-256 of the documents by name, as 64 hex digits. */
  readonly shaOf: ReadonlyMap<string, string>;
}

/** Hashes one entry by itself: to learn why it could not be read, or what its other hash says. */
function hashEntry(entry: FoundEntry, { bundle, context }: Judging, sha256: boolean): Promise<HashResult> {
  const { signal } = context;
  return hashRange({ ...bundle.medium.range(entry), sha256, blake3: true }, { signal, note: () => {} });
}

function damaged(
  bundle: OpenContent,
  entry: FoundEntry,
  kind: string,
  sums: { expected: string; found: string },
): Fault {
  const { path, files } = bundle.medium;
  const place = `at byte ${entry.offset} (${entry.size} bytes)${inVolumes(files, entry.offset, entry.size)}`;
  return fault(
    'BUNDLE_CHECKSUM_MISMATCH',
    `${path}: ${entry.name} ${place}: ${kind} expected ${sums.expected}, found ${sums.found}`,
    {
      details: { entry: entry.name, offset: entry.offset, size: entry.size, hash: kind, ...sums },
      hint: COPY_AGAIN,
    },
  );
}

/** Whether an entry lies in volumes that are not wholly there. */
function isLost({ medium }: OpenContent, { offset, size }: FoundEntry): boolean {
  return medium.files?.isAbsent(offset, size) === true;
}

function lost({ medium }: OpenContent, { name, offset, size }: FoundEntry): Fault {
  const place = `at byte ${offset} (${size} bytes)${inVolumes(medium.files, offset, size)}`;
  return fault('BUNDLE_TRUNCATED', `${medium.path}: ${name} ${place}: not all of it is there`, {
    details: { entry: name, offset, size },
    hint: COPY_AGAIN,
  });
}

/** What one entry's hashes say. When one is wrong, the other tells whether the entry or the list is damaged. */
async function judgeEntry(
  index: number,
  swept: SweptHashes | undefined,
  judging: Judging,
): Promise<Fault | undefined> {
  const { bundle, shaOf } = judging;
  const entry = bundle.medium.entries.at(index);
  if (isLost(bundle, entry)) return lost(bundle, entry);
  const expectedB3 = bundle.b3.at(index);
  // Where a damaged B3SUMS says nothing, the entry is judged by its SHA-256.
  const sha256 = judging.sha256 || expectedB3 === undefined;
  const isKnown = swept !== undefined && (swept.sha256 !== '' || !sha256);
  const hashes = isKnown ? { ...swept, bytes: entry.size } : await hashEntry(entry, judging, sha256);
  if (hashes.bytes !== entry.size) {
    return fault(
      'BUNDLE_TRUNCATED',
      `${bundle.medium.path}: ${entry.name}: expected ${entry.size} bytes, found ${hashes.bytes}`,
      {
        details: { entry: entry.name, offset: entry.offset, expected: entry.size, found: hashes.bytes },
        hint: COPY_AGAIN,
      },
    );
  }
  const promised = digestOfName(entry.name);
  const expectedSha = promised === undefined ? shaOf.get(entry.name) : hexOf(promised);
  const b3 = { expected: expectedB3 ?? '', found: hashes.blake3 };
  const isB3 = expectedB3 === hashes.blake3;
  if (hashes.sha256 !== '' && expectedSha !== undefined && hashes.sha256 !== expectedSha) {
    const sha = { expected: expectedSha, found: hashes.sha256 };
    const isList = promised === undefined && isB3;
    return isList ? wrongLine(bundle, entry, 'SHA256SUMS', sha) : damaged(bundle, entry, 'SHA-256', sha);
  }
  if (expectedB3 === undefined || isB3) return undefined;
  const sha = hashes.sha256 || (await hashEntry(entry, judging, true)).sha256;
  const isList = expectedSha !== undefined && sha === expectedSha;
  return isList ? wrongLine(bundle, entry, B3SUMS, b3) : damaged(bundle, entry, 'BLAKE3', b3);
}

/** Of two lists one agrees with an entry: then the other one is damaged, not the entry. */
function wrongLine(
  bundle: OpenContent,
  entry: FoundEntry,
  list: string,
  sums: { expected: string; found: string },
): Fault {
  const offset = bundle.medium.entries.find(list)?.offset ?? 0;
  const other = list === B3SUMS ? 'SHA-256' : 'BLAKE3';
  return fault(
    'BUNDLE_CHECKSUM_MISMATCH',
    `${bundle.medium.path}: ${list} at byte ${offset}: its line for ${entry.name} is wrong (the entry's ${other} is right)`,
    { details: { entry: list, offset, line: entry.name, ...sums }, hint: COPY_AGAIN },
  );
}

/** A disk that cannot read an entry is a fault of that entry; the others are still judged. */
async function orUnreadable(
  entry: FoundEntry,
  place: string,
  judge: () => Promise<Fault | undefined>,
): Promise<Fault | undefined> {
  try {
    return await judge();
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code !== 'FILE_UNREADABLE') throw error;
    return fault(
      'BUNDLE_CHECKSUM_MISMATCH',
      `${error.message} (at byte ${entry.offset})${place}: it cannot be read`,
      {
        details: { entry: entry.name, offset: entry.offset, size: entry.size },
        hint: OTHER_DISK,
      },
    );
  }
}

/**
 * Reads every byte of a bundle and compares it: each entry with B3SUMS, with `sha256` also each blob with its name and
 * each document with SHA256SUMS, and all padding with zero. Returns every fault.
 * @param options.sweep what began to hash this bundle already, with the same `sha256`; not closed here
 */
export async function checkBytes(
  bundle: OpenContent,
  options: { readonly sha256: boolean; readonly context: Context; readonly sweep?: Sweep | undefined },
): Promise<HashReport> {
  const { medium } = bundle;
  const { sha256, context } = options;
  const bytes = bytesThere(bundle);
  context.emit({ type: 'total', bytes, items: medium.entries.length });
  context.emit({ type: 'start', id: 'verify', label: 'bytes', size: bytes });
  const sweep = options.sweep ?? sweepMedium(medium, { sha256 });
  try {
    let shown = 0;
    const note = (hashed: number): void => {
      const now = Math.min(hashed, bytes);
      context.emit({ type: 'progress', id: 'verify', bytes: now - shown });
      shown = now;
    };
    await sweep.finish({ signal: context.signal, note });
    note(bytes);
    const judging: Judging = { bundle, sha256, context, shaOf: await documentSums(bundle) };
    const faults = await judgeAll(sweep, judging);
    context.emit({ type: 'end', id: 'verify', outcome: faults.length === 0 ? 'done' : 'failed' });
    return { entries: medium.entries.length, bytes, sha256, faults };
  } finally {
    if (options.sweep === undefined) await sweep.close();
  }
}

/** Bytes of all entries but those of which not all is there. */
function bytesThere(bundle: OpenContent): number {
  const { entries, files } = bundle.medium;
  if (files === undefined || files.parts.length === 0) return entries.bytes();
  let bytes = 0;
  for (const entry of entries) if (!isLost(bundle, entry)) bytes += entry.size;
  return bytes;
}

/** Why blobs that fill whole volumes are damaged, where that can be told. */
async function misplacedFaults({ bundle, context }: Judging, faults: readonly Fault[]): Promise<Fault[]> {
  const { entries, files } = bundle.medium;
  const found: Fault[] = [];
  for (const { details } of faults) {
    const index = typeof details?.entry === 'string' ? entries.indexOf(details.entry) : -1;
    const blake3 = index < 0 ? undefined : bundle.b3.at(index);
    if (files === undefined || blake3 === undefined || isLost(bundle, entries.at(index))) continue;
    found.push(...(await misplacedInside(files, { ...entries.at(index), blake3 }, context.signal)));
  }
  return found;
}

async function judgeAll(sweep: Sweep, judging: Judging): Promise<Fault[]> {
  const { medium } = judging.bundle;
  const faults: Fault[] = [];
  let isPaddingZero = sweep.isPaddingZero();
  for (let i = 0; i < medium.entries.length; i += 1) {
    const entry = medium.entries.at(i);
    const hashes = sweep.hashesOf(i);
    if (hashes === undefined) isPaddingZero = false;
    if (entry.name === B3SUMS) continue;
    throwIfAborted(judging.context.signal);
    const found = await orUnreadable(entry, inVolumes(medium.files, entry.offset, entry.size), () =>
      judgeEntry(i, hashes, judging),
    );
    if (found !== undefined) faults.push(found);
  }
  if (faults.length > 0) faults.unshift(...(await misplacedFaults(judging, faults)));
  // Only what was seen to be wrong, or not seen at all, is looked at again, to say where.
  return isPaddingZero ? faults : [...faults, ...(await medium.checkPadding())];
}

/**
 * SHA-256 of the documents: what the lock implies, or where that is unknown what SHA256SUMS says. Their own faults were
 * found when the bundle was opened.
 */
async function documentSums({ implied, medium }: OpenContent): Promise<ReadonlyMap<string, string>> {
  if (implied !== undefined) return implied;
  const sums = new Map<string, string>();
  const entry = medium.entries.find('SHA256SUMS');
  if (entry === undefined || entry.size > LIMITS.bundleDocument) return sums;
  try {
    await readSums(openDocument(medium, entry.name), entry.name, ({ hex, name }) => {
      if (DOCUMENTS.includes(name)) sums.set(name, hex);
    });
  } catch (error) {
    // What the disk cannot read says nothing.
    if (!(error instanceof SealiftError) || error.code !== 'FILE_UNREADABLE') throw error;
  }
  return sums;
}
