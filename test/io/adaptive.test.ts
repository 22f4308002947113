import { describe, expect, it } from 'vitest';
import { Adaptive, type Outcome } from '../../src/io/adaptive.ts';
import { failureOf } from './server.ts';

const never = new AbortController().signal;

/** A limit with a clock that stands until it is moved. */
function adaptive(start: number, more: { readonly most?: number; readonly patienceMs?: number } = {}) {
  const clock = { at: 1_000_000 };
  const options = { start, most: 32, patienceMs: 60_000, now: () => clock.at, ...more };
  return { clock, gate: new Adaptive(options) };
}

/** Lets what waits for a microtask run. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

async function run(gate: Adaptive, outcome: Outcome, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) (await gate.acquire(never))(outcome);
}

describe('the limit of requests to one host', () => {
  it('is never passed, and places are given in the order of asking', async () => {
    const { gate } = adaptive(2);
    const order: number[] = [];
    let most = 0;
    const work = [0, 1, 2, 3, 4, 5].map(async (i) => {
      const leave = await gate.acquire(never);
      order.push(i);
      most = Math.max(most, gate.running);
      await settle();
      leave('none');
    });
    expect([gate.running, gate.waiting]).toEqual([2, 4]);
    await Promise.all(work);
    expect(most).toBe(2);
    expect(order).toEqual([0, 1, 2, 3, 4, 5]);
    expect([gate.running, gate.waiting]).toEqual([0, 0]);
  });

  it('grows by one after ten good ends, up to the most', async () => {
    const { gate } = adaptive(3, { most: 4 });
    await run(gate, 'good', 9);
    expect(gate.limit).toBe(3);
    await run(gate, 'good');
    expect(gate.limit).toBe(4);
    await run(gate, 'good', 50);
    expect(gate.limit).toBe(4);
  });

  it('is halved by a refusal, down to one, at most once a second', async () => {
    const { gate, clock } = adaptive(16);
    await run(gate, 'busy', 5);
    expect(gate.limit).toBe(8);
    for (const expected of [4, 2, 1, 1]) {
      clock.at += 1_000;
      await run(gate, 'busy', 3);
      expect(gate.limit).toBe(expected);
    }
  });

  it('begins to count good ends anew after a refusal, and learns nothing from other ends', async () => {
    const { gate } = adaptive(8);
    await run(gate, 'good', 9);
    await run(gate, 'busy');
    await run(gate, 'good', 9);
    await run(gate, 'none', 20);
    expect(gate.limit).toBe(4);
    await run(gate, 'good');
    expect(gate.limit).toBe(5);
  });

  it('holds back those who ask after it fell, until enough have ended', async () => {
    const { gate } = adaptive(4);
    const held = await Promise.all([1, 2, 3, 4].map(() => gate.acquire(never)));
    held[0]?.('busy');
    const next = gate.acquire(never);
    held[1]?.('none');
    await settle();
    expect([gate.limit, gate.running, gate.waiting]).toEqual([2, 2, 1]);
    held[2]?.('none');
    (await next)('none');
    expect(gate.running).toBe(1);
  });

  it('counts an end only once', async () => {
    const { gate } = adaptive(2);
    const leave = await gate.acquire(never);
    leave('none');
    leave('none');
    expect(gate.running).toBe(0);
  });

  it('lets go of those who were stopped while they waited', async () => {
    const { gate } = adaptive(1);
    const leave = await gate.acquire(never);
    const stop = new AbortController();
    const first = gate.acquire(stop.signal);
    const second = gate.acquire(never);
    stop.abort();
    expect(await failureOf(first)).toMatchObject({ code: 'ABORTED' });
    leave('none');
    (await second)('none');
    expect([gate.running, gate.waiting]).toEqual([0, 0]);
    expect(await failureOf(gate.acquire(stop.signal).then(() => gate.acquire(stop.signal)))).toMatchObject({
      code: 'ABORTED',
    });
  });

  it('does not hang on places that nobody gives back: the oldest goes after a while', async () => {
    const { gate } = adaptive(1, { patienceMs: 5 });
    const forgotten = await gate.acquire(never);
    const order: string[] = [];
    const first = gate.acquire(never).then(() => order.push('first'));
    const second = gate.acquire(never).then(() => order.push('second'));
    await Promise.all([first, second]);
    expect(order).toEqual(['first', 'second']);
    expect(gate.running).toBe(3);
    forgotten('none');
    expect(gate.running).toBe(2);
  });
});
