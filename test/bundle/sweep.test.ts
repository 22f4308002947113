import { createHash, randomBytes } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type SweptRange, startSweep } from '../../src/bundle/sweep.ts';
import { blake3Of } from '../../src/io/verify.ts';
import { ensureBuilt, ROOT } from '../cli/program.ts';

/** Empty, small neighbours, exactly one buffer, one byte more, and several buffers. */
const SIZES = [0, 1, 511, 512, 600, 262_144, 262_145, 3_000_000, 17, 40_000_000, 0, 5];
const tools = { signal: new AbortController().signal, note: () => {} };
const both = { sha256: true, blake3: true };

let dir: string;
let path: string;
let fd: number;
let bytes: Buffer;
let ranges: SweptRange[];

/** A file with a gap of zeros behind each range, as a tar has. */
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-sweep-'));
  path = join(dir, 'file');
  const parts: Buffer[] = [];
  let position = 0;
  ranges = SIZES.map((length) => {
    const padding = (512 - (length % 512)) % 512;
    parts.push(randomBytes(512), randomBytes(length), Buffer.alloc(padding));
    const range = { file: -1, position: position + 512, length, padding, what: `${length}` };
    position += 512 + length + padding;
    return range;
  });
  bytes = Buffer.concat(parts);
  await writeFile(path, bytes);
  fd = openSync(path, 'r');
  ranges = ranges.map((r) => ({ ...r, file: fd }));
});

afterAll(async () => {
  closeSync(fd);
  await rm(dir, { recursive: true });
});

function expectedOf({ position, length }: SweptRange) {
  const content = bytes.subarray(position, position + length);
  return { sha256: createHash('sha256').update(content).digest('hex'), blake3: blake3Of(content) };
}

describe('a sweep over many ranges', () => {
  it('finds both hashes of each range, and that what lies behind it is zero', async () => {
    const sweep = startSweep(ranges, { ...both, threads: 1 });
    await sweep.finish(tools);
    expect(ranges.map((_, i) => sweep.hashesOf(i))).toEqual(ranges.map(expectedOf));
    expect(sweep.isPaddingZero()).toBe(true);
    await sweep.close();
  });

  it('sees one wrong byte behind any range that has bytes behind it', async () => {
    for (const [i, { position, length, padding }] of ranges.entries()) {
      if (padding === 0 || length > 1_000_000) continue;
      for (const at of [position + length, position + length + padding - 1]) {
        const damaged = join(dir, 'damaged');
        const copy = Buffer.from(bytes.subarray(0, 4_000_000));
        if (at >= copy.length) continue;
        copy[at] = 1;
        await writeFile(damaged, copy);
        const file = openSync(damaged, 'r');
        const sweep = startSweep([{ file, position, length, padding, what: `${i}` }], {
          ...both,
          threads: 1,
        });
        await sweep.finish(tools);
        expect(sweep.isPaddingZero(), `${i}: byte ${at}`).toBe(false);
        await sweep.close();
        closeSync(file);
      }
    }
  });

  it('has no result for what the file does not have any more, and goes on', async () => {
    const cut = { file: fd, position: bytes.length - 100, length: 200, padding: 0, what: 'cut' };
    const sweep = startSweep([cut, ...ranges.slice(0, 5)], { ...both, threads: 1 });
    await sweep.finish(tools);
    expect(sweep.hashesOf(0)).toBeUndefined();
    expect(sweep.hashesOf(3)).toEqual(expectedOf(ranges[2] as SweptRange));
    await sweep.close();
  });

  it('reads each range from a file of its own, and leaves out one that is not there', async () => {
    const files = ['a', 'b', 'absent', 'c'].map((name) => join(dir, name));
    for (const file of files) if (!file.endsWith('absent')) await writeFile(file, `content of ${file}`);
    const length = Buffer.byteLength(`content of ${files[0]}`);
    const own = files.map((file) => ({ file, position: 0, length, padding: 0, what: file }));
    const sweep = startSweep(own, { sha256: false, blake3: true, threads: 1 });
    await sweep.finish(tools);
    expect(files.map((_, i) => sweep.hashesOf(i))).toEqual(
      files.map((f) =>
        f.endsWith('absent') ? undefined : { sha256: '', blake3: blake3Of(`content of ${f}`) },
      ),
    );
    await sweep.close();
  });

  it('ends when it is stopped', async () => {
    const stop = new AbortController();
    const sweep = startSweep(ranges, { ...both, threads: 1 });
    const note = (): void => stop.abort();
    await expect(sweep.finish({ signal: stop.signal, note })).rejects.toMatchObject({ code: 'ABORTED' });
    expect(sweep.hashesOf(SIZES.indexOf(40_000_000))).toBeUndefined();
    await sweep.close();
  });
});

describe('a sweep of the built program', () => {
  beforeAll(ensureBuilt, 180_000);

  async function startBuilt(threads: number) {
    const built: typeof import('../../src/bundle/sweep.ts') = await import(
      join(ROOT, 'dist/bundle/sweep.js')
    );
    return built.startSweep(ranges, { ...both, threads });
  }

  it('begins on other threads at once, without the own one', async () => {
    const sweep = await startBuilt(2);
    await vi.waitFor(
      () => expect(ranges.every((_, i) => sweep.hashesOf(i) !== undefined)).toBe(true),
      30_000,
    );
    expect(ranges.map((_, i) => sweep.hashesOf(i))).toEqual(ranges.map(expectedOf));
    await sweep.close();
  });

  it('finds the same on four threads as on one', async () => {
    const sweep = await startBuilt(4);
    await sweep.finish(tools);
    expect(ranges.map((_, i) => sweep.hashesOf(i))).toEqual(ranges.map(expectedOf));
    expect(sweep.isPaddingZero()).toBe(true);
    await sweep.close();
  });

  it('can be given up before it ended', async () => {
    const sweep = await startBuilt(3);
    await sweep.close();
    await expect(sweep.finish({ ...tools, signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ABORTED',
    });
  });
});
