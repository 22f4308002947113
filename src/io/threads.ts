import { setImmediate } from 'node:timers/promises';
import { startThread } from './cores.ts';
import { type FromWorker, fromWire, type ToWorker } from './thread-messages.ts';

/** What a piece of work gets beside its job. */
export interface JobTools {
  readonly signal: AbortSignal;
  /** Tells how far it has come, in bytes since its beginning. */
  readonly note: (bytes: number) => void;
}

/** Does one job. A job and its result are data that can be copied to another thread. */
export type Handler<Job, Result> = (job: Job, tools: JobTools) => Promise<Result>;

/** Several threads that do the same kind of job, the own thread among them. */
export interface Threads<Job, Result> {
  /** How many there are. */
  readonly count: number;
  /** Does a job on the thread that has the fewest. @throws what the job throws */
  run(job: Job, tools: JobTools): Promise<Result>;
  /** One thread for several jobs that belong together: the own one, or the one that has the fewest. */
  claim(options: { readonly own: boolean }): Claim<Job, Result>;
  close(): Promise<void>;
}

/** A thread that does what belongs together. Jobs begin in the order in which they are given. */
export interface Claim<Job, Result> {
  /** @throws what the job throws */
  run(job: Job, tools: JobTools): Promise<Result>;
  release(): void;
}

export interface ThreadOptions<Job, Result> {
  /** Of the own thread. */
  readonly handler: Handler<Job, Result>;
  /** The module that calls `serveJobs` on the other threads. */
  readonly script: URL;
  /** What the script is started with; copied. */
  readonly data: unknown;
  /** All threads; 1 does everything on the own one. */
  readonly count: number;
}

interface Lane<Job, Result> {
  running: number;
  run(job: Job, tools: JobTools): Promise<Result>;
  close(): Promise<unknown>;
}

/**
 * Starts threads. The own thread is always one of them, so a small job starts none, and where the system allows no
 * more it is the only one. Run from its TypeScript sources (by
 * the tests) the program has no script that a thread could load, and does everything on the own thread.
 */
export function startThreads<Job, Result>(options: ThreadOptions<Job, Result>): Threads<Job, Result> {
  const own: Lane<Job, Result> = {
    running: 0,
    run: async (job, tools) => {
      // The others' messages come first: without this one synchronous job would follow the other and leave them idle.
      if (lanes.length > 1) await setImmediate();
      return options.handler(job, tools);
    },
    close: async () => {},
  };
  const others = options.script.pathname.endsWith('.ts') ? 0 : options.count - 1;
  const lanes: [Lane<Job, Result>, ...Lane<Job, Result>[]] = [
    own,
    ...Array.from({ length: Math.max(others, 0) }, () => workerLane(options) ?? []).flat(),
  ];
  return {
    count: lanes.length,
    run: async (job, tools) => {
      const lane = least(lanes);
      lane.running += 1;
      try {
        return await lane.run(job, tools);
      } finally {
        lane.running -= 1;
      }
    },
    claim: (wanted) => {
      const lane = wanted.own ? own : least(lanes);
      let released = false;
      lane.running += 1;
      return {
        run: lane === own ? options.handler : (job, tools) => lane.run(job, tools),
        release: () => {
          if (!released) lane.running -= 1;
          released = true;
        },
      };
    },
    close: async () => {
      await Promise.all(lanes.map((l) => l.close()));
    },
  };
}

function least<L extends { readonly running: number }>(lanes: readonly [L, ...L[]]): L {
  return lanes.reduce((best, l) => (l.running < best.running ? l : best));
}

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly note: (bytes: number) => void;
}

function workerLane<Job, Result>(options: ThreadOptions<Job, Result>): Lane<Job, Result> | undefined {
  const worker = startThread(options.script, { workerData: options.data });
  if (worker === undefined) return undefined;
  const waiting = new Map<number, Waiting>();
  let ids = 0;
  let dead: Error | undefined;
  const post = (message: ToWorker): void => worker.postMessage(message);
  const die = (error: Error): void => {
    dead ??= error;
    for (const { reject } of waiting.values()) reject(dead);
    waiting.clear();
  };
  worker.on('message', (message: FromWorker) => {
    const waiter = waiting.get(message.id);
    if (message.type === 'note') return waiter?.note(message.note);
    waiting.delete(message.id);
    if (message.type === 'done') waiter?.resolve(message.result);
    else waiter?.reject(fromWire(message.error));
  });
  worker.on('error', (error: unknown) => die(error instanceof Error ? error : new Error(String(error))));
  worker.on('exit', () => die(new Error('a worker thread ended before its work')));
  return {
    running: 0,
    run: async (job, tools) => {
      if (dead !== undefined) throw dead;
      const id = ++ids;
      const onAbort = (): void => post({ type: 'stop', id });
      const done = new Promise<unknown>((resolve, reject) => {
        waiting.set(id, { resolve, reject, note: tools.note });
      });
      post({ type: 'job', id, job });
      if (tools.signal.aborted) onAbort();
      else tools.signal.addEventListener('abort', onAbort, { once: true });
      try {
        // The script on the other side runs the same handler: it gives the same kind of result.
        return (await done) as Result;
      } finally {
        tools.signal.removeEventListener('abort', onAbort);
      }
    },
    close: () => worker.terminate(),
  };
}
