import {
  createServer as createPlain,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createSecure } from 'node:https';
import type { AddressInfo } from 'node:net';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Access } from './access-log.ts';
import { type Answer, type Exchange, readExchange, refusal, send, splitTarget } from './answer.ts';
import { listen } from './listen.ts';

export interface ServerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** Certificates and key as PEM; undefined: plain HTTP. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  readonly answer: (exchange: Exchange) => Promise<Answer>;
  /** Told of every request once its answer has ended. */
  readonly onAccess: (access: Access) => void;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** A running server. */
export interface RunningServer {
  /** `address:port` */
  readonly host: string;
  readonly port: number;
  /**
   * Takes no more requests and lets running answers end; after `graceMs` they are cut, and `onCut` shall stop their work.
   * @returns how many were cut
   */
  close(options: { readonly graceMs: number; readonly onCut: () => void }): Promise<number>;
}

/** Bounds of everything that a client can keep us busy with. */
const BOUNDS = {
  maxHeaderSize: LIMITS.requestHead,
  headersTimeout: LIMITS.requestHeadMs,
  requestTimeout: LIMITS.requestMs,
  keepAliveTimeout: LIMITS.unusedConnectionMs,
  connectionsCheckingInterval: 5_000,
} as const;

function createBound(
  options: ServerOptions,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  const { tls } = options;
  const server =
    tls === undefined
      ? createPlain(BOUNDS, handle)
      : createSecure(
          { ...BOUNDS, ...tls, minVersion: 'TLSv1.2', handshakeTimeout: LIMITS.requestHeadMs },
          handle,
        );
  server.maxConnections = LIMITS.servedConnections;
  // Who sends "Expect: 100-continue" gets his answer before he sends a body that nobody wants.
  server.on('checkContinue', handle);
  server.on('checkExpectation', handle);
  return server;
}

/** What cannot be answered just now, or at all. */
function refusedFor(
  request: IncomingMessage,
  state: { readonly running: number; readonly closing: boolean },
): Answer | undefined {
  const headers = { connection: 'close' };
  if (state.closing) {
    return refusal('UNKNOWN', 'the server is being stopped', { status: 503, headers });
  }
  if (state.running > LIMITS.servedAnswers) {
    return refusal('TOOMANYREQUESTS', 'too many requests at once', {
      headers: { ...headers, 'retry-after': '1' },
    });
  }
  const { length } = request.url ?? '';
  if (length <= LIMITS.requestTarget) return undefined;
  return refusal(
    'NAME_INVALID',
    `the path and query have ${length} bytes, the limit is ${LIMITS.requestTarget}`,
    {
      status: 414,
      headers,
    },
  );
}

function failureText(error: unknown): string {
  if (error instanceof SealiftError) return `${error.code}: ${error.message}`;
  return error instanceof Error ? error.message : String(error);
}

/** An answer that says that we failed, and nothing about how. */
function failed(exchange: Exchange, error: unknown): Answer {
  exchange.failure = error;
  const isContent = error instanceof SealiftError && error.code.startsWith('BUNDLE_');
  return refusal('UNKNOWN', isContent ? 'the bundle is damaged; its log says more' : 'internal error');
}

/** Answers one request from beginning to end. Never throws. */
async function serveOne(
  request: IncomingMessage,
  response: ServerResponse,
  options: {
    readonly answer: ServerOptions['answer'];
    readonly refused: Answer | undefined;
    readonly exchange: Exchange;
  },
): Promise<void> {
  const { exchange, refused } = options;
  try {
    const answer = refused ?? (await options.answer(exchange).catch((error) => failed(exchange, error)));
    if (response.destroyed) return;
    // A body that nobody wants: once it is answered there is no need to wait for its end.
    const hasBody = request.headers['content-length'] !== undefined || 'transfer-encoding' in request.headers;
    if (hasBody) response.setHeader('connection', 'close');
    response.setHeader('x-content-type-options', 'nosniff');
    await send(answer, { exchange, to: response });
  } catch (error) {
    exchange.failure ??= error;
    response.destroy();
  } finally {
    if (!request.complete) request.resume();
  }
}

/** Starts a server whose every request is answered by `options.answer`. @throws USAGE when the address cannot be had */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const running = new Set<ServerResponse>();
  let closing = false;
  let onIdle = (): void => {};

  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const time = options.now();
    const exchange = readExchange(request);
    running.add(response);
    const client = request.socket.remoteAddress ?? '';
    const refused = refusedFor(request, { running: running.size, closing });
    const work = serveOne(request, response, { answer: options.answer, refused, exchange });
    response.once('close', () => {
      // The reason of a cut is known when its work is over.
      void work.then(() => {
        running.delete(response);
        const { failure } = exchange;
        options.onAccess({
          time,
          client,
          method: exchange.method.slice(0, 40),
          path: splitTarget(request)[0],
          status: response.headersSent ? response.statusCode : 0,
          bytes: exchange.sent,
          ms: options.now() - time,
          userAgent: request.headers['user-agent'] ?? '',
          ...(failure === undefined ? {} : { error: failureText(failure) }),
        });
        if (!closing) return;
        server.closeIdleConnections();
        if (running.size === 0) onIdle();
      });
    });
  };

  const server = createBound(options, handle);
  const host = await listen(server, options.listen);
  // A connection that cannot be accepted (too many open files) is that client's loss, not the end of all others.
  server.on('error', () => {});
  return {
    host,
    // `listen` has made sure that it is one.
    port: (server.address() as AddressInfo).port,
    async close({ graceMs, onCut }) {
      closing = true;
      const ended = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      let timer: NodeJS.Timeout | undefined;
      const idle = new Promise<void>((resolve) => {
        onIdle = resolve;
        if (running.size === 0) resolve();
      });
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, graceMs);
      });
      await Promise.race([idle, late]);
      clearTimeout(timer);
      const cut = running.size;
      onCut();
      server.closeAllConnections();
      await Promise.all([ended, idle]);
      return cut;
    },
  };
}
