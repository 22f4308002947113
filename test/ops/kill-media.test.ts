/** `kill -9` of the real program in packs into volumes, repairs and merges: run again, the same end state. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, SEED, type Site, seeded } from '../bundle/site.ts';
import { ensureBuilt, startProgram } from '../cli/program.ts';
import { bytesOnDisk } from './interrupted.ts';

const KILLS = 8;
const SIZE = 1_000_000;
let site: Site;
let first: Packed;
let good: Packed;

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite({ fleet: { layerSizes: [2_000_000, 900_000], baseSize: 3_000_000 } });
  await site.lockFor(site.images.slice(0, 1));
  first = await packSite(site, 'first.tar');
  await site.lockFor();
  good = await packSite(site);
}, 240_000);

afterAll(() => site.close());

/** Every file of a name, by name; what is beside it under construction too. */
async function filesOf(out: string): Promise<string[]> {
  return (await readdir(dirname(out))).filter((n) => n.startsWith(basename(out))).sort();
}

/** Bytes on the disk of what is not finished: a file, or a folder with volumes. */
async function underConstruction(out: string): Promise<number> {
  const names = await readdir(`${out}.partial`).catch(() => undefined);
  if (names === undefined) return bytesOnDisk(`${out}.partial`);
  const sizes = await Promise.all(names.map((name) => bytesOnDisk(join(`${out}.partial`, name))));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Runs the program and kills it once so many bytes lie beside `out`. @returns its exit code; null when it was killed */
async function killAt(args: readonly string[], out: string, bytes: number): Promise<number | null> {
  const { child, ended } = startProgram([...args, '--progress', 'none'], { cwd: site.dir });
  let over = false;
  void ended.then(() => {
    over = true;
  });
  while (!over && (await underConstruction(out)) < bytes) await wait(1);
  child.kill('SIGKILL');
  const { code, stderr } = await ended;
  if (code !== null) expect([code, stderr]).toEqual([0, expect.any(String)]);
  return code;
}

/** Kills a command at moments that the seed chooses until it ends, then once more lets it end. */
async function survive(args: readonly string[], out: string, size: number): Promise<number> {
  const random = seeded(SEED + size);
  let kills = 0;
  for (let run = 0; run < KILLS; run += 1) {
    const held = await underConstruction(out);
    // On a busy machine all may be done before it is looked at again: the first kill comes with the first byte.
    const more = run === 0 ? 1 : Math.floor(random() * size * 0.4);
    if ((await killAt(args, out, held + more)) === null) kills += 1;
  }
  expect(await killAt(args, out, Number.POSITIVE_INFINITY)).toBe(0);
  return kills;
}

describe(`work that was killed (seed ${SEED})`, () => {
  it('leaves a pack into volumes that the next run finishes', async () => {
    const out = site.path('v.tar');
    const args = ['pack', '-f', site.manifestPath, '-o', out, '--volume-size', String(SIZE), '--no-tool'];
    expect(await survive(args, out, good.bytes.length)).toBeGreaterThan(2);
    const names = await filesOf(out);
    expect(names).toHaveLength(Math.ceil(good.bytes.length / SIZE));
    const parts = await Promise.all(names.map((n) => readFile(join(site.dir, n))));
    expect(Buffer.concat(parts).equals(good.bytes)).toBe(true);
  }, 120_000);

  it('leaves a merge that the next run finishes', async () => {
    const delta = site.path('delta.tar');
    await pack({ manifestPath: site.manifestPath, out: delta, since: [first.path] }, contextOf());
    const out = site.path('m.tar');
    expect(await survive(['merge', out, first.path, delta], out, good.bytes.length)).toBeGreaterThan(0);
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
    expect(await filesOf(out)).toEqual(['m.tar']);
  }, 120_000);

  it('leaves a repair that the next run finishes', async () => {
    const damaged = site.path('damaged.tar');
    const bytes = Buffer.from(good.bytes);
    for (const { offset, size } of good.entries.filter((e) => e.size > 500_000))
      bytes[offset + size - 9] = ~(bytes[offset + size - 9] ?? 0);
    await writeFile(damaged, bytes);
    const requestPath = site.path('repair.json');
    await verify({ bundle: damaged, requestPath }, contextOf());
    const out = site.path('fix.tar');
    const args = ['pack', '-f', site.manifestPath, '-o', out, '--repair', requestPath, '--no-tool'];
    expect(await survive(args, out, good.bytes.length)).toBeGreaterThan(0);
    expect(await filesOf(out)).toEqual(['fix.tar']);
    expect((await verify({ bundle: damaged, others: [out] }, contextOf())).faults).toEqual([]);
  }, 120_000);
});
