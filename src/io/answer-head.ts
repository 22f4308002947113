import { LIMITS } from '../core/limits.ts';

/** The start of an HTTP/1.1 answer (RFC 9112 4, 5, 6.3). */
export interface AnswerHead {
  readonly status: number;
  /** Lower-case names; several values joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes of the body; undefined when only its end tells (chunked, or until the server closes). */
  readonly length: number | undefined;
  /** Whether the connection serves further requests. */
  readonly keep: boolean;
  /** What came of the body already. */
  readonly rest: Buffer;
}

/** An answer that is not HTTP/1.1, as the general client names it. */
function notHttp(why: string): Error {
  return Object.assign(new Error(`not an HTTP answer: ${why}`), { code: 'HPE_NOT_HTTP' });
}

const STATUS = /^HTTP\/1\.([01]) (\d{3})(?: |$)/;
const FIELD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/;

function parseFields(lines: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = Object.create(null);
  for (const line of lines) {
    const [, name = '', value = ''] = FIELD.exec(line) ?? [];
    if (name === '') throw notHttp('a header line without a name');
    const key = name.toLowerCase();
    headers[key] = headers[key] === undefined ? value : `${headers[key]}, ${value}`;
  }
  return headers;
}

/** How long the body is; two lengths that differ would let a server smuggle another answer in. */
function lengthOf(status: number, headers: Readonly<Record<string, string>>): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  if (status === 204 || status === 304) return 0;
  const stated = headers['content-length'];
  if (stated === undefined) return undefined;
  const all = new Set(stated.split(',').map((s) => s.trim()));
  const [only = ''] = all;
  const length = Number(only);
  if (all.size !== 1 || !/^\d+$/.test(only) || !Number.isSafeInteger(length)) throw notHttp('content-length');
  return length;
}

/**
 * Reads the head of an answer to a GET from a stream of bytes, over answers of the 1xx class.
 * @param next gives the next bytes, valid until it is called again
 * @throws an error with code HPE_NOT_HTTP for what is not HTTP/1.1, or a head above LIMITS.answerHead bytes
 */
export async function readHead(next: () => Promise<Buffer>): Promise<AnswerHead> {
  let bytes: Buffer = Buffer.alloc(0);
  for (;;) {
    let end = bytes.indexOf('\r\n\r\n');
    while (end < 0) {
      if (bytes.length > LIMITS.answerHead) throw notHttp('a head without an end');
      bytes = Buffer.concat([bytes, await next()]);
      end = bytes.indexOf('\r\n\r\n');
    }
    const [first = '', ...lines] = bytes.toString('latin1', 0, end).split('\r\n');
    bytes = bytes.subarray(end + 4);
    const [, minor, code] = STATUS.exec(first) ?? [];
    if (code === undefined) throw notHttp('no status line');
    const status = Number(code);
    const headers = parseFields(lines);
    if (status === 101) throw notHttp('another protocol');
    if (status < 200) continue;
    const connection = (headers.connection ?? '').toLowerCase().split(/[\s,]+/);
    const keep = minor === '1' ? !connection.includes('close') : connection.includes('keep-alive');
    return { status, headers, length: lengthOf(status, headers), keep, rest: bytes };
  }
}
