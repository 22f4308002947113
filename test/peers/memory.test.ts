import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureBuilt } from '../cli/program.ts';
import { makeBigFleet, pushImage } from '../support/fleet.ts';
import { type Registry, run, startRegistry } from '../support/peers.ts';

/** Peak memory of the real program on a bundle of more than 700 MB, as the kernel counts it for a child. */

const LIMIT_KIB = 250 * 1024;
const MINIMUM_BYTES = 700_000_000;
const BIN = resolve(import.meta.dirname, '../../bin/sealift.js');

let dir: string;
let source: Registry;
let target: Registry;

/** Runs sealift and returns its peak resident set in KiB. */
async function peakOf(...args: string[]): Promise<number> {
  const script =
    'import resource, subprocess, sys\ncode = subprocess.call(sys.argv[1:])\nprint(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\nsys.exit(code)\n';
  const { stdout } = await run('python3', ['-c', script, process.execPath, BIN, ...args], { cwd: dir });
  return Number(stdout.trim().split('\n').at(-1));
}

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-memory-'));
  source = await startRegistry();
  target = await startRegistry();
  let refs = '';
  const MIB = 1024 * 1024;
  for (const image of makeBigFleet({
    images: 12,
    layerSizes: [18 * MIB, 6 * MIB, 2 * MIB],
    kinds: ['oci'],
  })) {
    await pushImage(source.url, image);
    refs += `  - ${source.url}/${image.name}:${image.tag}\n`;
  }
  const text = `apiVersion: sealift/v1\nname: fleet\nversion: "1"\nplatforms: all\nimages:\n${refs}`;
  await writeFile(join(dir, 'sealift.yaml'), text);
  await run(process.execPath, [BIN, 'lock'], { cwd: dir });
});

afterAll(async () => {
  await source?.stop();
  await target?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('peak memory on a bundle of 700 MB', () => {
  it('stays below the bound for pack, verify and load', async () => {
    const peaks: Record<string, number> = {
      pack: await peakOf('pack', '-o', 'fleet.tar'),
      verify: await peakOf('verify', 'fleet.tar'),
      'verify --deep': await peakOf('verify', 'fleet.tar', '--deep'),
      load: await peakOf('load', 'fleet.tar', '--registry', target.url),
    };
    expect((await stat(join(dir, 'fleet.tar'))).size).toBeGreaterThan(MINIMUM_BYTES);
    for (const [verb, peak] of Object.entries(peaks)) {
      expect(peak, `${verb}: ${Math.round(peak / 1024)} MiB`).toBeGreaterThan(0);
      expect(peak, `${verb}: ${Math.round(peak / 1024)} MiB`).toBeLessThan(LIMIT_KIB);
    }
  });
});
