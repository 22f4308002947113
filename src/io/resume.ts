import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { backoffMs, type HttpResponse, isNetworkError, networkError } from './http.ts';
import { sleep, throwIfAborted } from './pool.ts';

export interface ResumeOptions {
  /** For messages: what is being read. */
  readonly what: string;
  /** Whole size in bytes, where it is known beforehand. */
  readonly size?: number;
  /** First byte that is wanted. */
  readonly start: number;
  readonly context: Context;
  /** Asks for the bytes from `at` on (with a Range header when `at` > 0); must answer 200 or 206. */
  readonly open: (at: number) => Promise<HttpResponse>;
}

/** Where the answer's bytes begin, checked against what was asked (RFC 9110 14.4). */
function firstByte(response: HttpResponse, at: number, what: string): number {
  if (response.status !== 206) return 0;
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers['content-range'] ?? '');
  if (range === null || Number(range[1]) !== at) {
    response.body.destroy();
    throw new SealiftError('REGISTRY_ANSWER_INVALID', `${what}: asked from byte ${at}, got another range`);
  }
  return at;
}

async function* answerFrom(options: ResumeOptions, at: number): AsyncGenerator<Buffer> {
  const response = await options.open(at);
  const first = firstByte(response, at, options.what);
  const announced = Number(response.headers['content-length'] ?? Number.NaN);
  if (options.size !== undefined && Number.isFinite(announced) && announced !== options.size - first) {
    response.body.destroy();
    throw new SealiftError(
      'CONTENT_SIZE_MISMATCH',
      `${options.what}: the server announces ${announced} bytes, expected ${options.size - first}`,
      { side: 'source' },
    );
  }
  let skip = at - first;
  let received = 0;
  for await (const chunk of response.body as AsyncIterable<Buffer>) {
    received += chunk.length;
    if (skip >= chunk.length) skip -= chunk.length;
    else {
      yield skip === 0 ? chunk : chunk.subarray(skip);
      skip = 0;
    }
  }
  if (Number.isFinite(announced) && received < announced) {
    throw new SealiftError('NETWORK_FAILED', `${options.what}: ended at ${received} of ${announced} bytes`);
  }
}

/**
 * Streams a body that survives cuts: after one it asks again from the last byte by Range, and skips what it had when the
 * server ignores Range. Bytes are not verified here. Gives up after LIMITS.tries failures without a byte in between.
 * @throws what `open` throws; NETWORK_FAILED, NETWORK_TIMEOUT, CONTENT_SIZE_MISMATCH, REGISTRY_ANSWER_INVALID
 */
export async function* resumableBytes(options: ResumeOptions): AsyncGenerator<Buffer> {
  const { context, what, size } = options;
  let at = options.start;
  for (let failures = 0; ; ) {
    const before = at;
    try {
      if (size !== undefined && at >= size && size > 0) return;
      for await (const chunk of answerFrom(options, at)) {
        at += chunk.length;
        yield chunk;
      }
      if (size === undefined || at >= size) return;
      throw new SealiftError('NETWORK_FAILED', `${what}: ended at ${at} of ${size} bytes`);
    } catch (error) {
      throwIfAborted(context.signal);
      if (!isNetworkError(error)) throw error;
      failures = at > before ? 1 : failures + 1;
      if (failures >= LIMITS.tries) throw networkError(error, what);
      const waitMs = Math.round(backoffMs(failures, context.random));
      const reason = error instanceof Error ? error.message : 'broken';
      context.emit({ type: 'retry', what: `${what} at byte ${at}`, reason, waitMs });
      await sleep(waitMs, context.signal);
    }
  }
}
