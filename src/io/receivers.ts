import type { Context } from '../core/events.ts';
import { MIB } from '../core/limits.ts';
import type { BulkAnswer, HttpBody } from './bulk.ts';
import { threadsFor } from './cores.ts';
import { type Place, type ReceiveJob, type ReceiveResult, receiving } from './receive.ts';
import type { Receiver } from './receiver.ts';
import { type Claim, startThreads } from './threads.ts';

/** Receivers on all threads that are worth their start. Close them. */
export interface Receivers {
  /** Hashes the beginning that is there, and takes what follows. @throws FILE_UNREADABLE, ABORTED */
  open(place: Place): Promise<Receiver>;
  close(): Promise<void>;
}

/** Less than this is received on the own thread: asking another one takes longer. */
const SMALL = MIB / 2;

type Step = ReceiveJob extends infer Job ? (Job extends { id: number } ? Omit<Job, 'id'> : never) : never;

/** @param bytes what is to be received in all */
export function startReceiving(bytes: number, context: Context): Receivers {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const own = receiving(context.env);
  const threads = startThreads({
    handler: own.handler,
    script: new URL(`./receive-thread.${extension}`, import.meta.url),
    data: { ...context.env },
    count: threadsFor(bytes),
  });
  let ids = 0;
  return {
    open: async (place) => {
      const claim = threads.claim({ own: place.expected.size < SMALL });
      const receiver = new ThreadReceiver(claim, { id: ++ids, signal: context.signal });
      try {
        await receiver.open(place);
        return receiver;
      } catch (error) {
        receiver.close();
        throw error;
      }
    },
    close: async () => {
      await own.close();
      await threads.close();
    },
  };
}

/** The near side of a receiver: tells its thread what to do. */
class ThreadReceiver implements Receiver {
  readonly #claim: Claim<ReceiveJob, ReceiveResult>;
  readonly #id: number;
  readonly #signal: AbortSignal;
  received = 0;

  constructor(
    claim: Claim<ReceiveJob, ReceiveResult>,
    options: { readonly id: number; readonly signal: AbortSignal },
  ) {
    this.#claim = claim;
    this.#id = options.id;
    this.#signal = options.signal;
  }

  async #run(step: Step, signal = this.#signal, wake?: () => void): Promise<ReceiveResult> {
    const note = (received: number): void => {
      this.received = received;
      wake?.();
    };
    const result = await this.#claim.run({ ...step, id: this.#id }, { signal, note });
    if (result.received !== undefined) this.received = result.received;
    return result;
  }

  async open(place: Place): Promise<void> {
    const opened = this.#run({ do: 'open', place });
    // Without a beginning there is nothing to wait for, and nothing that can fail but the thread itself.
    if (place.begun > 0) await opened;
    else opened.catch(() => {});
  }

  async get({ url, headers, tls, signal }: Parameters<Receiver['get']>[0]): Promise<BulkAnswer | undefined> {
    const { head } = await this.#run({ do: 'get', url: url.href, headers, tls }, signal);
    return head === undefined ? undefined : { ...head, body: this.#body(signal) };
  }

  #body(signal: AbortSignal): HttpBody {
    const run = (step: Step): Promise<ReceiveResult> => this.#run(step, signal);
    const destroy = (): void => {
      // It ends without an answer; what goes wrong with it concerns nobody any more.
      run({ do: 'destroy' }).catch(() => {});
    };
    async function* chunks(): AsyncGenerator<Buffer> {
      try {
        for (;;) {
          const { chunk } = await run({ do: 'next' });
          if (chunk === undefined) return;
          yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
        }
      } finally {
        destroy();
      }
    }
    return {
      [Symbol.asyncIterator]: chunks,
      pour: (first) => this.#pour(first, signal),
      destroy,
      dump: () => run({ do: 'dump' }),
    };
  }

  async *#pour(first: number, signal: AbortSignal): AsyncGenerator<void> {
    const stop = new AbortController();
    let ended = false;
    let wake = (): void => {};
    let told = this.received;
    const done = this.#run({ do: 'pour', first }, AbortSignal.any([signal, stop.signal]), () => wake());
    const settled = done.then(
      () => {},
      () => {},
    );
    settled.then(() => {
      ended = true;
      wake();
    });
    try {
      for (;;) {
        if (this.received > told) {
          told = this.received;
          yield;
        } else if (ended) break;
        else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
      await done;
    } finally {
      // Who gives up must know that nothing is written any more.
      if (!ended) stop.abort();
      await settled;
    }
  }

  async write(chunk: Uint8Array): Promise<void> {
    await this.#run({ do: 'write', chunk });
  }

  async finish(): Promise<string> {
    return (await this.#run({ do: 'finish' })).blake3 ?? '';
  }

  close(): void {
    // Nobody waits: a pour that was given up has ended before (`#pour`), and a thread that has ended writes nothing either.
    this.#run({ do: 'close' }).catch(() => {});
    this.#claim.release();
  }
}
