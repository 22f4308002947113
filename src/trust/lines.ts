import type { ErrorCode } from '../core/errors.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

/** What is read, for messages: a path or "standard input"; and the code of what is wrong with it. */
export interface Reading {
  readonly what: string;
  readonly code: ErrorCode;
}

/** What all files of minisign begin with. */
export const UNTRUSTED = 'untrusted comment: ';

/** Throws what is wrong with a file. */
export function refuse({ what, code }: Reading, why: string, hint?: string): never {
  throw new SealiftError(code, `${what}: ${why}`, hint === undefined ? {} : { hint });
}

/** Windows line ends as minisign reads them in the files of keys, which travel by mail and are made on Windows too. */
export function unixLines(bytes: Uint8Array): Buffer {
  return Buffer.from(Buffer.from(bytes).toString('latin1').replaceAll('\r\n', '\n'), 'latin1');
}

/**
 * The lines of a small file, each ended by a line feed; the last one need not be. Only printable text and tabs, which
 * stand in minisign's own comments: what a file says is shown on a screen.
 */
export function linesOf(bytes: Uint8Array, reading: Reading, count: number): string[] {
  if (bytes.length > LIMITS.signatureText) {
    refuse(reading, `has ${bytes.length} bytes, more than the ${LIMITS.signatureText} that it may have`);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refuse(reading, 'is not UTF-8 text');
  }
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  if (lines.length !== count) refuse(reading, `expected ${count} lines, found ${lines.length}`);
  const bad = lines.findIndex((line) => /(?!\t)[\p{Cc}\p{Zl}\p{Zp}]/u.test(line));
  if (bad >= 0) refuse(reading, `line ${bad + 1} has control characters`);
  return lines;
}

/** The bytes that one line of base64 states: padded, without a space, in the one way that these bytes have. */
export function base64Line(
  line: string,
  reading: Reading,
  about: { readonly line: number; readonly length: number },
): Buffer {
  const bytes = Buffer.from(line, 'base64');
  if (bytes.toString('base64') !== line) refuse(reading, `line ${about.line} is not base64`);
  if (bytes.length !== about.length) {
    refuse(reading, `line ${about.line}: expected ${about.length} bytes, found ${bytes.length}`);
  }
  return bytes;
}
