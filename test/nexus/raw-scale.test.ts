import { createCipheriv, createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { documentOf, ensureBuilt, type Ran, runProgram, startProgram } from '../cli/program.ts';
import { measureProgram } from '../support/measure.ts';
import { onEachNexus } from '../support/nexus.ts';
import { listAssets, makeRepository, type TestRepository } from '../support/nexus-server.ts';

/** A tree of many small installers and one big one, into a raw repository: interrupted, repeated, and within bounds. */

const SMALL = 2_000;
/** 3 GB where somebody wants to wait for it: `SEALIFT_RAW_BYTES=3000000000`. */
const BIG_BYTES = Number(process.env.SEALIFT_RAW_BYTES ?? 200_000_000);
const PEAK_KIB = 200 * 1024;
const BIG = 'installers/big.run';

let dir = '';
/** `path sha1` of every file, in order. */
let wanted: string[];

const shapeOf = (i: number): { readonly path: string; readonly data: Buffer } => ({
  path: `installers/part-${i % 40}/${String(i).padStart(4, '0')}.bin`,
  data: createHash('sha512')
    .update(`${i}`)
    .digest()
    .subarray(0, 16 + (i % 48)),
});

/** Bytes that no compression makes smaller, as a stream: the key stream of a cipher. */
async function writeNoise(path: string, size: number): Promise<string> {
  const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32), Buffer.alloc(16));
  const zeros = Buffer.alloc(1024 * 1024);
  const sha1 = createHash('sha1');
  await pipeline(async function* noise() {
    for (let left = size; left > 0; left -= zeros.length) {
      const part = cipher.update(left < zeros.length ? zeros.subarray(0, left) : zeros);
      sha1.update(part);
      yield part;
    }
  }, createWriteStream(path));
  return sha1.digest('hex');
}

async function makeFiles(): Promise<void> {
  await mkdir(join(dir, 'f'));
  const lines: string[] = [];
  const sums: string[] = [];
  for (let i = 0; i < SMALL; i += 1) {
    const { path, data } = shapeOf(i);
    await writeFile(join(dir, 'f', String(i)), data);
    lines.push(`  - {path: f/${i}, name: ${path}}\n`);
    sums.push(`${path} ${createHash('sha1').update(data).digest('hex')}`);
  }
  sums.push(`${BIG} ${await writeNoise(join(dir, 'f', 'big'), BIG_BYTES)}`);
  wanted = sums.sort();
  const big = `  - {path: f/big, name: ${BIG}}\n`;
  await writeFile(
    join(dir, 'sealift.yaml'),
    `apiVersion: sealift/v1\nname: tree\nversion: "1"\nfiles:\n${big}${lines.join('')}`,
  );
}

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-raw-'));
  await makeFiles();
  for (const args of [['lock'], ['pack', '-o', 'tree.tar']]) {
    expect(await runProgram(args, { cwd: dir })).toMatchObject({ code: 0 });
  }
  await rm(join(dir, 'f'), { recursive: true });
});
afterAll(async () => {
  if (dir !== '') await rm(dir, { recursive: true, force: true });
});

onEachNexus(
  ['raw'],
  (nexus) => {
    let repository: TestRepository;
    const env = { NEXUS_USERNAME: nexus.username, NEXUS_PASSWORD: nexus.password };

    beforeAll(async () => {
      repository = await makeRepository(nexus, 'raw');
      const target = { type: 'nexus', name: 'nexus', url: nexus.url, raw: repository.name };
      const site = { apiVersion: 'sealift-site/v1', targets: [{ ...target, credentials: { env: 'NEXUS' } }] };
      // JSON is YAML.
      await writeFile(join(dir, 'site.yaml'), JSON.stringify(site));
    });
    afterAll(() => repository?.remove());

    function tallyOf({ stdout }: Pick<Ran, 'stdout'>): Record<string, number> {
      const { targets } = documentOf({ code: 0, stderr: '', stdout });
      return Array.isArray(targets) ? targets[0]?.tally : {};
    }

    it('goes on where a killed load stopped, in little memory', async () => {
      const first = startProgram(['load', 'tree.tar'], { cwd: dir, env });
      let ended = false;
      void first.ended.then(() => {
        ended = true;
      });
      // The kill comes in the middle of the work, whatever the speed of the machine: this file is neither first nor last, in the
      // order of the manifest or of the names.
      while (!ended && !(await fetch(`${repository.url}/${shapeOf(400).path}`, { method: 'HEAD' })).ok) {
        await sleep(50);
      }
      first.child.kill('SIGKILL');
      expect((await first.ended).code, first.stderr()).toBe(null);
      const there = (await listAssets(nexus, repository.name)).length;
      expect(there).toBeGreaterThan(0);
      expect(there).toBeLessThan(SMALL + 1);

      const second = await measureProgram(['load', 'tree.tar', '--json'], { cwd: dir, env });
      expect(second, second.stderr).toMatchObject({ code: 0 });
      console.log(
        `Nexus ${nexus.name}: ${there} files were there after the kill; the rest and ${BIG_BYTES} bytes in ${Math.round(second.ms)} ms, peak ${Math.round(second.peakKib / 1024)} MiB`,
      );
      expect(second.peakKib).toBeLessThan(PEAK_KIB);
      // What was wholly sent when the kill came may have become visible after the look.
      const { blobsWritten = 0, blobsPresent = 0 } = tallyOf(second);
      expect(blobsWritten + blobsPresent).toBe(SMALL + 1);
      expect(blobsPresent).toBeGreaterThanOrEqual(there);
      expect(await listAssets(nexus, repository.name)).toEqual(wanted);
    });

    it('writes nothing the next time', async () => {
      const third = await measureProgram(['load', 'tree.tar', '--json'], { cwd: dir, env });
      expect(third, third.stderr).toMatchObject({ code: 0 });
      expect(tallyOf(third)).toMatchObject({ blobsWritten: 0, bytesWritten: 0, blobsPresent: SMALL + 1 });
      expect(third.peakKib).toBeLessThan(PEAK_KIB);
      expect(await listAssets(nexus, repository.name)).toEqual(wanted);
    });
  },
  { except: '3.30.0' },
);
