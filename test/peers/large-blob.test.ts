import { mkdtemp, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ensureBuilt } from '../cli/program.ts';
import { BIG_LAYER, BIG_MANIFEST, type BigRegistry, startBigRegistry } from '../support/big-blob.ts';
import { type Measured, measureProgram } from '../support/measure.ts';

/** The real program on one blob of 12 GiB. The registries run in this process, so only the program's own memory counts. */

const LIMIT_BYTES = 200_000_000;
const MIB = 1024 * 1024;
/** The bundle, and what others may need meanwhile. */
const NEEDED = BIG_LAYER.size + 2 * 1024 * MIB;
/** Behind 8 GiB, where 32 bits are long over; no multiple of anything. */
const CUT_AT = 9 * 1024 * MIB + 54_321;

const { bavail, bsize } = await statfs(tmpdir());
const free = bavail * bsize;
const why = `12 GiB in one blob: ${tmpdir()} has ${Math.floor(free / MIB)} MiB free, ${Math.ceil(NEEDED / MIB)} are needed`;
if (free < NEEDED) console.warn(`NOT RUN: ${why}`);

let dir: string;
let source: BigRegistry;
let target: BigRegistry;

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-large-'));
  source = await startBigRegistry({ filled: true });
  target = await startBigRegistry({ filled: false });
});

afterAll(async () => {
  await source?.close();
  await target?.close();
  await rm(dir, { recursive: true, force: true });
});

function expectSmall(name: string, run: Measured): void {
  expect(run.code, `${name}: ${run.stderr}`).toBe(0);
  const told = `${name}: ${Math.round(run.peakKib / 1024)} MiB at most, ${(run.ms / 1000).toFixed(1)} s`;
  console.log(told);
  expect(run.peakKib, told).toBeGreaterThan(0);
  expect(run.peakKib * 1024, told).toBeLessThan(LIMIT_BYTES);
}

it.skipIf(free < NEEDED)(
  'a blob of 12 GiB is packed over a cut and loaded within the memory bound',
  async () => {
    const text = `apiVersion: sealift/v1\nname: big\nversion: "1"\nplatforms: all\nimages: ["${source.host}/big:1"]\n`;
    await writeFile(join(dir, 'sealift.yaml'), text);
    expectSmall('lock', await measureProgram(['lock'], { cwd: dir }));

    source.cutAt = CUT_AT;
    expectSmall('pack', await measureProgram(['pack', '-o', 'big.tar'], { cwd: dir }));
    expect(source.cutAt).toBeUndefined();
    expect(source.sent - BIG_LAYER.size).toBeLessThan(4 * MIB);
    expect((await stat(join(dir, 'big.tar'))).size).toBeGreaterThan(BIG_LAYER.size);

    expectSmall(
      'load',
      await measureProgram(['load', 'big.tar', '--registry', `http://${target.host}`], { cwd: dir }),
    );
    await rm(join(dir, 'big.tar'));
    expect(target.received.get(BIG_LAYER.digest)).toBe(BIG_LAYER.size);
    expect(target.manifests.get('1')?.equals(BIG_MANIFEST)).toBe(true);
  },
);
