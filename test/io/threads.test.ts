import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { threadsFor } from '../../src/io/cores.ts';
import { fromWire, toWire } from '../../src/io/thread-messages.ts';
import { type Handler, startThreads } from '../../src/io/threads.ts';

function threads<Job, Result>(handler: Handler<Job, Result>) {
  const script = new URL('./nothing.ts', import.meta.url);
  return startThreads({ handler, script, data: undefined, count: 4 });
}

describe('threads for hashing', () => {
  it('are not started for what one thread does as fast', () => {
    expect(threadsFor(1_000_000)).toBe(1);
    expect(threadsFor(100_000_000, 'blake3')).toBe(1);
    expect(threadsFor(100_000_000)).toBe(threadsFor(200_000_000, 'blake3'));
    expect(threadsFor(10_000_000_000)).toBeLessThanOrEqual(4);
  });

  it('run from sources are the own thread alone, which does the job and tells its progress', async () => {
    const pool = threads<number, number>(async (job, { note }) => {
      note(job);
      return job * 2;
    });
    const noted: number[] = [];
    const tools = { signal: new AbortController().signal, note: (n: number) => void noted.push(n) };
    expect(pool.count).toBe(1);
    expect(await pool.run(21, tools)).toBe(42);
    expect(noted).toEqual([21]);
    await pool.close();
  });

  it('give the error of a job to the one who asked for it', async () => {
    const pool = threads<number, number>(async () => {
      throw new SealiftError('DISK_FULL', 'full');
    });
    const run = pool.run(1, { signal: new AbortController().signal, note: () => {} });
    await expect(run).rejects.toMatchObject({ code: 'DISK_FULL' });
  });
});

describe('an error that crosses threads', () => {
  it('keeps its code, message, hint, details, faults and side', () => {
    const faults = [{ code: 'DISK_FULL' as const, message: 'm' }];
    const error = new SealiftError('NETWORK_FAILED', 'x', {
      hint: 'h',
      details: { a: 1 },
      faults,
      side: 'source',
    });
    const back = fromWire(structuredClone(toWire(error)));
    expect(back).toBeInstanceOf(SealiftError);
    expect(back).toMatchObject({
      code: 'NETWORK_FAILED',
      message: 'x',
      hint: 'h',
      details: { a: 1 },
      faults,
      side: 'source',
    });
  });

  it('that is a bug stays one', () => {
    const back = fromWire(structuredClone(toWire(new TypeError('oops'))));
    expect(back).not.toBeInstanceOf(SealiftError);
    expect(back.message).toBe('oops');
  });
});
