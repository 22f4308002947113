import type { Dispatcher } from 'undici';
import { LIMITS } from '../core/limits.ts';
import { untilAborted } from './pool.ts';
import type { HttpProxy } from './proxy.ts';
import { proxyFailure, proxyRefusal } from './proxy-errors.ts';
import type { Hop } from './redirect.ts';
import type { Way } from './ways.ts';

/** Header names in lower case, several values joined by ", ". */
export function flatHeaders(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return flat;
}

/**
 * How long the answer may take, in milliseconds. A server that stops reading is seen at once only while it has to take
 * more; what is small is gone into the sockets, and no registry commits it for minutes.
 */
export function answerMs({ body, headers }: Hop): number {
  const bytes = body instanceof Uint8Array ? body.length : Number(headers['content-length'] ?? 0);
  if (bytes === 0) return LIMITS.headersMs;
  return Math.min(LIMITS.headersMs, LIMITS.idleMs + Math.ceil((bytes / LIMITS.answerBytesPerS) * 1000));
}

/** This client keeps chunks while it goes on, and what a body gives may lie in one buffer. */
async function* copies(body: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  for await (const chunk of body) yield Buffer.from(chunk);
}

/** Sends one hop by the general client. */
export function ask(
  hop: Hop,
  options: { readonly way: Way; readonly dispatcher: Dispatcher; readonly signal: AbortSignal },
): Promise<Dispatcher.ResponseData> {
  const { way, dispatcher, signal } = options;
  const { url, method, headers } = hop;
  const body = typeof hop.body === 'function' ? copies(hop.body()) : (hop.body ?? null);
  const headersTimeout = answerMs(hop);
  const sent = { method, signal, headersTimeout, body: body as Dispatcher.DispatchOptions['body'] & object };
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
