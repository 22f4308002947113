import type { IncomingMessage } from 'node:http';
import { LIMITS } from '../core/limits.ts';

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

/** Part of a content in bytes. */
export interface Span {
  readonly start: number;
  readonly length: number;
}

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

/**
 * One page of a sorted list by the `n` and `last` of the distribution-spec ("Listing Tags"), of LIMITS.listPage names at
 * most. The link to the next page keeps what else was asked.
 */
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
  const size = Math.min(Number(wanted ?? LIMITS.listPage), LIMITS.listPage);
  const page = rest.slice(0, size);
  const final = page.at(-1);
  if (final === undefined || page.length === rest.length) return { names: page, headers: {} };
  const query = new URLSearchParams({ n: `${size}`, last: final });
  const namespace = exchange.query.get('ns');
  if (namespace !== null) query.set('ns', namespace);
  return { names: page, headers: { link: `<${exchange.path}?${query}>; rel="next"` } };
}
