import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { ensureBuilt } from '../cli/program.ts';
import { makeBigFleet, pushImage } from '../support/fleet.ts';
import { type Measured, measureProgram } from '../support/measure.ts';

/**
 * How the real program's memory and open files grow with the number of images. The registries run in this process, so
 * only the program's own are counted. Each image has two platforms: 7 entries of a bundle.
 */

const FEW = 100;
const MANY = 1000;
/**
 * What peaks may grow by, in MiB. Measured: 9, 12, 4, 6, 9, 10 and 13. Most of it is not the number of images: V8's compiler
 * and its code come into memory in a run that takes longer than a moment (docs/decisions/014).
 */
const GROWTH_MIB: Readonly<Record<string, number>> = {
  lock: 14,
  pack: 17,
  'pack again': 9,
  verify: 12,
  'verify --deep': 14,
  load: 15,
  'load again': 18,
};
/** Node opens about 100 for a moment while it reads the program, which is seen or missed; one for each image is not missed. */
const OPEN_FILES = 150;

let dir: string;
let source: RunningRegistry;

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-scale-'));
  source = await startRegistry({ storage: 'memory' });
  const fleet = makeBigFleet({ images: MANY, layerSizes: [600], sharedBases: 3, baseSize: 4096 });
  const references: string[] = [];
  let running: Promise<unknown>[] = [];
  for (const image of fleet) {
    references.push(`  - ${source.host}/${image.name}:${image.tag}\n`);
    running.push(pushImage(source.host, image));
    if (running.length < 16) continue;
    await Promise.all(running);
    running = [];
  }
  await Promise.all(running);
  for (const count of [FEW, MANY]) {
    const head = 'apiVersion: sealift/v1\nname: fleet\nversion: "1"\nplatforms: all\nimages:\n';
    await mkdir(join(dir, String(count)));
    await writeFile(join(dir, String(count), 'sealift.yaml'), head + references.slice(0, count).join(''));
  }
});

afterAll(async () => {
  await source?.close();
  await rm(dir, { recursive: true, force: true });
});

async function wholeJob(count: number): Promise<Map<string, Measured>> {
  const target = await startRegistry({ storage: 'memory' });
  const load = ['load', 'fleet.tar', '--registry', target.url];
  const steps: readonly (readonly [string, readonly string[]])[] = [
    ['lock', ['lock']],
    ['pack', ['pack', '-o', 'fleet.tar']],
    ['pack again', ['pack', '-o', 'fleet.tar']],
    ['verify', ['verify', 'fleet.tar']],
    ['verify --deep', ['verify', 'fleet.tar', '--deep']],
    ['load', load],
    ['load again', load],
  ];
  const measured = new Map<string, Measured>();
  try {
    for (const [name, args] of steps) {
      const run = await measureProgram(args, { cwd: join(dir, String(count)) });
      expect(run.code, `${name}: ${run.stderr}`).toBe(0);
      measured.set(name, run);
    }
  } finally {
    await target.close();
  }
  return measured;
}

describe('from 100 to 1000 images', () => {
  it('memory hardly grows, and open files do not', async () => {
    const few = await wholeJob(FEW);
    const many = await wholeJob(MANY);
    for (const [name, budget] of Object.entries(GROWTH_MIB)) {
      const [a, b] = [few.get(name), many.get(name)];
      const peaks = `${name}: ${a?.peakKib} KiB for ${FEW} images, ${b?.peakKib} KiB for ${MANY}`;
      expect(a?.peakKib ?? 0, peaks).toBeGreaterThan(0);
      expect((b?.peakKib ?? 0) - (a?.peakKib ?? 0), peaks).toBeLessThan(budget * 1024);
      const files = `${name}: ${b?.openFiles} open files for ${MANY} images`;
      expect(b?.openFiles ?? 0, files).toBeGreaterThan(0);
      expect(b?.openFiles ?? 0, files).toBeLessThan(OPEN_FILES);
    }
  });
});
