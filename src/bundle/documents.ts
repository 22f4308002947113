import { z } from 'zod';
import { type Digest, isDigest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { BaseBundle } from './contents.ts';
import { FORMAT_VERSION } from './texts.ts';

/** `sealift.json`: what the bundle says about itself. */
export interface BundleInfo {
  readonly formatVersion: number;
  readonly minReader: number;
  readonly name: string;
  readonly version: string;
  /** SHA-256 of versions.lock. */
  readonly lock: Digest;
  /** Bytes of the unsigned tar. */
  readonly size: number;
  readonly entries: number;
  /** Of a delta: what it builds on. */
  readonly base: InfoBase | null;
}

/** What a delta builds on, and what it leaves out because all of these bundles have it. */
export interface InfoBase {
  readonly of: readonly BaseBundle[];
  readonly leftOut: DigestTable;
  /** Of all that is left out. */
  readonly bytes: number;
}

const digest = z.string().refine(isDigest, 'not a sha256 digest');

const baseSchema = z.strictObject({
  of: z
    .array(
      z.strictObject({
        name: z.string().min(1).max(255).nullable(),
        version: z.string().min(1).max(255).nullable(),
        lock: digest,
      }),
    )
    .min(1)
    .max(LIMITS.bases),
  leftOut: z.array(z.strictObject({ digest, size: z.int().min(0) })).max(LIMITS.bundleEntries),
});

function infoBase(parsed: z.infer<typeof baseSchema>): InfoBase {
  const leftOut = new DigestTable();
  let bytes = 0;
  for (const { digest: one, size } of parsed.leftOut) {
    leftOut.add(one as Digest);
    bytes += size;
  }
  return { of: parsed.of.map((b) => ({ ...b, lock: b.lock as Digest })), leftOut, bytes };
}

const infoSchema = z.strictObject({
  formatVersion: z.int().min(1),
  minReader: z.int().min(1),
  name: z.string().min(1).max(255),
  version: z.string().min(1).max(255),
  lock: digest,
  size: z.string().regex(/^\d{16}$/),
  entries: z.int().min(1),
  base: baseSchema.nullable(),
});

/**
 * Reads `sealift.json`. A newer format is refused before anything else about it is judged.
 * @throws BUNDLE_TOO_NEW, BUNDLE_NOT_CANONICAL
 */
export function parseInfo(bytes: Buffer, where: string): BundleInfo {
  let body: unknown;
  try {
    body = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new SealiftError('BUNDLE_NOT_CANONICAL', `${where}: sealift.json is not JSON`, { cause });
  }
  const reader = z.looseObject({ minReader: z.int() }).safeParse(body);
  if (reader.success && reader.data.minReader > FORMAT_VERSION) {
    throw new SealiftError(
      'BUNDLE_TOO_NEW',
      `${where}: needs a sealift that reads format ${reader.data.minReader}, this one reads ${FORMAT_VERSION}`,
      { hint: 'use the sealift that came with the bundle, or a newer one' },
    );
  }
  const parsed = infoSchema.safeParse(body);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const at = issue?.path.join('.') ?? '';
    throw new SealiftError(
      'BUNDLE_NOT_CANONICAL',
      `${where}: sealift.json${at === '' ? '' : ` ${at}`}: ${issue?.message ?? 'not as the format says'}`,
    );
  }
  const { formatVersion, minReader, name, version, lock, size, entries } = parsed.data;
  const { base } = parsed.data;
  return {
    formatVersion,
    minReader,
    name,
    version,
    lock: lock as Digest,
    size: Number(size),
    entries,
    base: base === null ? null : infoBase(base),
  };
}

/** One line of SHA256SUMS or B3SUMS. */
export interface SumLine {
  readonly hex: string;
  readonly name: string;
}

const SUM_LINE = /([0-9a-f]{64}) {2}([\x21-\x7e]{1,100})\n/y;
/** Characters of the longest line. */
const LONGEST = 64 + 2 + 100 + 1;

/** Reads `<64 hex>  <name>\n` lines as they come, and tells each; anything else is a fault and ends the reading. */
export async function readSums(
  source: AsyncIterable<Uint8Array>,
  file: string,
  tell: (line: SumLine) => void,
): Promise<Fault[]> {
  let [text, line] = ['', 1];
  const bad = (): Fault[] => [fault('BUNDLE_NOT_CANONICAL', `${file}: line ${line} is not "<hex>  <name>"`)];
  for await (const chunk of source) {
    text += Buffer.from(chunk).toString('latin1');
    let at = 0;
    for (;;) {
      SUM_LINE.lastIndex = at;
      const m = SUM_LINE.exec(text);
      if (m === null) break;
      tell({ hex: m[1] ?? '', name: m[2] ?? '' });
      at += m[0].length;
      line += 1;
    }
    text = text.slice(at);
    if (text.length >= LONGEST) return bad();
  }
  return text === '' ? [] : bad();
}
