import {
  type ClientRequest,
  type ClientRequestArgs,
  type IncomingMessage,
  Agent as PlainAgent,
  request as plainRequest,
} from 'node:http';
import { Agent as SecureAgent, request as secureRequest } from 'node:https';
import { Duplex } from 'node:stream';
import { SealiftError } from '../core/errors.ts';
import { KIB, LIMITS } from '../core/limits.ts';
import type { HttpBody } from './bulk.ts';
import { errnoOf } from './files.ts';
import type { Hop } from './redirect.ts';
import { answerMs, flatHeaders } from './send.ts';
import { unacknowledged } from './send-queue.ts';
import type { Way } from './ways.ts';

/**
 * Requests without a proxy, by Node's own client. It is there in 5 ms where undici takes 80 to load, and sends a large
 * body in a third of the processor time, because no byte is copied (docs/decisions/011).
 */

/** An answer as it comes; header names in lower case, several values joined by ", ". */
export interface DirectAnswer {
  readonly status: number;
  readonly reason: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: HttpBody;
}

interface Ask {
  readonly way: Way;
  readonly signal: AbortSignal;
}

/** How long an unused connection is kept, in milliseconds: shorter than what servers do. */
const KEEP_MS = 4_000;
/** The rest of an answer that nobody wants: up to this it is read, so that its connection can be used again. */
const DUMPED = 128 * KIB;

function broken(code: string, message: string, cause?: unknown): Error {
  return Object.assign(new Error(message, { cause }), { code });
}

function notTaken(request: ClientRequest, bytes: number): SealiftError {
  const seconds = LIMITS.idleMs / 1000;
  const message = `${request.getHeader('host')}: took no byte for ${seconds} s, and lacks the last ${bytes}`;
  return new SealiftError('NETWORK_TIMEOUT', message, {
    hint: 'check the network and proxies in between, then run the same command again',
    side: 'destination',
  });
}

/** An answer that is no HTTP has one code, whatever it was that the parser did not like. */
function wireError(error: Error): Error {
  return errnoOf(error).startsWith('HPE_') ? broken('HPE_NOT_HTTP', error.message, error) : error;
}

type Connected = (error: Error | null, socket: Duplex) => void;

/**
 * Gives a connection to its request when it stands: a write before the end of a handshake would hide why that failed.
 * Until then the agent does not know it; `connecting` does.
 */
function whenStanding(
  socket: Duplex | null | undefined,
  about: { readonly event: string; readonly connecting: Set<Duplex>; readonly then: Connected | undefined },
): undefined {
  const { event, connecting, then } = about;
  if (!(socket instanceof Duplex)) return;
  connecting.add(socket);
  const leave = (): unknown => socket.destroy(broken('UND_ERR_CONNECT_TIMEOUT', 'no connection in time'));
  const timer = setTimeout(leave, LIMITS.connectMs);
  const end = (error: Error | null): void => {
    clearTimeout(timer);
    connecting.delete(socket);
    socket.removeListener(event, stands).removeListener('error', end);
    then?.(error, socket);
  };
  const stands = (): void => end(null);
  socket.once(event, stands).once('error', end);
}

interface Connections {
  readonly agent: PlainAgent;
  readonly connecting: Set<Duplex>;
}

/** An agent whose requests get a connection when it stands. */
function connectionsOf(agent: PlainAgent, event: 'connect' | 'secureConnect'): Connections {
  const connecting = new Set<Duplex>();
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options: ClientRequestArgs, then?: Connected): undefined =>
    whenStanding(connect(options), { event, connecting, then });
  return { agent, connecting };
}

/** Connections of Node's own client, kept by how the server is trusted. Close it to end its sockets. */
export class DirectClient {
  readonly #agents = new Map<string, Connections>();

  #connections(way: Way, secure: boolean): Connections {
    const known = this.#agents.get(way.key);
    if (known !== undefined) return known;
    const options = { keepAlive: true, maxSockets: LIMITS.connectionsPerHost, timeout: KEEP_MS };
    const made = secure
      ? connectionsOf(new SecureAgent({ ...options, ...way.settings }), 'secureConnect')
      : connectionsOf(new PlainAgent(options), 'connect');
    this.#agents.set(way.key, made);
    return made;
  }

  /**
   * Sends one request. A body that is a stream is asked for its next chunk when the one before has left, so its chunks
   * may lie in one buffer; an answer that comes before its end stops it.
   * @throws the system's errors, `UND_ERR_…_TIMEOUT`, `HPE_NOT_HTTP`, ABORTED, or what the body's source threw
   */
  ask(hop: Hop, ask: Ask): Promise<DirectAnswer> {
    const exchange = new Exchange(this.#open(hop, ask), ask.signal);
    return exchange.run(hop);
  }

  #open({ url, method, headers }: Hop, { way }: Ask): ClientRequest {
    const secure = url.protocol === 'https:';
    const host = url.hostname.replace(/^\[|\]$/g, '');
    const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port);
    const path = `${url.pathname}${url.search}`;
    const options = { host, port, path, method, headers: { host: url.host, ...headers } };
    const { agent } = this.#connections(way, secure);
    const maxHeaderSize = LIMITS.answerHead;
    return (secure ? secureRequest : plainRequest)({ ...options, agent, maxHeaderSize });
  }

  /** Ends all connections. */
  close(): void {
    for (const { agent, connecting } of this.#agents.values()) {
      for (const socket of connecting) socket.destroy(broken('UND_ERR_CLOSED', 'closed'));
      agent.destroy();
    }
    this.#agents.clear();
  }
}

/** One request and the head of its answer. */
class Exchange {
  readonly request: ClientRequest;
  readonly #signal: AbortSignal;
  readonly #answered: Promise<IncomingMessage>;
  #refuse: (error: Error) => void = () => {};
  #isOver = false;
  /** Wakes who waits for a chunk to leave. */
  #wake: () => void = () => {};
  #timer: NodeJS.Timeout | undefined;
  #queueTimer: NodeJS.Timeout | undefined;

  constructor(request: ClientRequest, signal: AbortSignal) {
    this.request = request;
    this.#signal = signal;
    request.setNoDelay(true);
    this.#answered = new Promise((resolve, reject) => {
      this.#refuse = reject;
      request.once('response', (response) => {
        this.#end();
        resolve(response);
      });
      request.on('error', (error) => {
        this.#end();
        reject(wireError(error));
      });
      request.once('close', () => {
        if (this.#isOver) return;
        this.#end();
        reject(broken('ECONNRESET', 'other side closed'));
      });
    });
    this.#answered.catch(() => {});
  }

  #end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#queueTimer);
    this.#wake();
  }

  /** Ends it now: a request without a connection would tell its own end only when the connection stands. */
  #leave(error: Error): void {
    this.request.destroy(error);
    this.#end();
    this.#refuse(error);
  }

  /** Gives the server so long for its answer, or for taking more. */
  #wait(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#isOver) return;
    const leave = (): void => this.#leave(broken('UND_ERR_HEADERS_TIMEOUT', 'no answer in time'));
    this.#timer = setTimeout(leave, ms);
  }

  /** Sends all and waits for the head of the answer. */
  async run(hop: Hop): Promise<DirectAnswer> {
    const onAbort = (): void => this.#leave(new SealiftError('ABORTED', 'stopped'));
    if (this.#signal.aborted) onAbort();
    this.#signal.addEventListener('abort', onAbort, { once: true });
    const done = (): void => this.#signal.removeEventListener('abort', onAbort);
    try {
      const ms = answerMs(hop);
      if (typeof hop.body === 'function') {
        await this.#give(hop.body(), Number(hop.headers['content-length'] ?? 0));
        this.#watchQueue(Number.POSITIVE_INFINITY, performance.now());
      } else this.request.end(hop.body);
      this.#wait(ms);
      const response = await this.#answered;
      response.once('close', () => {
        done();
        // What the server did not want to read stays in the way of the next request.
        if (!this.request.writableFinished) this.request.destroy();
      });
      return {
        status: response.statusCode ?? 0,
        reason: response.statusMessage ?? '',
        headers: flatHeaders(response.headers),
        body: bodyOf(response),
      };
    } catch (error) {
      done();
      this.request.destroy();
      throw error;
    }
  }

  /** Sends a stream of known length; leaves it when the answer is there before its end. */
  async #give(source: AsyncIterable<Uint8Array>, length: number): Promise<void> {
    let left = length;
    this.#wait(LIMITS.headersMs);
    for await (const chunk of source) {
      if (this.#isOver) return;
      left -= chunk.length;
      if (left < 0) break;
      this.#timer?.refresh();
      await this.#write(chunk);
      if (this.#isOver) return;
    }
    if (left !== 0) throw broken('UND_ERR_REQ_CONTENT_LENGTH_MISMATCH', `the body is not ${length} bytes`);
    this.request.end();
  }

  /**
   * The last bytes of a body lie with the system when we have given them all. While some of them stay there, it is the
   * other side that takes nothing, and not a server that commits what it has.
   * @param before how many lay there when that was last looked at, and since when none has gone
   */
  #watchQueue(before: number, since: number): void {
    if (this.#isOver) return;
    this.#queueTimer = setTimeout(async () => {
      const { socket } = this.request;
      const queued = socket === null ? undefined : await unacknowledged(socket);
      if (queued === undefined || queued === 0 || this.#isOver) return;
      const now = performance.now();
      if (queued >= before && now - since >= LIMITS.idleMs) {
        this.#leave(notTaken(this.request, queued));
      } else this.#watchQueue(queued, queued < before ? now : since);
    }, LIMITS.idleMs / 4);
  }

  #write(chunk: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      // What breaks a write breaks the request too, and is told there.
      this.request.write(chunk, () => resolve());
    });
  }
}

/** The body of an answer. Silence is counted only while somebody waits for bytes. */
function bodyOf(response: IncomingMessage): HttpBody {
  // A body that is ended before anybody reads it would throw that at the process.
  response.on('error', () => {});
  const destroy = (error?: Error): void => {
    response.destroy(error ?? broken('UND_ERR_DESTROYED', 'the transfer was ended'));
  };
  async function* chunks(): AsyncGenerator<Buffer> {
    const leave = (): void => destroy(broken('UND_ERR_BODY_TIMEOUT', 'no byte in time'));
    const count = (): NodeJS.Timeout => setTimeout(leave, LIMITS.idleMs);
    let timer = count();
    try {
      for await (const chunk of response) {
        clearTimeout(timer);
        yield chunk;
        timer = count();
      }
    } catch (error) {
      throw error instanceof Error ? wireError(error) : error;
    } finally {
      clearTimeout(timer);
    }
  }
  const iterator = chunks();
  return {
    [Symbol.asyncIterator]: () => iterator,
    destroy,
    dump: async () => {
      let dropped = 0;
      try {
        for await (const chunk of iterator) {
          dropped += chunk.length;
          if (dropped > DUMPED) return;
        }
      } catch {
        // How the rest of an answer ends that nobody wants is no fault of anybody's work.
      }
    },
  };
}
