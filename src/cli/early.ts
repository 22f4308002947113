import { statSync } from 'node:fs';
import { callThreads } from '../bundle/sweep-crew.ts';
import { threadsFor } from '../io/cores.ts';

/** Bytes of a file; 0 for everything else. */
function sizeOf(path: string): number {
  try {
    const found = statSync(path);
    return found.isFile() ? found.size : 0;
  } catch {
    return 0;
  }
}

/**
 * Begins what the program will need when it has been read. A thread needs 30 to 60 ms until it can hash, which is as long
 * as the program needs to get there, so for `verify` of a large file both begin together (docs/decisions/012). It is a
 * guess from the words alone: what nobody takes waits, and ends with the process.
 */
export function beginEarly(words: readonly string[]): void {
  const isDeep = words.some((word) => /^--(?:deep|lock)\b/.test(word));
  callThreads(threadsFor(Math.max(0, ...words.map(sizeOf)), isDeep ? 'sha256' : 'blake3') - 1);
}
