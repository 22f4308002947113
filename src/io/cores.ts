import { availableParallelism } from 'node:os';

/** A thread costs about 30 ms and 15 MB: what it would save on less than this is nothing. */
const WORTH = 48 * 1024 * 1024;
const MOST = 4;

/** How many threads are worth their start for so many bytes of hashing or copying. */
export function threadsFor(bytes: number): number {
  return bytes < WORTH ? 1 : Math.min(availableParallelism(), MOST);
}
