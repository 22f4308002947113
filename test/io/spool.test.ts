import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Spool } from '../../src/io/spool.ts';
import { collect } from '../../src/io/verify.ts';
import { failureOf } from './server.ts';

let dir: string;
let spool: Spool;
const use = { what: 'a.tar.gz', purpose: 'to unpack a.tar.gz' };
const options = () => ({ signal: new AbortController().signal, tempDir: dir });

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-spool-'));
  spool = await Spool.open(use, options());
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
    ['ENOSPC', 'DISK_FULL', 'no space left to unpack a.tar.gz'],
    ['EDQUOT', 'DISK_FULL', 'no space left to unpack a.tar.gz'],
    ['EIO', 'FILE_UNREADABLE', 'EIO: no (needed to unpack a.tar.gz)'],
  ])('names its folder, and what it is for, where the disk answers %s', async (code, expected, message) => {
    vi.spyOn(spool.handle, 'write').mockRejectedValue(Object.assign(new Error(`${code}: no`), { code }));
    expect(await failureOf(spool.write(Buffer.from('0123456789')))).toMatchObject({
      code: expected,
      message: expect.stringContaining(`${dir}: ${message}`),
    });
    expect(spool.size).toBe(0);
  });

  it('names its folder where the disk does not give back what it took', async () => {
    await spool.write(Buffer.from('0123456789'));
    vi.spyOn(spool.handle, 'read').mockRejectedValue(Object.assign(new Error('EIO: no'), { code: 'EIO' }));
    const reading = collect(spool.read({ position: 0, length: 10 }), { limit: 100, what: 'spool' });
    expect(await failureOf(reading)).toMatchObject({
      code: 'FILE_UNREADABLE',
      message: expect.stringContaining(`${dir}: EIO`),
    });
  });

  it('says what else to do, and what it is for, in a folder that is not there', async () => {
    const tempDir = join(dir, 'none');
    const opening = Spool.open({ what: 'x', purpose: 'for manifests' }, { ...options(), tempDir });
    expect(await failureOf(opening)).toMatchObject({
      message: expect.stringMatching(/none: ENOENT.*\(needed for manifests\)$/),
      hint: expect.stringContaining('TMPDIR'),
    });
  });

  const canMount = process.platform === 'linux' && process.getuid?.() === 0;

  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) keeps room free for others unless it stays small',
    async () => {
      const tempDir = join(dir, 'small');
      await mkdir(tempDir);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', tempDir]);
      const large = await Spool.open({ ...use, instead: 'uncompress it' }, { ...options(), tempDir });
      const small = await Spool.open({ ...use, small: true }, { ...options(), tempDir });
      try {
        expect(await failureOf(large.write(Buffer.alloc(10)))).toMatchObject({
          code: 'DISK_FULL',
          message: `${tempDir}: no space left to unpack a.tar.gz`,
          hint: 'set TMPDIR to a folder with more space, or uncompress it',
        });
        await small.write(Buffer.alloc(10));
        expect(small.size).toBe(10);
      } finally {
        await Promise.all([large.close(), small.close()]);
        execFileSync('umount', [tempDir]);
      }
    },
  );
});
