import { startThread } from '../io/cores.ts';
import type { SharedSweep } from './sweep-jobs.ts';

/** A thread that waits for what to hash, and has nothing more to do when no job is left. */
export interface SweepThread {
  begin(shared: SharedSweep): void;
  /** That it is done, or cannot go on: what it could not do is seen by the results that lack. */
  readonly ended: Promise<void>;
  close(): Promise<unknown>;
}

/** Run from its TypeScript sources (by the tests) there is no script that a thread could load. */
const SCRIPT = import.meta.url.endsWith('.ts') ? undefined : new URL('./sweep-thread.js', import.meta.url);

const waiting: SweepThread[] = [];

function startSweeping(script: URL): SweepThread | undefined {
  const worker = startThread(script);
  if (worker === undefined) return undefined;
  let isDone = false;
  const ended = new Promise<void>((resolve) => {
    const done = (): void => {
      isDone = true;
      resolve();
    };
    worker.once('message', done);
    worker.once('error', done);
    worker.once('exit', done);
  });
  // While it waits it keeps nobody. Whoever listens to it holds it, so this comes last.
  worker.unref();
  return {
    begin: (shared) => {
      worker.ref();
      worker.postMessage(shared);
    },
    ended,
    close: async () => (isDone ? worker.unref() : await worker.terminate()),
  };
}

/**
 * Starts threads before it is known what they shall hash; fewer where the system allows no more. The next sweep takes them;
 * without one they end with the process.
 */
export function callThreads(count: number): void {
  while (SCRIPT !== undefined && waiting.length < count) {
    const thread = startSweeping(SCRIPT);
    if (thread === undefined) return;
    waiting.push(thread);
  }
}

/** So many threads that have just been given the sweep, or none where there can be none. */
export function takeThreads(count: number, shared: SharedSweep): SweepThread[] {
  callThreads(count);
  const taken = waiting.splice(0, count);
  for (const thread of taken) thread.begin(shared);
  return taken;
}
