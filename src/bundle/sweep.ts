import { setImmediate } from 'node:timers/promises';
import { KIB, MIB } from '../core/limits.ts';
import type { OpenFile } from '../io/open-file.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { FileRange } from './hash.ts';
import { takeThreads } from './sweep-crew.ts';
import {
  DIRTY,
  DONE,
  HASH,
  HASHED,
  recordSize,
  type SharedSweep,
  SKIPPED,
  STOP,
  sweepJobs,
} from './sweep-jobs.ts';

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

/** Small ranges that lie one behind the other are one job, so that they are read together. */
const JOB = MIB;

/**
 * Large ranges are jobs of their own, small neighbours share one. A range that would be an eighth of all the work goes
 * first, so that no thread is left alone with it; the others keep the order of the file, which is kind to slow disks.
 */
function jobsOf(ranges: Float64Array): Int32Array {
  const jobs: { readonly first: number; count: number; bytes: number }[] = [];
  let open: (typeof jobs)[number] | undefined;
  let all = 0;
  for (let index = 0; 3 * index < ranges.length; index += 1) {
    const length = Math.max(0, ranges[3 * index + 1] ?? 0);
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

/** Ranges, each made when it is asked for: there may be very many. Of one that is undefined nothing is read. */
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
  let file: OpenFile | undefined;
  for (let i = 0; i < ranges.length; i += 1) {
    const range = ranges.at(i);
    numbers[3 * i + 1] = SKIPPED;
    if (range === undefined) continue;
    numbers.set([range.position, range.length, range.padding], 3 * i);
    if (typeof range.file === 'string') files[i] = range.file;
    else file = range.file;
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
  const others = takeThreads(threads - 1, shared);
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
        await Promise.all(others.map((w) => w.ended));
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
      await Promise.all(others.map((w) => w.close()));
    },
  };
}
