import { SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { callError } from './failure.ts';
import type { GrpcCall } from './grpc.ts';

/** The failure of a call that nobody answers. @param ms how long it was waited for */
export function noAnswer(what: string, ms: number): SealiftError {
  return new SealiftError('TARGET_UNREACHABLE', `${what}: no answer for ${ms / 1000} s`, {
    hint: 'containerd does not answer: check its load and its disk, then run the same command again',
    side: 'destination',
  });
}

export function stopped(): SealiftError {
  return new SealiftError('ABORTED', 'stopped', { hint: 'run the same command again to go on' });
}

/**
 * The next answer of a stream after `act`, undefined at its end. A stream that is stopped, or silent for
 * `LIMITS.headersMs`, is cancelled.
 * @throws ABORTED, TARGET_UNREACHABLE, or what the call failed with, as `callError` says it
 */
export async function nextAnswer<T>(
  answers: AsyncIterator<T>,
  about: {
    readonly act: () => void;
    readonly cancel: () => void;
    readonly signal: AbortSignal;
    readonly what: string;
  },
): Promise<T | undefined> {
  const { signal, what } = about;
  let reason: SealiftError | undefined;
  const giveUp = (error: SealiftError): void => {
    reason ??= error;
    about.cancel();
  };
  const onAbort = (): void => giveUp(stopped());
  if (signal.aborted) {
    onAbort();
    throw stopped();
  }
  const ms = LIMITS.headersMs;
  const timer = setTimeout(() => giveUp(noAnswer(what, ms)), ms);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    about.act();
    const next = await answers.next();
    return next.done === true ? undefined : next.value;
  } catch (error) {
    throw reason ?? callError(error, what);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

/** The answers of a call, read one by one. */
export async function* decoded<T>(
  call: GrpcCall,
  decode: (message: Uint8Array) => T,
): AsyncGenerator<T, void, undefined> {
  for await (const message of call.messages()) yield decode(message);
}

/** The chunks of a stream that only the server writes; it is cancelled when the reader goes away. */
export async function* readStream<T>(
  call: GrpcCall,
  about: {
    readonly decode: (message: Uint8Array) => T;
    readonly signal: AbortSignal;
    readonly what: string;
  },
): AsyncGenerator<T> {
  const answers = decoded(call, about.decode);
  const cancel = (): void => call.cancel();
  const ask = { ...about, cancel, act: () => {} };
  try {
    for (
      let chunk = await nextAnswer(answers, ask);
      chunk !== undefined;
      chunk = await nextAnswer(answers, ask)
    ) {
      yield chunk;
    }
  } finally {
    cancel();
  }
}
