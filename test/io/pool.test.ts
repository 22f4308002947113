import { getEventListeners } from 'node:events';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { eitherSignal, mapBounded, sleep, throwIfAborted } from '../../src/io/pool.ts';
import { failureOf } from './server.ts';

const never = new AbortController().signal;
const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('mapBounded', () => {
  it('keeps the order of the items and never runs more than the limit at once (property)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(3), { maxLength: 30 }),
        fc.integer({ min: 1, max: 8 }),
        async (ticks, limit) => {
          let running = 0;
          let most = 0;
          const items = ticks.map((wait, i) => ({ wait, i }));
          const results = await mapBounded(items, { limit, signal: never }, async ({ wait, i }) => {
            most = Math.max(most, ++running);
            for (let t = 0; t < wait; t++) await tick();
            running--;
            return i * 2;
          });
          expect(results).toEqual(items.map(({ i }) => i * 2));
          expect(most).toBeLessThanOrEqual(limit);
          if (ticks.length >= limit && ticks.every((t) => t > 0)) expect(most).toBe(limit);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('starts nothing new after a failure, tells the running ones, and waits for them', async () => {
    const started: number[] = [];
    const ended: number[] = [];
    const wrong = new SealiftError('CONTENT_NOT_FOUND', 'gone');
    const work = mapBounded([0, 1, 2, 3, 4, 5], { limit: 2, signal: never }, async (i, signal) => {
      started.push(i);
      if (i === 1) throw wrong;
      while (!signal.aborted) await tick();
      await tick();
      ended.push(i);
    });
    expect(await failureOf(work)).toBe(wrong);
    expect([started, ended]).toEqual([[0, 1], [0]]);
  });

  it('throws the first of several failures', async () => {
    const work = mapBounded([3, 1, 2], { limit: 3, signal: never }, async (ticks) => {
      for (let t = 0; t < ticks; t++) await tick();
      throw new Error(`after ${ticks}`);
    });
    expect(await failureOf(work)).toMatchObject({ message: 'after 1' });
  });

  it('throws a failure that is undefined too', async () => {
    let threw = false;
    await mapBounded([1], { limit: 1, signal: never }, () => Promise.reject(undefined)).catch(() => {
      threw = true;
    });
    expect(threw).toBe(true);
  });

  it('ends with ABORTED when it is stopped, whatever the work made of that', async () => {
    const stop = new AbortController();
    const work = mapBounded([0, 1, 2, 3], { limit: 2, signal: stop.signal }, async (i, signal) => {
      if (i === 1) stop.abort();
      while (!signal.aborted) await tick();
      if (i === 0) throw new Error('broken by the stop');
    });
    expect(await failureOf(work)).toMatchObject({ code: 'ABORTED' });
  });

  it('ends with ABORTED when the work does not care about the stop', async () => {
    const stop = new AbortController();
    const done: number[] = [];
    const work = mapBounded([0, 1, 2], { limit: 1, signal: stop.signal }, async (i) => {
      stop.abort();
      done.push(i);
    });
    expect(await failureOf(work)).toMatchObject({ code: 'ABORTED' });
    expect(done).toEqual([0]);
  });

  it('starts nothing when it is stopped already', async () => {
    const stop = new AbortController();
    stop.abort();
    let started = 0;
    const work = mapBounded([1, 2], { limit: 2, signal: stop.signal }, async () => started++);
    expect(await failureOf(work)).toMatchObject({ code: 'ABORTED' });
    expect(started).toBe(0);
  });

  it('with nothing to do is done, and a limit below one is one', async () => {
    expect(await mapBounded([], { limit: 4, signal: never }, async () => 1)).toEqual([]);
    expect(await mapBounded([1, 2], { limit: 0, signal: never }, async (i) => i)).toEqual([1, 2]);
  });
});

describe('sleep', () => {
  it('ends at once when it is stopped before or while it waits', async () => {
    const stop = new AbortController();
    const waiting = failureOf(sleep(3_600_000, stop.signal));
    stop.abort();
    expect(await waiting).toMatchObject({ code: 'ABORTED' });
    expect(await failureOf(sleep(3_600_000, stop.signal))).toMatchObject({ code: 'ABORTED' });
  });

  it('leaves no listener behind', async () => {
    const stop = new AbortController();
    const waiting = sleep(1, stop.signal);
    expect(getEventListeners(stop.signal, 'abort')).toHaveLength(1);
    await waiting;
    expect(getEventListeners(stop.signal, 'abort')).toHaveLength(0);
    stop.abort();
    expect(() => throwIfAborted(stop.signal)).toThrow(SealiftError);
  });
});

describe('either of two signals', () => {
  it('is aborted with each of them', () => {
    const [a, b] = [new AbortController(), new AbortController()];
    const [first, second] = [eitherSignal(a.signal, b.signal), eitherSignal(b.signal, a.signal)];
    expect([first.aborted, second.aborted]).toEqual([false, false]);
    a.abort();
    expect([first.aborted, second.aborted]).toEqual([true, true]);
  });

  it('is the one that there is', () => {
    const { signal } = new AbortController();
    expect(eitherSignal(signal, signal)).toBe(signal);
    expect(eitherSignal(undefined, signal)).toBe(signal);
  });
});
