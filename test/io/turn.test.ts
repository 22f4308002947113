import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { inTurn } from '../../src/io/turn.ts';
import { failureOf, testContext } from './server.ts';

let dir: string;
let path: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-turn-'));
  path = join(dir, 'config.json');
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
});

const busy = (mark: string): Error => new Error(`busy: ${mark}`);

describe('a turn', () => {
  it('is one at a time, and nothing is left afterwards', async () => {
    let inside = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setTimeout(resolve, 5));
      inside--;
    };
    const all = Array.from({ length: 8 }, () => inTurn(path, work, { context: testContext(), busy }));
    await Promise.all(all);
    expect([most, await readdir(dir)]).toEqual([1, []]);
  });

  it('is given back when the work fails', async () => {
    const context = testContext();
    const fail = inTurn(path, () => Promise.reject(new Error('no')), { context, busy });
    expect(await failureOf(fail)).toMatchObject({ message: 'no' });
    expect(await inTurn(path, async () => 'next', { context, busy })).toBe('next');
  });

  it('of a run that was killed does not block: on this machine at once, else when it is old', async () => {
    const mark = `${path}.sealift-turn`;
    // The largest process id of Linux is below this.
    await writeFile(mark, `${hostname()} 99999999\n`);
    expect(await inTurn(path, async () => 'mine', { context: testContext(), busy })).toBe('mine');
    for (const text of ['other-machine 1\n', '']) {
      await writeFile(mark, text);
      await utimes(mark, new Date(0), new Date(0));
      expect(await inTurn(path, async () => 'mine', { context: testContext(), busy })).toBe('mine');
    }
    expect(await readdir(dir)).toEqual([]);
  });

  it('that does not come is a fault that names the mark, and the mark stays', async () => {
    const mark = `${path}.sealift-turn`;
    await writeFile(mark, 'other-machine 1\n');
    let now = Date.now();
    const later = (): number => {
      now += 10_000;
      return now;
    };
    const context = { ...testContext(), now: later };
    await utimes(mark, new Date(now + 3_600_000), new Date(now + 3_600_000));
    const waiting = inTurn(path, async () => 'mine', { context, busy });
    expect(await failureOf(waiting)).toMatchObject({ message: `busy: ${mark}` });
    expect(await readdir(dir)).toEqual(['config.json.sealift-turn']);
  });

  it('is not waited for when the work is stopped', async () => {
    await writeFile(`${path}.sealift-turn`, `${hostname()} ${process.pid}\n`);
    const context = testContext();
    const waiting = inTurn(path, async () => 'mine', { context, busy });
    context.stop();
    expect(await failureOf(waiting)).toMatchObject({ code: 'ABORTED' });
  });
});
