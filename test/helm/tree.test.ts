import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readChartArchive } from '../../src/helm/archive.ts';
import { packChartDirectory } from '../../src/helm/pack-dir.ts';
import { diffTree, hashTree, unpackChart } from '../../src/helm/tree.ts';
import { type ChartFiles, chartArchive, demoFiles, inPieces, tgzOf } from '../support/charts.ts';
import { run } from '../support/peers.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-tree-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

async function put(folder: string, files: ChartFiles): Promise<void> {
  for (const [path, data] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), data);
  }
}

async function packed(folder: string, options: Parameters<typeof packChartDirectory>[1] = {}) {
  const chunks: Buffer[] = [];
  const chart = await packChartDirectory(folder, { ...options, write: (c) => void chunks.push(c) });
  return { ...chart, bytes: Buffer.concat(chunks) };
}

describe('an unpacked chart', () => {
  it('has exactly the files of its archive, plain modes, and the same tree hash', async () => {
    const files = {
      ...demoFiles(),
      'a/b/c/deep.txt': 'x',
      'values.yaml': '\ufeffk: v\n',
      'charts/n.tgz': await chartArchive(),
    };
    const bytes = await chartArchive(files, 'any-root');
    const out = join(dir, 'out');
    const content = await unpackChart(inPieces(bytes, 100), { dir: out, what: 'x' });
    expect(content.chart.name).toBe('demo');
    expect(await readFile(join(out, 'values.yaml'), 'utf8')).toBe('k: v\n');
    expect(await hashTree(out)).toEqual({ digest: content.tree, files: content.files });
    expect((await readdir(out)).sort()).toEqual(['Chart.yaml', 'a', 'charts', 'templates', 'values.yaml']);
    const umask = process.umask();
    expect((await lstat(join(out, 'Chart.yaml'))).mode & 0o777).toBe(0o644 & ~umask);
    expect((await lstat(join(out, 'a/b'))).mode & 0o777).toBe(0o755 & ~umask);
    expect(await diffTree(out, content.entries)).toEqual({ changed: [], missing: [], extra: [] });
  });

  it('never writes over a file, and a hostile archive writes nothing outside', async () => {
    const out = join(dir, 'out');
    await put(out, { 'values.yaml': 'mine' });
    const bytes = await chartArchive();
    await expect(unpackChart(inPieces(bytes), { dir: out, what: 'x' })).rejects.toMatchObject({
      code: 'FILE_UNREADABLE',
    });
    expect(await readFile(join(out, 'values.yaml'), 'utf8')).toBe('mine');
    const hostile = await tgzOf([{ name: 'demo/../../evil', data: 'x' }]);
    await expect(
      unpackChart(inPieces(hostile), { dir: join(dir, 'deep/er'), what: 'x' }),
    ).rejects.toMatchObject({
      code: 'CHART_ARCHIVE_TRAVERSAL',
    });
    expect((await readdir(dir, { recursive: true })).filter((p) => p.includes('evil'))).toEqual([]);
  });

  it('shows every hand edit: changed, missing and extra files, and links', async () => {
    const out = join(dir, 'out');
    const content = await unpackChart(inPieces(await chartArchive()), { dir: out, what: 'x' });
    await writeFile(join(out, 'values.yaml'), 'image: other\n');
    await rm(join(out, 'templates/cm.yaml'));
    await symlink('/etc/passwd', join(out, 'templates/cm.yaml'));
    await rm(join(out, 'Chart.yaml'));
    await put(out, { 'notes/mine.txt': 'x' });
    await symlink('values.yaml', join(out, 'link'));
    await mkdir(join(out, 'empty'));
    expect(await diffTree(out, content.entries)).toEqual({
      changed: ['templates/cm.yaml', 'values.yaml'],
      missing: ['Chart.yaml'],
      extra: ['link', 'notes/mine.txt'],
    });
    const error = await hashTree(out).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'CHART_ARCHIVE_LINK', faults: { length: 2 } });
    const absent = await diffTree(join(dir, 'absent'), content.entries);
    expect(absent).toEqual({ changed: [], missing: [...content.entries.keys()], extra: [] });
  });

  it('with a named pipe or a line break in a name is refused', async () => {
    await put(dir, demoFiles());
    await run('mkfifo', [join(dir, 'pipe')]);
    await expect(hashTree(dir)).rejects.toMatchObject({ code: 'CHART_ARCHIVE_SPECIAL' });
    await expect(packed(dir)).rejects.toMatchObject({ code: 'CHART_ARCHIVE_SPECIAL' });
    await rm(join(dir, 'pipe'));
    await writeFile(join(dir, 'a\nb'), '');
    await expect(hashTree(dir)).rejects.toMatchObject({ code: 'CHART_ARCHIVE_INVALID' });
  });
});

describe('packing a chart folder', () => {
  it('gives an archive that reads back as the same tree', async () => {
    await put(dir, {
      ...demoFiles(),
      'docs/한국어.md': 'ko',
      [`d/${'long-'.repeat(30)}.txt`]: 'l',
      'with space.txt': '',
    });
    const { bytes, tree, digest, size, files } = await packed(dir);
    const content = await readChartArchive(inPieces(bytes, 1000), { what: 'x' });
    expect(content.tree).toBe(tree);
    expect((await hashTree(dir)).digest).toBe(tree);
    expect(size).toBe(bytes.length);
    expect(files).toBe(6);
    expect(digest).toBe((await packChartDirectory(dir)).digest);
    const listing = (
      await run('tar', ['tzvf', '-', '--numeric-owner'], {
        input: bytes,
        env: { TZ: 'UTC', LC_ALL: 'C.UTF-8' },
      })
    ).stdout;
    for (const line of listing.trim().split('\n'))
      expect(line).toMatch(/^-rw-r--r-- 0\/0 +\d+ 1970-01-01 00:00 demo\//);
  });

  it('gives these bytes everywhere', async () => {
    await put(dir, demoFiles());
    // A golden value: it may change only together with the written rule, because locks hold it.
    expect((await packed(dir)).digest).toBe(
      'sha256:dd478b0981bc25871046fa1b7f3aae0f36f58c9bb30c3e846089dbbb20f7a4f3',
    );
  });

  it('does not depend on the order of creation, times or modes', async () => {
    const arbitrary = fc.dictionary(
      fc.stringMatching(/^[a-z]{1,6}(\/[a-z]{1,6}){0,2}\.txt$/),
      fc.uint8Array({ maxLength: 200_000 }),
      { maxKeys: 6 },
    );
    let run = 0;
    await fc.assert(
      fc.asyncProperty(arbitrary, fc.integer({ min: 1, max: 2 ** 31 }), async (extra, seconds) => {
        const files = { ...demoFiles(), ...extra };
        const [a, b] = [join(dir, `${++run}a`), join(dir, `${run}b`)];
        await put(a, files);
        await put(b, Object.fromEntries(Object.entries(files).reverse()));
        for (const path of Object.keys(files)) {
          await utimes(join(b, path), seconds, seconds);
          await chmod(join(b, path), 0o700);
        }
        const first = await packed(a);
        expect((await packed(b)).bytes.equals(first.bytes)).toBe(true);
        await writeFile(join(b, 'values.yaml'), 'other');
        expect((await packed(b)).digest).not.toBe(first.digest);
      }),
      { numRuns: 15 },
    );
  });

  it('leaves out what .helmignore names, links too', async () => {
    await put(dir, {
      ...demoFiles(),
      '.helmignore': '*.bak\nsecret/\n/top.txt\n',
      'x.bak': '',
      'd/y.bak': '',
      'secret/k': '',
      'top.txt': '',
      'd/top.txt': '',
      'templates/.hidden': '',
    });
    await symlink('/nowhere', join(dir, 'dead.bak'));
    const { entries } = await packed(dir);
    expect([...entries.keys()]).toEqual([
      '.helmignore',
      'Chart.yaml',
      'd/top.txt',
      'templates/cm.yaml',
      'values.yaml',
    ]);
  });

  it('takes fetched dependencies in, from memory or from a file, in place of old ones', async () => {
    await put(dir, { ...demoFiles(), '.helmignore': '*.tgz\n', 'charts/dep-1.0.0.tgz': 'old' });
    const dep = await chartArchive(demoFiles('dep', '1.0.0'), 'dep');
    const file = join(tmpdir(), `sealift-dep-${process.pid}.tgz`);
    await writeFile(file, dep);
    try {
      const a = await packed(dir, { vendor: [{ path: 'charts/dep-1.0.0.tgz', data: dep }] });
      const b = await packed(dir, { vendor: [{ path: 'charts/dep-1.0.0.tgz', data: { file } }] });
      expect(a.vendored).toMatchObject([{ name: 'dep', version: '1.0.0', path: 'charts/dep-1.0.0.tgz' }]);
      expect(b.bytes.equals(a.bytes)).toBe(true);
    } finally {
      await rm(file);
    }
  });

  it('refuses links, folders without Chart.yaml and what is no folder', async () => {
    await expect(packed(join(dir, 'none'))).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    await expect(packed(dir)).rejects.toMatchObject({ code: 'CHART_INVALID' });
    await put(dir, demoFiles());
    await symlink('values.yaml', join(dir, 'link.yaml'));
    await symlink('templates', join(dir, 'folder-link'));
    const error = await packed(dir).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'CHART_ARCHIVE_LINK', faults: { length: 2 } });
  });
});
