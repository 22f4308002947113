import { spawnSync } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type LoadResult, load } from '../../src/ops/load.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import { demoFiles } from '../support/charts.ts';

let site: Site;
let tree: string;
let bundle: string;

function faultOf(result: LoadResult): LoadResult['targets'][number]['fault'] {
  const [target] = result.targets;
  return target?.fault ?? target?.entries.find((e) => e.fault !== null)?.fault ?? null;
}

beforeEach(async () => {
  site = await makeSite();
  tree = join(site.dir, 'site', 'charts', 'external');
  for (const name of ['web', 'db']) await site.addChart(name, '1.0.0', demoFiles(name, '1.0.0'));
  const chart = (name: string): string =>
    `  - {name: ${name}, version: 1.0.0, repo: "${site.source.url}/charts"}\n`;
  bundle = await site.bundle('shop', `charts:\n${chart('web')}${chart('db')}`);
});

afterEach(async () => {
  await site.close();
});

describe('the chart tree', () => {
  it('gets a folder for each chart and the lock beside them, and nothing else', async () => {
    await mkdir(join(tree, '..', 'custom', 'own'), { recursive: true });
    const result = await load({ bundle, chartTrees: [tree] }, testContext());
    expect(result.failed).toBe(0);
    expect((await readdir(tree)).sort()).toEqual(['db-1.0.0', 'versions.lock', 'web-1.0.0']);
    expect(await readdir(join(tree, '..'))).toEqual(['custom', 'external']);
    expect(await readFile(join(tree, 'versions.lock'))).toEqual(
      await readFile(join(site.dir, 'shop', 'versions.lock')),
    );
    expect((await stat(join(tree, 'web-1.0.0', 'values.yaml'))).mode & 0o777).toBe(0o644);
  });

  it('keeps a tree that somebody edited and says what was edited; the other charts arrive', async () => {
    await load({ bundle, chartTrees: [tree] }, testContext());
    await writeFile(join(tree, 'web-1.0.0', 'values.yaml'), 'image: mine\n');
    await writeFile(join(tree, 'web-1.0.0', 'more.yaml'), 'x: 1\n');
    const result = await load({ bundle, chartTrees: [tree] }, testContext());
    expect(result.failed).toBe(1);
    expect(faultOf(result)).toMatchObject({ code: 'TARGET_CONFLICT' });
    expect(faultOf(result)?.message).toContain('changed values.yaml; extra more.yaml');
    expect(result.targets[0]?.entries.map((e) => e.state).sort()).toEqual(['failed', 'present']);
    expect(await readFile(join(tree, 'web-1.0.0', 'values.yaml'), 'utf8')).toBe('image: mine\n');
  });

  it('replaces an edited tree when that is forced, leaving nothing of the old one', async () => {
    await load({ bundle, chartTrees: [tree] }, testContext());
    await writeFile(join(tree, 'web-1.0.0', 'more.yaml'), 'x: 1\n');
    const result = await load({ bundle, chartTrees: [tree], force: true }, testContext());
    expect(result.failed).toBe(0);
    expect((await readdir(join(tree, 'web-1.0.0'))).sort()).toEqual([
      'Chart.yaml',
      'templates',
      'values.yaml',
    ]);
    expect((await readdir(tree)).sort()).toEqual(['db-1.0.0', 'versions.lock', 'web-1.0.0']);
  });

  it('is not written to when a lock is there that Sealift did not write', async () => {
    await mkdir(tree, { recursive: true });
    await writeFile(join(tree, 'versions.lock'), 'nvidia/gpu-operator,v24.9.2,abc,2024-01-01\n');
    const result = await load({ bundle, chartTrees: [tree] }, testContext());
    expect(faultOf(result)).toMatchObject({ code: 'TARGET_CONFLICT' });
    expect(await readdir(tree)).toEqual(['versions.lock']);
    expect(await readFile(join(tree, 'versions.lock'), 'utf8')).toContain('nvidia');
  });

  it('never shows a chart that could not be unpacked wholly, and completes it the next time', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 30 }, (_, i) => [`files/f${i}.txt`, 'x'.repeat(100_000)]),
    );
    await site.addChart('big', '1.0.0', { ...demoFiles('big', '1.0.0'), ...files });
    const big = await site.bundle(
      'big',
      `charts: [{name: big, version: 1.0.0, repo: "${site.source.url}/charts"}]\n`,
    );
    const disk = join(site.dir, 'small-disk');
    await mkdir(disk);
    const mount = (...args: string[]): boolean => spawnSync(args[0] ?? '', args.slice(1)).status === 0;
    if (!mount('mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk)) {
      console.warn('skipped: a small tmpfs cannot be mounted here (needs root)');
      expect(process.getuid?.()).not.toBe(0);
      return;
    }
    try {
      const result = await load({ bundle: big, chartTrees: [disk] }, testContext());
      expect(faultOf(result)).toMatchObject({ code: 'DISK_FULL' });
      expect(result.targets[0]?.entries.map((e) => e.state)).toEqual(['failed']);
      expect(await readdir(disk)).toEqual([]);
      expect(mount('mount', '-o', 'remount,size=16m', disk)).toBe(true);
      expect((await load({ bundle: big, chartTrees: [disk] }, testContext())).failed).toBe(0);
      expect((await readdir(disk)).sort()).toEqual(['big-1.0.0', 'versions.lock']);
    } finally {
      mount('umount', disk);
    }
  });

  it('keeps the lock of another bundle and puts ours beside it', async () => {
    const other = await site.bundle(
      'other',
      `charts:\n  - {name: db, version: 1.0.0, repo: "${site.source.url}/charts"}\n`,
    );
    await load({ bundle: other, chartTrees: [tree] }, testContext());
    const before = await readFile(join(tree, 'versions.lock'));
    expect((await load({ bundle, chartTrees: [tree] }, testContext())).failed).toBe(0);
    expect(await readFile(join(tree, 'versions.lock'))).toEqual(before);
    const ours = await readFile(join(tree, 'versions.shop.lock'), 'utf8');
    expect(ours).toBe(await readFile(join(site.dir, 'shop', 'versions.lock'), 'utf8'));
  });
});

describe('a folder of files', () => {
  let files: string;
  let withFiles: string;

  beforeEach(async () => {
    files = join(site.dir, 'site', 'files');
    site.source.addFile('tool', 'a tool\n');
    await site.put('tools/conf/a.toml', 'a = 1\n');
    withFiles = await site.bundle(
      'tools',
      `files:\n  - {url: "${site.source.url}/files/tool", name: bin/tool, mode: "0755"}\n  - {path: conf, name: etc}\n`,
    );
  });

  it('gets each file under its name with its mode, whatever the umask', async () => {
    const before = process.umask(0o077);
    try {
      expect((await load({ bundle: withFiles, files: [files] }, testContext())).failed).toBe(0);
    } finally {
      process.umask(before);
    }
    expect((await stat(join(files, 'bin', 'tool'))).mode & 0o777).toBe(0o755);
    expect((await stat(join(files, 'etc', 'a.toml'))).mode & 0o777).toBe(0o644);
    expect(await readFile(join(files, 'bin', 'tool'), 'utf8')).toBe('a tool\n');
    expect(await readdir(join(files, 'bin'))).toEqual(['tool']);
  });

  it('keeps a file with other bytes unless forced, and only corrects a mode', async () => {
    await load({ bundle: withFiles, files: [files] }, testContext());
    await writeFile(join(files, 'bin', 'tool'), 'another tool\n');
    await writeFile(join(files, 'etc', 'a.toml'), 'a = 1\n');
    const kept = await load({ bundle: withFiles, files: [files] }, testContext());
    expect(faultOf(kept)).toMatchObject({ code: 'TARGET_CONFLICT' });
    expect(await readFile(join(files, 'bin', 'tool'), 'utf8')).toBe('another tool\n');
    const forced = await load({ bundle: withFiles, files: [files], force: true }, testContext());
    expect(forced.failed).toBe(0);
    expect(await readFile(join(files, 'bin', 'tool'), 'utf8')).toBe('a tool\n');
  });

  it('gets empty files too, and a forced one really has no bytes afterwards', async () => {
    await site.put('empty/none.txt', '');
    const empty = await site.bundle('empty', 'files: [{path: none.txt, name: none.txt}]\n');
    expect((await load({ bundle: empty, files: [files] }, testContext())).failed).toBe(0);
    expect(await readFile(join(files, 'none.txt'), 'utf8')).toBe('');
    await writeFile(join(files, 'none.txt'), 'other bytes');
    expect((await load({ bundle: empty, files: [files] }, testContext())).failed).toBe(1);
    expect((await load({ bundle: empty, files: [files], force: true }, testContext())).failed).toBe(0);
    expect(await readFile(join(files, 'none.txt'), 'utf8')).toBe('');
  });

  it('keeps what a link in place of a file leads to', async () => {
    await load({ bundle: withFiles, files: [files] }, testContext());
    const outside = join(site.dir, 'outside.txt');
    await rename(join(files, 'bin', 'tool'), outside);
    await chmod(outside, 0o600);
    await symlink(outside, join(files, 'bin', 'tool'));
    const result = await load({ bundle: withFiles, files: [files] }, testContext());
    expect(faultOf(result)).toMatchObject({ code: 'TARGET_CONFLICT' });
    expect((await stat(outside)).mode & 0o777).toBe(0o600);
  });

  it('is not left through a link inside it', async () => {
    const outside = join(site.dir, 'outside');
    await mkdir(outside);
    await mkdir(files, { recursive: true });
    await symlink(outside, join(files, 'bin'));
    const result = await load({ bundle: withFiles, files: [files] }, testContext());
    expect(result.failed).toBe(1);
    expect(faultOf(result)?.message).toContain('leads out');
    expect(await readdir(outside)).toEqual([]);
    expect(await readFile(join(files, 'etc', 'a.toml'), 'utf8')).toBe('a = 1\n');
  });

  it('is not left through a link where only a mode would change', async () => {
    await load({ bundle: withFiles, files: [files] }, testContext());
    const outside = join(site.dir, 'outside');
    await rename(join(files, 'bin'), outside);
    await symlink(outside, join(files, 'bin'));
    await chmod(join(outside, 'tool'), 0o600);
    const result = await load({ bundle: withFiles, files: [files] }, testContext());
    expect(faultOf(result)?.message).toContain('leads out');
    expect((await stat(join(outside, 'tool'))).mode & 0o777).toBe(0o600);
  });

  it("has its receipt's place tried before anything is written", async () => {
    const receiptPath = join(site.dir, 'tools', 'sealift.yaml', 'receipt.json');
    const failed = load({ bundle: withFiles, files: [files], receiptPath }, testContext());
    await expect(failed).rejects.toMatchObject({ code: 'FILE_UNREADABLE' });
    await expect(stat(files)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('is not loaded when the receipt would take the place of the bundle or of a folder', async () => {
    for (const receiptPath of [withFiles, site.dir]) {
      const failed = load({ bundle: withFiles, files: [files], receiptPath }, testContext());
      await expect(failed).rejects.toMatchObject({ code: 'USAGE' });
    }
    await expect(stat(files)).rejects.toMatchObject({ code: 'ENOENT' });
    const receiptPath = join(site.dir, 'new', 'r.json');
    await load({ bundle: withFiles, files: [files], receiptPath, dryRun: true }, testContext());
    await expect(stat(join(site.dir, 'new'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('is said to get nothing when nothing in the bundle is for it', async () => {
    const context = testContext();
    await load({ bundle, files: [files] }, context);
    const warnings = context.events.flatMap((e) => (e.type === 'warning' ? [e.fault.message] : []));
    expect(warnings.join()).toContain(`nothing that is loaded is for files ${files}`);
  });

  it('is named in the receipt with what was written, also by an earlier load of the bundle', async () => {
    const receiptPath = join(site.dir, 'receipt.json');
    await load({ bundle: withFiles, files: [files], receiptPath }, testContext());
    await load({ bundle: withFiles, files: [files], only: ['etc/a.toml'], receiptPath }, testContext());
    const receipt: unknown = JSON.parse(await readFile(receiptPath, 'utf8'));
    expect(receipt).toMatchObject({
      schemaVersion: 1,
      kind: 'receipt',
      bundle: { name: 'tools', version: '1' },
      start: '2026-11-01T00:00:00.000Z',
      failed: 0,
      targets: [
        {
          kind: 'files',
          entries: [
            { name: 'etc/a.toml', state: 'present', added: { names: [join(files, 'etc/a.toml')] } },
            { name: 'bin/tool', state: 'written', added: { names: [join(files, 'bin/tool')] } },
          ],
        },
      ],
    });
  });

  it('asks for names that exist', async () => {
    const wrong = load({ bundle: withFiles, files: [files], only: ['etc/b.toml'] }, testContext());
    await expect(wrong).rejects.toMatchObject({ code: 'USAGE' });
  });
});
