import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
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

  it('is named in the receipt with what was written and what was there', async () => {
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
      targets: [{ kind: 'files', entries: [{ name: 'etc/a.toml', state: 'present' }] }],
    });
  });

  it('asks for names that exist', async () => {
    const wrong = load({ bundle: withFiles, files: [files], only: ['etc/b.toml'] }, testContext());
    await expect(wrong).rejects.toMatchObject({ code: 'USAGE' });
  });
});
