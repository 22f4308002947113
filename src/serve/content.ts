import { KIB } from '../core/limits.ts';
import { type Answer, type Body, type Exchange, refusal, type Span } from './answer.ts';

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
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/i.exec(header?.trim() ?? '');
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

/** Whether a list of entity tags holds this one, or means any. Weak tags (`W/`) count for If-None-Match alone. */
function names(list: string, etag: string, weak: boolean): boolean {
  const tags = list.split(',').map((tag) => tag.trim());
  return tags.some((tag) => tag === '*' || (weak ? tag.replace(/^W\//, '') : tag) === etag);
}

/** What the conditions of a request lead to (RFC 9110 section 13.2.2): no content, or which part of it. */
function judge(exchange: Exchange, content: Servable): 'changed' | 'known' | ReturnType<typeof parseRange> {
  const { method, request } = exchange;
  const { headers } = request;
  const etag = `"${content.etag}"`;
  const { 'if-match': match, 'if-none-match': noneMatch, 'if-range': ifRange } = headers;
  if (match !== undefined && !names(match, etag, false)) return 'changed';
  if (noneMatch !== undefined && names(noneMatch, etag, true)) return 'known';
  if (method !== 'GET' || (ifRange !== undefined && ifRange !== etag)) return undefined;
  return parseRange(headers.range, content.size);
}

/**
 * Answers GET and HEAD with content: whole (200), a part (206), not modified (304), another one than was meant (412) or a
 * range outside of it (416).
 */
export async function contentAnswer(exchange: Exchange, content: Servable): Promise<Answer> {
  const { size } = content;
  const headers = { 'accept-ranges': 'bytes', etag: `"${content.etag}"`, ...content.headers };
  const found = judge(exchange, content);
  if (found === 'known') return { status: 304, headers };
  if (found === 'changed') {
    return refusal('UNSUPPORTED', 'If-Match names other content than is here', { status: 412 });
  }
  if (found === 'unsatisfiable') {
    const asked = exchange.request.headers.range ?? '';
    return refusal('SIZE_INVALID', `the range ${asked.slice(0, 100)} lies outside of ${size} bytes`, {
      status: 416,
      headers: { 'content-range': `bytes */${size}` },
    });
  }
  const { start, length } = found ?? { start: 0, length: size };
  const sized = { ...headers, 'content-length': `${length}` };
  if (exchange.method === 'HEAD') return { status: 200, headers: sized };
  const body = await content.open({ start, length });
  if (found === undefined) return { status: 200, headers: sized, body };
  const range = { 'content-range': `bytes ${start}-${start + length - 1}/${size}` };
  return { status: 206, headers: { ...sized, ...range }, body };
}

/** Bytes of one piece of what is in memory. */
export const PIECE = 256 * KIB;

/** Bytes in memory as a stream of pieces, so that a slow client holds no second copy. */
export async function* streamOf(bytes: Uint8Array, span: Span): AsyncGenerator<Uint8Array> {
  const end = span.start + span.length;
  for (let at = span.start; at < end; at += PIECE) yield bytes.subarray(at, Math.min(at + PIECE, end));
}
