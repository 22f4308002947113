import { mkdtemp, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ensureBuilt } from '../cli/program.ts';
import {
  type BlobRegistry,
  type MadeLayer,
  manifestOf,
  startBlobRegistry,
} from '../support/blob-registry.ts';
import { type Measured, measureProgram } from '../support/measure.ts';

/** The real program on one blob of 12 GiB. The registries run in this process, so only the program's own memory counts. */

const LIMIT_BYTES = 200_000_000;
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** More than 8 GiB, which a plain tar header cannot say, and no multiple of a block. */
const SIZE = 12 * GIB + 7;
/** Zeros, but 16 bytes at every GiB that tell the place apart; each lies across the border, and so also across 4 and 8 GiB. */
const MARK = 16;
const ZEROS = Buffer.alloc(MIB);

/** Bytes from `from`, at most to `end` and no longer than a MiB. */
function bytesAt(from: number, end: number): Buffer {
  const length = Math.min(MIB, end - from);
  const near = Math.round((from + length / 2) / GIB);
  const start = near * GIB - MARK / 2;
  if (near === 0 || start >= from + length || start + MARK <= from) return ZEROS.subarray(0, length);
  const bytes = Buffer.alloc(length);
  const mark = Buffer.from(`<here are ${near}G`.padEnd(MARK, '>'));
  for (let i = 0; i < MARK; i++) {
    const at = start + i - from;
    if (at >= 0 && at < length) bytes[at] = mark[i] ?? 0;
  }
  return bytes;
}

/**
 * The layer. Its SHA-256 stands here because it takes several seconds: when `bytesAt` changes, a pack says which one it
 * found. The target computes it once more of what comes in.
 */
const LAYER: MadeLayer = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  digest: 'sha256:00c468b9b5b4a0b86b0daff7c5247d00f5dbf3644af407f399ba03c508ed354c',
  size: SIZE,
  bytesAt,
};
/** The bundle, and what others may need meanwhile. */
const NEEDED = LAYER.size + 2 * GIB;
/** Behind 8 GiB, where 32 bits are long over; no multiple of anything. */
const CUT_AT = 9 * GIB + 54_321;

const { bavail, bsize } = await statfs(tmpdir());
const free = bavail * bsize;
const why = `12 GiB in one blob: ${tmpdir()} has ${Math.floor(free / MIB)} MiB free, ${Math.ceil(NEEDED / MIB)} are needed`;
if (free < NEEDED) console.warn(`NOT RUN: ${why}`);

let dir: string;
let source: BlobRegistry;
let target: BlobRegistry;

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-large-'));
  source = await startBlobRegistry({ layers: [LAYER] });
  target = await startBlobRegistry();
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
  // Minutes where the disk is busy.
  { timeout: 1_800_000 },
  async () => {
    const text = `apiVersion: sealift/v1\nname: big\nversion: "1"\nplatforms: all\nimages: ["${source.host}/big:1"]\n`;
    await writeFile(join(dir, 'sealift.yaml'), text);
    expectSmall('lock', await measureProgram(['lock'], { cwd: dir }));

    source.cutAt = CUT_AT;
    expectSmall('pack', await measureProgram(['pack', '-o', 'big.tar'], { cwd: dir }));
    expect(source.cutAt).toBeUndefined();
    expect(source.sent - LAYER.size).toBeLessThan(4 * MIB);
    expect((await stat(join(dir, 'big.tar'))).size).toBeGreaterThan(LAYER.size);

    expectSmall(
      'load',
      await measureProgram(['load', 'big.tar', '--registry', `http://${target.host}`], { cwd: dir }),
    );
    await rm(join(dir, 'big.tar'));
    expect(target.received.get(LAYER.digest)).toBe(LAYER.size);
    expect(target.manifests.get('1')?.equals(manifestOf([LAYER]))).toBe(true);
  },
);
