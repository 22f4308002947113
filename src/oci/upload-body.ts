import type { Descriptor } from '../core/descriptor.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { HttpRequest, HttpResponse } from '../io/http.ts';
import type { RegistryWire } from './wire.ts';

/** One blob to send. */
export interface Upload {
  readonly repository: string;
  readonly descriptor: Descriptor;
  /** The blob's bytes from the start, verified at their end; called again for every try. */
  readonly open: () => AsyncIterable<Uint8Array>;
}

/** How far a request with a body came. */
export interface Sent {
  /** How often the body was begun; a second time after a 401. */
  opened: number;
  /** Bytes that the last beginning gave away. Some may still have been in the socket when it broke. */
  bytes: number;
}

/** An open stream and how far it was read. */
interface Reading {
  readonly chunks: AsyncIterator<Uint8Array>;
  /** Read and not yet given. */
  rest: Uint8Array;
  /** Offset of `rest` in the blob. */
  at: number;
}

/**
 * Gives parts of a blob in any order out of one stream that is read forward. What was passed already is read from the
 * start again, so that the last byte always comes out of a stream that was verified as a whole.
 */
export class BlobCursor {
  readonly #upload: Upload;
  #reading: Reading | undefined;

  constructor(upload: Upload) {
    this.#upload = upload;
  }

  /** Bytes from `start` to before `end`. @throws what the stream throws */
  async *bytes(start: number, end: number): AsyncGenerator<Uint8Array> {
    // Taken away while it is in use: a part that is left in the middle leaves no stream at an unknown place.
    const reading = await this.#take(start);
    let ended = false;
    try {
      while (reading.at < end) {
        await this.#more(reading);
        const from = Math.max(0, start - reading.at);
        const part = reading.rest.subarray(from, Math.min(reading.rest.length, end - reading.at));
        const passed = Math.min(reading.rest.length, end - reading.at);
        reading.rest = reading.rest.subarray(passed);
        reading.at += passed;
        if (part.length > 0) yield part;
      }
      if (end === this.#upload.descriptor.size) await this.#finish(reading);
      else this.#reading = reading;
      ended = true;
    } finally {
      if (!ended) await reading.chunks.return?.();
    }
  }

  async #take(start: number): Promise<Reading> {
    const reading = this.#reading;
    this.#reading = undefined;
    if (reading !== undefined && reading.at <= start) return reading;
    await reading?.chunks.return?.();
    return { chunks: this.#upload.open()[Symbol.asyncIterator](), rest: new Uint8Array(), at: 0 };
  }

  async #more(reading: Reading): Promise<void> {
    while (reading.rest.length === 0) {
      const next = await reading.chunks.next();
      if (next.done === true) throw this.#wrongSize(reading.at);
      reading.rest = next.value;
    }
  }

  /** The stream's own end is where it is verified. */
  async #finish(reading: Reading): Promise<void> {
    for (let rest = reading.rest; ; ) {
      if (rest.length > 0) throw this.#wrongSize(reading.at + rest.length);
      const next = await reading.chunks.next();
      if (next.done === true) return;
      rest = next.value;
    }
  }

  #wrongSize(found: number): SealiftError {
    const { digest, size } = this.#upload.descriptor;
    return new SealiftError('CONTENT_SIZE_MISMATCH', `${digest}: expected ${size} bytes, found ${found}`, {
      side: 'source',
    });
  }

  /** Ends the stream that is open. */
  async close(): Promise<void> {
    const reading = this.#reading;
    this.#reading = undefined;
    await reading?.chunks.return?.();
  }
}

/** Largest piece that is handed over at once: small enough that a slow link takes several within the idle time. */
const PIECE = 256 * 1024;

function watchedBody(
  body: () => AsyncIterable<Uint8Array>,
  watch: { readonly sent: Sent; readonly onIdle: () => void },
): () => AsyncIterable<Uint8Array> {
  return async function* () {
    watch.sent.opened += 1;
    watch.sent.bytes = 0;
    let timer: NodeJS.Timeout | undefined;
    try {
      for await (const chunk of body()) {
        for (let at = 0; at < chunk.length; at += PIECE) {
          const piece = chunk.subarray(at, at + PIECE);
          watch.sent.bytes += piece.length;
          timer = setTimeout(watch.onIdle, LIMITS.idleMs);
          yield piece;
          clearTimeout(timer);
        }
      }
    } finally {
      clearTimeout(timer);
    }
  };
}

/**
 * Sends one request with a streamed body, once (a 401 is answered inside). A peer that takes no byte for LIMITS.idleMs
 * is left; how long the whole takes has no limit (registry.md 1.3).
 * @param sent is kept up to date, also when this fails
 * @throws what the body's source throws; NETWORK_FAILED, NETWORK_TIMEOUT, ABORTED
 */
export async function sendBody(
  wire: RegistryWire,
  request: Pick<HttpRequest, 'method' | 'url'> & {
    readonly repository: string;
    readonly headers?: HttpRequest['headers'];
    readonly length: number;
    readonly body: () => AsyncIterable<Uint8Array>;
  },
  sent: Sent,
): Promise<HttpResponse> {
  const { method, url, repository, length, headers } = request;
  const idle = new AbortController();
  const body = watchedBody(request.body, { sent, onIdle: () => idle.abort() });
  try {
    return await wire.send(
      {
        method,
        url,
        headers: { 'content-type': 'application/octet-stream', ...headers },
        contentLength: length,
        body: length === 0 ? new Uint8Array() : body,
        tries: 1,
        signal: idle.signal,
      },
      { repository, access: 'push' },
    );
  } catch (cause) {
    if (!idle.signal.aborted || wire.context.signal.aborted) throw cause;
    const seconds = LIMITS.idleMs / 1000;
    throw new SealiftError('NETWORK_TIMEOUT', `${wire.host}: took no byte for ${seconds} s`, {
      cause,
      hint: 'check the network and proxies in between, then run the same command again',
      side: 'destination',
    });
  }
}
