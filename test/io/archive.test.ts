import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Archive, openArchive } from '../../src/io/archive.ts';
import { collect } from '../../src/io/verify.ts';
import { type TarPart, tarOf } from '../support/archives.ts';
import { failureOf } from './server.ts';

let dir: string;
const opened: Archive[] = [];
const { signal } = new AbortController();

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-archive-'));
});

afterEach(async () => {
  for (const archive of opened.splice(0)) await archive.close();
  await rm(dir, { recursive: true, force: true });
});

async function open(path: string): Promise<Archive> {
  const archive = await openArchive(path, { signal, tempDir: dir });
  opened.push(archive);
  return archive;
}

async function openTar(parts: readonly TarPart[], end?: Buffer): Promise<Archive> {
  const path = join(dir, 'a.tar');
  await writeFile(path, tarOf(parts, end));
  return open(path);
}

async function textOf(archive: Archive, name: string): Promise<string | undefined> {
  if ((await archive.sizeOf(name)) === undefined) return undefined;
  return (await collect(archive.read(name), { limit: 1e6, what: name })).toString();
}

const LONG = `${'deep/'.repeat(60)}file`;
const body = (text: string): { body: Buffer } => ({ body: Buffer.from(text) });

describe('an archive', () => {
  it.each(['gnu', 'pax', 'ustar', 'v7'])('of tar in the %s format is read by name', async (format) => {
    const [long, content] = [format === 'gnu' || format === 'pax' ? LONG : 'short', 'x'.repeat(1500)];
    await mkdir(join(dir, 'in', long, '..'), { recursive: true });
    await writeFile(join(dir, 'in', long), content);
    await writeFile(join(dir, 'in/index.json'), '{}');
    execFileSync('tar', ['-C', join(dir, 'in'), `--format=${format}`, '-cf', join(dir, 'f.tar'), '.']);
    const archive = await open(join(dir, 'f.tar'));
    expect(await textOf(archive, long)).toBe(content);
    expect(await textOf(archive, 'index.json')).toBe('{}');
    expect(await archive.sizeOf('absent')).toBeUndefined();
    const tail = await collect(archive.read(long, 1490), { limit: 100, what: long });
    expect(tail.toString()).toBe('x'.repeat(10));
  });

  it('in gzip is unpacked to a file without a name, so that nothing is left', async () => {
    await writeFile(join(dir, 'a.tar.gz'), gzipSync(tarOf([{ name: 'a', ...body('hello') }])));
    const archive = await open(join(dir, 'a.tar.gz'));
    expect(await textOf(archive, 'a')).toBe('hello');
    expect(await readdir(dir)).toEqual(['a.tar.gz']);
  });

  it('that is a folder has only regular files below it', async () => {
    await writeFile(join(dir, 'secret'), 'secret');
    await mkdir(join(dir, 'f/sub'), { recursive: true });
    await writeFile(join(dir, 'f/sub/a'), 'hello');
    await symlink('../secret', join(dir, 'f/link'));
    execFileSync('mkfifo', [join(dir, 'f/pipe')]);
    const archive = await open(join(dir, 'f'));
    expect(await textOf(archive, 'sub/a')).toBe('hello');
    for (const name of ['link', 'pipe', 'sub', 'absent', 'sub/a/b'])
      expect(await archive.sizeOf(name)).toBeUndefined();
  });

  it('follows links inside it, as docker save uses them, and none that leads out or round', async () => {
    const archive = await openTar([
      { name: 'one/layer.tar', ...body('layer') },
      { name: 'two/layer.tar', type: '2', link: '../one/layer.tar' },
      { name: 'three', type: '1', link: 'one/layer.tar' },
      { name: 'out', type: '2', link: '../../etc/passwd' },
      { name: 'root', type: '2', link: '/etc/passwd' },
      { name: 'round', type: '2', link: 'round' },
    ]);
    expect(await textOf(archive, 'two/layer.tar')).toBe('layer');
    expect(await textOf(archive, 'three')).toBe('layer');
    for (const name of ['out', 'root', 'round']) expect(await archive.sizeOf(name)).toBeUndefined();
  });

  it('does not know entries whose names lead out of it', async () => {
    const archive = await openTar([
      { name: '../index.json', ...body('a') },
      { name: '/index.json', ...body('b') },
      { name: 'x/../../index.json', ...body('c') },
      { name: './/x/./y', ...body('d') },
    ]);
    expect(await archive.sizeOf('index.json')).toBeUndefined();
    expect(await archive.sizeOf('../index.json')).toBeUndefined();
    expect(await textOf(archive, 'x/y')).toBe('d');
  });

  it('refuses a name that is there twice, and only that', async () => {
    const archive = await openTar([
      { name: 'index.json', ...body('a') },
      { name: './index.json', ...body('b') },
      { name: 'other', ...body('c') },
    ]);
    expect(await textOf(archive, 'other')).toBe('c');
    expect(await failureOf(archive.sizeOf('index.json'))).toMatchObject({ code: 'ARCHIVE_INVALID' });
  });
});

describe('a hostile archive is refused:', () => {
  const absurd = Buffer.from([0x80, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).toString('latin1');
  const pax = (text: string): TarPart => ({ name: 'pax', type: 'x', ...body(text) });
  it.each<[string, readonly TarPart[], RegExp]>([
    ['a size beyond its end', [{ name: 'a', ...body('x'), size: '77777777777\0' }], /inside "a"/],
    ['a size of 2^53 bytes', [{ name: 'a', ...body('x'), size: absurd }], /inside "a"|bad size/],
    ['a negative size', [{ name: 'a', ...body('x'), size: '\xff'.repeat(12) }], /bad size/],
    ['a size that is no number', [{ name: 'a', ...body('x'), size: 'zzzzzzzzzzz\0' }], /bad size/],
    ['a PAX size beyond its end', [pax('21 size=999999999999\n'), { name: 'a', ...body('x') }], /inside "a"/],
    ['a PAX size that is no number', [pax('12 size=-1x\n'), { name: 'a' }], /bad size/],
    ['a PAX record that lies about its length', [pax('99 path=a\n'), { name: 'a' }], /bad PAX/],
    ['a sparse file', [pax('22 GNU.sparse.major=1\n'), { name: 'a' }], /sparse/],
    ['an old sparse file', [{ name: 'a', type: 'S' }], /sparse/],
    ['a global header that names a path', [{ name: 'g', type: 'g', ...body('10 path=a\n') }], /global/],
  ])('%s', async (_, parts, why) => {
    const failure = await failureOf(openTar(parts));
    expect(failure).toMatchObject({ code: 'ARCHIVE_INVALID', message: expect.stringMatching(why) });
  });

  it.each([
    ['a PAX header of a gigabyte', 'x'],
    ['a long name of a gigabyte', 'L'],
  ])('%s, which is no reason to take it for something else', async (_, type) => {
    const failure = await failureOf(openTar([{ name: 'p', type, size: '10000000000\0' }]));
    const message = expect.stringContaining('header record of 1073741824 bytes, the limit is 1048576');
    expect(failure).toMatchObject({ code: 'CONTENT_TOO_LARGE', message });
  });

  it.each([
    ['an empty file', Buffer.alloc(0)],
    ['text', Buffer.from('{"not": "a tar"}'.repeat(100))],
    ['half a header', tarOf([{ name: 'a' }]).subarray(0, 300)],
    ['gzip of text', gzipSync('hello')],
    ['a gzip that is cut', gzipSync(tarOf([{ name: 'a', body: Buffer.alloc(9000, 7) }])).subarray(0, 60)],
  ])('%s', async (_, bytes) => {
    await writeFile(join(dir, 'a'), bytes);
    expect(await failureOf(open(join(dir, 'a')))).toMatchObject({ code: 'ARCHIVE_INVALID' });
    expect(await readdir(dir)).toEqual(['a']);
  });

  it('another compression, by its name', async () => {
    await writeFile(join(dir, 'a'), Buffer.from('28b52ffd00000000', 'hex'));
    expect(await failureOf(open(join(dir, 'a')))).toMatchObject({
      code: 'CONTENT_UNSUPPORTED',
      message: expect.stringContaining('zstd'),
    });
  });
});
