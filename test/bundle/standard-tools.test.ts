/** What `tar` and `sha256sum`, which are on every Linux, make of a bundle. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openMedium } from '../../src/bundle/medium.ts';
import { TAR_END, tarHeader } from '../../src/io/tar.ts';
import { blake3Of } from '../../src/io/verify.ts';
import { openSite, type Packed, packSite, type Site } from './site.ts';

let site: Site;
let packed: Packed;

async function run(program: string, args: readonly string[], cwd: string): Promise<string> {
  const env = { PATH: process.env.PATH ?? '', LC_ALL: 'C', TZ: 'UTC' };
  const { stdout } = await promisify(execFile)(program, args, { cwd, env, maxBuffer: 64 * 1024 * 1024 });
  return stdout;
}

beforeAll(async () => {
  site = await openSite();
  packed = await packSite(site);
});

afterAll(() => site.close());

describe('a bundle in the hands of standard tools', () => {
  it('is listed by tar with exactly the planned names, sizes, modes, owners and times', async () => {
    const lines = (await run('tar', ['--full-time', '--numeric-owner', '-tvf', packed.path], site.dir))
      .trimEnd()
      .split('\n')
      .map((line) => line.split(/\s+/));
    expect(lines).toEqual(
      packed.entries.map((e) => ['-rw-r--r--', '0/0', String(e.size), '1970-01-01', '00:00:00', e.name]),
    );
  });

  it('has each header where tar finds it: the block before the planned offset', async () => {
    const listed = (await run('tar', ['-tRf', packed.path], site.dir)).trimEnd().split('\n');
    const found = listed
      .map((line) => /^block (\d+): (.*)$/.exec(line)?.slice(1) ?? [])
      .filter(([, name]) => name !== undefined && !name.startsWith('**'));
    expect(found).toEqual(packed.entries.map((e) => [String(e.offset / 512 - 1), e.name]));
  });

  it('unpacks, and sha256sum agrees with SHA256SUMS and B3SUMS with the bytes', async () => {
    const dir = site.path('unpacked');
    await mkdir(dir);
    await run('tar', ['-xf', packed.path], dir);
    const names = packed.entries.map((e) => e.name);
    const found = (await readdir(dir, { recursive: true, withFileTypes: true }))
      .filter((d) => d.isFile())
      .map((d) => join(d.parentPath, d.name).slice(dir.length + 1));
    expect(found.toSorted()).toEqual(names.toSorted());
    const checked = await run('sha256sum', ['-c', 'SHA256SUMS'], dir);
    expect(checked.trimEnd().split('\n')).toEqual(
      names.filter((n) => n !== 'SHA256SUMS' && n !== 'B3SUMS').map((n) => `${n}: OK`),
    );
    const sums: string[] = [];
    for (const name of names.slice(0, -1))
      sums.push(`${blake3Of(await readFile(join(dir, name)))}  ${name}\n`);
    expect(await readFile(join(dir, 'B3SUMS'), 'utf8')).toBe(sums.join(''));
  });

  it('holds the lock as it was written, and says its own size and number of entries', async () => {
    const of = (name: string): Buffer => {
      const entry = packed.entries.find((e) => e.name === name);
      return packed.bytes.subarray(entry?.offset, (entry?.offset ?? 0) + (entry?.size ?? 0));
    };
    expect(of('versions.lock')).toEqual(await readFile(site.lockPath));
    const info = JSON.parse(of('sealift.json').toString()) as { size: string; entries: number };
    expect(Number(info.size)).toBe(packed.bytes.length);
    expect(info.entries).toBe(packed.entries.length);
  });

  it('keeps the original bytes of an index although one platform is carried', async () => {
    for (const image of site.images) {
      const entry = packed.entries.find((e) => e.digest === image.index.digest);
      const bytes = packed.bytes.subarray(entry?.offset, (entry?.offset ?? 0) + (entry?.size ?? 0));
      expect(bytes.equals(image.index.bytes)).toBe(true);
      const arm = image.platforms['linux/arm64'];
      expect(arm).toBeDefined();
      expect(packed.entries.some((e) => e.digest === arm)).toBe(false);
    }
  });

  it('is read by tar with a blob of 8 GiB and more, which needs a PAX header', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'sealift-pax-'));
    try {
      const path = join(dir, 'big.tar');
      const big = `blobs/sha256/${'0'.repeat(64)}`;
      const size = 8 * 1024 ** 3 + 3;
      const last = tarHeader('B3SUMS', 5);
      const header = tarHeader(big, size);
      const end = header.length + Math.ceil(size / 512) * 512;
      // The content is a hole: the file takes a few blocks on the disk.
      const handle = await open(path, 'w');
      await handle.write(header, 0, header.length, 0);
      await handle.write(last, 0, last.length, end);
      await handle.write('hello', end + last.length);
      await handle.truncate(end + last.length + 512 + TAR_END);
      await handle.close();
      const listed = await run('tar', ['-tvf', path], dir);
      expect(listed.split('\n').map((l) => l.split(/\s+/)[2])).toEqual([String(size), '5', undefined]);
      const medium = await openMedium(path);
      expect(medium.faults).toEqual([]);
      expect([...medium.entries]).toEqual([
        { name: big, size, offset: header.length },
        { name: 'B3SUMS', size: 5, offset: end + last.length },
      ]);
      await medium.close();
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});
