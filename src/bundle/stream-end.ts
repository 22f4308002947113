import { createHash, type Hash } from 'node:crypto';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readSums } from './documents.ts';
import type { EntryList, FoundEntry, HashList } from './entries.ts';
import { B3SUMS, SIGNATURE } from './names.ts';
import type { StreamTar } from './stream-tar.ts';

/** Faults of a list that are told one by one. */
const FAULTS_SHOWN = 100;

/** What stood at the end of a stream. */
export interface StreamEnd {
  /** BLAKE2b-512 of B3SUMS: what a signature signs. */
  readonly b3sums: Buffer;
  /** The signature; undefined where there is none. */
  readonly signature: Buffer | undefined;
  /** Lines of B3SUMS that disagree with what came. */
  readonly faults: readonly Fault[];
}

/** What the end of a bundle is compared with. */
interface Came {
  readonly entries: EntryList;
  /** The BLAKE3 of every entry that came. */
  readonly hashes: HashList;
  /** Entries without one were passed over; else it is a fault not to know it. */
  readonly isPartial?: boolean;
}

/**
 * Reads the end of a bundle, from B3SUMS to the last byte, and compares what came with that list.
 * @param tar stands at the header of B3SUMS
 * @throws BUNDLE_TRUNCATED, BUNDLE_NOT_CANONICAL
 */
export async function readEnd(tar: StreamTar, came: Came): Promise<StreamEnd> {
  const sums = came.entries.find(B3SUMS);
  if (sums === undefined) throw new SealiftError('INTERNAL', 'a plan without B3SUMS');
  const { offset } = await tar.expect(sums.name, sums.size);
  const hash = createHash('blake2b512');
  const faults = await compareSums(tar, came, { offset, hash });
  const signature = await readSignature(tar);
  await tar.end();
  return { b3sums: hash.digest(), signature, faults };
}

async function compareSums(
  tar: StreamTar,
  { entries, hashes, isPartial = false }: Came,
  { offset, hash }: { readonly offset: number; readonly hash: Hash },
): Promise<Fault[]> {
  const details = { entry: B3SUMS, offset };
  const faults: Fault[] = [];
  let [index, isInOrder] = [0, true];
  const pieces = async function* (): AsyncGenerator<Buffer> {
    for (let piece = await tar.piece(); piece !== undefined; piece = await tar.piece()) {
      hash.update(piece);
      yield piece;
    }
  };
  const read = await readSums(pieces(), B3SUMS, ({ hex, name }) => {
    const entry = index < entries.length ? entries.at(index) : undefined;
    isInOrder &&= entry?.name === name && name !== B3SUMS;
    if (!isInOrder || entry === undefined) return;
    const isKnown = hashes.has(index) || !isPartial;
    const found = hashes.at(index) ?? '';
    index += 1;
    if (!isKnown || found === hex || faults.length >= FAULTS_SHOWN) return;
    faults.push(wrongEntry(tar, entry, { hash: 'BLAKE3', expected: hex, found }));
  });
  // A list that ends in the middle of a line is read to its end all the same.
  while ((await tar.piece()) !== undefined);
  for (const each of read) faults.push(fault(each.code, `${tar.what}: ${each.message}`, { details }));
  if (read.length === 0 && (!isInOrder || index !== entries.length - 1)) {
    const message = `${tar.what}: B3SUMS does not list exactly the entries, in order`;
    faults.push(fault('BUNDLE_NOT_CANONICAL', message, { details }));
  }
  return faults;
}

/** Content that is not what it must be. */
export function wrongEntry(
  { what }: Pick<StreamTar, 'what'>,
  { name, size, offset }: FoundEntry,
  sums: { readonly hash: 'SHA-256' | 'BLAKE3'; readonly expected: string; readonly found: string },
): Fault {
  const said = `${sums.hash} expected ${sums.expected}, found ${sums.found}`;
  return fault('BUNDLE_CHECKSUM_MISMATCH', `${what}: ${name} at byte ${offset} (${size} bytes): ${said}`, {
    details: { entry: name, offset, size, ...sums },
  });
}

async function readSignature(tar: StreamTar): Promise<Buffer | undefined> {
  const entry = await tar.next();
  if (entry === undefined) return undefined;
  if (entry.name !== SIGNATURE || entry.size > LIMITS.signatureText) {
    throw tar.notCanonical(entry.offset, `${entry.name} behind ${B3SUMS}`);
  }
  const bytes = await tar.whole();
  if ((await tar.next()) !== undefined) throw tar.notCanonical(entry.offset, `an entry behind ${SIGNATURE}`);
  return bytes;
}
