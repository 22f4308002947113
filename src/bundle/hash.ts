import { createHash } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { KIB, MIB } from '../core/limits.ts';
import { createBlake3 } from '../io/blake3.ts';
import { threadsFor } from '../io/cores.ts';
import { onDisk, writeAll } from '../io/files.ts';
import { type OpenFile, readSome } from '../io/open-file.ts';
import { throwIfAborted } from '../io/pool.ts';
import { type JobTools, startThreads, type Threads } from '../io/threads.ts';

/** A range of a file that is open in this process, or of one that is opened for the job. Bytes. */
export interface FileRange {
  readonly file: OpenFile | string;
  readonly position: number;
  readonly length: number;
  /** For messages. */
  readonly what: string;
}

/** What of a range is wanted: hashes, and where its bytes shall be copied. */
export interface HashJob extends FileRange {
  readonly sha256: boolean;
  readonly blake3: boolean;
  readonly copyTo?: { readonly file: OpenFile; readonly position: number; readonly path: string };
}

export interface HashResult {
  /** Bytes that were there. */
  readonly bytes: number;
  /** 64 hex digits each; '' when not asked for. */
  readonly sha256: string;
  readonly blake3: string;
}

export type Hashing = Threads<HashJob, HashResult>;

/** Stays in the processor's cache between the read and the hash. */
const BUFFER = 256 * KIB;
/** How long a thread works before it looks whether it was stopped, and how often it tells how far it is. */
const BREATH = 16 * MIB;
/** What a job costs besides its bytes, as bytes: very many small ones would otherwise never let anything else run. */
const JOB_COST = 64 * KIB;

/** The own buffer of this thread: reading is synchronous, so one is enough. */
let shared: Buffer | undefined;
/** What was done since this thread last let others run: Ctrl-C, and what gives back the memory of hashes that are done. */
let worked = 0;

/**
 * Hashes a range, and copies it where that is asked for. Reads and writes are synchronous: from the page cache they take
 * less time than a round trip to the thread pool.
 * @throws FILE_UNREADABLE, DISK_FULL, ABORTED
 */
export async function hashRange(job: HashJob, { signal, note }: JobTools): Promise<HashResult> {
  const { file: given, what } = job;
  const file = typeof given === 'string' ? onDisk(() => openSync(given, 'r'), what) : given;
  shared ??= Buffer.allocUnsafeSlow(BUFFER);
  const sha = job.sha256 ? createHash('sha256') : undefined;
  const b3 = job.blake3 ? createBlake3() : undefined;
  const { copyTo } = job;
  let done = 0;
  try {
    worked += JOB_COST;
    while (done < job.length) {
      const buffer = shared;
      const want = Math.min(BUFFER, job.length - done);
      const position = job.position + done;
      const got = onDisk(() => readSome(file, buffer, { position, from: 0, length: want }), job.what);
      if (got === 0) break;
      const chunk = buffer.subarray(0, got);
      sha?.update(chunk);
      b3?.update(chunk);
      if (copyTo !== undefined) {
        writeAll(copyTo.file, chunk, { position: copyTo.position + done, path: copyTo.path });
      }
      done += got;
      worked += got;
      if (worked < BREATH) continue;
      worked = 0;
      note(done);
      await setImmediate();
      throwIfAborted(signal);
    }
  } finally {
    if (typeof file === 'number' && file !== given) closeSync(file);
  }
  note(done);
  return { bytes: done, sha256: sha?.digest('hex') ?? '', blake3: b3?.digest('hex') ?? '' };
}

/** Threads that hash; as many as so many bytes are worth. Close them. */
export function startHashing(bytes: number): Hashing {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const script = new URL(`./hash-thread.${extension}`, import.meta.url);
  return startThreads({ handler: hashRange, script, data: undefined, count: threadsFor(bytes) });
}
