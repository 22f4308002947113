import {
  chmod,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import {
  besidePath,
  diskError,
  errnoOf,
  freeSpace,
  kindOf,
  readAt,
  readFileIfExists,
  readFileLimited,
  readRange,
  syncFolder,
  writeFileAtomic,
  writeFileIfChanged,
} from '../../src/io/files.ts';
import { failureOf, gather, someBytes } from './server.ts';

let dir: string;
const isRoot = process.getuid?.() === 0;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-files-'));
});

afterEach(() => rm(dir, { recursive: true, force: true }));

describe('a file that is written whole', () => {
  it('is there with its bytes and its mode, and nothing is beside it', async () => {
    const path = join(dir, 'a', 'b', 'file');
    await writeFileAtomic(path, 'one');
    await writeFileAtomic(path, Buffer.from('two'), { mode: 0o600 });
    expect(await readFile(path, 'utf8')).toBe('two');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(join(dir, 'a', 'b'))).toEqual(['file']);
  });

  it('does not harm the old one when it cannot take its place', async () => {
    const path = join(dir, 'place');
    await mkdir(path);
    await writeFile(join(path, 'inside'), 'old');
    expect(await failureOf(writeFileAtomic(path, 'new'))).toMatchObject({ code: 'FILE_UNREADABLE' });
    expect(await readFile(join(path, 'inside'), 'utf8')).toBe('old');
    expect(await readdir(dir)).toEqual(['place']);
  });

  it('below something that is no folder is a fault that names the path', async () => {
    await writeFile(join(dir, 'file'), 'x');
    const path = join(dir, 'file', 'below');
    expect(await failureOf(writeFileAtomic(path, 'new'))).toMatchObject({
      code: 'FILE_UNREADABLE',
      message: expect.stringContaining(path),
    });
    expect(await readdir(dir)).toEqual(['file']);
  });

  it.skipIf(isRoot)('in a folder that may not be written keeps what is there', async () => {
    const path = join(dir, 'file');
    await writeFile(path, 'old');
    await chmod(dir, 0o500);
    expect(await failureOf(writeFileAtomic(path, 'new'))).toMatchObject({ code: 'FILE_UNREADABLE' });
    await chmod(dir, 0o700);
    expect(await readFile(path, 'utf8')).toBe('old');
    expect(await readdir(dir)).toEqual(['file']);
  });

  it('is whole for everybody who reads while others write', async () => {
    const path = join(dir, 'file');
    const texts = ['a', 'b', 'c'].map((letter) => letter.repeat(200_000));
    await writeFileAtomic(path, texts[0] ?? '');
    const writing = Promise.all(texts.map((text) => writeFileAtomic(path, text)));
    const seen: string[] = [];
    for (let i = 0; i < 20; i++) seen.push(await readFile(path, 'utf8'));
    await writing;
    expect(seen.filter((text) => !texts.includes(text))).toEqual([]);
    expect(await readdir(dir)).toEqual(['file']);
  });

  it('replaces a link, not what it points to', async () => {
    await writeFile(join(dir, 'other'), 'other');
    await symlink('other', join(dir, 'link'));
    await writeFileAtomic(join(dir, 'link'), 'new');
    expect(await readFile(join(dir, 'other'), 'utf8')).toBe('other');
    expect(await readFile(join(dir, 'link'), 'utf8')).toBe('new');
  });

  it('is left alone when it has the bytes already', async () => {
    const path = join(dir, 'file');
    expect(await writeFileIfChanged(path, Buffer.from('one'))).toBe(true);
    const before = await stat(path);
    expect(await writeFileIfChanged(path, Buffer.from('one'))).toBe(false);
    expect((await stat(path)).ino).toBe(before.ino);
    expect(await writeFileIfChanged(path, Buffer.from('two'))).toBe(true);
    expect(await readFile(path, 'utf8')).toBe('two');
  });

  it('has a temporary name that is hidden, beside it and different every time', () => {
    const path = join(dir, 'file');
    const names = new Set(Array.from({ length: 50 }, () => besidePath(path)));
    expect(names.size).toBe(50);
    for (const name of names) {
      expect(dirname(name)).toBe(dir);
      expect(name.slice(dir.length + 1)).toMatch(/^\.file\.[0-9a-f]{12}\.tmp$/);
    }
  });
});

describe('a file that is read', () => {
  const limits = { limit: 10, missing: 'LOCK_NOT_FOUND', hint: 'run it' } as const;

  it('has at most so many bytes', async () => {
    const path = join(dir, 'file');
    await writeFile(path, '0123456789');
    expect((await readFileLimited(path, limits)).toString()).toBe('0123456789');
    await writeFile(path, '0123456789a');
    expect(await failureOf(readFileLimited(path, limits))).toMatchObject({ code: 'CONTENT_TOO_LARGE' });
  });

  it('is not read without end although its size says nothing', async () => {
    expect(await failureOf(readFileLimited('/dev/zero', limits))).toMatchObject({
      code: 'CONTENT_TOO_LARGE',
    });
    expect(await readFileLimited('/dev/null', limits)).toHaveLength(0);
  });

  it('that is missing is the fault that the caller names', async () => {
    await writeFile(join(dir, 'file'), '');
    for (const path of [join(dir, 'none'), join(dir, 'file', 'none')]) {
      expect(await failureOf(readFileLimited(path, limits))).toMatchObject({
        code: 'LOCK_NOT_FOUND',
        hint: 'run it',
      });
      expect(await readFileIfExists(path)).toBeUndefined();
      expect(await kindOf(path)).toBeUndefined();
    }
  });

  it('that is a folder cannot be read', async () => {
    expect(await failureOf(readFileLimited(dir, limits))).toMatchObject({ code: 'FILE_UNREADABLE' });
    expect(await failureOf(readFileIfExists(dir))).toMatchObject({ code: 'FILE_UNREADABLE' });
  });

  it('in parts has the same bytes (property)', async () => {
    const path = join(dir, 'file');
    const data = someBytes(5000);
    await writeFile(path, data);
    const handle = await open(path, 'r');
    const byte = fc.nat(6000);
    await fc.assert(
      fc.asyncProperty(byte, byte, fc.integer({ min: 1, max: 3000 }), async (position, length, chunk) => {
        const want = data.subarray(position, position + length);
        expect((await readAt(handle, position, length)).equals(want)).toBe(true);
        expect((await gather(readRange(handle, { position, length, chunk }))).equals(want)).toBe(true);
      }),
      { numRuns: 50 },
    );
    await handle.close();
  });
});

it('knows what is at a path', async () => {
  await writeFile(join(dir, 'file'), '');
  expect(await kindOf(join(dir, 'file'))).toBe('file');
  expect(await kindOf(dir)).toBe('folder');
  expect(await kindOf('/dev/null')).toBe('other');
});

it('knows the free space of a folder that is not there yet', async () => {
  const later = await freeSpace(join(dir, 'not', 'yet'));
  expect(later).toBeGreaterThan(0);
  await writeFile(join(dir, 'file'), '');
  expect(await freeSpace(join(dir, 'file', 'below'))).toBeGreaterThan(0);
});

it('syncs a folder, and lets be what cannot be synced', async () => {
  for (const folder of [dir, join(dir, 'none')]) expect(await syncFolder(folder)).toBeUndefined();
});

describe('errors of the disk', () => {
  const system = (code: string): Error => Object.assign(new Error(`${code}: went wrong`), { code });

  it('say what happened and what to do', () => {
    for (const code of ['ENOSPC', 'EDQUOT'])
      expect(diskError(system(code), '/x')).toMatchObject({
        code: 'DISK_FULL',
        hint: expect.stringContaining('again'),
      });
    for (const code of ['EACCES', 'EPERM', 'EROFS', 'EIO', 'EISDIR', 'ELOOP', 'ENAMETOOLONG'])
      expect(diskError(system(code), '/x')).toMatchObject({
        code: 'FILE_UNREADABLE',
        message: expect.stringContaining('/x'),
      });
  });

  it('say of a faulty disk and of a file that is too large what to do', () => {
    for (const code of ['EIO', 'ENODEV', 'ESTALE'])
      expect(diskError(system(code), '/x')).toMatchObject({ hint: expect.stringContaining('dmesg') });
    expect(diskError(system('EFBIG'), '/x')).toMatchObject({ hint: expect.stringContaining('FAT32') });
  });

  it('say whose the path is where that is known', () => {
    for (const code of ['ENOSPC', 'EROFS', 'EIO']) {
      expect(diskError(system(code), '/x', { side: 'destination' })).toMatchObject({ side: 'destination' });
      expect(diskError(system(code), '/x')).toMatchObject({ side: undefined });
    }
  });

  it('leave everything else as it is', () => {
    const ours = new SealiftError('ABORTED', 'stopped');
    const bug = new TypeError('bug');
    const nodes = system('ERR_INVALID_ARG_TYPE');
    for (const error of [ours, bug, nodes, 'text', undefined]) expect(diskError(error, '/x')).toBe(error);
    expect([errnoOf(system('EIO')), errnoOf(bug), errnoOf('x')]).toEqual(['EIO', '', '']);
  });
});
