import { setMaxListeners } from 'node:events';
import type { Dispatcher } from 'undici';
import { redact, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { BulkAgent, type HttpBody } from './bulk.ts';
import { type TlsOptions, tlsTowards } from './certificates.ts';
import { isNetworkError, networkError, reasonOf } from './network-errors.ts';
import { sleep, throwIfAborted, untilAborted } from './pool.ts';
import type { HttpProxy } from './proxy.ts';
import { proxyFailure, proxyRefusal } from './proxy-errors.ts';
import { type Way, Ways } from './ways.ts';

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: URL;
  /** Lower-case names. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes, or a factory so that a retry can send them again (registry.md A6); then `contentLength` is required. */
  readonly body?: Uint8Array | (() => AsyncIterable<Uint8Array>);
  readonly contentLength?: number;
  readonly tls?: TlsOptions;
  readonly signal?: AbortSignal;
  /** Follow redirects (default true). `authorization` is dropped when the origin changes. */
  readonly follow?: boolean;
  /** Tries in all; default LIMITS.tries. */
  readonly tries?: number;
  /** A large GET whose reader is done with each chunk before it asks for the next one (io/bulk). */
  readonly bulk?: boolean;
}

export interface HttpResponse {
  readonly status: number;
  /** Lower-case names; several values joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  /** Must be read to its end or dumped. */
  readonly body: HttpBody;
  /** After redirects. */
  readonly url: URL;
}

const RETRY_STATUS = new Set([408, 425, 429, 499, 500, 502, 503, 504, 522]);
const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308]);

/** Milliseconds that an answer asks to wait (seconds or HTTP date, RFC 9110 10.2.3), bounded; undefined when it does not. */
export function retryAfterMs(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  const seconds = Number(value);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - now;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), LIMITS.retryAfterMs) : undefined;
}

/** Full jitter over a doubling ceiling: up to 0.5, 1, 2, 4 … 30 s. */
export function backoffMs(attempt: number, random: () => number): number {
  return random() * Math.min(30_000, 500 * 2 ** attempt);
}

function flatHeaders(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return flat;
}

/** True for the machine itself: there plain HTTP is the rule (issue of every local registry). */
export function isLoopback(hostname: string): boolean {
  const name = hostname.replace(/^\[|\]$/g, '').toLowerCase();
  return name === 'localhost' || name === '::1' || /^127(?:\.\d{1,3}){3}$/.test(name);
}

/** Connections, redirects and retries of everything that speaks HTTP. Close it to end its sockets. */
export class HttpClient {
  readonly #context: Context;
  readonly #ways: Ways;
  readonly #bulk = new BulkAgent();
  readonly #pausedUntil = new Map<string, number>();

  constructor(context: Context) {
    this.#context = context;
    this.#ways = new Ways(context.env);
    // Each running request listens for the stop; Node warns about more than ten listeners otherwise.
    setMaxListeners(0, context.signal);
  }

  /** One hop. What the body's source throws comes out as it is. */
  async #hop(
    hop: Hop,
    options: { readonly tls: TlsOptions; readonly signal: AbortSignal; readonly bulk: boolean },
  ): Promise<HttpResponse> {
    const { signal } = options;
    const { url, headers } = hop;
    const way = await this.#ways.wayTo(url, options.tls);
    if (options.bulk && hop.method === 'GET' && way.proxy === undefined) {
      const answer = await this.#bulk.get({ url, headers, signal, tls: way });
      if (answer !== undefined) return { ...answer, url };
    }
    const answer = await ask(hop, { way, dispatcher: await this.#ways.dispatcherFor(way, url), signal });
    // A body that is ended before anybody reads it would throw that at the process.
    answer.body.on('error', () => {});
    return { status: answer.statusCode, headers: flatHeaders(answer.headers), body: answer.body, url };
  }

  async #once(req: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    const length = req.contentLength === undefined ? {} : { 'content-length': String(req.contentLength) };
    let hop: Hop = {
      url: req.url,
      method: req.method,
      headers: { 'accept-encoding': 'identity', ...req.headers, ...length },
      body: req.body,
    };
    for (let hops = 0; ; hops++) {
      const response = await this.#hop(hop, {
        tls: tlsTowards(req.tls ?? {}, { from: req.url, to: hop.url }),
        signal,
        bulk: req.bulk === true,
      });
      const location = response.headers.location;
      if (req.follow === false || !REDIRECT_STATUS.has(response.status) || location === undefined) {
        return response;
      }
      await response.body.dump();
      hop = nextHop(hop, { status: response.status, url: redirectTarget(hop.url, location, hops) });
    }
  }

  /**
   * One request with redirects and retries. Any status is an answer; only the wire's failures throw.
   * Retried: 408, 425, 429, 499, 5xx and broken connections, with full jitter and Retry-After (registry.md 1.3). A retry
   * starts at the first URL again, because where it was redirected to may have been signed for a short time.
   * @throws NETWORK_FAILED, NETWORK_TIMEOUT, NETWORK_URL_REFUSED, ABORTED, or what the body's source threw
   */
  async request(req: HttpRequest): Promise<HttpResponse> {
    const signal =
      req.signal === undefined ? this.#context.signal : AbortSignal.any([req.signal, this.#context.signal]);
    const tries = req.tries ?? LIMITS.tries;
    // Never the query: it may hold a token or a signature.
    const what = `${req.method} ${req.url.host}${req.url.pathname}`;
    for (let attempt = 1; ; attempt++) {
      throwIfAborted(signal);
      await this.#waitForHost(req.url.host, signal);
      let wait = backoffMs(attempt, this.#context.random);
      let reason: string;
      try {
        const response = await this.#once(req, signal);
        if (!RETRY_STATUS.has(response.status) || attempt >= tries) return response;
        wait = this.#waitAfter(response, { host: req.url.host, otherwise: wait });
        reason = `HTTP ${response.status}`;
        await response.body.dump();
      } catch (error) {
        throwIfAborted(signal);
        if (!isNetworkError(error) || attempt >= tries) throw networkError(error, req.url.origin);
        reason = redact(reasonOf(error));
      }
      this.#context.emit({ type: 'retry', what, reason, waitMs: Math.round(wait) });
      await sleep(wait, signal);
    }
  }

  /** How long to wait after a refusal. A 429 is meant for everybody who talks to the host. */
  #waitAfter(response: HttpResponse, about: { readonly host: string; readonly otherwise: number }): number {
    const now = this.#context.now();
    const asked = retryAfterMs(response.headers['retry-after'], now);
    const wait = asked === undefined ? about.otherwise : asked + this.#context.random() * 250;
    if (response.status === 429) {
      this.#pausedUntil.set(about.host, Math.max(now + wait, this.#pausedUntil.get(about.host) ?? 0));
    }
    return wait;
  }

  async #waitForHost(host: string, signal: AbortSignal): Promise<void> {
    const until = this.#pausedUntil.get(host);
    if (until === undefined) return;
    const left = until - this.#context.now();
    if (left > 0) await sleep(left, signal);
    else this.#pausedUntil.delete(host);
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    this.#bulk.close();
    await this.#ways.close();
  }
}

interface Hop extends Pick<HttpRequest, 'url' | 'method'> {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: HttpRequest['body'];
}

/** Sends one hop by the general client. */
function ask(
  hop: Hop,
  options: { readonly way: Way; readonly dispatcher: Dispatcher; readonly signal: AbortSignal },
): Promise<Dispatcher.ResponseData> {
  const { way, dispatcher, signal } = options;
  const { url, method, headers } = hop;
  const body = typeof hop.body === 'function' ? hop.body() : (hop.body ?? null);
  const sent = { method, signal, body: body as Dispatcher.DispatchOptions['body'] & object };
  const path = `${url.pathname}${url.search}`;
  const send = (to: Pick<Dispatcher.RequestOptions, 'origin' | 'path' | 'headers'>) =>
    dispatch(dispatcher, { ...sent, ...to });
  if (way.proxy === undefined || url.protocol === 'https:') {
    return send({ origin: url.origin, path, headers });
  }
  return askPlainProxy(hop, { proxy: way.proxy, path, send });
}

/** Plain HTTP is asked of a proxy with the whole URL (RFC 9112 3.2.2). */
async function askPlainProxy(
  { url, headers }: Hop,
  options: {
    readonly proxy: HttpProxy;
    readonly path: string;
    readonly send: (
      to: Pick<Dispatcher.RequestOptions, 'origin' | 'path' | 'headers'>,
    ) => Promise<Dispatcher.ResponseData>;
  },
): Promise<Dispatcher.ResponseData> {
  const { proxy, path, send } = options;
  const login = proxy.authorization === undefined ? {} : { 'proxy-authorization': proxy.authorization };
  try {
    const answer = await send({
      origin: proxy.url.origin,
      path: `${url.origin}${path}`,
      headers: { ...headers, host: url.host, ...login },
    });
    if (answer.statusCode !== 407) return answer;
    await answer.body.dump();
    throw proxyRefusal(proxy, { status: 407, target: url.host });
  } catch (error) {
    throw proxyFailure(proxy, error);
  }
}

/** A request of undici that can be stopped at any time: by itself it does not look while it waits for a connection. */
function dispatch(
  dispatcher: Dispatcher,
  options: Dispatcher.RequestOptions & { readonly signal: AbortSignal },
): Promise<Dispatcher.ResponseData> {
  const { signal } = options;
  const asked = dispatcher.request(options);
  // An answer that comes after the stop is nobody's.
  const late = (answer: Dispatcher.ResponseData): unknown =>
    signal.aborted && answer.body.on('error', () => {}).destroy();
  asked.then(late, () => {});
  return untilAborted(asked, signal);
}

/** The request after a redirect: no credentials for another origin, and no body after 303 (RFC 9110 15.4.4). */
function nextHop(hop: Hop, to: { readonly status: number; readonly url: URL }): Hop {
  const drop = new Set(to.url.origin === hop.url.origin ? [] : ['authorization', 'cookie']);
  const asGet = to.status === 303 && hop.method !== 'GET' && hop.method !== 'HEAD';
  if (asGet) for (const name of ['content-length', 'content-type']) drop.add(name);
  return {
    url: to.url,
    method: asGet ? 'GET' : hop.method,
    headers: Object.fromEntries(Object.entries(hop.headers).filter(([name]) => !drop.has(name))),
    body: asGet ? undefined : hop.body,
  };
}

/** An address for a message: without query and fragment, which may hold a token or a signature. */
export function withoutQuery(address: string): string {
  return redact((/^[^?#]*/.exec(address)?.[0] ?? '').slice(0, 200));
}

function redirectTarget(from: URL, location: string, hop: number): URL {
  const where = `${from.protocol}//${from.host}`;
  if (hop >= LIMITS.redirects) {
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: more than ${LIMITS.redirects} redirects`);
  }
  let next: URL;
  try {
    next = new URL(location, from);
  } catch {
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: redirect to "${withoutQuery(location)}"`);
  }
  if (next.protocol !== 'https:' && next.protocol !== 'http:') {
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: redirect to a ${next.protocol} URL`);
  }
  if (from.protocol === 'https:' && next.protocol === 'http:') {
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: redirect from https to plain http`, {
      hint: 'the server or a proxy in between is set up wrongly; ask its owner',
    });
  }
  return next;
}

/** The start of an error body as one line of text. */
export async function errorText(response: HttpResponse): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response.body) {
      chunks.push(Buffer.from(chunk));
      size += chunk.length;
      if (size >= LIMITS.errorBody) break;
    }
  } catch {
    // The status is what counts; a broken error body adds nothing.
  }
  return Buffer.concat(chunks).toString('utf8', 0, LIMITS.errorBody);
}
