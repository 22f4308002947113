import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkFolder } from '../../src/target/folder-check.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'folder-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('the check of a folder', () => {
  it('tells the space of one that is there', async () => {
    const { findings, room } = await checkFolder(dir, 'files');
    expect(findings.map((f) => [f.level, f.code])).toEqual([['ok', 'FOLDER']]);
    expect(room?.free).toBeGreaterThan(0);
  });

  it('makes none that is not there', async () => {
    const { findings, room } = await checkFolder(join(dir, 'a/b'), 'files');
    expect(findings.map((f) => [f.level, f.code])).toEqual([['info', 'FOLDER']]);
    expect(room?.where).toBe(dir);
    expect(await readdir(dir)).toEqual([]);
  });

  it('refuses a file in its place, and one above it', async () => {
    await writeFile(join(dir, 'a'), 'x');
    for (const path of ['a', 'a/b']) {
      const { findings } = await checkFolder(join(dir, path), 'chart-tree');
      expect(findings).toMatchObject([{ level: 'fault', code: 'FOLDER' }]);
    }
  });

  // Root may write everywhere.
  it.skipIf(process.getuid?.() === 0)('refuses one that this user may not write to', async () => {
    await chmod(dir, 0o500);
    const { findings } = await checkFolder(dir, 'files');
    await chmod(dir, 0o700);
    expect(findings).toMatchObject([
      { level: 'fault', code: 'FOLDER', fix: expect.stringContaining('ls -ld') },
    ]);
  });

  it('names what a stopped load left: of a tree at its top, of files anywhere below', async () => {
    await mkdir(join(dir, 'sub/deep'), { recursive: true });
    const name = '.tool.bin.0123456789ab.tmp';
    await writeFile(join(dir, 'sub/deep', name), '');
    await mkdir(join(dir, '.nginx-1.0.0.aabbccddeeff.tmp'));
    await writeFile(join(dir, '.someone.tmp'), '');
    const ofFiles = (await checkFolder(dir, 'files')).findings.at(-1);
    expect(ofFiles).toMatchObject({ level: 'warning', code: 'HALF_WRITTEN' });
    expect(ofFiles?.details).toEqual({
      left: ['.nginx-1.0.0.aabbccddeeff.tmp', `sub/deep/${name}`],
    });
    const ofTree = (await checkFolder(dir, 'chart-tree')).findings.at(-1);
    expect(ofTree?.details).toEqual({ left: ['.nginx-1.0.0.aabbccddeeff.tmp'] });
  });
});
