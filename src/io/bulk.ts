import { connect as connectTcp, isIP, type OnReadOpts, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { SealiftError } from '../core/errors.ts';
import { LIMITS, MIB } from '../core/limits.ts';
import { readHead } from './answer-head.ts';

/**
 * Large downloads without copies: HTTP/1.1 GET on sockets that read into buffers which are used again and again. It takes
 * about half of the processor time of a general client, because nothing is allocated for the bytes that pass
 * (docs/decisions/008). It knows answers of a known length only; for anything else it says so, and the general client
 * asks again.
 */

/** The body of an answer as a stream of chunks. A chunk of `bulk` answers is valid only until the next one is asked for. */
export interface HttpBody extends AsyncIterable<Buffer> {
  /** Ends the transfer and its connection. */
  destroy(error?: Error): unknown;
  /** Reads the rest and drops it. */
  dump(): Promise<unknown>;
  /**
   * Pours the rest into the receiver that asked (io/receiver), where it need not pass through this thread; yields
   * whenever some of it has arrived. Bytes that the receiver has are skipped.
   * @param first place of the body's first byte in the content
   * @throws what breaks the connection, DISK_FULL, CONTENT_SIZE_MISMATCH
   */
  pour?(first: number): AsyncIterable<void>;
}

export interface BulkRequest {
  readonly url: URL;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  /** How to trust the server: options of node:tls, and a key that differs where they do. */
  readonly tls: { readonly key: string; readonly settings: Readonly<Record<string, unknown>> };
  readonly signal: AbortSignal;
}

export interface BulkAnswer {
  readonly status: number;
  /** Lower-case names; several values joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: HttpBody;
}

/** Bytes of one buffer, and how many filled ones may wait: what a connection reads ahead. */
const SLOT = MIB / 4;
const AHEAD = 2;

/** How long an unused connection is kept, in milliseconds: shorter than what servers do. */
const KEEP_MS = 4_000;

function broken(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

type Waiter = { readonly resolve: () => void; readonly reject: (error: unknown) => void };

/** One connection. Bytes land in its slots; the reader takes them in order, and reading pauses while enough wait. */
class Connection {
  readonly socket: Socket;
  /** True when an answer came over it before: then a break before the next answer means only that it was old. */
  used = false;
  readonly #free: Buffer[] = [];
  readonly #filled: { readonly slot: Buffer; readonly bytes: number }[] = [];
  #slot: Buffer = Buffer.allocUnsafeSlow(SLOT);
  /** What the reader looks at. */
  #lent: Buffer | undefined;
  #paused = false;
  #failure: unknown;
  #waiter: Waiter | undefined;

  constructor(url: URL, tls: Readonly<Record<string, unknown>>) {
    const onread: OnReadOpts = {
      buffer: () => this.#slot,
      callback: (bytes) => this.#took(bytes),
    };
    const host = url.hostname.replace(/^\[|\]$/g, '');
    const secure = url.protocol === 'https:';
    // RFC 6066 3: an address is no server name.
    const name = isIP(host) > 0 ? {} : { servername: host };
    const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port);
    const socket = secure
      ? connectTls({ ...name, ALPNProtocols: ['http/1.1'], ...tls, host, port, ...{ onread } })
      : connectTcp({ host, port, onread });
    this.socket = socket;
    socket.setNoDelay(true);
    socket.setTimeout(LIMITS.connectMs);
    socket.once(secure ? 'secureConnect' : 'connect', () => socket.setTimeout(LIMITS.headersMs));
    socket.on('timeout', () =>
      this.fail(
        broken(socket.connecting ? 'UND_ERR_CONNECT_TIMEOUT' : 'UND_ERR_BODY_TIMEOUT', 'no answer in time'),
      ),
    );
    socket.on('error', (error) => this.fail(error));
    socket.on('end', () => this.fail(broken('UND_ERR_SOCKET', 'other side closed')));
    socket.on('close', () => this.fail(broken('UND_ERR_SOCKET', 'other side closed')));
  }

  get broken(): boolean {
    return this.#failure !== undefined;
  }

  /** Bytes that came and were not taken. */
  get pending(): boolean {
    return this.#filled.length > 0;
  }

  #took(bytes: number): boolean {
    this.#filled.push({ slot: this.#slot, bytes });
    // TLS hands over all that it has decrypted, also after a pause: so a slot is never assumed to be free.
    this.#slot = this.#free.pop() ?? Buffer.allocUnsafeSlow(SLOT);
    this.#paused = this.#filled.length >= AHEAD;
    this.#wake();
    return !this.#paused;
  }

  #wake(): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (this.#filled.length > 0) waiter?.resolve();
    else waiter?.reject(this.#failure);
  }

  fail(error: unknown): void {
    this.#failure ??= error;
    this.socket.destroy();
    if (this.#waiter !== undefined) this.#wake();
  }

  /** The next bytes; valid until the next call. @throws what broke the connection */
  async next(): Promise<Buffer> {
    if (this.#lent !== undefined && this.#free.length < AHEAD) this.#free.push(this.#lent);
    this.#lent = undefined;
    if (this.#filled.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve, reject) => {
        this.#waiter = { resolve, reject };
        if (this.#paused) {
          this.#paused = false;
          this.socket.resume();
        }
      });
    }
    const first = this.#filled.shift();
    if (first === undefined) throw broken('UND_ERR_SOCKET', 'nothing came');
    this.#lent = first.slot;
    return first.slot.subarray(0, first.bytes);
  }
}

/** Connections for large downloads, kept by origin. Close it to end its sockets. */
export class BulkAgent {
  readonly #idle = new Map<string, Connection[]>();
  readonly #all = new Set<Connection>();
  /** Origins whose answers it cannot read. */
  readonly #foreign = new Set<string>();

  /**
   * Sends one GET. undefined when the server's answers have no known length: the general client must ask.
   * @throws errors with the codes of the general client (`ECONNREFUSED`, `UND_ERR_SOCKET`, `UND_ERR_BODY_TIMEOUT` …), ABORTED
   */
  async get(request: BulkRequest): Promise<BulkAnswer | undefined> {
    const { url, signal } = request;
    if (this.#foreign.has(url.origin)) return undefined;
    const key = `${url.origin} ${request.tls.key}`;
    for (;;) {
      const connection = this.#idle.get(key)?.pop() ?? this.#open(request, key);
      const onAbort = (): void => connection.fail(new SealiftError('ABORTED', 'stopped'));
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
      const end = (): void => signal.removeEventListener('abort', onAbort);
      const used = connection.used;
      try {
        return await this.#exchange(connection, { request, key, end });
      } catch (error) {
        end();
        connection.fail(error);
        // A kept connection that broke before its answer was closed by the server meanwhile: a new one is not a retry.
        if (!used || connection.used !== used || signal.aborted || error instanceof SealiftError) throw error;
      }
    }
  }

  #open({ url, tls }: BulkRequest, key: string): Connection {
    const connection = new Connection(url, tls.settings);
    this.#all.add(connection);
    connection.socket.once('close', () => {
      this.#all.delete(connection);
      const idle = this.#idle.get(key);
      const at = idle?.indexOf(connection) ?? -1;
      if (at >= 0) idle?.splice(at, 1);
    });
    return connection;
  }

  async #exchange(
    connection: Connection,
    about: { readonly request: BulkRequest; readonly key: string; readonly end: () => void },
  ): Promise<BulkAnswer | undefined> {
    const { request, key, end } = about;
    const { url, headers } = request;
    const lines = Object.entries({ host: url.host, connection: 'keep-alive', ...headers });
    // Node's own client refuses the same: a line end in a header would begin another request.
    if (lines.some(([name, value]) => /[^\t\x20-\x7e\x80-\xff]/.test(name + value))) {
      throw new SealiftError('INTERNAL', `${url.origin}: a header with control characters`);
    }
    const text = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    connection.socket.setTimeout(connection.socket.connecting ? LIMITS.connectMs : LIMITS.headersMs);
    connection.socket.write(`GET ${url.pathname}${url.search} HTTP/1.1\r\n${text}\r\n`, 'latin1');
    const head = await readHead(() => connection.next());
    connection.used = false;
    const { length } = head;
    if (length === undefined) {
      // A refusal is written by something else than what serves content.
      if (head.status === 200 || head.status === 206) this.#foreign.add(url.origin);
      end();
      connection.fail(broken('UND_ERR_SOCKET', 'an answer of unknown length'));
      return undefined;
    }
    connection.socket.setTimeout(LIMITS.idleMs);
    const done = (): void => {
      end();
      connection.used = true;
      const more = head.rest.length > length || connection.pending;
      if (!head.keep || more || connection.broken) connection.fail(broken('UND_ERR_SOCKET', 'closed'));
      else this.#keep(key, connection);
    };
    return {
      status: head.status,
      headers: head.headers,
      body: bodyOf(connection, { rest: head.rest, length, done, end }),
    };
  }

  #keep(key: string, connection: Connection): void {
    const list = this.#idle.get(key) ?? [];
    this.#idle.set(key, list);
    list.push(connection);
    connection.socket.setTimeout(KEEP_MS);
  }

  /** Ends all connections. */
  close(): void {
    for (const connection of this.#all) connection.fail(broken('UND_ERR_CLOSED', 'closed'));
    this.#idle.clear();
  }
}

/** The body of an answer: exactly `length` bytes, then `done`. */
function bodyOf(
  connection: Connection,
  about: {
    readonly rest: Buffer;
    readonly length: number;
    readonly done: () => void;
    readonly end: () => void;
  },
): HttpBody {
  let left = about.length;
  let ended = false;
  const finish = (): void => {
    if (!ended) about.done();
    ended = true;
  };
  const destroy = (error?: Error): void => {
    if (ended) return;
    ended = true;
    about.end();
    connection.fail(error ?? broken('UND_ERR_DESTROYED', 'the transfer was ended'));
  };
  async function* chunks(): AsyncGenerator<Buffer> {
    try {
      for (let chunk = about.rest; ; chunk = await connection.next()) {
        if (chunk.length > left) {
          // More than one answer's bytes: what follows belongs to nothing that was asked.
          destroy();
          chunk = chunk.subarray(0, left);
          left = 0;
          if (chunk.length > 0) yield chunk;
          return;
        }
        left -= chunk.length;
        if (left === 0) finish();
        if (chunk.length > 0) yield chunk;
        if (left === 0) return;
      }
    } finally {
      destroy();
    }
  }
  if (left === 0) finish();
  const iterator = chunks();
  return {
    [Symbol.asyncIterator]: () => iterator,
    destroy,
    dump: async () => {
      // Reading on is worth it only for what is surely short.
      if (left > MIB) return destroy();
      for await (const _ of iterator);
    },
  };
}
