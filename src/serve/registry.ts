import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { type Answer, type Exchange, NOT_FOUND, readExchange, refusal, splitTarget } from './answer.ts';
import { type AuthOptions, createGuard, type Guard } from './auth.ts';
import { type ChartOptions, createShelf, type Shelf } from './charts.ts';
import { diskStorage } from './disk-storage.ts';
import { listen } from './listen.ts';
import { memoryStorage } from './memory-storage.ts';
import { shownStorage } from './repository.ts';
import { findRoute, type RouteOptions } from './routes.ts';
import { closeWithConnection, send } from './send.ts';
import { createUploads, type Uploads } from './uploads.ts';

/** One request that the server answered, in the order of the answers. */
export interface RequestRecord {
  readonly method: string;
  /** Decoded, without the query. */
  readonly path: string;
  /** As sent, without `?`; '' when there is none. */
  readonly query: string;
  /** The Range header, '' when there is none. */
  readonly range: string;
  readonly status: number;
  /** Body bytes sent. */
  readonly bytes: number;
  /** Body bytes received. */
  readonly received: number;
}

export interface RegistryOptions {
  /** In memory, or over a directory that is made when absent and belongs to one registry at a time. */
  readonly storage: 'memory' | { readonly dir: string };
  /** Default 0: any free port. */
  readonly port?: number;
  /** The address to listen on. Default 127.0.0.1. */
  readonly host?: string;
  readonly charts?: ChartOptions;
  /** Default: everybody may do everything. */
  readonly auth?: AuthOptions;
  /** Accept an index whose manifests are not all there. Default false, as distribution, Harbor and Nexus (registry.md 1.6). */
  readonly acceptSparse?: boolean;
  /** Offer the referrers API. Default true; false answers 404 as older registries do. */
  readonly referrers?: boolean;
  /**
   * For tests of failures: sees every request first; true means that it was answered there. It may read or destroy the
   * request, or answer later.
   */
  readonly intercept?: (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;
  /** Told of every failure that a client saw as 500. */
  readonly onError?: (error: unknown) => void;
  /** Closes the server when it is aborted. */
  readonly signal?: AbortSignal;
  /** The clock for tokens, in milliseconds since the epoch. Default: the machine's. */
  readonly now?: () => number;
}

/** A running registry. */
export interface RunningRegistry extends Pick<Shelf, 'addChart' | 'addFile'> {
  /** `address:port`, as it stands in an image reference. */
  readonly host: string;
  /** `http://address:port` */
  readonly url: string;
  /** What was answered so far, oldest first; the oldest are dropped after many. */
  readonly requests: readonly RequestRecord[];
  /** Ends all connections, forgets unfinished uploads and waits until nothing is written any more. */
  close(): Promise<void>;
}

interface House extends RouteOptions {
  readonly guard: Guard;
  readonly shelf: Shelf;
  readonly url: () => string;
  readonly onError: (error: unknown) => void;
}

/** From a request to its answer: who may, then what. */
async function answerTo(exchange: Exchange, house: House): Promise<Answer> {
  if (exchange.path === '/token') return (await house.guard.token(exchange)) ?? NOT_FOUND;
  if (/^\/(?:charts|files)\//.test(exchange.path)) {
    const refused = house.guard.checkPlain(exchange);
    return refused ?? (await house.shelf.answer(exchange, { base: house.url() }));
  }
  const route = findRoute(exchange, house);
  if (route === undefined) return NOT_FOUND;
  if ('status' in route) return route;
  const refused = house.guard.check(exchange, route.needs);
  if (refused !== undefined) return refused;
  return await route.handle();
}

async function answerOrFailure(exchange: Exchange, house: House): Promise<Answer | undefined> {
  try {
    return await answerTo(exchange, house);
  } catch (error) {
    // The client went away in the middle of its body: there is nobody to answer.
    if (exchange.request.destroyed && !exchange.request.complete) return undefined;
    const code = error instanceof SealiftError ? error.code : 'INTERNAL';
    if (code === 'CONTENT_TOO_LARGE')
      return refusal('SIZE_INVALID', 'the body is too large', { status: 413 });
    house.onError(error);
    return refusal('UNKNOWN', code === 'DISK_FULL' ? 'the registry has no space left' : 'internal error');
  }
}

interface Log {
  readonly records: RequestRecord[];
  readonly add: (record: RequestRecord) => void;
}

function createLog(): Log {
  const records: RequestRecord[] = [];
  return {
    records,
    add(record) {
      if (records.length >= LIMITS.requestLog) records.shift();
      records.push(record);
    },
  };
}

/** Lets a test answer. A connection that it lets hang is over when the connection is. */
async function intercepted(
  intercept: RegistryOptions['intercept'],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<boolean> {
  if (intercept === undefined) return false;
  const closed = new Promise<true>((resolve) => response.once('close', () => resolve(true)));
  return await Promise.race([intercept(request, response), closed]);
}

/** Serves one request from beginning to end. Never throws. */
async function serveOne(
  request: IncomingMessage,
  response: ServerResponse,
  options: { readonly house: House; readonly log: Log; readonly intercept: RegistryOptions['intercept'] },
): Promise<void> {
  const exchange = readExchange(request);
  closeWithConnection(request, response);
  let own = false;
  response.once('close', () => {
    options.log.add({
      method: exchange.method,
      path: exchange.path,
      query: splitTarget(request)[1],
      range: request.headers.range ?? '',
      status: response.headersSent ? response.statusCode : 0,
      bytes: own ? exchange.sent : Number(response.getHeader('content-length') ?? 0),
      received: exchange.received,
    });
  });
  try {
    if (await intercepted(options.intercept, request, response)) return;
    own = true;
    const answer = await answerOrFailure(exchange, options.house);
    if (answer === undefined || response.destroyed) response.destroy();
    else await send(answer, { exchange, to: response });
  } catch {
    response.destroy();
  } finally {
    // What a refused client still sends is thrown away, so that it gets to read its answer.
    if (own && !request.complete) request.resume();
  }
}

function createCloser(
  server: Server,
  running: ReadonlySet<Promise<void>>,
  uploads: Uploads,
): () => Promise<void> {
  let closed: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const ended = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await ended;
    await Promise.all(running);
    await uploads.discardAll();
  };
  return () => {
    closed ??= close();
    return closed;
  };
}

/**
 * Starts an OCI registry (distribution-spec 1.1) over plain HTTP, with a chart repository at `/charts/` and files at
 * `/files/` beside it. Deleted content stays in the storage; it is only no longer shown.
 * @throws USAGE when the port is taken; FILE_UNREADABLE, DISK_FULL for the directory; ABORTED
 */
export async function startRegistry(options: RegistryOptions): Promise<RunningRegistry> {
  if (options.signal?.aborted === true) throw new SealiftError('ABORTED', 'stopped');
  const inMemory = options.storage === 'memory';
  const storage = options.storage === 'memory' ? memoryStorage() : await diskStorage(options.storage.dir);
  const blobLimit = inMemory ? LIMITS.uploadedBlobInMemory : LIMITS.uploadedBlob;
  const uploads = createUploads(storage, { blobLimit });
  const shelf = createShelf(options.charts);
  const log = createLog();
  const running = new Set<Promise<void>>();
  let host = '';
  const house: House = {
    shown: shownStorage(storage),
    writing: { storage, uploads, acceptSparse: options.acceptSparse ?? false },
    shelf,
    referrers: options.referrers ?? true,
    guard: createGuard(options.auth, { host: () => host, now: options.now ?? Date.now }),
    url: () => `http://${host}`,
    onError: options.onError ?? (() => {}),
  };

  const server = createServer({ keepAliveTimeout: LIMITS.idleMs, requestTimeout: 0 }, (request, response) => {
    const work = serveOne(request, response, { house, log, intercept: options.intercept });
    running.add(work);
    void work.finally(() => running.delete(work));
  });
  // A whole upload may take hours; only silence ends a connection.
  server.setTimeout(LIMITS.headersMs);
  host = await listen(server, { port: options.port ?? 0, host: options.host ?? '127.0.0.1' });
  const close = createCloser(server, running, uploads);
  const onAbort = (): void => void close();
  options.signal?.addEventListener('abort', onAbort, { once: true });
  return {
    host,
    url: `http://${host}`,
    requests: log.records,
    addChart: shelf.addChart,
    addFile: shelf.addFile,
    close: () => {
      options.signal?.removeEventListener('abort', onAbort);
      return close();
    },
  };
}
