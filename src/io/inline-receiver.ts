import { throwIfAborted } from './pool.ts';
import type { Receiver } from './receiver.ts';
import { type Expected, Verifier } from './verify.ts';

/** Receives on this thread: hashes each chunk and hands it on. Nothing is poured into it. */
export class InlineReceiver implements Receiver {
  readonly #verifier: Verifier;
  readonly #take: (chunk: Uint8Array, at: number) => Promise<void> | void;
  readonly #signal: AbortSignal;

  /** @param options.take is given each chunk and its place, and is done with it when it settles */
  constructor(
    expected: Expected,
    options: {
      readonly take: (chunk: Uint8Array, at: number) => Promise<void> | void;
      readonly signal: AbortSignal;
    },
  ) {
    this.#verifier = new Verifier(expected, { blake3: true });
    this.#take = options.take;
    this.#signal = options.signal;
  }

  get received(): number {
    return this.#verifier.received;
  }

  async get(): Promise<undefined> {
    return undefined;
  }

  async write(chunk: Uint8Array): Promise<void> {
    throwIfAborted(this.#signal);
    const at = this.#verifier.received;
    this.#verifier.update(chunk);
    await this.#take(chunk, at);
  }

  async finish(): Promise<string> {
    return this.#verifier.finish();
  }

  close(): void {}
}
