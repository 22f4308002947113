import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { Blake3Hasher } from '@napi-rs/blake-hash';
import { KIB, MIB } from '../core/limits.ts';
import { createBlake3 } from '../io/blake3.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { FileRange } from './hash.ts';

/** A range that is hashed, and how many bytes behind it must be zero. */
export interface SweptRange extends FileRange {
  readonly padding: number;
}

/** What one range turned out to be: 64 hex digits each, '' when not asked for. */
export interface SweptHashes {
  readonly sha256: string;
  readonly blake3: string;
}

/**
 * Many ranges of one file (or one file each) that are being hashed. The other threads begin at once; the own thread takes
 * part in `finish`. Close it before the file.
 */
export interface Sweep {
  /**
   * Hashes until nothing is left.
   * @param tools.note is told how many bytes all threads have hashed
   * @throws ABORTED
   */
  finish(tools: { readonly signal: AbortSignal; readonly note: (bytes: number) => void }): Promise<void>;
  /** undefined for a range that could not be read, or not wholly: hash it by itself to learn why. */
  hashesOf(index: number): SweptHashes | undefined;
  /** Whether every byte behind every range is zero, as far as they could be read. */
  isPaddingZero(): boolean;
  close(): Promise<void>;
}

/**
 * What the threads share instead of sending messages: the next job is one atomic step away, so that nobody waits for a
 * thread that is busy, and 35 000 entries need no object each. Buffers are shared, the rest is copied.
 */
export interface SharedSweep {
  /** An open file of this process, or the path of each range's own. */
  readonly file: number | readonly string[];
  /** Position, length and padding of each range. */
  readonly ranges: Float64Array;
  /** First range and number of ranges of each job. */
  readonly jobs: Int32Array;
  /** Next job, whether to stop, hashed KiB. */
  readonly state: Int32Array;
  /** Of each range: how it went, then BLAKE3 and SHA-256. */
  readonly found: Uint8Array;
  readonly sha256: boolean;
  readonly blake3: boolean;
}

const NEXT = 0;
const STOP = 1;
const HASHED = 2;
const DONE = 1;
const DIRTY = 2;
/** Bytes of a hash. */
const HASH = 32;

/** Bytes of what is found about one range; SHA-256 comes last. */
function recordSize({ sha256 }: { readonly sha256: boolean }): number {
  return 1 + HASH + (sha256 ? HASH : 0);
}

/** Stays in the processor's cache between the read and the hash. */
const BUFFER = 256 * KIB;
/** How much the own thread does before it lets others speak. */
const BREATH = 16 * MIB;
/** Small ranges that lie one behind the other are one job, so that they are read together. */
const JOB = MIB;

/** What one thread has at hand: its buffer, and which bytes of the file are in it. */
interface Hand {
  readonly buffer: Buffer;
  /** One for all ranges: each holds 2 KB that the collector of garbage does not see. */
  readonly blake3: Blake3Hasher | undefined;
  from: number;
  to: number;
  /** Bytes since the last breath. */
  since: number;
}

type Breathe = (() => Promise<void>) | undefined;

/** Bytes of the file, out of the buffer when they are in it. Fewer only at the end of the file. */
function bytesAt(fd: number, hand: Hand, at: { position: number; length: number; ahead: number }): Buffer {
  const { position, length, ahead } = at;
  if (position < hand.from || position + length > hand.to) {
    const want = Math.min(BUFFER, Math.max(length, ahead));
    hand.from = position;
    hand.to = position + readSync(fd, hand.buffer, 0, want, position);
  }
  return hand.buffer.subarray(position - hand.from, Math.min(hand.to, position + length) - hand.from);
}

/** Hashes one range and notes the result. @param end where the job ends, so that what follows is read ahead */
async function hashOne(
  shared: SharedSweep,
  hand: Hand,
  at: { readonly index: number; readonly fd: number; readonly end: number; readonly breathe: Breathe },
): Promise<void> {
  const { index, fd, end, breathe } = at;
  const [position = 0, length = 0, padding = 0] = shared.ranges.subarray(3 * index, 3 * index + 3);
  const sha = shared.sha256 ? createHash('sha256') : undefined;
  const b3 = hand.blake3;
  b3?.reset();
  let isDirty = false;
  for (let done = 0; done < length + padding; ) {
    const want = Math.min(BUFFER, length + padding - done);
    const now = position + done;
    const bytes = bytesAt(fd, hand, { position: now, length: want, ahead: end - now });
    if (bytes.length === 0) return;
    const content = bytes.subarray(0, Math.max(0, length - done));
    sha?.update(content);
    b3?.update(content);
    if (content.length < bytes.length && bytes.subarray(content.length).some((b) => b !== 0)) isDirty = true;
    done += bytes.length;
    hand.since += bytes.length;
    if (hand.since < BREATH) continue;
    Atomics.add(shared.state, HASHED, Math.floor(hand.since / KIB));
    hand.since %= KIB;
    if (breathe !== undefined) await breathe();
    if (Atomics.load(shared.state, STOP) !== 0) return;
  }
  const width = recordSize(shared);
  const record = Buffer.from(shared.found.buffer, index * width, width);
  if (b3 !== undefined) record.write(b3.digest('hex'), 1, 'hex');
  if (sha !== undefined) record.write(sha.digest('hex'), 1 + HASH, 'hex');
  record[0] = isDirty ? DONE | DIRTY : DONE;
}

/** One job; a range that cannot be read stays without a result. */
async function runJob(shared: SharedSweep, hand: Hand, job: number, breathe: Breathe): Promise<void> {
  const [first = 0, count = 0] = shared.jobs.subarray(2 * job, 2 * job + 2);
  const { file, ranges } = shared;
  const last = 3 * (first + count - 1);
  const end = (ranges[last] ?? 0) + (ranges[last + 1] ?? 0) + (ranges[last + 2] ?? 0);
  for (let index = first; index < first + count; index++) {
    if (Atomics.load(shared.state, STOP) !== 0) return;
    let own: number | undefined;
    try {
      if (typeof file !== 'number') {
        own = openSync(file[index] ?? '', 'r');
        hand.to = hand.from;
      }
      const fd = typeof file === 'number' ? file : (own ?? -1);
      await hashOne(shared, hand, { index, fd, end: own === undefined ? end : 0, breathe });
    } catch {
      hand.to = hand.from;
    } finally {
      if (own !== undefined) closeSync(own);
    }
  }
}

/** Takes one job after the other until none is left. Without `breathe` it never lets go of its thread. */
export async function sweepJobs(shared: SharedSweep, breathe?: () => Promise<void>): Promise<void> {
  const blake3 = shared.blake3 ? createBlake3() : undefined;
  const hand: Hand = { buffer: Buffer.allocUnsafeSlow(BUFFER), blake3, from: 0, to: 0, since: 0 };
  for (;;) {
    const job = Atomics.add(shared.state, NEXT, 1);
    if (2 * job >= shared.jobs.length || Atomics.load(shared.state, STOP) !== 0) return;
    await runJob(shared, hand, job, breathe);
  }
}

/**
 * Large ranges are jobs of their own, small neighbours share one. A range that would be an eighth of all the work goes
 * first, so that no thread is left alone with it; the others keep the order of the file, which is kind to slow disks.
 */
function jobsOf(ranges: Float64Array): Int32Array {
  const jobs: { readonly first: number; count: number; bytes: number }[] = [];
  let open: (typeof jobs)[number] | undefined;
  let all = 0;
  for (let index = 0; 3 * index < ranges.length; index += 1) {
    const length = ranges[3 * index + 1] ?? 0;
    all += length;
    if (open === undefined || open.bytes + length > JOB) {
      open = { first: index, count: 0, bytes: 0 };
      jobs.push(open);
    }
    open.count += 1;
    open.bytes += length;
  }
  const isHuge = (job: { readonly bytes: number }): boolean => job.bytes > all / 8;
  const ordered = [
    ...jobs.filter(isHuge).sort((a, b) => b.bytes - a.bytes),
    ...jobs.filter((j) => !isHuge(j)),
  ];
  return Int32Array.from(ordered.flatMap(({ first, count }) => [first, count]));
}

/** Ranges, each made when it is asked for: there may be very many. */
export interface SweptRanges {
  readonly length: number;
  at(index: number): SweptRange | undefined;
}

/** Buffers that all threads see. */
function shareSweep(
  ranges: SweptRanges,
  wanted: { readonly sha256: boolean; readonly blake3: boolean },
): SharedSweep {
  const numbers = new Float64Array(new SharedArrayBuffer(24 * ranges.length));
  const files: string[] = [];
  let file: number | undefined;
  for (let i = 0; i < ranges.length; i += 1) {
    const range = ranges.at(i);
    if (range === undefined) continue;
    numbers.set([range.position, range.length, range.padding], 3 * i);
    if (typeof range.file === 'number') file = range.file;
    else files[i] = range.file;
  }
  return {
    ...wanted,
    file: file ?? files,
    ranges: numbers,
    jobs: jobsOf(numbers),
    state: new Int32Array(new SharedArrayBuffer(12)),
    found: new Uint8Array(new SharedArrayBuffer(recordSize(wanted) * ranges.length)),
  };
}

/** A thread that ends by itself when no job is left. What it could not do is seen by the results that lack. */
function startWorker(shared: SharedSweep): { readonly ended: Promise<void>; close(): Promise<unknown> } {
  const script = new URL('./sweep-thread.js', import.meta.url);
  const worker = new Worker(script, { workerData: shared });
  const ended = new Promise<void>((resolve) => {
    worker.once('message', resolve);
    worker.once('error', () => resolve());
    worker.once('exit', () => resolve());
  });
  return { ended, close: () => worker.terminate() };
}

/**
 * Begins to hash ranges. All of them are of one open file, or each is a file of its own. Run from its TypeScript sources
 * (by the tests) there is no script that a thread could load: then the own thread does everything.
 * @param options.threads all of them, the own thread included
 */
export function startSweep(
  ranges: SweptRanges,
  options: { readonly sha256: boolean; readonly blake3: boolean; readonly threads: number },
): Sweep {
  const { sha256, blake3, threads } = options;
  const shared = shareSweep(ranges, { sha256, blake3 });
  const others = import.meta.url.endsWith('.ts') ? 0 : threads - 1;
  const workers = Array.from({ length: others }, () => startWorker(shared));
  const width = recordSize(shared);
  const recordOf = (index: number): Buffer => Buffer.from(shared.found.buffer, index * width, width);
  return {
    async finish({ signal, note }) {
      const breathe = async (): Promise<void> => {
        note(Atomics.load(shared.state, HASHED) * KIB);
        await setImmediate();
        if (signal.aborted) Atomics.store(shared.state, STOP, 1);
      };
      const stop = (): unknown => Atomics.store(shared.state, STOP, 1);
      if (signal.aborted) stop();
      signal.addEventListener('abort', stop, { once: true });
      try {
        await sweepJobs(shared, breathe);
        await Promise.all(workers.map((w) => w.ended));
      } finally {
        signal.removeEventListener('abort', stop);
      }
      throwIfAborted(signal);
    },
    hashesOf(index) {
      const record = recordOf(index);
      if (((record[0] ?? 0) & DONE) === 0) return undefined;
      return {
        blake3: blake3 ? record.toString('hex', 1, 1 + HASH) : '',
        sha256: sha256 ? record.toString('hex', 1 + HASH) : '',
      };
    },
    isPaddingZero() {
      for (let at = 0; at < shared.found.length; at += width)
        if (((shared.found[at] ?? 0) & DIRTY) !== 0) return false;
      return true;
    },
    async close() {
      Atomics.store(shared.state, STOP, 1);
      await Promise.all(workers.map((w) => w.close()));
    },
  };
}
