import type { IncomingMessage, ServerResponse } from 'node:http';
import { setImmediate } from 'node:timers/promises';
import { KIB, LIMITS } from '../core/limits.ts';

/** One request, read far enough to be routed. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly method: string;
  /** Percent-decoded, without the query. Not normalised: `..` is still there and fails every name rule. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** Body bytes received and sent so far. */
  received: number;
  sent: number;
  /** Why an answer was cut off after its beginning was out; not set when it was the client who went away. */
  failure?: unknown;
}

/** What is asked. A path that is not valid percent-encoding stays as it is: no endpoint takes a `%`. */
export function readExchange(request: IncomingMessage): Exchange {
  const [rawPath, rawQuery] = splitTarget(request);
  let path = rawPath;
  try {
    path = decodeURIComponent(rawPath);
  } catch {
    // Left encoded.
  }
  const query = new URLSearchParams(rawQuery);
  return { request, method: request.method ?? '', path, query, received: 0, sent: 0 };
}

/** The path and the query of a request as they were sent, without the `?`. */
export function splitTarget(request: IncomingMessage): readonly [path: string, query: string] {
  const target = request.url ?? '';
  const mark = target.indexOf('?');
  return mark < 0 ? [target, ''] : [target.slice(0, mark), target.slice(mark + 1)];
}

/** Bytes on their way to a client. A chunk need not stay valid once the next one is asked for. */
export type Body = AsyncIterable<Uint8Array>;

/** What a handler answers. A handler never writes to the socket itself. */
export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes in memory, or a stream whose length the handler put in `content-length`. */
  readonly body?: Uint8Array | Body;
}

/** Error codes of the OCI distribution-spec ("Error Codes") and the two of distribution for paging and the unexpected. */
const STATUS = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DENIED: 403,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 400,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  PAGINATION_NUMBER_INVALID: 400,
  SIZE_INVALID: 400,
  TOOMANYREQUESTS: 429,
  UNAUTHORIZED: 401,
  UNKNOWN: 500,
  UNSUPPORTED: 405,
} as const;

export type RegistryErrorCode = keyof typeof STATUS;

/**
 * An error answer in the form of the distribution-spec: `{"errors":[{code, message, detail}]}`.
 * @param options.status default: the one that belongs to the code
 * @param options.details one error is listed for each; default one without detail
 */
export function refusal(
  code: RegistryErrorCode,
  message: string,
  options: {
    readonly status?: number;
    readonly details?: readonly unknown[];
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Answer {
  const details = options.details ?? [undefined];
  const errors = details.map((detail) => ({ code, message, ...(detail === undefined ? {} : { detail }) }));
  return jsonAnswer({ errors }, { status: options.status ?? STATUS[code], headers: options.headers ?? {} });
}

/** A JSON document. `type` defaults to application/json. */
export function jsonAnswer(
  document: unknown,
  options: {
    readonly status?: number;
    readonly type?: string;
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Answer {
  return {
    status: options.status ?? 200,
    headers: { 'content-type': options.type ?? 'application/json', ...options.headers },
    body: Buffer.from(`${JSON.stringify(document)}\n`),
  };
}

/** For a path that means nothing here. */
export const NOT_FOUND: Answer = {
  status: 404,
  headers: { 'content-type': 'text/plain' },
  body: Buffer.from('not found\n'),
};

/** Part of a content in bytes. */
export interface Span {
  readonly start: number;
  readonly length: number;
}

/** Content of known size that can be opened anywhere. */
export interface Servable {
  readonly size: number;
  /** Entity tag without quotes; the digest where there is one. */
  readonly etag: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly open: (span: Span) => Promise<Body>;
}

/**
 * Reads a Range header against a size (RFC 9110 section 14.1.2).
 * @returns undefined when the whole content is to be sent: no header, another unit, several ranges, or nonsense
 */
export function parseRange(header: string | undefined, size: number): Span | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.trim() ?? '');
  if (match === null) return undefined;
  const [, first = '', last = ''] = match;
  if (first === '') {
    if (last === '') return undefined;
    const length = Math.min(Number(last), size);
    return length === 0 ? 'unsatisfiable' : { start: size - length, length };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return undefined;
  if (start >= size) return 'unsatisfiable';
  const end = last === '' ? size - 1 : Math.min(Number(last), size - 1);
  return { start, length: end - start + 1 };
}

/** Answers GET and HEAD with content: whole (200), a part (206), not modified (304) or a range outside of it (416). */
export async function contentAnswer(exchange: Exchange, content: Servable): Promise<Answer> {
  const { headers: asked } = exchange.request;
  const etag = `"${content.etag}"`;
  const headers = { 'accept-ranges': 'bytes', etag, ...content.headers };
  if (asked['if-none-match']?.split(',').some((tag) => tag.trim() === etag || tag.trim() === '*') === true) {
    return { status: 304, headers };
  }
  if (exchange.method === 'HEAD')
    return { status: 200, headers: { ...headers, 'content-length': `${content.size}` } };
  const rangeHolds = asked['if-range'] === undefined || asked['if-range'] === etag;
  const span = rangeHolds ? parseRange(asked.range, content.size) : undefined;
  if (span === 'unsatisfiable') {
    return refusal('SIZE_INVALID', `the range ${asked.range ?? ''} lies outside of ${content.size} bytes`, {
      status: 416,
      headers: { 'content-range': `bytes */${content.size}` },
    });
  }
  if (span === undefined) {
    const body = await content.open({ start: 0, length: content.size });
    return { status: 200, headers: { ...headers, 'content-length': `${content.size}` }, body };
  }
  const body = await content.open(span);
  const contentRange = `bytes ${span.start}-${span.start + span.length - 1}/${content.size}`;
  return {
    status: 206,
    headers: { ...headers, 'content-range': contentRange, 'content-length': `${span.length}` },
    body,
  };
}

/** Bytes of one piece of what is in memory. */
const PIECE = 256 * KIB;

/** Bytes in memory as a stream of pieces, so that a slow client holds no second copy. */
export async function* streamOf(bytes: Uint8Array, span: Span): AsyncGenerator<Uint8Array> {
  const end = span.start + span.length;
  for (let at = span.start; at < end; at += PIECE) yield bytes.subarray(at, Math.min(at + PIECE, end));
}

/**
 * The body of a request, counted. Stopping early does not destroy the request: the answer must still reach a client
 * that is in the middle of sending.
 */
export async function* bodyOf(exchange: Exchange): AsyncGenerator<Uint8Array> {
  const chunks: AsyncIterable<Uint8Array> = exchange.request.iterator({ destroyOnReturn: false });
  for await (const chunk of chunks) {
    exchange.received += chunk.length;
    yield chunk;
  }
}

/** Says that nobody is there to take the rest. */
class ClientGone extends Error {}

/** Settles when a chunk has left for the client, so that its memory may be used again. */
function written(to: ServerResponse, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: Error | null): void => {
      clearTimeout(timer);
      to.off('close', onClose);
      if (error === undefined || error === null) resolve();
      else reject(new ClientGone(error.message));
    };
    const onClose = (): void => settle(new Error('closed'));
    const timer = setTimeout(() => settle(new Error('too slow')), LIMITS.servedChunkMs);
    to.once('close', onClose);
    if (to.destroyed) onClose();
    else to.write(chunk, settle);
  });
}

/** Sends a stream, of which no chunk is asked for before the last one has left. */
async function pour(
  body: Body,
  way: { readonly exchange: Exchange; readonly to: ServerResponse; readonly announced: string | undefined },
): Promise<void> {
  const { exchange, to } = way;
  for await (const chunk of body) {
    await written(to, chunk);
    exchange.sent += chunk.length;
    // Neither the disk nor the socket need ever make this wait: without a breath one client would have it all.
    await setImmediate();
  }
  const announced = Number(way.announced ?? exchange.sent);
  if (exchange.sent !== announced)
    throw new Error(`${exchange.sent} of ${announced} bytes were there to send`);
}

/** Writes an answer. A client that went away in the middle is not an error. */
export async function send(
  answer: Answer,
  options: { readonly exchange: Exchange; readonly to: ServerResponse },
): Promise<void> {
  const { exchange, to } = options;
  const { body, status, headers } = answer;
  const bodiless = exchange.method === 'HEAD' || status === 204 || status === 304;
  const length = body instanceof Uint8Array ? body.length : body === undefined && !bodiless ? 0 : undefined;
  const all: Record<string, string> = {
    ...(length === undefined ? {} : { 'content-length': `${length}` }),
    ...headers,
  };
  to.writeHead(status, all);
  if (body === undefined || bodiless) {
    to.end();
    return;
  }
  if (body instanceof Uint8Array && body.length <= PIECE) {
    exchange.sent += body.length;
    to.end(body);
    return;
  }
  try {
    const pieces = body instanceof Uint8Array ? streamOf(body, { start: 0, length: body.length }) : body;
    await pour(pieces, { exchange, to, announced: all['content-length'] });
    to.end();
  } catch (error) {
    if (!(error instanceof ClientGone)) exchange.failure = error;
    // The status line is out: a cut connection is the only way to tell the client that the rest will not come.
    to.destroy();
  }
}

/** One page of a sorted list by the `n` and `last` of the distribution-spec ("Listing Tags"). */
export function pageOf(
  exchange: Exchange,
  names: readonly string[],
):
  | { readonly names: readonly string[]; readonly headers: Readonly<Record<string, string>> }
  | { readonly refused: Answer } {
  const wanted = exchange.query.get('n');
  const last = exchange.query.get('last');
  if (wanted !== null && !/^\d{1,9}$/.test(wanted)) {
    return { refused: refusal('PAGINATION_NUMBER_INVALID', `n=${wanted.slice(0, 40)} is not a number`) };
  }
  const rest = last === null ? names : names.filter((name) => name > last);
  if (wanted === null) return { names: rest, headers: {} };
  const page = rest.slice(0, Number(wanted));
  const final = page.at(-1);
  if (final === undefined || page.length === rest.length) return { names: page, headers: {} };
  const next = `${exchange.path}?n=${wanted}&last=${encodeURIComponent(final)}`;
  return { names: page, headers: { link: `<${next}>; rel="next"` } };
}
