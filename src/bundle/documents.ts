import { z } from 'zod';
import { type Digest, digestOfHex, isDigest } from '../core/digest.ts';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { B3SUMS, FORMAT_VERSION } from './plan.ts';

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
}

const digest = z.string().refine(isDigest, 'not a sha256 digest');

const infoSchema = z.strictObject({
  formatVersion: z.int().min(1),
  minReader: z.int().min(1),
  name: z.string().min(1).max(255),
  version: z.string().min(1).max(255),
  lock: digest,
  size: z.string().regex(/^\d{16}$/),
  entries: z.int().min(1),
  base: z.null(),
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
  return { formatVersion, minReader, name, version, lock: lock as Digest, size: Number(size), entries };
}

/** One line of SHA256SUMS or B3SUMS. */
export interface SumLine {
  readonly hex: string;
  readonly name: string;
}

/** Reads `<64 hex>  <name>\n` lines; anything else is a fault and ends the reading. */
export function parseSums(
  text: string,
  file: string,
): { readonly lines: SumLine[]; readonly faults: Fault[] } {
  const lines: SumLine[] = [];
  const re = /([0-9a-f]{64}) {2}([\x21-\x7e]{1,100})\n/y;
  let at = 0;
  while (at < text.length) {
    re.lastIndex = at;
    const m = re.exec(text);
    if (m === null) {
      const line = lines.length + 1;
      return {
        lines,
        faults: [fault('BUNDLE_NOT_CANONICAL', `${file}: line ${line} is not "<hex>  <name>"`)],
      };
    }
    lines.push({ hex: m[1] ?? '', name: m[2] ?? '' });
    at = re.lastIndex;
  }
  return { lines, faults: [] };
}

/** The digest that an entry's name promises; undefined for documents. */
export function digestOfName(name: string): Digest | undefined {
  const hex = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(name)?.[1];
  return hex === undefined ? undefined : digestOfHex(hex);
}

/** BLAKE3 by entry name, from the text of `B3SUMS`. */
export function parseB3Sums(bytes: Buffer): {
  readonly hashes: Map<string, string>;
  readonly faults: Fault[];
} {
  const { lines, faults } = parseSums(bytes.toString('latin1'), B3SUMS);
  return { hashes: new Map(lines.map((l) => [l.name, l.hex])), faults };
}
