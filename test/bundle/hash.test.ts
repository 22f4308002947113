import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { hashRange } from '../../src/bundle/hash.ts';

const dir = await mkdtemp(join(tmpdir(), 'sealift-hash-'));
afterAll(() => rm(dir, { recursive: true, force: true }));

describe('hashing', () => {
  it('of very many small ranges lets other work run, which may be Ctrl-C', async () => {
    const file = join(dir, 'small');
    await writeFile(file, 'x');
    const { signal } = new AbortController();
    let turns = 0;
    let next = setImmediate(function turn() {
      turns += 1;
      next = setImmediate(turn);
    });
    const range = { file, position: 0, length: 1, what: 'small', sha256: true, blake3: true };
    for (let i = 0; i < 2000; i += 1) await hashRange(range, { signal, note: () => {} });
    clearImmediate(next);
    expect(turns).toBeGreaterThan(3);
  });

  it('ends between small ranges when it is stopped', async () => {
    const file = join(dir, 'stopped');
    await writeFile(file, 'x');
    const stop = new AbortController();
    setImmediate(() => stop.abort());
    const range = { file, position: 0, length: 1, what: 'small', sha256: true, blake3: false };
    const all = async (): Promise<void> => {
      for (let i = 0; i < 2000; i += 1) await hashRange(range, { signal: stop.signal, note: () => {} });
    };
    await expect(all()).rejects.toMatchObject({ code: 'ABORTED' });
  });
});
