import { readFileSync } from 'node:fs';
import { Agent, type Dispatcher, request } from 'undici';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError } from './files.ts';
import { sleep, throwIfAborted } from './pool.ts';

/** How to talk to one host, where it differs from plain HTTPS with the system's trust. */
export interface TlsOptions {
  /** Accept any certificate. Only when the manifest or a flag says so for that host. */
  readonly insecure?: boolean;
  /** PEM file with the CAs to trust instead of the system's. */
  readonly caFile?: string;
}

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
}

export interface HttpResponse {
  readonly status: number;
  /** Lower-case names; several values joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  /** Must be read to its end or dumped. */
  readonly body: Dispatcher.ResponseData['body'];
  /** After redirects. */
  readonly url: URL;
}

const RETRY_STATUS = new Set([408, 425, 429, 499, 500, 502, 503, 504, 522]);
const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308]);

const NETWORK_CODES = new Set([
  'ECONNRESET',
  'ECONNREFUSED',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_SOCKET',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_CLOSED',
  'UND_ERR_DESTROYED',
]);

function codesOf(error: unknown): string[] {
  const codes: string[] = [];
  for (let e = error, depth = 0; e instanceof Error && depth < 4; e = e.cause, depth++) {
    if ('code' in e && typeof e.code === 'string') codes.push(e.code);
  }
  return codes;
}

/** True for faults of the wire, which a new try may cure. */
export function isNetworkError(error: unknown): boolean {
  if (error instanceof SealiftError)
    return error.code === 'NETWORK_FAILED' || error.code === 'NETWORK_TIMEOUT';
  return codesOf(error).some((c) => NETWORK_CODES.has(c) || c.startsWith('HPE_'));
}

/** A fault of the wire as our error; other errors pass unchanged. */
export function networkError(error: unknown, where: string): unknown {
  if (error instanceof SealiftError) return error;
  const codes = codesOf(error);
  const cause = { cause: error };
  if (codes.some((c) => c.includes('TIMEOUT') || c === 'ETIMEDOUT')) {
    return new SealiftError('NETWORK_TIMEOUT', `${where}: no answer in time`, {
      ...cause,
      hint: 'check the network, the port and proxies in between, then run the same command again',
    });
  }
  if (codes.some((c) => c.startsWith('ERR_TLS') || c.startsWith('CERT_') || /CERT|SELF_SIGNED|SSL/.test(c))) {
    return new SealiftError('NETWORK_FAILED', `${where}: TLS failed (${codes[0]})`, {
      ...cause,
      hint: 'give the CA with registries.<host>.caFile, or plainHttp: true when the server has no TLS',
    });
  }
  if (isNetworkError(error)) {
    const text = error instanceof Error ? error.message : String(error);
    return new SealiftError('NETWORK_FAILED', `${where}: ${text || codes[0]}`, {
      ...cause,
      hint: 'check the host name, the port and the network, then run the same command again',
    });
  }
  return error;
}

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
  readonly #agents = new Map<string, Agent>();
  readonly #pausedUntil = new Map<string, number>();

  constructor(context: Context) {
    this.#context = context;
  }

  #agent(tls: TlsOptions): Agent {
    const key = JSON.stringify([tls.insecure === true, tls.caFile ?? '']);
    const known = this.#agents.get(key);
    if (known !== undefined) return known;
    let ca: string | undefined;
    try {
      ca = tls.caFile === undefined ? undefined : readFileSync(tls.caFile, 'utf8');
    } catch (error) {
      throw diskError(error, tls.caFile ?? '');
    }
    const agent = new Agent({
      connections: 16,
      pipelining: 1,
      keepAliveTimeout: 30_000,
      headersTimeout: LIMITS.headersMs,
      bodyTimeout: LIMITS.idleMs,
      connect: {
        timeout: LIMITS.connectMs,
        ...(tls.insecure === true ? { rejectUnauthorized: false } : {}),
        ...(ca === undefined ? {} : { ca }),
      },
    });
    this.#agents.set(key, agent);
    return agent;
  }

  async #once(req: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    let url = req.url;
    let headers: Record<string, string> = { 'accept-encoding': 'identity', ...req.headers };
    for (let hop = 0; ; hop++) {
      const body = req.body === undefined ? null : req.body instanceof Uint8Array ? req.body : req.body();
      let sourceError: unknown;
      if (req.contentLength !== undefined) headers['content-length'] = String(req.contentLength);
      const sent =
        body === null || body instanceof Uint8Array
          ? body
          : (async function* () {
              try {
                yield* body;
              } catch (error) {
                sourceError = error;
                throw error;
              }
            })();
      const answer = await request(url, {
        method: req.method,
        headers,
        body: sent as Dispatcher.DispatchOptions['body'] & object,
        dispatcher: this.#agent(req.tls ?? {}),
        signal,
      }).catch((error: unknown) => {
        throw sourceError ?? error;
      });
      const response = {
        status: answer.statusCode,
        headers: flatHeaders(answer.headers),
        body: answer.body,
        url,
      };
      const location = response.headers.location;
      if (req.follow === false || !REDIRECT_STATUS.has(response.status) || location === undefined) {
        return response;
      }
      await answer.body.dump();
      const next = redirectTarget(url, location, hop);
      if (next.origin !== url.origin) {
        headers = { ...headers };
        delete headers.authorization;
        delete headers.cookie;
      }
      url = next;
    }
  }

  /**
   * One request with redirects and retries. Any status is an answer; only the wire's failures throw.
   * Retried: 408, 425, 429, 499, 5xx and broken connections, with full jitter and Retry-After (registry.md 1.3).
   * @throws NETWORK_FAILED, NETWORK_TIMEOUT, NETWORK_URL_REFUSED, ABORTED, or what the body's source threw
   */
  async request(req: HttpRequest): Promise<HttpResponse> {
    const signal =
      req.signal === undefined ? this.#context.signal : AbortSignal.any([req.signal, this.#context.signal]);
    const tries = req.tries ?? LIMITS.tries;
    for (let attempt = 1; ; attempt++) {
      throwIfAborted(signal);
      await this.#waitForHost(req.url.host, signal);
      let wait = backoffMs(attempt, this.#context.random);
      let reason: string;
      try {
        const response = await this.#once(req, signal);
        if (!RETRY_STATUS.has(response.status) || attempt >= tries) return response;
        const asked = retryAfterMs(response.headers['retry-after'], this.#context.now());
        wait = asked === undefined ? wait : asked + this.#context.random() * 250;
        reason = `HTTP ${response.status}`;
        if (response.status === 429) this.#pausedUntil.set(req.url.host, this.#context.now() + wait);
        await response.body.dump();
      } catch (error) {
        throwIfAborted(signal);
        if (!isNetworkError(error) || attempt >= tries) throw networkError(error, req.url.origin);
        reason = error instanceof Error ? error.message || (codesOf(error)[0] ?? 'broken') : 'broken';
      }
      const what = `${req.method} ${req.url.host}${req.url.pathname}`;
      this.#context.emit({ type: 'retry', what, reason, waitMs: Math.round(wait) });
      await sleep(wait, signal);
    }
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
    await Promise.all([...this.#agents.values()].map((a) => a.destroy()));
    this.#agents.clear();
  }
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
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: redirect to "${location.slice(0, 200)}"`);
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
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= LIMITS.errorBody) break;
    }
  } catch {
    // The status is what counts; a broken error body adds nothing.
  }
  return Buffer.concat(chunks).toString('utf8', 0, LIMITS.errorBody);
}
