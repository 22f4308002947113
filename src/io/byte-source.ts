import type { Readable } from 'node:stream';
import { KIB } from '../core/limits.ts';
import { diskError } from './files.ts';
import { throwIfAborted, untilAborted } from './pool.ts';

/** How much is given at once, in bytes. */
const PIECE = 256 * KIB;

/** Bytes that come in order and once, from a pipe. */
export class ByteSource {
  /** For messages: `stdin`. */
  readonly what: string;
  readonly #input: Readable;
  readonly #signal: AbortSignal;
  readonly #chunks: AsyncIterator<unknown>;
  #rest: Buffer = Buffer.alloc(0);
  #position = 0;
  #ended = false;

  constructor(input: Readable, options: { readonly what: string; readonly signal: AbortSignal }) {
    this.#input = input;
    this.what = options.what;
    this.#signal = options.signal;
    this.#chunks = input[Symbol.asyncIterator]();
  }

  /** Bytes that were given so far. */
  get position(): number {
    return this.#position;
  }

  /** The next bytes, at least one and at most so many; undefined at the end. @throws FILE_UNREADABLE, ABORTED */
  async next(most = PIECE): Promise<Buffer | undefined> {
    throwIfAborted(this.#signal);
    while (this.#rest.length === 0) {
      if (this.#ended) return undefined;
      await this.#more();
    }
    const bytes = this.#rest.subarray(0, Math.min(most, PIECE));
    this.#rest = this.#rest.subarray(bytes.length);
    this.#position += bytes.length;
    return bytes;
  }

  async #more(): Promise<void> {
    try {
      const { done, value } = await untilAborted(this.#chunks.next(), this.#signal);
      if (done === true) this.#ended = true;
      // A stream of text would not be a stream of bytes; the program's own has no encoding.
      else this.#rest = Buffer.isBuffer(value) ? value : Buffer.from(String(value));
    } catch (error) {
      throwIfAborted(this.#signal);
      throw diskError(error, this.what);
    }
  }

  /** So many bytes together; fewer only at the end. @throws as `next` */
  async read(length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafeSlow(length);
    let at = 0;
    while (at < length) {
      const piece = await this.next(length - at);
      if (piece === undefined) break;
      at += piece.copy(bytes, at);
    }
    return bytes.subarray(0, at);
  }

  /** Reads no more; who writes is told. */
  close(): void {
    this.#input.destroy();
  }
}
