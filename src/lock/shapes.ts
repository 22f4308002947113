/** Shapes that several parts of a lock share, for zod. */
import { posix } from 'node:path';
import { z } from 'zod';
import { type Digest, isDigest } from '../core/digest.ts';

export const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const MAX_TEXT = 4096;

export function isLocalPath(path: string): boolean {
  return (
    path !== '' &&
    path.length <= 1024 &&
    !CONTROL.test(path) &&
    !path.includes('\\') &&
    !/^[a-zA-Z]:/.test(path) &&
    !posix.isAbsolute(path)
  );
}

export function isWebUrl(text: string): boolean {
  if (text.length > MAX_TEXT || CONTROL.test(text) || /\s/.test(text) || !URL.canParse(text)) return false;
  const url = new URL(text);
  return (
    (url.protocol === 'https:' || url.protocol === 'http:') && url.username === '' && url.password === ''
  );
}

export function text(is: (value: string) => boolean, what: string): z.ZodString {
  return z.string().refine(is, { error: `not ${what}` });
}

export const matching = (regex: RegExp) => (value: string) => regex.test(value);
export const digest = z.custom<Digest>((value) => typeof value === 'string' && isDigest(value), {
  error: 'not a sha256 digest',
});
export const size = z.int().min(0, { error: 'not a size in bytes' });
export const free = z.string().max(MAX_TEXT);
export const localPath = text(isLocalPath, 'a relative path');

/** Where the bytes of a file come from. */
export const fileSource = z.union(
  [z.strictObject({ url: text(isWebUrl, 'a URL') }), z.strictObject({ path: localPath })],
  { error: 'neither {url} nor {path}' },
);
