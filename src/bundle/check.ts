import { type Digest, hexOf } from '../core/digest.ts';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { throwIfAborted } from '../io/pool.ts';
import { collect, digestOf } from '../io/verify.ts';
import { sweepMedium } from './ahead.ts';
import { digestOfName, parseSums } from './documents.ts';
import { type HashResult, hashRange } from './hash.ts';
import type { FoundEntry } from './medium.ts';
import { B3SUMS } from './plan.ts';
import type { Bundle } from './reader.ts';
import type { Sweep, SweptHashes } from './sweep.ts';

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
  readonly bundle: Bundle;
  readonly sha256: boolean;
  readonly context: Context;
  readonly shaOf: ReadonlyMap<string, string>;
}

/** Hashes one entry by itself: to learn why it could not be read, or what its other hash says. */
function hashEntry(entry: FoundEntry, { bundle, context }: Judging, sha256: boolean): Promise<HashResult> {
  const { signal } = context;
  return hashRange({ ...bundle.medium.range(entry), sha256, blake3: true }, { signal, note: () => {} });
}

function damaged(
  bundle: Bundle,
  entry: FoundEntry,
  kind: string,
  sums: { expected: string; found: string },
): Fault {
  return fault(
    'BUNDLE_CHECKSUM_MISMATCH',
    `${bundle.medium.path}: ${entry.name} at byte ${entry.offset} (${entry.size} bytes): ${kind} expected ${sums.expected}, found ${sums.found}`,
    {
      details: { entry: entry.name, offset: entry.offset, size: entry.size, hash: kind, ...sums },
      hint: 'copy the bundle again from where it was made; `sealift verify` there tells whether it was whole',
    },
  );
}

/** What one entry's hashes say. When one is wrong, the other tells whether the entry or the list is damaged. */
async function judgeEntry(
  entry: FoundEntry,
  swept: SweptHashes | undefined,
  judging: Judging,
): Promise<Fault | undefined> {
  const { bundle, shaOf } = judging;
  const expectedB3 = bundle.b3.get(entry.name);
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
  bundle: Bundle,
  entry: FoundEntry,
  list: string,
  sums: { expected: string; found: string },
): Fault {
  const offset = bundle.medium.entries.find((e) => e.name === list)?.offset ?? 0;
  const other = list === B3SUMS ? 'SHA-256' : 'BLAKE3';
  return fault(
    'BUNDLE_CHECKSUM_MISMATCH',
    `${bundle.medium.path}: ${list} at byte ${offset}: its line for ${entry.name} is wrong (the entry's ${other} is right)`,
    { details: { entry: list, offset, line: entry.name, ...sums } },
  );
}

/** A disk that cannot read an entry is a fault of that entry; the others are still judged. */
async function orUnreadable(
  entry: FoundEntry,
  judge: () => Promise<Fault | undefined>,
): Promise<Fault | undefined> {
  try {
    return await judge();
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code !== 'FILE_UNREADABLE') throw error;
    return fault(
      'BUNDLE_CHECKSUM_MISMATCH',
      `${error.message} (at byte ${entry.offset}): it cannot be read`,
      {
        details: { entry: entry.name, offset: entry.offset, size: entry.size },
        hint: 'the disk itself may be damaged: copy the bundle again, to another disk',
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
  bundle: Bundle,
  options: { readonly sha256: boolean; readonly context: Context; readonly sweep?: Sweep | undefined },
): Promise<HashReport> {
  const { medium } = bundle;
  const { sha256, context } = options;
  const bytes = medium.entries.reduce((sum, e) => sum + e.size, 0);
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

async function judgeAll(sweep: Sweep, judging: Judging): Promise<Fault[]> {
  const { medium } = judging.bundle;
  const faults: Fault[] = [];
  let isPaddingZero = sweep.isPaddingZero();
  for (const [i, entry] of medium.entries.entries()) {
    const hashes = sweep.hashesOf(i);
    if (hashes === undefined) isPaddingZero = false;
    if (entry.name === B3SUMS) continue;
    throwIfAborted(judging.context.signal);
    const found = await orUnreadable(entry, () => judgeEntry(entry, hashes, judging));
    if (found !== undefined) faults.push(found);
  }
  // Only what was seen to be wrong, or not seen at all, is looked at again, to say where.
  return isPaddingZero ? faults : [...faults, ...(await medium.checkPadding())];
}

/**
 * SHA-256 of the documents: what the lock implies, or where that is unknown what SHA256SUMS says. Their own faults were
 * found when the bundle was opened.
 */
async function documentSums({ plan, medium }: Bundle): Promise<ReadonlyMap<string, string>> {
  if (plan !== undefined) {
    return new Map(
      plan.entries.flatMap((e) =>
        e.bytes === undefined ? [] : [[e.name, hexOf(digestOf(e.bytes))] as const],
      ),
    );
  }
  const entry = medium.entries.find((e) => e.name === 'SHA256SUMS');
  if (entry === undefined || entry.size > LIMITS.bundleDocument) return new Map();
  const bytes = await collect(medium.read(entry), { limit: LIMITS.bundleDocument, what: entry.name });
  const { lines } = parseSums(bytes.toString('latin1'), 'SHA256SUMS');
  return new Map(lines.map((l) => [l.name, l.hex]));
}

/** Every image and artifact whose graph is not wholly there: what it misses. */
export function checkGraphs(bundle: Bundle): Fault[] {
  const faults: Fault[] = [];
  for (const { name, graph } of bundle.artifacts) {
    const missing: Digest[] = [...graph.nodes.keys()].filter((d) => !bundle.has(d));
    if (missing.length > 0) {
      faults.push(
        fault(
          'BUNDLE_GRAPH_INCOMPLETE',
          `${name}: ${missing.length} of its blobs are missing, first ${missing[0]}`,
          {
            details: { name, missing },
          },
        ),
      );
    }
  }
  return faults;
}
