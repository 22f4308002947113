import { SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { slownessOf } from '../../io/resume.ts';
import { callError } from './failure.ts';
import type { GrpcCall } from './grpc.ts';

/** What to do about a containerd that gives nothing. */
const SLOW = 'containerd does not answer: check its load and its disk, then run the same command again';

/** The failure of a call that nobody answers. @param ms how long it was waited for */
function noAnswer(what: string, ms: number): SealiftError {
  return new SealiftError('TARGET_UNREACHABLE', `${what}: no answer for ${ms / 1000} s`, {
    hint: SLOW,
    side: 'destination',
  });
}

function stopped(): SealiftError {
  return new SealiftError('ABORTED', 'stopped', { hint: 'run the same command again to go on' });
}

/** What is waited for, and how the wait ends. */
export interface Wait {
  readonly cancel: () => void;
  readonly signal: AbortSignal;
  readonly what: string;
  /** Default `LIMITS.headersMs`. */
  readonly ms?: number;
}

/**
 * Waits for what a call gives. One that is stopped, or gives nothing in its time, is cancelled.
 * @throws ABORTED, TARGET_UNREACHABLE, or what the call failed with, as `callError` says it
 */
export async function waitFor<T>(work: () => Promise<T>, wait: Wait): Promise<T> {
  const { signal, what, ms = LIMITS.headersMs } = wait;
  let reason: SealiftError | undefined;
  const giveUp = (error: SealiftError): void => {
    reason ??= error;
    wait.cancel();
  };
  const onAbort = (): void => giveUp(stopped());
  if (signal.aborted) {
    onAbort();
    throw stopped();
  }
  const timer = setTimeout(() => giveUp(noAnswer(what, ms)), ms);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await work();
  } catch (error) {
    throw reason ?? callError(error, what);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

/** The next answer of a stream after `act`, undefined at its end. @throws as waitFor */
export function nextAnswer<T>(
  answers: AsyncIterator<T>,
  { act, ...wait }: Wait & { readonly act: () => void },
): Promise<T | undefined> {
  return waitFor(async () => {
    act();
    const next = await answers.next();
    return next.done === true ? undefined : next.value;
  }, wait);
}

/** The answers of a call, read one by one. */
export async function* decoded<T>(
  call: GrpcCall,
  decode: (message: Uint8Array) => T,
): AsyncGenerator<T, void, undefined> {
  for await (const message of call.messages()) yield decode(message);
}

/**
 * The chunks of a stream that only the server writes; it is cancelled when the reader goes away. The first may take as
 * long as any answer; after it fewer than `LIMITS.slowBytes` within `LIMITS.idleMs` count as silence.
 * @throws as nextAnswer; NETWORK_TIMEOUT
 */
export async function* readStream(
  call: GrpcCall,
  about: {
    readonly decode: (message: Uint8Array) => Uint8Array;
    readonly signal: AbortSignal;
    readonly what: string;
  },
): AsyncGenerator<Uint8Array> {
  const answers = decoded(call, about.decode);
  const cancel = (): void => call.cancel();
  const ask = { ...about, cancel, act: () => {} };
  // Only what we wait for the server: its reader may take its time.
  let waitedMs = 0;
  const next = async (): Promise<Uint8Array | undefined> => {
    const since = performance.now();
    const chunk = await nextAnswer(answers, ask);
    waitedMs += performance.now() - since;
    return chunk;
  };
  try {
    let chunk = await next();
    const watch = slownessOf(about.what, { now: () => waitedMs, hint: SLOW });
    for (; chunk !== undefined; chunk = await next()) {
      watch(chunk.length);
      // An empty one is no start: its reader could not go elsewhere any more.
      if (chunk.length > 0) yield chunk;
    }
  } finally {
    cancel();
  }
}
