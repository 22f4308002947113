import { setImmediate as breath } from 'node:timers/promises';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { KIB, LIMITS, MIB } from '../core/limits.ts';
import type { ContentReader } from '../oci/content.ts';
import type { Body, Span } from './answer.ts';
import type { ShownContent } from './shown.ts';

/** A bundle that is served. */
export interface StockedBundle extends ContentReader {
  readonly path: string;
  /** Bytes of a blob; undefined where this bundle does not carry it. */
  sizeOf(digest: Digest): number | undefined;
  /** Changes when the files that hold a blob do. */
  stampOf(digest: Digest): string;
}

/** A blob that was read whole, and the stamp of its files before that. */
interface Proof {
  readonly stamp: string;
  readonly done: Promise<void>;
}

/** Bytes of all pieces that are read at once, and the largest and the smallest of one. */
const ROOM = 16 * MIB;
const LARGEST = 256 * KIB;
const SMALLEST = 16 * KIB;

const NO_BYTES = Buffer.alloc(0);

async function* nothing(): AsyncGenerator<Uint8Array> {}

/**
 * The bytes of all bundles that are served, by digest. A blob is checked as it is sent, and its last piece is held back until
 * the whole is known to be right; so it is with a part that reaches the end, for which the whole is read once.
 */
export class Stock {
  readonly #bundles: StockedBundle[] = [];
  readonly #signal: AbortSignal;
  readonly #onDamage: (error: unknown) => void;
  /** Blobs that were read whole because a part was asked for. */
  readonly #proofs = new Map<Digest, Proof>();
  #active = 0;

  /** @param options.onDamage is told of every blob that could not be read, or whose bytes are wrong */
  constructor(options: { readonly signal: AbortSignal; readonly onDamage: (error: unknown) => void }) {
    this.#signal = options.signal;
    this.#onDamage = options.onDamage;
  }

  add(bundle: StockedBundle): void {
    this.#bundles.push(bundle);
  }

  /** What one of the bundles carries; the first that was added counts. */
  content(digest: Digest): ShownContent | undefined {
    for (const bundle of this.#bundles) {
      const size = bundle.sizeOf(digest);
      if (size !== undefined)
        return { size, open: async (span) => this.#open(bundle, { digest, size }, span) };
    }
    return undefined;
  }

  /** Bytes of one piece, so that very many answers at once need no more memory than some. */
  #piece(): number {
    return Math.max(SMALLEST, Math.min(LARGEST, Math.floor(ROOM / (this.#active + 1))));
  }

  #open(bundle: StockedBundle, blob: { readonly digest: Digest; readonly size: number }, span: Span): Body {
    if (span.length === 0) return nothing();
    const isWhole = span.length === blob.size;
    return this.#counted(isWhole ? this.#whole(bundle, blob) : this.#part(bundle, blob, span));
  }

  async *#counted(body: Body): AsyncGenerator<Uint8Array> {
    this.#active += 1;
    try {
      yield* body;
    } catch (error) {
      this.#onDamage(error);
      throw error;
    } finally {
      this.#active -= 1;
    }
  }

  #whole(bundle: StockedBundle, { digest, size }: { readonly digest: Digest; readonly size: number }): Body {
    const descriptor = { mediaType: 'application/octet-stream', digest, size };
    return bundle.open(descriptor, { signal: this.#signal, passOn: this.#piece() });
  }

  async *#part(
    bundle: StockedBundle,
    blob: { readonly digest: Digest; readonly size: number },
    { start, length }: Span,
  ): AsyncGenerator<Uint8Array> {
    const descriptor = { mediaType: 'application/octet-stream', ...blob };
    const options = { signal: this.#signal, offset: start, passOn: Math.min(length, this.#piece()) };
    let left = length;
    for await (const piece of bundle.open(descriptor, options)) {
      const wanted = piece.subarray(0, Math.min(left, piece.length));
      left -= wanted.length;
      if (left === 0 && start + length === blob.size) await this.#prove(bundle, blob);
      yield wanted;
      if (left === 0) return;
    }
    throw new SealiftError('CONTENT_SIZE_MISMATCH', `${bundle.path}: ${left} bytes of ${blob.digest} lack`);
  }

  /** Reads a whole blob unless that was done before: who resumes a download has no proof of his own of what it joins. */
  #prove(bundle: StockedBundle, blob: { readonly digest: Digest; readonly size: number }): Promise<void> {
    const { digest } = blob;
    const stamp = bundle.stampOf(digest);
    const known = this.#proofs.get(digest);
    // A file that somebody writes over while it is served is another one.
    if (known?.stamp === stamp) return known.done;
    const done = this.#readThrough(bundle, blob);
    const proof = { stamp, done };
    this.#proofs.set(digest, proof);
    // A disk that failed once may be read the next time.
    done.catch(() => {
      if (this.#proofs.get(digest) === proof) this.#proofs.delete(digest);
    });
    return done;
  }

  async #readThrough(
    bundle: StockedBundle,
    blob: { readonly digest: Digest; readonly size: number },
  ): Promise<void> {
    let since = 0;
    for await (const piece of this.#whole(bundle, blob)) {
      since += piece.length;
      if (since < MIB) continue;
      since = 0;
      await breath();
    }
  }

  /**
   * The bytes of something small.
   * @throws CONTENT_NOT_FOUND, CONTENT_TOO_LARGE, BUNDLE_CHECKSUM_MISMATCH
   */
  async read(digest: Digest): Promise<Buffer> {
    const content = this.content(digest);
    if (content === undefined) throw new SealiftError('CONTENT_NOT_FOUND', `${digest} is in no bundle`);
    const { size } = content;
    if (size > LIMITS.manifest) {
      throw new SealiftError('CONTENT_TOO_LARGE', `${digest}: more than ${LIMITS.manifest} bytes`);
    }
    if (size === 0) return NO_BYTES;
    const chunks: Buffer[] = [];
    // Each piece is a copy: the next one comes in the same memory.
    for await (const chunk of await content.open({ start: 0, length: size })) chunks.push(Buffer.from(chunk));
    return Buffer.concat(chunks);
  }
}
