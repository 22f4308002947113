import { closeSync, openSync } from 'node:fs';
import { SealiftError } from '../core/errors.ts';
import { createBlake3 } from '../io/blake3.ts';
import { onDisk } from '../io/files.ts';
import { readThere } from '../io/open-file.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { FileRange } from './hash.ts';

export interface PassedOn {
  /** BLAKE3 of the whole range, 64 hex digits; undefined when only a part of it is read: then the receiver alone checks. */
  readonly blake3: string | undefined;
  /** Bytes of all chunks but the last. */
  readonly chunk: number;
  readonly signal: AbortSignal;
}

/**
 * Reads a range in one buffer that is used again for each chunk, for somebody who is done with a chunk before he asks for
 * the next. The last chunk is given only when the BLAKE3 of everything is right, so that wrong bytes never are a whole.
 * @throws CONTENT_DIGEST_MISMATCH, CONTENT_SIZE_MISMATCH, FILE_UNREADABLE, ABORTED
 */
export async function* passOn(
  range: FileRange,
  { blake3, chunk: most, signal }: PassedOn,
): AsyncGenerator<Buffer> {
  const { file, what, length, position } = range;
  const fd = typeof file === 'string' ? onDisk(() => openSync(file, 'r'), what) : file;
  const buffer = Buffer.allocUnsafeSlow(Math.max(1, Math.min(most, length)));
  const hasher = blake3 === undefined ? undefined : createBlake3();
  try {
    for (let done = 0; done < length; ) {
      throwIfAborted(signal);
      const want = Math.min(buffer.length, length - done);
      const got = onDisk(
        () => readThere(fd, buffer, { position: position + done, from: 0, length: want }),
        what,
      );
      if (got === 0) throw tooShort(range, done);
      const chunk = buffer.subarray(0, got);
      hasher?.update(chunk);
      done += got;
      if (done === length) compare(what, { expected: blake3, found: hasher?.digest('hex') });
      yield chunk;
    }
    if (length === 0) compare(what, { expected: blake3, found: hasher?.digest('hex') });
  } finally {
    if (typeof fd === 'number' && fd !== file) closeSync(fd);
  }
}

function compare(
  what: string,
  sums: { readonly expected: string | undefined; readonly found: string | undefined },
): void {
  const { expected, found } = sums;
  if (expected === found) return;
  throw new SealiftError('CONTENT_DIGEST_MISMATCH', `${what}: BLAKE3 expected ${expected}, found ${found}`, {
    details: { hash: 'BLAKE3', expected, found },
  });
}

function tooShort({ what, length }: FileRange, found: number): SealiftError {
  return new SealiftError('CONTENT_SIZE_MISMATCH', `${what}: expected ${length} bytes, found ${found}`);
}
