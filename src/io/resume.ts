import { redact, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { backoffMs, type HttpResponse } from './http.ts';
import { isNetworkError, networkError, reasonOf } from './network-errors.ts';
import { eitherSignal, sleep, throwIfAborted } from './pool.ts';
import type { Receiver } from './receiver.ts';
import { collect } from './verify.ts';

export interface ResumeOptions {
  /** For messages: what is being read. */
  readonly what: string;
  /** Whole size in bytes, where it is known beforehand. */
  readonly size?: number;
  /** First byte that is wanted. */
  readonly start: number;
  readonly context: Context;
  /** Who takes the bytes, and stands at `start`: what can be poured there comes as empty chunks. */
  readonly into?: Receiver;
  /** Ends the waits, beside the context's own signal. */
  readonly signal?: AbortSignal;
  /** Asks for the bytes from `at` on (with a Range header when `at` > 0); must answer 200, 206, or 416 when `at` > 0. */
  readonly open: (at: number) => Promise<HttpResponse>;
}

/**
 * Counts the breaks of one transfer, and says when it is enough: after LIMITS.tries without a byte in between, and in
 * all after LIMITS.tries plus one for each LIMITS.bytesPerCut that came. So a link that breaks all the time is used as
 * long as it carries something, and a server that cuts after every few bytes comes to an end (registry.md 1.3).
 * @param start first byte that is wanted
 * @returns takes the byte at which it broke; gives the number of breaks without progress, undefined when it is over
 */
export function countCuts(start: number): (at: number) => number | undefined {
  let last = start;
  let inRow = 0;
  let total = 0;
  return (at) => {
    inRow = at > last ? 1 : inRow + 1;
    last = Math.max(last, at);
    total += 1;
    const most = LIMITS.tries + Math.floor((last - start) / LIMITS.bytesPerCut);
    return inRow >= LIMITS.tries || total >= most ? undefined : inRow;
  };
}

/** What to do when a server gives something else than what is wanted. */
export const WRONG_CONTENT =
  'the server, a mirror or a proxy in between changes content: fetch from the origin itself, and tell its owner';

/** What one answer holds: its first byte, and the whole size as far as it says. */
interface Span {
  readonly first: number;
  readonly total: number | undefined;
}

/** Where the answer's bytes begin and end, checked against what was asked (RFC 9110 14.4). */
function spanOf(response: HttpResponse, at: number, what: string): Span {
  const length = /^\d+$/.exec(response.headers['content-length'] ?? '')?.[0];
  if (response.status !== 206) return { first: 0, total: length === undefined ? undefined : Number(length) };
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers['content-range'] ?? '');
  const [first, end] = [Number(range?.[1]), Number(range?.[2]) + 1];
  const total = range?.[3] === '*' ? end : Number(range?.[3]);
  const lengthFits = length === undefined || Number(length) === end - first;
  if (first === at && end === total && lengthFits) return { first, total };
  throw new SealiftError('REGISTRY_ANSWER_INVALID', `${what}: asked from byte ${at}, got another range`, {
    hint: WRONG_CONTENT,
    side: 'source',
  });
}

/** Memory of one download: what the answers so far said about the whole. */
class Whole {
  readonly #what: string;
  /** Only where the size says nothing about the content; copies of one blob may have different tags. */
  readonly #checkTag: boolean;
  #tag: string | undefined;
  size: number | undefined;

  constructor(options: ResumeOptions) {
    this.#what = options.what;
    this.size = options.size;
    this.#checkTag = options.size === undefined;
  }

  /** @returns the answer's first byte. @throws CONTENT_SIZE_MISMATCH, REGISTRY_ANSWER_INVALID */
  check(response: HttpResponse, at: number): number {
    const { first, total } = spanOf(response, at, this.#what);
    if (this.size !== undefined && total !== undefined && total !== this.size) {
      throw new SealiftError(
        'CONTENT_SIZE_MISMATCH',
        `${this.#what}: the server announces ${total - first} bytes, expected ${this.size - first}`,
        { hint: WRONG_CONTENT, side: 'source' },
      );
    }
    this.size ??= total;
    const tag = response.headers.etag;
    if (this.#checkTag && tag !== undefined && tag !== (this.#tag ?? tag)) {
      throw new SealiftError('REGISTRY_ANSWER_INVALID', `${this.#what}: changed while it was read`, {
        hint: 'run the same command again',
        side: 'source',
      });
    }
    this.#tag ??= tag;
    return first;
  }
}

/**
 * Watches a body: one that comes by single bytes counts as silent (slow loris).
 * @param options.now milliseconds on any clock that goes on while the body is waited for
 * @returns takes how many bytes came; throws NETWORK_TIMEOUT
 */
export function slownessOf(
  what: string,
  options: { readonly now?: () => number; readonly hint?: string } = {},
): (came: number) => void {
  const {
    now = () => performance.now(),
    hint = 'check the network and proxies in between, then run the same command again',
  } = options;
  let since = now();
  let bytes = 0;
  return (came) => {
    bytes += came;
    const at = now();
    if (bytes >= LIMITS.slowBytes) {
      since = at;
      bytes = 0;
    } else if (at - since >= LIMITS.idleMs) {
      const seconds = Math.round((at - since) / 1000);
      throw new SealiftError('NETWORK_TIMEOUT', `${what}: only ${bytes} bytes came in ${seconds} s`, {
        hint,
      });
    }
  };
}

/** Passes a body through. @throws NETWORK_TIMEOUT for one that is too slow */
async function* steady(body: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  const watch = slownessOf(what);
  for await (const chunk of body) {
    yield chunk;
    watch(chunk.length);
  }
}

const NOTHING = Buffer.alloc(0);

/** Pours a body into its receiver; gives an empty chunk whenever some of it has arrived. */
async function* poured(
  arrivals: AsyncIterable<void>,
  options: { readonly into: Receiver; readonly what: string },
): AsyncGenerator<Buffer> {
  const { into } = options;
  const watch = slownessOf(options.what);
  let before = into.received;
  for await (const _ of arrivals) {
    yield NOTHING;
    watch(into.received - before);
    before = into.received;
  }
}

async function* bytesFrom(body: AsyncIterable<Buffer>, skip: number): AsyncGenerator<Buffer> {
  let left = skip;
  for await (const chunk of body) {
    if (left >= chunk.length) left -= chunk.length;
    else {
      yield left === 0 ? chunk : chunk.subarray(left);
      left = 0;
    }
  }
}

/** Asks from a byte on. A part that is not the asked one, or none (416), is asked for once more as a whole, without Range. */
async function openAt(
  options: ResumeOptions,
  whole: Whole,
  at: number,
): Promise<{ readonly response: HttpResponse; readonly first: number }> {
  const response = await options.open(at);
  try {
    if (response.status !== 416) return { response, first: whole.check(response, at) };
    await response.body.dump();
  } catch (error) {
    response.body.destroy();
    const wrongPart = error instanceof SealiftError && error.code === 'REGISTRY_ANSWER_INVALID';
    if (at === 0 || !wrongPart) throw error;
  }
  const again = await options.open(0);
  try {
    return { response: again, first: whole.check(again, 0) };
  } catch (error) {
    again.body.destroy();
    throw error;
  }
}

/**
 * Streams a body that survives cuts: after one it asks again from the last byte by Range, and skips what it had when the
 * server ignores Range or answers with another part. Bytes are not verified here. It gives up by the rule of `countCuts`;
 * what `open` throws is not tried again, because requests have their own retries and begin at the first URL, never at
 * one that was signed for a short time.
 * @throws what `open` throws; NETWORK_FAILED, NETWORK_TIMEOUT, CONTENT_SIZE_MISMATCH, REGISTRY_ANSWER_INVALID
 */
export async function* resumableBytes(options: ResumeOptions): AsyncGenerator<Buffer> {
  const { context, what, into } = options;
  const signal = eitherSignal(options.signal, context.signal);
  const whole = new Whole(options);
  const broke = countCuts(options.start);
  for (let at = options.start; ; ) {
    if (whole.size !== undefined && at >= whole.size && whole.size > 0) return;
    throwIfAborted(signal);
    const { response, first } = await openAt(options, whole, at);
    const { body } = response;
    try {
      if (into !== undefined && body.pour !== undefined) {
        yield* poured(body.pour(first), { into, what });
        at = into.received;
      } else {
        for await (const chunk of bytesFrom(steady(body, what), at - first)) {
          at += chunk.length;
          yield chunk;
        }
      }
      if (whole.size === undefined || at >= whole.size) return;
      throw new SealiftError('NETWORK_FAILED', `${what}: ended at ${at} of ${whole.size} bytes`, {
        hint: 'the server or a proxy in between cuts connections; run the same command again to go on from there',
      });
    } catch (error) {
      body.destroy();
      throwIfAborted(signal);
      if (!isNetworkError(error)) throw error;
      at = into?.received ?? at;
      const cuts = broke(at);
      if (cuts === undefined) throw networkError(error, what);
      const waitMs = backoffMs(cuts, context.random);
      const reason = redact(reasonOf(error));
      context.emit({ type: 'retry', what: `${what} at byte ${at}`, reason, waitMs: Math.round(waitMs) });
      await sleep(waitMs, signal);
    }
  }
}

/**
 * Asks for a small answer and gathers it whole; asks again when it breaks in the middle. An answer other than 200 comes
 * back unread, without `bytes`.
 * @throws what `ask` throws; CONTENT_TOO_LARGE, NETWORK_FAILED, NETWORK_TIMEOUT, ABORTED
 */
export async function wholeAnswer(
  ask: () => Promise<HttpResponse>,
  options: { readonly what: string; readonly limit: number; readonly context: Context },
): Promise<{ readonly response: HttpResponse; readonly bytes: Buffer | undefined }> {
  const { what, context } = options;
  for (let attempt = 1; ; attempt++) {
    const response = await ask();
    if (response.status !== 200) return { response, bytes: undefined };
    try {
      return { response, bytes: await collect(steady(response.body, what), options) };
    } catch (error) {
      throwIfAborted(context.signal);
      if (!isNetworkError(error) || attempt >= LIMITS.tries) throw networkError(error, what);
      const waitMs = backoffMs(attempt, context.random);
      context.emit({ type: 'retry', what, reason: redact(reasonOf(error)), waitMs: Math.round(waitMs) });
      await sleep(waitMs, context.signal);
    }
  }
}
