import { KIB } from '../core/limits.ts';
import { diskError } from './files.ts';
import { throwIfAborted, untilAborted } from './pool.ts';

/** How much is given at once, in bytes. */
const PIECE = 256 * KIB;

/** Where bytes come from. */
export interface ByteOrigin {
  /** For messages: `stdin`, or an address. */
  readonly what: string;
  readonly signal: AbortSignal;
  /** What to do where it does not bring what it must, as a hint. */
  readonly again: string;
  /** Of the first byte in the whole; default 0. */
  readonly position?: number;
  /** Ends it, where it has not ended by itself. */
  readonly close: () => void;
}

/** Bytes that come in order and once, from a pipe or a server. */
export class ByteSource {
  readonly #origin: ByteOrigin;
  readonly #chunks: AsyncIterator<unknown>;
  #rest: Buffer = Buffer.alloc(0);
  #position: number;
  #ended = false;

  constructor(input: AsyncIterable<unknown>, origin: ByteOrigin) {
    this.#origin = origin;
    this.#position = origin.position ?? 0;
    this.#chunks = input[Symbol.asyncIterator]();
  }

  get what(): string {
    return this.#origin.what;
  }

  get again(): string {
    return this.#origin.again;
  }

  /** Of the next byte in the whole. */
  get position(): number {
    return this.#position;
  }

  /** The next bytes, at least one and at most so many; undefined at the end. @throws FILE_UNREADABLE, ABORTED */
  async next(most = PIECE): Promise<Buffer | undefined> {
    throwIfAborted(this.#origin.signal);
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
      const { done, value } = await untilAborted(this.#chunks.next(), this.#origin.signal);
      if (done === true) this.#ended = true;
      // A stream of text would not be a stream of bytes; the program's own has no encoding.
      else this.#rest = Buffer.isBuffer(value) ? value : Buffer.from(String(value));
    } catch (error) {
      throwIfAborted(this.#origin.signal);
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
    this.#origin.close();
  }
}
