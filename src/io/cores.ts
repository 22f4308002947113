import { availableParallelism } from 'node:os';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** A thread costs about 30 ms and 15 MB: what it would save on less than this is nothing. */
const WORTH = 48 * 1024 * 1024;
const MOST = 4;

/** How many threads are worth their start for so many bytes of hashing or copying. */
export function threadsFor(bytes: number): number {
  return bytes < WORTH ? 1 : Math.min(availableParallelism(), MOST);
}

/** A new thread; undefined where the system allows no more of them (a limit on processes). */
export function startThread(script: URL, options: WorkerOptions = {}): Worker | undefined {
  try {
    return new Worker(script, options);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_INIT_FAILED')
      return undefined;
    throw error;
  }
}
