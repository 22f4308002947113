import { SealiftError } from '../core/errors.ts';
import type { Sequence } from '../core/packed-list.ts';

/** Throws ABORTED when the work was stopped from outside. */
export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) {
    throw new SealiftError('ABORTED', 'stopped', { hint: 'run the same command again to go on' });
  }
}

/**
 * Runs `work` over items, at most `limit` at a time, and waits for all that started. The first failure stops new
 * starts and is thrown after the running ones ended; with `signal` aborted the same happens with ABORTED.
 */
export async function eachBounded<T>(
  items: Sequence<T>,
  options: { readonly limit: number; readonly signal: AbortSignal },
  work: (item: T, index: number, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  let next = 0;
  let failure: { readonly error: unknown } | undefined;
  const lane = async (): Promise<void> => {
    while (failure === undefined && next < items.length) {
      throwIfAborted(options.signal);
      const at = next++;
      try {
        await work(items.at(at) as T, at, signal);
      } catch (error) {
        failure ??= { error };
        stop.abort();
      }
    }
  };
  const lanes = await Promise.allSettled(
    Array.from({ length: Math.min(Math.max(options.limit, 1), items.length) }, () => lane()),
  );
  if (failure !== undefined) {
    throwIfAborted(options.signal);
    throw failure.error;
  }
  for (const l of lanes) if (l.status === 'rejected') throw l.reason;
}

/** The same, and what came of each item, in the order of the items. */
export async function mapBounded<T, R>(
  items: Sequence<T>,
  options: { readonly limit: number; readonly signal: AbortSignal },
  work: (item: T, signal: AbortSignal) => Promise<R>,
): Promise<R[]> {
  const results: R[] = new Array(items.length);
  await eachBounded(items, options, async (item, at, signal) => {
    results[at] = await work(item, signal);
  });
  return results;
}

/**
 * Aborted with either of two signals. Where both are one it is that one: what Node makes of two it keeps until a full
 * collection of garbage, and of very many requests that is much.
 */
export function eitherSignal(a: AbortSignal | undefined, b: AbortSignal): AbortSignal {
  return a === undefined || a === b ? b : AbortSignal.any([a, b]);
}

/** Waits; ends at once with ABORTED when stopped. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(new SealiftError('ABORTED', 'stopped'));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}

/** The end of some work, or ABORTED at once when stopped; the work itself goes on and what it fails with is forgotten. */
export function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new SealiftError('ABORTED', 'stopped'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** Runs work, one at a time for each key, in the order of asking. */
export type Turns = <T>(key: string, work: () => Promise<T>) => Promise<T>;

/** Makes turns that several targets can share. */
export function createTurns(): Turns {
  const last = new Map<string, Promise<unknown>>();
  return async (key, work) => {
    const before = last.get(key) ?? Promise.resolve();
    const mine = before.then(work, work);
    const settled = mine.catch(() => {});
    last.set(key, settled);
    try {
      return await mine;
    } finally {
      if (last.get(key) === settled) last.delete(key);
    }
  };
}
