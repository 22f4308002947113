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
import { type Answer, type Exchange, readExchange, refusal, splitTarget } from './answer.ts';
import { listen } from './listen.ts';
import { closeWithConnection, send } from './send.ts';

export interface ServerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** Certificates and key as PEM; undefined: plain HTTP. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  readonly answer: (exchange: Exchange) => Promise<Answer>;
  /** Told of every request once its answer has ended. */
  readonly onAccess: (access: Access) => void;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Others than the usual ones, for tests. */
  readonly bounds?: Partial<Bounds>;
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

/** Bounds of everything that a client can keep us busy with: counts, bytes, milliseconds. */
export interface Bounds {
  readonly connections: number;
  readonly answers: number;
  readonly head: number;
  readonly target: number;
  readonly headMs: number;
  readonly requestMs: number;
  readonly unusedMs: number;
  readonly stallMs: number;
  /** Between two looks at what is late. */
  readonly lookMs: number;
}

const BOUNDS: Bounds = {
  connections: LIMITS.servedConnections,
  answers: LIMITS.servedAnswers,
  head: LIMITS.requestHead,
  target: LIMITS.requestTarget,
  headMs: LIMITS.requestHeadMs,
  requestMs: LIMITS.requestMs,
  unusedMs: LIMITS.unusedConnectionMs,
  stallMs: LIMITS.servedChunkMs,
  lookMs: LIMITS.lateLookMs,
};

function createBound(
  options: ServerOptions,
  bounds: Bounds,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  const { tls } = options;
  const times = {
    maxHeaderSize: bounds.head,
    headersTimeout: bounds.headMs,
    requestTimeout: bounds.requestMs,
    keepAliveTimeout: bounds.unusedMs,
    connectionsCheckingInterval: bounds.lookMs,
  };
  const server =
    tls === undefined
      ? createPlain(times, handle)
      : createSecure({ ...times, ...tls, minVersion: 'TLSv1.2', handshakeTimeout: bounds.headMs }, handle);
  server.maxConnections = bounds.connections;
  // Who sends "Expect: 100-continue" gets his answer before he sends a body that nobody wants.
  server.on('checkContinue', handle);
  server.on('checkExpectation', handle);
  makeRoom(server, bounds.connections);
  return server;
}

/** When the last place for a connection is taken, those that are only kept for later make room. */
function makeRoom(server: Server, most: number): void {
  let open = 0;
  server.on('connection', (socket) => {
    open += 1;
    socket.once('close', () => {
      open -= 1;
    });
    if (open >= most) server.closeIdleConnections();
  });
}

/** What cannot be answered just now, or at all. */
function refusedFor(
  request: IncomingMessage,
  state: { readonly running: number; readonly closing: boolean; readonly bounds: Bounds },
): Answer | undefined {
  const headers = { connection: 'close' };
  if (state.closing) {
    return refusal('UNKNOWN', 'the server is being stopped', { status: 503, headers });
  }
  if (state.running > state.bounds.answers) {
    return refusal('TOOMANYREQUESTS', 'too many requests at once', {
      headers: { ...headers, 'retry-after': '1' },
    });
  }
  const { length } = request.url ?? '';
  if (length <= state.bounds.target) return undefined;
  return refusal(
    'NAME_INVALID',
    `the path and query have ${length} bytes, the limit is ${state.bounds.target}`,
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
    readonly stallMs: number;
  },
): Promise<void> {
  const { exchange, refused, stallMs } = options;
  const how = { exchange, to: response, stallMs };
  try {
    const answer = refused ?? (await options.answer(exchange).catch((error) => failed(exchange, error)));
    if (response.destroyed) return;
    // A body that nobody wants: once it is answered there is no need to wait for its end.
    const hasBody = request.headers['content-length'] !== undefined || 'transfer-encoding' in request.headers;
    if (hasBody) response.setHeader('connection', 'close');
    response.setHeader('x-content-type-options', 'nosniff');
    await send(answer, how).catch((error) => send(failed(exchange, error), how));
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
  const bounds = { ...BOUNDS, ...options.bounds };
  const { stallMs } = bounds;

  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const time = options.now();
    const exchange = readExchange(request);
    running.add(response);
    // An address of IPv4 as a server on every address sees it.
    const client = (request.socket.remoteAddress ?? '').replace(/^::ffff:(?=[\d.]+$)/, '');
    const refused = refusedFor(request, { running: running.size, closing, bounds });
    closeWithConnection(request, response);
    const work = serveOne(request, response, { answer: options.answer, refused, exchange, stallMs });
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

  const server = createBound(options, bounds, handle);
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
