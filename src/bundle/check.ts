import { createHash } from 'node:crypto';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { type Digest, hexOf } from '../core/digest.ts';
import { type Fault, fault } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { throwIfAborted } from '../io/pool.ts';
import { digestOfName, parseSums } from './documents.ts';
import type { FoundEntry } from './medium.ts';
import { B3SUMS } from './plan.ts';
import type { Bundle } from './reader.ts';

/** How the bytes were judged. */
export interface HashReport {
  readonly entries: number;
  /** Bytes of content that were read. */
  readonly bytes: number;
  readonly sha256: boolean;
  readonly faults: readonly Fault[];
}

interface Hashes {
  readonly b3: string;
  readonly sha: string | undefined;
  readonly size: number;
}

async function hashEntry(
  bundle: Bundle,
  entry: FoundEntry,
  options: { readonly sha256: boolean; readonly context: Context },
): Promise<Hashes> {
  const b3 = new Blake3Hasher();
  const sha = options.sha256 ? createHash('sha256') : undefined;
  let size = 0;
  for await (const chunk of bundle.medium.read(entry)) {
    throwIfAborted(options.context.signal);
    b3.update(chunk);
    sha?.update(chunk);
    size += chunk.length;
    options.context.emit({ type: 'progress', id: 'verify', bytes: chunk.length });
  }
  return { b3: b3.digest('hex'), sha: sha?.digest('hex'), size };
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

/** What one entry's hashes say. With a wrong BLAKE3 the SHA-256 tells whether the entry or the list is damaged. */
async function judgeEntry(
  bundle: Bundle,
  entry: FoundEntry,
  options: {
    readonly sha256: boolean;
    readonly context: Context;
    readonly shaOf: ReadonlyMap<string, string>;
  },
): Promise<Fault | undefined> {
  const hashes = await hashEntry(bundle, entry, options);
  if (hashes.size !== entry.size) {
    return fault(
      'BUNDLE_TRUNCATED',
      `${bundle.medium.path}: ${entry.name}: expected ${entry.size} bytes, found ${hashes.size}`,
    );
  }
  const promised = digestOfName(entry.name);
  const expectedSha = promised === undefined ? options.shaOf.get(entry.name) : hexOf(promised);
  if (hashes.sha !== undefined && expectedSha !== undefined && hashes.sha !== expectedSha) {
    return damaged(bundle, entry, 'SHA-256', { expected: expectedSha, found: hashes.sha });
  }
  const expectedB3 = bundle.b3.get(entry.name);
  if (expectedB3 === undefined || expectedB3 === hashes.b3) return undefined;
  const sha = hashes.sha ?? (await hashEntry(bundle, entry, { ...options, sha256: true })).sha;
  if (expectedSha !== undefined && sha === expectedSha) {
    return fault(
      'BUNDLE_CHECKSUM_MISMATCH',
      `${bundle.medium.path}: B3SUMS: its line for ${entry.name} is wrong (the entry's SHA-256 is right)`,
      { details: { entry: B3SUMS, line: entry.name, expected: expectedB3, found: hashes.b3 } },
    );
  }
  return damaged(bundle, entry, 'BLAKE3', { expected: expectedB3, found: hashes.b3 });
}

/**
 * Reads every byte of a bundle and compares it: each entry with B3SUMS, with `sha256` also each blob with its name and
 * each document with SHA256SUMS, and all padding with zero. Returns every fault.
 */
export async function checkBytes(
  bundle: Bundle,
  options: { readonly sha256: boolean; readonly context: Context },
): Promise<HashReport> {
  const { medium } = bundle;
  const faults: Fault[] = [];
  const bytes = medium.entries.reduce((sum, e) => sum + e.size, 0);
  options.context.emit({ type: 'total', bytes, items: medium.entries.length });
  options.context.emit({ type: 'start', id: 'verify', label: 'bytes', size: bytes });
  const shaOf = await readShaSums(bundle);
  for (const entry of medium.entries) {
    if (entry.name === B3SUMS) continue;
    const found = await judgeEntry(bundle, entry, { ...options, shaOf });
    if (found !== undefined) faults.push(found);
  }
  faults.push(...(await medium.checkPadding()));
  options.context.emit({ type: 'end', id: 'verify', outcome: faults.length === 0 ? 'done' : 'failed' });
  return { entries: medium.entries.length, bytes, sha256: options.sha256, faults };
}

/** SHA-256 of the documents by SHA256SUMS; its own faults were found when the bundle was opened. */
async function readShaSums(bundle: Bundle): Promise<Map<string, string>> {
  const entry = bundle.medium.entries.find((e) => e.name === 'SHA256SUMS');
  if (entry === undefined) return new Map();
  const chunks: Buffer[] = [];
  for await (const chunk of bundle.medium.read(entry)) chunks.push(chunk);
  const { lines } = parseSums(Buffer.concat(chunks).toString('latin1'), 'SHA256SUMS');
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
