import { parentPort } from 'node:worker_threads';
import type { Event } from '../core/events.ts';
import { type FromWorker, fromWire, type ToWorker, toWire } from './thread-messages.ts';
import type { Handler } from './threads.ts';

/** What a worker thread can say to the main one beside its results. */
export interface ThreadPort {
  emit(event: Event): void;
  /** Asks the main thread for something that only it has. @throws what it throws there */
  ask(request: unknown): Promise<unknown>;
}

/**
 * Serves the jobs of the main thread until it ends this one; called by the script of a worker thread.
 * @param make gives the handler, once
 */
export function serveJobs<Job, Result>(make: (port: ThreadPort) => Handler<Job, Result>): void {
  const port = parentPort;
  if (port === null) throw new Error('not a worker thread');
  const post = (message: FromWorker): void => port.postMessage(message);
  const running = new Map<number, AbortController>();
  const asked = new Map<number, { resolve: (value: unknown) => void; reject: (error: unknown) => void }>();
  let ids = 0;
  const handler = make({
    emit: (event) => post({ type: 'event', event }),
    ask: (request) =>
      new Promise((resolve, reject) => {
        asked.set(++ids, { resolve, reject });
        post({ type: 'ask', id: ids, request });
      }),
  });
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
    if (message.type === 'stop') return running.get(message.id)?.abort();
    const waiter = asked.get(message.id);
    asked.delete(message.id);
    if (message.error === undefined) waiter?.resolve(message.value);
    else waiter?.reject(fromWire(message.error));
  });
}
