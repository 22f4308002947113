import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { KIB, LIMITS } from '../core/limits.ts';
import { digestStream } from '../io/verify.ts';
import { readSums } from './documents.ts';
import { type EntryList, type FoundEntry, HashList } from './entries.ts';
import { COPY_AGAIN, NOT_OURS, OTHER_DISK } from './hints.ts';
import type { Medium } from './medium.ts';
import { B3SUMS } from './names.ts';
import { passOn } from './pass-on.ts';
import type { BundlePlan, PlannedEntry } from './plan.ts';
import { inVolumes } from './volume-files.ts';

/** How much of a document is read at once, in bytes. */
const PIECE = 64 * KIB;
const { signal: NEVER } = new AbortController();

function documentEntry(medium: Medium, name: string): FoundEntry {
  const entry = medium.entries.find(name);
  if (entry === undefined) {
    throw new SealiftError('BUNDLE_ENTRY_MISSING', `${medium.path}: no ${name}`, {
      hint: 'this is not a bundle of sealift, or its beginning is damaged',
      details: { entry: name },
    });
  }
  if (entry.size <= LIMITS.bundleDocument) return entry;
  const message = `${medium.path}: ${name}: more than ${LIMITS.bundleDocument} bytes`;
  throw new SealiftError('CONTENT_TOO_LARGE', message);
}

/**
 * The bytes of a document of a bundle, unverified, in one buffer that is used again for each piece.
 * @throws BUNDLE_ENTRY_MISSING, CONTENT_TOO_LARGE, FILE_UNREADABLE
 */
export function openDocument(medium: Medium, name: string): AsyncIterable<Buffer> {
  const range = medium.range(documentEntry(medium, name));
  return passOn(range, { blake3: undefined, chunk: PIECE, signal: NEVER });
}

/** The same, whole. */
export async function readDocument(medium: Medium, name: string): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(documentEntry(medium, name).size);
  let at = 0;
  for await (const piece of openDocument(medium, name)) at += piece.copy(bytes, at);
  return bytes;
}

/** Entries that the lock does not imply, and those that are there twice. */
function surplus(medium: Medium, plan: BundlePlan): Fault[] {
  const faults: Fault[] = [];
  let index = 0;
  for (const { name, offset } of medium.entries) {
    const details = { entry: name, offset };
    if (medium.entries.indexOf(name) !== index) {
      const message = `${medium.path}: ${name} is there twice, again at byte ${offset}`;
      faults.push(fault('BUNDLE_NOT_CANONICAL', message, { details, hint: NOT_OURS }));
    } else if (plan.entries.indexOf(name) < 0) {
      const message = `${medium.path}: ${name} at byte ${offset} is not in the lock`;
      faults.push(fault('BUNDLE_ENTRY_EXTRA', message, { details, hint: NOT_OURS }));
    }
    index += 1;
  }
  return faults;
}

/** A document that the disk cannot read is a fault of it; what is behind it is still judged. @throws any other error */
function unreadable(error: unknown, at: string, details: Readonly<Record<string, unknown>>): Fault {
  if (!(error instanceof SealiftError) || error.code !== 'FILE_UNREADABLE') throw error;
  return fault('BUNDLE_CHECKSUM_MISMATCH', `${at}: it cannot be read: ${error.message}`, {
    details,
    hint: OTHER_DISK,
  });
}

/** What is wrong with one entry that the lock implies. Blobs are not read. */
async function compareEntry(
  medium: Medium,
  planned: PlannedEntry,
  found: FoundEntry | undefined,
): Promise<Fault | undefined> {
  const { name, size, text } = planned;
  if (found === undefined) {
    const place = inVolumes(medium.files, planned.offset, size);
    const at = medium.kind === 'tar' ? ` from byte ${planned.offset}${place}` : '';
    return fault('BUNDLE_ENTRY_MISSING', `${medium.path}: ${name} (${size} bytes${at}) is missing`, {
      details: { entry: name, offset: medium.kind === 'tar' ? planned.offset : 0, expected: size },
      hint: COPY_AGAIN,
    });
  }
  const details = { entry: name, offset: found.offset };
  if (found.size !== size) {
    const message = `${medium.path}: ${name}: expected ${size} bytes, found ${found.size}`;
    return fault('BUNDLE_NOT_CANONICAL', message, {
      details: { ...details, expected: size, found: found.size },
      hint: COPY_AGAIN,
    });
  }
  if (text === undefined) return undefined;
  const at = `${medium.path}: ${name} at byte ${found.offset}`;
  try {
    if ((await digestStream(openDocument(medium, name))).digest === text.digest) return undefined;
    return fault('BUNDLE_CHECKSUM_MISMATCH', `${at} is not what the lock implies`, {
      details,
      hint: COPY_AGAIN,
    });
  } catch (error) {
    return unreadable(error, at, details);
  }
}

/** The first place where two lists of entries have different names; -1 where there is none. */
function firstDifference(a: EntryList, b: EntryList): number {
  for (let i = 0; i < Math.max(a.length, b.length); i += 1) {
    if (i >= a.length || i >= b.length || a.at(i).name !== b.at(i).name) return i;
  }
  return -1;
}

/** Compares what was found with the plan: names, sizes, the bytes of the documents, and the order. */
export async function compareWithPlan(medium: Medium, plan: BundlePlan): Promise<Fault[]> {
  const faults = surplus(medium, plan);
  for (const planned of plan.entries) {
    const bad = await compareEntry(medium, planned, medium.entries.find(planned.name));
    if (bad !== undefined) faults.push(bad);
  }
  if (medium.kind === 'folder' || faults.length > 0) return faults;
  const at = firstDifference(plan.entries, medium.entries);
  if (at < 0 || at >= medium.entries.length) return faults;
  const entry = medium.entries.at(at);
  const message = `${medium.path}: ${entry.name} at byte ${entry.offset} is out of order`;
  const details = { entry: entry.name, offset: entry.offset };
  return [fault('BUNDLE_NOT_CANONICAL', message, { details, hint: NOT_OURS })];
}

/** BLAKE3 of the entries of a medium. B3SUMS must list exactly the entries, in order. */
export async function readB3Sums(
  medium: Medium,
  plan: BundlePlan | undefined,
): Promise<{ readonly hashes: HashList; readonly faults: readonly Fault[] }> {
  const hashes = new HashList(medium.entries.length);
  const entry = medium.entries.find(B3SUMS);
  if (entry === undefined) return { hashes, faults: [] };
  const expected: EntryList = plan?.entries ?? medium.entries;
  let isInOrder = true;
  let next = 0;
  /** The next entry that must be listed: all but B3SUMS itself. */
  const following = (): string | undefined => {
    if (next < expected.length && expected.at(next).name === B3SUMS) next += 1;
    return next < expected.length ? expected.at(next++).name : undefined;
  };
  const more = { details: { entry: B3SUMS, offset: entry.offset }, hint: COPY_AGAIN };
  let faults: readonly Fault[];
  try {
    faults = await readSums(openDocument(medium, B3SUMS), B3SUMS, ({ hex, name }) => {
      const index = medium.entries.indexOf(name);
      if (index >= 0) hashes.set(index, hex);
      if (isInOrder) isInOrder = name === following();
    });
  } catch (error) {
    const at = `${medium.path}: ${B3SUMS} at byte ${entry.offset}`;
    return { hashes: new HashList(medium.entries.length), faults: [unreadable(error, at, more.details)] };
  }
  if (faults.length > 0) {
    return { hashes, faults: faults.map((f) => fault(f.code, `${medium.path}: ${f.message}`, more)) };
  }
  if (isInOrder && following() === undefined) return { hashes, faults };
  const message = `${medium.path}: B3SUMS does not list exactly the entries, in order`;
  return { hashes, faults: [fault('BUNDLE_NOT_CANONICAL', message, more)] };
}
