import { fstatSync, fsyncSync, writeSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { SealiftError } from '../core/errors.ts';
import { KIB } from '../core/limits.ts';
import { diskError, errnoOf } from './files.ts';
import { throwIfAborted, untilAborted } from './pool.ts';

/** Takes bytes in order, for somebody who is as slow as he likes. */
export interface ByteSink {
  /** Settles when the bytes were taken: the buffer may be used again. @throws OUTPUT_CLOSED, DISK_FULL, ABORTED */
  write(bytes: Uint8Array): Promise<void>;
  /** Hands on what was gathered. */
  flush(): Promise<void>;
}

/** A standard stream says which file it stands for. */
export type Output = Writable & { readonly fd?: number };

/** Small pieces (headers, padding) are gathered up to this. */
const GATHERED = 256 * KIB;

/** Who read the output went away, or its disk has no room. */
function outputError(error: unknown, what: string): unknown {
  const errno = errnoOf(error);
  if (['EPIPE', 'ECONNRESET', 'ERR_STREAM_DESTROYED', 'ERR_STREAM_WRITE_AFTER_END'].includes(errno)) {
    return new SealiftError('OUTPUT_CLOSED', `${what}: the program that reads it has ended`, {
      cause: error,
      hint: 'look at what that program said (a full disk, a lost connection); what it has is no whole bundle: remove it and run the same commands again',
      side: 'destination',
    });
  }
  const ours = diskError(error, what, { side: 'destination' });
  if (!(ours instanceof SealiftError) || ours.code !== 'DISK_FULL') return ours;
  return new SealiftError('DISK_FULL', ours.message, {
    cause: error,
    hint: 'free some space and run the same command again: a stream begins anew',
    side: 'destination',
  });
}

/** Writes to a regular file or a device: Node's own stream takes a short write for a whole one. */
function writeToFile(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
}

/** How the bytes leave: into a pipe or a socket asynchronously, so that a stop is heard while it is full. */
function writerOf(output: Output, signal: AbortSignal): (bytes: Uint8Array) => Promise<void> {
  const { fd } = output;
  const stat = fd === undefined ? undefined : fstatSync(fd);
  if (fd !== undefined && stat?.isFIFO() === false && !stat.isSocket()) {
    return async (bytes) => writeToFile(fd, bytes);
  }
  return (bytes) => {
    const written = new Promise<void>((resolve, reject) => {
      output.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
    return untilAborted(written, signal);
  };
}

/**
 * Writes to an output as fast as it takes the bytes. One write is under way at a time.
 * @param options.what for messages: `stdout`
 */
export function streamSink(
  output: Output,
  options: { readonly what: string; readonly signal: AbortSignal },
): ByteSink {
  const { what, signal } = options;
  const send = writerOf(output, signal);
  // Without a listener a broken pipe would end the process before the error is told.
  output.on('error', () => {});
  const gathered = Buffer.allocUnsafeSlow(GATHERED);
  let held = 0;
  const guarded = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (error instanceof SealiftError) throw error;
      throw outputError(error, what);
    }
  };
  const flush = async (): Promise<void> => {
    const length = held;
    held = 0;
    throwIfAborted(signal);
    if (length > 0) await guarded(() => send(gathered.subarray(0, length)));
  };
  return {
    flush,
    write: async (bytes) => {
      if (bytes.length > GATHERED - held) await flush();
      if (bytes.length >= GATHERED / 2) return guarded(() => send(bytes));
      gathered.set(bytes, held);
      held += bytes.length;
    },
  };
}

/** Has the disk take what was written, where the output is a file. */
export function syncOutput({ fd }: Output): void {
  if (fd !== undefined && fstatSync(fd).isFile()) fsyncSync(fd);
}
