import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { makeImage, pushImage } from '../support/fleet.ts';
import { documentOf, ensureBuilt, type Ran, runProgram } from './program.ts';
import { openSite, type Site } from './site.ts';

let site: Site;
let target: RunningRegistry;
const sealift = (...args: string[]): Promise<Ran> => runProgram(args, { cwd: site.dir });
const loadArgs = (): string[] => [
  'load',
  'a.tar',
  ...['--registry', `${target.host}/gpu`, '--chart-tree', 'trees', '--files', 'files'],
];

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite();
  target = await startRegistry({ storage: 'memory' });
}, 180_000);

afterAll(async () => {
  await target.close();
  await site.close();
});

describe('the main job on the command line', () => {
  it('asks for a lock where there is none: exit 3', async () => {
    const ran = await sealift('lock', '--check');
    expect(ran).toMatchObject({ code: 3, stdout: '' });
    expect(ran.stderr).toContain('error[LOCK_NOT_FOUND]: ');
    expect(ran.stderr).toContain('hint: run `sealift lock`');
  });

  it('shows what lock would do without writing', async () => {
    const ran = await sealift('lock', '--diff');
    expect(ran.code).toBe(0);
    expect(ran.stdout).toMatch(/^\+ image .*fleet\/api:1\.1\.0 {2}sha256:[0-9a-f]{12}$/m);
    expect(ran.stderr).toContain('next: sealift lock');
    await expect(readFile(site.path('versions.lock'))).rejects.toThrow('ENOENT');
  });

  it('locks, says what is new and names the next command', async () => {
    const ran = await sealift('lock');
    expect(ran).toMatchObject({ code: 0, stdout: '' });
    expect(ran.stderr).toContain('wrote versions.lock: 2 images, 1 chart, 1 file\n');
    expect(ran.stderr).toMatch(/^ {2}\+ chart demo-1\.2\.3 {2}sha256:/m);
    expect(ran.stderr).toMatch(/\nnext: sealift pack -o astrago-2026\.11\.tar\n$/);
    const again = await sealift('lock');
    expect(again.stderr).toContain('nothing was written');
    expect((await sealift('lock', '--check')).code).toBe(0);
    expect(documentOf(await sealift('lock', '--check', '--online', '--json'))).toMatchObject({
      schemaVersion: 1,
      command: 'lock',
      inStep: true,
      online: true,
    });
  });

  it('packs, and says what a second pack compared', async () => {
    const first = await sealift('pack', '-o', 'a.tar');
    expect(first).toMatchObject({ code: 0, stdout: '' });
    expect(first.stderr).toMatch(/packed a\.tar: \d+ bytes \([\d.]+ kB\), 2 images, 1 chart, 1 file in/);
    expect(first.stderr).toMatch(/ {2}fetched \d+ blobs \(/);
    expect(first.stderr).toMatch(/\nnext: sealift verify a\.tar\n$/);
    const second = await sealift('pack', '-o', 'a.tar');
    expect(second.stderr).toContain(
      'compared documents, headers and length, not blob bytes (--verify reads them)',
    );
    const third = await sealift('pack', '-o', 'a.tar', '--verify', '--json');
    expect(documentOf(third)).toMatchObject({ command: 'pack', outcome: 'present', compared: 'bytes' });
  });

  it('verifies and says which chain was walked', async () => {
    const plain = await sealift('verify', 'a.tar');
    expect(plain.code).toBe(0);
    expect(plain.stderr).toContain('finds damage, not a forged bundle');
    const withLock = await sealift('verify', 'a.tar', '--lock', 'versions.lock');
    expect(withLock.stderr).toContain('compared with the versions.lock that you gave: SHA-256');
    expect(withLock.stderr).toContain('next: sealift load a.tar --registry HOST:PORT');
    expect(documentOf(await sealift('verify', 'a.tar', '--deep', '--json'))).toMatchObject({
      schemaVersion: 1,
      ok: true,
      chain: 'digests',
    });
  });

  it('lists the bundle as a table on stdout', async () => {
    const ran = await sealift('ls', 'a.tar');
    expect(ran.code).toBe(0);
    const [head, ...rows] = ran.stdout.trimEnd().split('\n');
    expect(head).toMatch(/^KIND +NAME +PLATFORMS +SIZE +SHARED +DIGEST$/);
    expect(rows).toHaveLength(4);
    expect(ran.stdout).toContain('linux/amd64 *');
    expect(ran.stderr).toContain('only some platforms');
    expect(documentOf(await sealift('ls', 'a.tar', '--json')).artifacts).toHaveLength(4);
  });

  it('plans a load without writing, in bytes', async () => {
    const ran = await sealift(...loadArgs(), '--dry-run');
    expect(ran.code).toBe(0);
    expect(ran.stdout).toContain(`registry ${target.host}/gpu\n`);
    expect(ran.stdout).toMatch(
      /0 present, 4 to write: \d+ bytes \([\d.]+ kB\) to write, 0 bytes there already/,
    );
    expect(ran.stderr).toContain(`next: sealift ${loadArgs().join(' ')}\n`);
    expect(target.requests.every((r) => r.method === 'GET' || r.method === 'HEAD')).toBe(true);
  });

  it('loads into a registry, a chart tree and a folder, and finds everything there the second time', async () => {
    const ran = await sealift(...loadArgs(), '--receipt', 'receipt.json');
    expect(ran).toMatchObject({ code: 0, stdout: '' });
    expect(ran.stderr).toContain(`registry ${target.host}/gpu: 4 written, 0 there already; sent `);
    expect(await readFile(site.path('files/bin/tool'), 'utf8')).toContain('echo tool');
    expect(await readFile(site.path('trees/demo-1.2.3/Chart.yaml'), 'utf8')).toContain('name: demo');
    const receipt: unknown = JSON.parse(await readFile(site.path('receipt.json'), 'utf8'));
    expect(receipt).toMatchObject({ schemaVersion: 1, failed: 0 });
    const again = await sealift(...loadArgs(), '--json');
    const document = documentOf(again);
    expect(document).toMatchObject({ schemaVersion: 1, command: 'load', failed: 0 });
    expect(document.targets).toMatchObject([
      { kind: 'registry', tally: { blobsWritten: 0, bytesWritten: 0 } },
      { kind: 'chart-tree' },
      { kind: 'files' },
    ]);
    expect(again.stderr).toContain('everything was there already');
  });

  it('does not suggest a dry run that would overwrite the receipt', async () => {
    const ran = await sealift(...loadArgs(), '--receipt', 'receipt.json');
    expect(ran.stderr).toMatch(/next: sealift load a\.tar .*--files files --dry-run {3}#/);
  });

  it('compares bundle and lock: exit 0 equal, 3 different', async () => {
    const equal = await sealift('diff', 'a.tar', 'versions.lock');
    expect(equal.code).toBe(0);
    expect(equal.stderr).toContain('equal: ');
    await writeFile(site.path('old.lock'), await readFile(site.path('versions.lock')));
    const [web] = site.images;
    if (web === undefined) throw new Error('a site has images');
    const fresh = makeImage({ seed: 2, layerSizes: [4096], baseSize: 8192 });
    await pushImage(site.source.host, fresh, { repository: web.name, tag: web.tag });
    const drift = await sealift('lock', '--check', '--online');
    expect(drift.code).toBe(3);
    expect(drift.stderr).toContain('error[DRIFT_FOUND]: the sources are no longer what versions.lock says');
    expect(drift.stderr).toContain(`locked ${web.index.digest}, now ${fresh.index.digest}`);
    const kept = await sealift('lock');
    expect(kept.stderr).toContain('nothing was written');
    const moved = await sealift('lock', '--update', 'web');
    expect(moved.stderr).toContain(`~ image ${site.source.host}/${web.name}:${web.tag}`);
    expect(moved.stderr).toContain(
      `digest  ${web.index.digest.slice(0, 19)} → ${fresh.index.digest.slice(0, 19)}`,
    );
    const different = await sealift('diff', 'a.tar', 'versions.lock', '--json');
    expect(different.code).toBe(3);
    expect(documentOf(different)).toMatchObject({ schemaVersion: 1, equal: false, onlyA: null });
    const comment = await sealift('diff', 'old.lock', 'versions.lock', '--format', 'markdown');
    expect(comment.code).toBe(3);
    expect(comment.stdout).toContain(`| changed | \`${site.source.host}/${web.name}\` | \`${web.tag}\` | `);
    expect(await sealift('diff', 'a.tar', 'a.tar', '--format', 'markdown', '--json')).toMatchObject({
      code: 2,
    });
    await sealift('pack', '-o', 'b.tar');
    const bundles = await sealift('diff', 'a.tar', 'b.tar');
    expect(bundles.code).toBe(3);
    expect(bundles.stdout).toMatch(/only in a\.tar: \d+ blobs, \d+ bytes/);
    const sized = documentOf(await sealift('diff', 'a.tar', 'b.tar', '--json'));
    const name = `${site.source.host}/${web.name}:${web.tag}`;
    expect(sized.sizes).toEqual([{ kind: 'image', name, from: expect.any(Number), to: expect.any(Number) }]);
  });

  it('tells how much of an older bundle a pack used again', async () => {
    const ran = await sealift('pack', '-o', 'a.tar');
    expect(ran.code).toBe(0);
    expect(ran.stderr).toMatch(/fetched \d+ blobs? \(.*\), used again from what was here \d+ blobs \(/);
  });
});
