import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Spool } from '../../src/io/spool.ts';
import { collect } from '../../src/io/verify.ts';
import { failureOf } from './server.ts';

let dir: string;
let spool: Spool;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-spool-'));
  spool = await Spool.open('a.tar.gz', { signal: new AbortController().signal, tempDir: dir });
});

afterEach(async () => {
  await spool.close();
  await rm(dir, { recursive: true, force: true });
});

describe('a temporary file that grows', () => {
  it('has every byte where the system takes only a part of a chunk at a time', async () => {
    const write = spool.handle.write.bind(spool.handle);
    // Typed by hand: of the overloads a spy sees only the last one.
    const partly = async (data: Uint8Array, from: number, length: number, at: number): Promise<unknown> =>
      write(data, from, Math.min(length, 3), at);
    Object.assign(spool.handle, { write: partly });
    await spool.write(Buffer.from('0123456789'));
    await spool.write(Buffer.from('abcdefg'));
    expect(spool.size).toBe(17);
    const bytes = await collect(spool.read({ position: 0, length: 17 }), { limit: 100, what: 'spool' });
    expect(bytes.toString()).toBe('0123456789abcdefg');
  });

  it.each([
    ['ENOSPC', 'DISK_FULL', 'no space left on the disk'],
    ['EDQUOT', 'DISK_FULL', 'no space left on the disk'],
    ['EIO', 'FILE_UNREADABLE', 'EIO'],
  ])('names its folder where the disk answers %s', async (code, expected, message) => {
    vi.spyOn(spool.handle, 'write').mockRejectedValue(Object.assign(new Error(`${code}: no`), { code }));
    expect(await failureOf(spool.write(Buffer.from('0123456789')))).toMatchObject({
      code: expected,
      message: expect.stringContaining(`${dir}: ${message}`),
    });
    expect(spool.size).toBe(0);
  });
});
