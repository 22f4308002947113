import { parentPort } from 'node:worker_threads';
import { type FromWorker, type ToWorker, toWire } from './thread-messages.ts';
import type { Handler } from './threads.ts';

/** Serves the jobs of the main thread until it ends this one; called by the script of a worker thread. */
export function serveJobs<Job, Result>(handler: Handler<Job, Result>): void {
  const port = parentPort;
  if (port === null) throw new Error('not a worker thread');
  const post = (message: FromWorker): void => port.postMessage(message);
  const running = new Map<number, AbortController>();
  const work = async (id: number, job: unknown): Promise<void> => {
    const stop = new AbortController();
    running.set(id, stop);
    const note = (bytes: number): void => post({ type: 'note', id, note: bytes });
    try {
      // The main thread sends what its own handler of the same kind takes.
      post({ type: 'done', id, result: await handler(job as Job, { signal: stop.signal, note }) });
    } catch (error) {
      post({ type: 'failed', id, error: toWire(error) });
    } finally {
      running.delete(id);
    }
  };
  port.on('message', (message: ToWorker) => {
    if (message.type === 'job') return void work(message.id, message.job);
    running.get(message.id)?.abort();
  });
}
