import { setMaxListeners } from 'node:events';
import { redact } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import type { HttpBody } from './bulk.ts';
import { type TlsOptions, tlsTowards } from './certificates.ts';
import { DirectClient } from './direct.ts';
import { HostGates, leavingBody } from './host-gates.ts';
import { afterTries, isNetworkError, networkError, reasonOf } from './network-errors.ts';
import { eitherSignal, sleep, throwIfAborted } from './pool.ts';
import { type Quota, quotaOf, type Refusal, refusalOf } from './rate-limit.ts';
import type { Receiver } from './receiver.ts';
import { type Hop, locationOf, nextHop, redirectTarget } from './redirect.ts';
import { ask, flatHeaders } from './send.ts';
import { Ways } from './ways.ts';

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: URL;
  /** Lower-case names. */
  readonly headers?: Readonly<Record<string, string>>;
  /**
   * Bytes, or a factory so that a retry can send them again (registry.md A6); then `contentLength` is required. A chunk
   * has left before the next one is asked for.
   */
  readonly body?: Uint8Array | (() => AsyncIterable<Uint8Array>);
  readonly contentLength?: number;
  readonly tls?: TlsOptions;
  readonly signal?: AbortSignal;
  /** Follow redirects (default true). `authorization` is dropped when the origin changes. */
  readonly follow?: boolean;
  /** Tries in all; default LIMITS.tries. */
  readonly tries?: number;
  /** Who takes the body of a large GET: it may be poured there, without passing through this thread. */
  readonly into?: Receiver;
}

export interface HttpResponse {
  readonly status: number;
  /** The words behind the status on the wire; Nexus says there, and nowhere else, why it refuses. '' over HTTP/2. */
  readonly reason?: string;
  /** Lower-case names; several values joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  /** Must be read to its end or dumped. */
  readonly body: HttpBody;
  /** After redirects. */
  readonly url: URL;
  /** How often it was asked. */
  readonly tries: number;
}

/** An answer before it is known how often was asked. */
type Answer = Omit<HttpResponse, 'tries'>;

interface HopOptions {
  readonly tls: TlsOptions;
  readonly signal: AbortSignal;
  readonly into: Receiver | undefined;
}

/** How a client behaves. */
export interface HttpOptions {
  /** Wait for limits on requests whose end is far (default); false: such an answer comes back at once. */
  readonly waitForLimits?: boolean;
}

const RETRY_STATUS = new Set([408, 425, 429, 499, 500, 502, 503, 504, 522]);

/** What a store says of an address whose signature has ended: 403, S3 also 400. */
const STALE_STATUS = new Set([400, 403]);

/** How often a request may be tried that got this answer. */
function triesAfter(response: Answer, req: HttpRequest): number {
  const tries = req.tries ?? LIMITS.tries;
  const isRead = req.method === 'GET' || req.method === 'HEAD';
  const isStale = isRead && STALE_STATUS.has(response.status) && response.url.origin !== req.url.origin;
  if (isStale) return Math.min(tries, LIMITS.redirectedTries);
  return RETRY_STATUS.has(response.status) ? tries : 1;
}

/** Full jitter over a doubling ceiling: up to 0.5, 1, 2, 4 … 30 s. */
export function backoffMs(attempt: number, random: () => number): number {
  return random() * Math.min(30_000, 500 * 2 ** attempt);
}

/** True for the machine itself: there plain HTTP is the rule (issue of every local registry). */
export function isLoopback(hostname: string): boolean {
  const name = hostname.replace(/^\[|\]$/g, '').toLowerCase();
  return name === 'localhost' || name === '::1' || /^127(?:\.\d{1,3}){3}$/.test(name);
}

/** Connections, redirects and retries of everything that speaks HTTP. Close it to end its sockets. */
export class HttpClient {
  readonly #context: Context;
  readonly #options: HttpOptions;
  readonly #ways: Ways;
  readonly #direct = new DirectClient();
  readonly #gates: HostGates;
  readonly #quotas = new Map<string, Quota>();

  constructor(context: Context, options: HttpOptions = {}) {
    this.#context = context;
    this.#options = options;
    this.#ways = new Ways(context.env);
    this.#gates = new HostGates(context.now);
    // Each running request listens for the stop; Node warns about more than ten listeners otherwise.
    setMaxListeners(0, context.signal);
  }

  /** Whether it waits for limits on requests whose end is far. */
  get waits(): boolean {
    return this.#options.waitForLimits !== false;
  }

  /** What a host last told about its limit on requests. @param host with its port, as in a URL */
  quota(host: string): Quota | undefined {
    return this.#quotas.get(host);
  }

  /** Requests to this server that may run at once now: it grows while all is well, and falls when the server refuses. */
  limit(url: URL): number {
    return this.#gates.limit(url);
  }

  /** One hop. What the body's source throws comes out as it is. */
  async #hop(hop: Hop, options: HopOptions): Promise<Answer> {
    const place = await this.#gates.enter(hop.url, options.signal);
    try {
      const answer = await this.#exchange(hop, options);
      const { status, headers } = answer;
      const quota = quotaOf(headers);
      if (quota !== undefined) this.#quotas.set(hop.url.host, quota);
      const isEmpty =
        hop.method === 'HEAD' || status === 204 || status === 304 || headers['content-length'] === '0';
      return { ...answer, body: leavingBody(answer.body, { place, status, isEmpty }) };
    } catch (error) {
      place.leave(isNetworkError(error) ? 'busy' : 'none');
      throw error;
    }
  }

  async #exchange(hop: Hop, options: HopOptions): Promise<Answer> {
    const { signal, tls, into } = options;
    const { url, headers } = hop;
    const way = await this.#ways.wayTo(url, tls);
    if (way.proxy === undefined) {
      const isPoured = into !== undefined && hop.method === 'GET';
      const answer = isPoured ? await into.get({ url, headers, signal, tls }) : undefined;
      return { ...(answer ?? (await this.#direct.ask(hop, { way, signal }))), url };
    }
    const answer = await ask(hop, { way, dispatcher: await this.#ways.dispatcherFor(way, url), signal });
    // A body that is ended before anybody reads it would throw that at the process.
    answer.body.on('error', () => {});
    const { statusCode: status, statusText: reason, body } = answer;
    return { status, reason, headers: flatHeaders(answer.headers), body, url };
  }

  async #once(req: HttpRequest, signal: AbortSignal): Promise<Answer> {
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
        into: req.into,
      }).catch((error: unknown) => {
        // What a try may cure stays so; the host that was asked first is not the one that fails.
        if (hops === 0 || !isNetworkError(error)) throw error;
        throw networkError(error, hop.url.origin, { redirected: true });
      });
      const location = locationOf(response);
      if (req.follow === false || location === undefined) return response;
      await response.body.dump();
      hop = nextHop(hop, { status: response.status, url: redirectTarget(hop.url, location, hops) });
    }
  }

  /**
   * One request with redirects and retries. Any status is an answer; only the wire's failures throw.
   * Retried: 408, 425, 429, 499, 5xx and broken connections, with full jitter and Retry-After (registry.md 1.3). A retry
   * starts at the first URL again, because where it was redirected to may have been signed for a short time; so the 400
   * and 403 of another host are asked for again there, LIMITS.redirectedTries times in all. A long
   * wait for a limit on requests is no try; it is announced once for its host and holds everybody back.
   * @throws NETWORK_FAILED, NETWORK_TIMEOUT, NETWORK_URL_REFUSED, ABORTED, or what the body's source threw
   */
  async request(req: HttpRequest): Promise<HttpResponse> {
    const { signal: own } = this.#context;
    const signal = eitherSignal(req.signal, own);
    const tries = req.tries ?? LIMITS.tries;
    const longWait: LongWait = { giveUp: undefined };
    // Never the query: it may hold a token or a signature.
    const what = `${req.method} ${req.url.host}${req.url.pathname}`;
    for (let attempt = 1; ; ) {
      throwIfAborted(signal);
      let waitMs = backoffMs(attempt, this.#context.random);
      let reason: string;
      try {
        const response = await this.#once(req, signal);
        const most = triesAfter(response, req);
        if (most === 1 && response.status !== 429) return { ...response, tries: attempt };
        const next = this.#afterRefusal(response, { waitMs, isLast: attempt >= most, tries, longWait });
        if (next === undefined) return { ...response, tries: attempt };
        await response.body.dump();
        if (next.isLong) {
          await this.#gates.wait(response.url.host, signal);
          continue;
        }
        waitMs = next.waitMs;
        reason = `HTTP ${response.status}`;
      } catch (error) {
        throwIfAborted(signal);
        if (!isNetworkError(error) || attempt >= tries) {
          throw afterTries(networkError(error, req.url.origin), attempt);
        }
        reason = redact(reasonOf(error));
      }
      this.#context.emit({ type: 'retry', what, reason, waitMs: Math.round(waitMs) });
      await sleep(waitMs, signal);
      attempt += 1;
    }
  }

  /** What to do after a refusal: wait, or (undefined) take it as the answer. A 429 is meant for everybody who talks to the host. */
  #afterRefusal(
    response: Answer,
    about: {
      /** The ordinary wait. */
      readonly waitMs: number;
      readonly isLast: boolean;
      readonly tries: number;
      readonly longWait: LongWait;
    },
  ): { readonly waitMs: number; readonly isLong: boolean } | undefined {
    const { now, random } = this.#context;
    const refusal = refusalOf(response, now());
    const waitMs = refusal === undefined ? about.waitMs : refusal.waitMs + random() * 250;
    const isLong = refusal !== undefined && refusal.waitMs > LIMITS.briefWaitMs;
    if (isLong && !this.#mayWait(refusal, about)) return undefined;
    if (response.status === 429) this.#tellPause(response, { waitMs, isLong });
    if (isLong && response.status === 429) return { waitMs, isLong };
    return about.isLast ? undefined : { waitMs, isLong: false };
  }

  /** Whether a long wait is wanted and has an end that can be waited for. A request that may be tried once never waits. */
  #mayWait(refusal: Refusal, about: { readonly tries: number; readonly longWait: LongWait }): boolean {
    if (!this.waits || about.tries === 1) return false;
    const now = this.#context.now();
    about.longWait.giveUp ??= now + refusal.boundMs;
    return refusal.until - now <= refusal.boundMs && now + refusal.waitMs <= about.longWait.giveUp;
  }

  #tellPause(response: Answer, about: { readonly waitMs: number; readonly isLong: boolean }): void {
    const { host } = response.url;
    const until = Math.round(this.#context.now() + about.waitMs);
    const isNews = this.#gates.pause(host, until);
    if (isNews && about.isLong) {
      const reason = `HTTP ${response.status}: the limit on requests is reached`;
      this.#context.emit({ type: 'pause', host, reason, until });
    }
  }

  /** Ends all connections and pauses. */
  async close(): Promise<void> {
    this.#gates.close();
    this.#direct.close();
    await this.#ways.close();
  }
}

/** When a request's long waits end, in milliseconds since the epoch. */
interface LongWait {
  giveUp: number | undefined;
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
