import { createHash, type Hash } from 'node:crypto';
import type { Blake3Hasher } from '@napi-rs/blake-hash';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { createBlake3 } from './blake3.ts';

/** What bytes must turn out to be. */
export interface Expected {
  readonly digest: Digest;
  /** Bytes; undefined where only the digest is known. */
  readonly size?: number;
  /** What is being read, for the message: a name, a URL, an entry. */
  readonly what: string;
  /** What to do when it is something else. */
  readonly hint?: string;
}

/** Whether an error says that bytes are not what they must be. */
export function isWrongContent(error: unknown): boolean {
  const code = error instanceof SealiftError ? error.code : undefined;
  return code === 'CONTENT_DIGEST_MISMATCH' || code === 'CONTENT_SIZE_MISMATCH';
}

/** The SHA-256 of bytes in memory, as a digest. */
export function digestOf(bytes: Uint8Array | string | Iterable<Uint8Array>): Digest {
  const hash = createHash('sha256');
  if (typeof bytes === 'string' || bytes instanceof Uint8Array) hash.update(bytes);
  else for (const piece of bytes) hash.update(piece);
  return `sha256:${hash.digest('hex')}`;
}

/** The BLAKE3 of bytes in memory, as 64 hex digits. */
export function blake3Of(bytes: Uint8Array | string): string {
  return createBlake3().update(Buffer.from(bytes)).digest('hex');
}

/**
 * The one place where bytes are verified as they pass. Feed chunks with `update`, then `finish`.
 * `update` fails as soon as there is one byte too many; `finish` when bytes lack or the SHA-256 differs.
 */
export class Verifier {
  readonly #expected: Expected;
  readonly #sha: Hash = createHash('sha256');
  readonly #blake: Blake3Hasher | undefined;
  #received = 0;

  /** @param options.blake3 also computes BLAKE3 in the same pass; default false */
  constructor(expected: Expected, options: { readonly blake3?: boolean } = {}) {
    this.#expected = expected;
    this.#blake = options.blake3 === true ? createBlake3() : undefined;
  }

  /** Bytes so far. */
  get received(): number {
    return this.#received;
  }

  #hint(): { hint?: string } {
    const { hint } = this.#expected;
    return hint === undefined ? {} : { hint };
  }

  /** @throws CONTENT_SIZE_MISMATCH at the first byte over the size */
  update(chunk: Uint8Array): void {
    this.#received += chunk.length;
    const { size, what } = this.#expected;
    if (size !== undefined && this.#received > size) {
      throw new SealiftError('CONTENT_SIZE_MISMATCH', `${what}: more than the expected ${size} bytes`, {
        details: { expectedSize: size, digest: this.#expected.digest },
        ...this.#hint(),
      });
    }
    this.#sha.update(chunk);
    this.#blake?.update(Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk));
  }

  /**
   * @returns the BLAKE3 as 64 hex digits ('' when it was not asked for)
   * @throws CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH
   */
  finish(): string {
    const { size, digest, what } = this.#expected;
    if (size !== undefined && this.#received !== size) {
      throw new SealiftError(
        'CONTENT_SIZE_MISMATCH',
        `${what}: expected ${size} bytes, found ${this.#received}`,
        { details: { expectedSize: size, foundSize: this.#received, digest }, ...this.#hint() },
      );
    }
    const found = `sha256:${this.#sha.digest('hex')}`;
    if (found !== digest) {
      throw new SealiftError('CONTENT_DIGEST_MISMATCH', `${what}: expected ${digest}, found ${found}`, {
        details: { expected: digest, found },
        ...this.#hint(),
      });
    }
    return this.#blake?.digest('hex') ?? '';
  }
}

/** Passes chunks through and fails at the end when they are not what was expected. The consumer must discard what it got on failure. */
export async function* verified(
  source: AsyncIterable<Uint8Array>,
  expected: Expected,
): AsyncGenerator<Uint8Array> {
  const verifier = new Verifier(expected);
  for await (const chunk of source) {
    verifier.update(chunk);
    yield chunk;
  }
  verifier.finish();
}

/**
 * Gathers a small stream into memory.
 * @throws CONTENT_TOO_LARGE as soon as it passes `limit` bytes
 */
export async function collect(
  source: AsyncIterable<Uint8Array>,
  options: { readonly limit: number; readonly what: string },
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > options.limit) {
      throw new SealiftError('CONTENT_TOO_LARGE', `${options.what}: more than ${options.limit} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/** Hashes a stream: SHA-256 digest and size in bytes. */
export async function digestStream(
  source: AsyncIterable<Uint8Array>,
): Promise<{ readonly digest: Digest; readonly size: number }> {
  const sha = createHash('sha256');
  let size = 0;
  for await (const chunk of source) {
    sha.update(chunk);
    size += chunk.length;
  }
  return { digest: `sha256:${sha.digest('hex')}`, size };
}
