/** A bundle in more volumes than a process may open files: written and read by the real program. */
import { execFile } from 'node:child_process';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { pack } from '../../src/ops/pack.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { ensureBuilt, ROOT } from '../cli/program.ts';

/** Files that the program may open; its threads and its own files need about half of them. */
const FILES = 100;
const SIZE = 65_536;
let site: Site;
let good: Packed;

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite({ fleet: { layerSizes: [3_000_000, 1000], baseSize: 6_000_000 } });
  good = await packSite(site);
}, 300_000);

afterAll(() => site.close());

/** Runs `sealift ARGS…` where few files may be open, and returns what it says as JSON. */
async function run(...args: string[]): Promise<Record<string, unknown>> {
  const command = `ulimit -n ${FILES} && exec "$0" "$@"`;
  const words = [process.execPath, join(ROOT, 'bin/sealift.js'), ...args, '--json'];
  const env = { PATH: process.env.PATH ?? '', HOME: site.dir };
  const ran = await promisify(execFile)('sh', ['-c', command, ...words], { env });
  return JSON.parse(ran.stdout) as Record<string, unknown>;
}

async function volumesIn(folder: string): Promise<string[]> {
  const names = (await readdir(site.path(folder))).filter((name) => /\.tar\.\d+$/.test(name));
  return names.sort().map((name) => site.path(folder, name));
}

it('is packed, merged and verified, also where one of them lacks', { timeout: 300_000 }, async () => {
  const out = site.path('v', 'b.tar');
  await run('pack', '-f', site.manifestPath, '-o', out, '--volume-size', '64KiB', '--no-tool');
  const volumes = await volumesIn('v');
  expect(volumes).toHaveLength(Math.ceil(good.bytes.length / SIZE));
  expect(volumes.length).toBeGreaterThan(2 * FILES);
  const bytes = async (paths: string[]): Promise<Buffer> =>
    Buffer.concat(await Promise.all(paths.map((path) => readFile(path))));
  expect((await bytes(volumes)).equals(good.bytes)).toBe(true);
  await run('merge', site.path('m', 'b.tar'), out, '--volume-size', '64KiB');
  expect((await bytes(await volumesIn('m'))).equals(good.bytes)).toBe(true);
  expect(await run('verify', out, '--deep')).toMatchObject({ ok: true });
  const [, , third = ''] = volumes;
  await rm(third);
  const damaged = await run('verify', out).catch((error: { stdout: string }) => JSON.parse(error.stdout));
  const said = JSON.stringify(damaged);
  expect(said).toContain(`${third} is missing: volume 3 of ${volumes.length}`);
  expect(said).not.toContain('EMFILE');
});

it('gives the same in this process, which keeps none of them open in the end', async () => {
  const before = (await readdir('/proc/self/fd')).length;
  const out = site.path('again', 'b.tar');
  await pack({ manifestPath: site.manifestPath, out, volumeSize: SIZE }, contextOf());
  const parts = await Promise.all((await volumesIn('again')).map((path) => readFile(path)));
  expect(Buffer.concat(parts).equals(good.bytes)).toBe(true);
  expect((await readdir('/proc/self/fd')).length).toBeLessThan(before + 10);
}, 60_000);
