import { availableParallelism } from 'node:os';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** Bytes from which a thread is worth its start: it costs 30 to 60 ms and 10 MB. BLAKE3 alone has hashed 100 MB by then. */
const WORTH = { sha256: 48 * 1024 * 1024, blake3: 128 * 1024 * 1024 };
const MOST = 4;

/**
 * How many threads are worth their start for so many bytes of hashing or copying.
 * @param hash the slowest that is computed
 */
export function threadsFor(bytes: number, hash: keyof typeof WORTH = 'sha256'): number {
  return bytes < WORTH[hash] ? 1 : Math.min(availableParallelism(), MOST);
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
