import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { MIB } from '../../core/limits.ts';

/**
 * gRPC over HTTP/2 on a unix socket ("gRPC over HTTP2", PROTOCOL-HTTP2.md), as much as containerd's API needs: no TLS, no
 * compression, no names to resolve. A message goes out without being copied, and nothing needs to be loaded
 * (docs/decisions/013).
 */

/** The status codes of gRPC (statuscodes.md). */
export const STATUS = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type StatusName = keyof typeof STATUS;
export type Status = (typeof STATUS)[StatusName];

const NAMES = new Map<number, StatusName>(
  Object.entries(STATUS).map(([name, code]) => [code, name as StatusName]),
);

/** The name of a status, as its specification spells it. */
export function statusName(code: Status): StatusName {
  return NAMES.get(code) ?? 'UNKNOWN';
}

/** A call that ended with another status than OK. The message is the server's, unbounded. */
export class GrpcError extends Error {
  readonly status: Status;

  constructor(status: Status, message: string, cause?: unknown) {
    super(message, { cause });
    this.status = status;
  }
}

/** What an answer that is no gRPC means (http-grpc-status-mapping.md). */
const OF_HTTP: Readonly<Record<number, Status>> = {
  400: STATUS.INTERNAL,
  401: STATUS.UNAUTHENTICATED,
  403: STATUS.PERMISSION_DENIED,
  404: STATUS.UNIMPLEMENTED,
  429: STATUS.UNAVAILABLE,
  502: STATUS.UNAVAILABLE,
  503: STATUS.UNAVAILABLE,
  504: STATUS.UNAVAILABLE,
};

/** Flag and length before each message. */
const PREFIX = 5;
/** What we let the server send ahead: of one stream, and of all. */
const STREAM_WINDOW = MIB;
const SESSION_WINDOW = 4 * MIB;

/** A connection to one socket, made with the first call and again when it broke. Close it. */
export class GrpcChannel {
  readonly #socket: string;
  readonly #messageLimit: number;
  #session: ClientHttp2Session | undefined;

  /** @param options.messageLimit bytes of one message of the server */
  constructor(socket: string, options: { readonly messageLimit: number }) {
    this.#socket = socket;
    this.#messageLimit = options.messageLimit;
  }

  #open(): ClientHttp2Session {
    const known = this.#session;
    if (known !== undefined && !known.closed && !known.destroyed) return known;
    const session = connect('http://localhost', {
      createConnection: () => connectSocket({ path: this.#socket }),
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW },
    });
    // Each call hears of it by its own stream.
    session.on('error', () => {});
    session.on('connect', () => {
      // Stopped at the very moment in which the connection came.
      if (!session.destroyed) session.setLocalWindowSize(SESSION_WINDOW);
    });
    session.setTimeout(0);
    // Who waits has a timer; an idle connection must not keep the program alive.
    session.unref();
    this.#session = session;
    return session;
  }

  /** Begins a call. It fails by its messages, never here. @param path `/package.Service/Method` */
  call(path: string, metadata: Readonly<Record<string, string>>): GrpcCall {
    const stream = this.#open().request({
      ...metadata,
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    return new GrpcCall(stream, this.#messageLimit);
  }

  close(): void {
    this.#session?.destroy();
  }
}

/** One call: messages go out in order, and the answers are read in order. */
export class GrpcCall {
  readonly #stream: ClientHttp2Stream;
  readonly #limit: number;
  #status: { readonly code: Status; readonly message: string } | undefined;
  #failure: unknown;
  #isCancelled = false;

  constructor(stream: ClientHttp2Stream, limit: number) {
    this.#stream = stream;
    this.#limit = limit;
    // An error that comes while nobody waits for an answer is seen with the next one.
    stream.on('error', (error) => {
      this.#failure ??= error;
    });
    stream.on('response', (headers) => this.#heard(headers, { isFirst: true }));
    stream.on('trailers', (headers) => this.#heard(headers, { isFirst: false }));
  }

  #heard(headers: IncomingHttpHeaders, { isFirst }: { readonly isFirst: boolean }): void {
    const http = Number(headers[':status'] ?? 200);
    const stated = headers['grpc-status'];
    const said = [headers['grpc-message'] ?? ''].flat()[0] ?? '';
    if (isFirst && http !== 200) {
      this.#status = { code: OF_HTTP[http] ?? STATUS.UNKNOWN, message: `HTTP ${http}` };
    } else if (stated !== undefined) {
      const known = NAMES.get(/^\d{1,2}$/.test(String(stated)) ? Number(stated) : -1);
      this.#status = { code: known === undefined ? STATUS.UNKNOWN : STATUS[known], message: unescaped(said) };
    }
  }

  /** Sends a message, given in parts; they must stay as they are until its answer has come. */
  write(parts: readonly Uint8Array[]): void {
    const stream = this.#stream;
    if (stream.destroyed || stream.writableEnded) return;
    const prefix = Buffer.alloc(PREFIX);
    prefix.writeUInt32BE(
      parts.reduce((sum, part) => sum + part.length, 0),
      1,
    );
    stream.cork();
    stream.write(prefix);
    for (const part of parts) if (part.length > 0) stream.write(part);
    stream.uncork();
  }

  /** No more messages come from us. */
  end(): void {
    this.#stream.end();
  }

  /** Breaks the call off. */
  cancel(): void {
    this.#isCancelled = true;
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  /** The server's messages. @throws GrpcError when it ends with another status than OK, or breaks */
  async *messages(): AsyncGenerator<Buffer> {
    const frames = new Unframer(this.#limit);
    try {
      for await (const chunk of this.#stream) yield* frames.take(chunk);
    } catch (error) {
      if (error instanceof GrpcError) throw error;
      this.#failure ??= error;
    }
    const status = this.#status;
    if (status !== undefined && status.code !== STATUS.OK) throw new GrpcError(status.code, status.message);
    if (status !== undefined && frames.isEmpty) return;
    throw this.#broken();
  }

  /** Why it ended without a status: we broke it off, or the connection did. */
  #broken(): GrpcError {
    const error = this.#failure;
    const message = error instanceof Error ? error.message : 'the stream ended without a status';
    return new GrpcError(this.#isCancelled ? STATUS.CANCELLED : STATUS.UNAVAILABLE, message, error);
  }
}

/** `grpc-message` is percent-encoded. */
function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Finds the messages in what a stream brings. Holds one message. */
class Unframer {
  readonly #limit: number;
  #held: Buffer[] = [];
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether nothing of a message waits for its rest. */
  get isEmpty(): boolean {
    return this.#bytes === 0;
  }

  *take(chunk: Buffer): Generator<Buffer> {
    this.#held.push(chunk);
    this.#bytes += chunk.length;
    for (;;) {
      const length = this.#length();
      if (length === undefined || this.#bytes < PREFIX + length) return;
      const all = this.#joined();
      yield all.subarray(PREFIX, PREFIX + length);
      this.#held = [all.subarray(PREFIX + length)];
      this.#bytes -= PREFIX + length;
    }
  }

  #joined(): Buffer {
    const [first, ...more] = this.#held;
    const all = first !== undefined && more.length === 0 ? first : Buffer.concat(this.#held, this.#bytes);
    this.#held = [all];
    return all;
  }

  /** Bytes of the message that comes; undefined before its prefix is there. */
  #length(): number | undefined {
    if (this.#bytes < PREFIX) return undefined;
    const [first] = this.#held;
    const prefix = first !== undefined && first.length >= PREFIX ? first : this.#joined();
    const length = prefix.readUInt32BE(1);
    if (prefix[0] !== 0) throw new GrpcError(STATUS.INTERNAL, 'a compressed message, which nobody asked for');
    if (length <= this.#limit) return length;
    throw new GrpcError(STATUS.RESOURCE_EXHAUSTED, `a message of ${length} bytes`);
  }
}
