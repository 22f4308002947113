import { SealiftError } from '../../core/errors.ts';
import { decoded, nextAnswer } from './answers.ts';
import type { GrpcCall } from './grpc.ts';
import * as wire from './wire.ts';

/** One `Content.Write` stream, in lock-step: an answer for each message. */
export class WriteStream {
  readonly #call: GrpcCall;
  readonly #answers: AsyncIterator<wire.WriteResponse>;
  readonly #signal: AbortSignal;
  readonly #what: string;

  constructor(call: GrpcCall, options: { readonly signal: AbortSignal; readonly what: string }) {
    this.#call = call;
    this.#signal = options.signal;
    this.#what = options.what;
    this.#answers = decoded(call, wire.decodeWrite);
  }

  /** Sends a message and waits for its answer; its data must stay as it is until then. */
  async send(request: wire.WriteRequest): Promise<wire.WriteResponse> {
    const answer = await this.#wait(() => this.#call.write(wire.encodeWrite(request)));
    if (answer !== undefined) return answer;
    throw new SealiftError('TARGET_FAILED', `${this.#what}: the stream ended early`, {
      hint: 'run the same command again: it goes on where it stopped',
      side: 'destination',
    });
  }

  /** Closes our side and waits until the server has let go of the ingest. Errors do not matter any more. */
  async finish(): Promise<void> {
    try {
      this.#call.end();
      // Nothing was asked for any more: a message now is a server that has lost the thread.
      if ((await this.#wait(() => {})) !== undefined) this.cancel();
    } catch {
      this.cancel();
    }
  }

  /** Breaks the stream off; what the server has stays there for a later try. */
  cancel(): void {
    this.#call.cancel();
  }

  #wait(act: () => void): Promise<wire.WriteResponse | undefined> {
    return nextAnswer(this.#answers, {
      act,
      cancel: () => this.#call.cancel(),
      signal: this.#signal,
      what: this.#what,
    });
  }
}
