import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { HttpClient, HttpResponse } from '../io/http.ts';
import { withoutQuery } from '../io/redirect.ts';
import { resumableBytes, wholeAnswer } from '../io/resume.ts';
import { envLogin, envPrefix } from '../oci/env-credentials.ts';
import { basicOf } from '../oci/token.ts';
import { webAnswerError } from '../oci/web-answer.ts';
import { PUT_AGAIN } from './hints.ts';

/** A file on a web server or in an object store, whose parts are asked for by Range (RFC 9110 14). Nothing is kept of it. */
export interface RemoteFile {
  /** The address as it may be shown: without its query, which may hold a signature. */
  readonly what: string;
  /** Bytes. */
  readonly size: number;
  /**
   * Streams the bytes from `from` up to `to`, unverified; goes on where a connection broke.
   * @throws NETWORK_FAILED, NETWORK_TIMEOUT, REGISTRY_ANSWER_INVALID, AUTH_…, CONTENT_NOT_FOUND
   */
  bytes(from: number, to?: number): AsyncIterable<Buffer>;
  /** The file of the same address with something added to its path; undefined where there is none. @throws CONTENT_TOO_LARGE above `limit` bytes, and as `bytes` */
  beside(suffix: string, limit: number): Promise<Buffer | undefined>;
}

/** @throws USAGE for what is no address, and for one with a login, which everybody could see */
function parseAddress(address: string): URL {
  const shown = withoutQuery(address);
  if (!URL.canParse(address)) throw new SealiftError('USAGE', `${shown}: not an address`);
  const url = new URL(address);
  if (url.username === '' && url.password === '') return url;
  throw new SealiftError('USAGE', `${url.host}: the address holds a login, which others can see`, {
    hint: `set ${envPrefix(url.host) ?? 'SEALIFT_CREDENTIALS_…'}_USERNAME and _PASSWORD instead`,
  });
}

interface Tools {
  readonly http: HttpClient;
  readonly context: Context;
}

/** Asks with the login that the environment has for the host. */
function get(url: URL, range: string | undefined, { http, context }: Tools): Promise<HttpResponse> {
  const login = envLogin(context.env, url.host);
  const headers = {
    ...(range === undefined ? {} : { range }),
    ...(login === undefined ? {} : { authorization: basicOf({ kind: 'password', ...login }) }),
  };
  return http.request({ method: 'GET', url, headers });
}

/** Asks for a part. @returns an answer that may hold one */
async function getPart(url: URL, range: string, tools: Tools): Promise<HttpResponse> {
  const answer = await get(url, range, tools);
  if ([200, 206, 416].includes(answer.status)) return answer;
  await answer.body.dump();
  throw refusal(withoutQuery(url.href), answer, { url, context: tools.context });
}

function refusal(
  shown: string,
  answer: HttpResponse,
  { url, context }: { readonly url: URL; readonly context: Context },
): SealiftError {
  const from = envLogin(context.env, url.host) === undefined ? undefined : 'the environment';
  return webAnswerError(shown, { answer, url, from, now: context.now() });
}

/** Where the bytes of an answer lie: behind `end` is not among them. */
interface Part {
  readonly from: number;
  readonly end: number;
  readonly size: number;
}

/** What an answer holds: a part, or all of it where it is known how long that is; undefined where it does not say. */
function partOf({ status, headers }: HttpResponse): Part | undefined {
  const range = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(headers['content-range'] ?? '');
  if (status === 206 && range !== null) {
    return { from: Number(range[1]), end: Number(range[2]) + 1, size: Number(range[3]) };
  }
  const length = /^\d{1,15}$/.exec(headers['content-length'] ?? '')?.[0];
  if (status !== 200 || length === undefined) return undefined;
  return { from: 0, end: Number(length), size: Number(length) };
}

/** Why the first answer is of no use. */
function noParts(what: string, { status, headers }: HttpResponse): SealiftError {
  if (headers['content-range'] === 'bytes */0' || (status === 200 && headers['content-length'] === '0')) {
    return new SealiftError('BUNDLE_TRUNCATED', `${what}: is empty`, {
      hint: PUT_AGAIN,
      side: 'source',
    });
  }
  return new SealiftError(
    'NETWORK_FAILED',
    `${what}: the server does not give parts of it (HTTP ${status})`,
    {
      hint: 'a bundle is read in place only where a server answers to Range; else send it through a pipe: curl -f ADDRESS | sealift load - …',
    },
  );
}

/** Asks for exactly these bytes. */
async function getExactly(
  file: { readonly url: URL; readonly what: string; readonly size: number },
  { from, end }: Omit<Part, 'size'>,
  tools: Tools,
): Promise<HttpResponse> {
  const { url, what, size } = file;
  const answer = await getPart(url, `bytes=${from}-${end - 1}`, tools);
  const part = partOf(answer);
  if (part?.from === from && part.end === end && part.size === size) return answer;
  answer.body.destroy();
  const got =
    part === undefined ? `HTTP ${answer.status}` : `bytes ${part.from} to ${part.end} of ${part.size}`;
  throw notAsked(`${what}: asked for bytes ${from} to ${end} of ${size}, got ${got}`);
}

function notAsked(message: string): SealiftError {
  return new SealiftError('REGISTRY_ANSWER_INVALID', message, {
    hint: 'it was changed while it was read, or the server or a proxy in between is wrong: run the same command again',
    side: 'source',
  });
}

/** Ends an answer that goes on behind what was asked for. */
async function* atMost(
  length: number,
  { bytes, what }: { readonly bytes: AsyncIterable<Buffer>; readonly what: string },
): AsyncGenerator<Buffer> {
  let left = length;
  for await (const chunk of bytes) {
    left -= chunk.length;
    if (left < 0) throw notAsked(`${what}: asked for ${length} bytes, got more`);
    yield chunk;
  }
}

async function* none(): AsyncGenerator<Buffer> {}

/**
 * Opens a file on a server. A login for its host comes from the environment.
 * @throws USAGE, AUTH_REQUIRED, AUTH_DENIED, CONTENT_NOT_FOUND, NETWORK_FAILED
 */
export async function openRemoteFile(address: string, tools: Tools): Promise<RemoteFile> {
  const url = parseAddress(address);
  const what = withoutQuery(address);
  const first = await getPart(url, 'bytes=0-0', tools);
  if (first.status === 206) await first.body.dump();
  else first.body.destroy();
  const part = first.status === 206 ? partOf(first) : undefined;
  if (part === undefined) throw noParts(what, first);
  const { size } = part;
  const { context } = tools;
  return {
    what,
    size,
    bytes(from, end = size) {
      const length = end - from;
      // The answer to a part is told as if the part were all that there is.
      const open = async (at: number): Promise<HttpResponse> => {
        const answer = await getExactly({ url, what, size }, { from: from + at, end }, tools);
        const range = `bytes ${at}-${length - 1}/${length}`;
        return { ...answer, headers: { ...answer.headers, 'content-range': range } };
      };
      if (length <= 0) return none();
      return atMost(length, { bytes: resumableBytes({ what, start: 0, size: length, context, open }), what });
    },
    async beside(suffix, limit) {
      // An address with a signature in its query is that of one file.
      if (url.search !== '') return undefined;
      const other = new URL(url);
      other.pathname += suffix;
      const ask = (): Promise<HttpResponse> => get(other, undefined, tools);
      const { response, bytes } = await wholeAnswer(ask, { what: `${what}${suffix}`, limit, context });
      if (bytes !== undefined) return bytes;
      await response.body.dump();
      // An object store tells nobody who may not list it whether something is there.
      if ([403, 404, 410].includes(response.status)) return undefined;
      throw refusal(`${what}${suffix}`, response, { url: other, context });
    },
  };
}
