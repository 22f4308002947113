/** `kill -9` of the real program at twenty moments of a pack: the same bytes in the end, and nothing fetched twice. */
import { readdir, readFile, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { setTimeout as wait } from 'node:timers/promises';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { kindOf } from '../../src/io/files.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, SEED, type Site, seeded } from '../bundle/site.ts';
import { ensureBuilt, startProgram } from '../cli/program.ts';
import { blobGets, bytesOnDisk, rightBytes, wholeBlobs } from './interrupted.ts';

const KILLS = 20;
let site: Site;

beforeAll(ensureBuilt, 180_000);
afterEach(() => site.close());

/**
 * Runs a pack and kills it at the first of: so many requests, or so many bytes on the disk. What the moments are does not
 * depend on how fast the machine is. Returns whether it was killed before its end.
 */
async function packAndKill(
  out: string,
  moment: { readonly requests: number; readonly bytes: number },
): Promise<boolean> {
  const from = site.source.requests.length;
  const args = ['pack', '-f', site.manifestPath, '-o', out, '--progress', 'none'];
  const { child, ended } = startProgram(args, { cwd: site.dir });
  let over = false;
  void ended.then(() => {
    over = true;
  });
  while (!over) {
    const far = (await bytesOnDisk(`${out}.partial`)) >= moment.bytes;
    if (far || site.source.requests.length - from >= moment.requests) break;
    await wait(1);
  }
  child.kill('SIGKILL');
  const { code, stderr } = await ended;
  if (code !== null) expect([code, stderr]).toEqual([0, expect.any(String)]);
  return code === null;
}

function slow(): { readonly intercept: () => Promise<boolean> } {
  // The source answers one after another, so that there are many moments between the first and the last byte.
  return {
    intercept: async () => {
      await wait(3);
      return false;
    },
  };
}

describe(`a pack that was killed (seed ${SEED})`, () => {
  it('twenty times ends with the same bytes, and no blob that was complete is asked for again', async () => {
    site = await openSite({ fleet: { layerSizes: [900_000, 100_000], baseSize: 600_000 }, registry: slow() });
    const good = await packSite(site);
    const out = site.path('b.tar');
    const random = seeded(SEED);
    const all = site.source.requests.length;
    let kills = 0;
    for (let run = 0; kills < KILLS; run++) {
      expect(run).toBeLessThan(4 * KILLS);
      const already = await wholeBlobs(`${out}.partial`, good.entries);
      const from = site.source.requests.length;
      const held = await bytesOnDisk(`${out}.partial`);
      const wasKilled = await packAndKill(out, {
        requests: 1 + Math.floor(random() * all),
        bytes: held + Math.floor(random() * good.bytes.length * 0.3),
      });
      expect(blobGets(site.source, from).filter((d) => already.has(d))).toEqual([]);
      if (wasKilled) kills += 1;
      if ((await kindOf(out)) === undefined) continue;
      // Finished: whole and right, whether the kill came after it or not. The next one begins anew.
      expect((await readFile(out)).equals(good.bytes)).toBe(true);
      await rm(out);
    }
    const already = await wholeBlobs(`${out}.partial`, good.entries);
    const from = site.source.requests.length;
    expect(await packAndKill(out, never())).toBe(false);
    expect(blobGets(site.source, from).filter((d) => already.has(d))).toEqual([]);
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
    expect((await readdir(site.dir)).filter((n) => n.startsWith('b.tar'))).toEqual(['b.tar']);
  }, 240_000);

  it('into a folder goes on in the same way', async () => {
    site = await openSite({ fleet: { layerSizes: [300_000], baseSize: 200_000 }, registry: slow() });
    const good = await packSite(site);
    const out = site.path('folder');
    const random = seeded(SEED + 1);
    for (let kills = 0; kills < 5; kills++) {
      const already = await wholeBlobs(`${out}.partial`, good.entries);
      const from = site.source.requests.length;
      const bytes = Number.POSITIVE_INFINITY;
      await packAndKill(`${out}/`, { requests: 8 + Math.floor(random() * 12), bytes });
      expect(blobGets(site.source, from).filter((d) => already.has(d))).toEqual([]);
    }
    expect(await packAndKill(`${out}/`, never())).toBe(false);
    expect((await verify({ bundle: out, lockPath: site.lockPath }, contextOf())).faults).toEqual([]);
    expect((await readdir(site.dir)).filter((n) => n.startsWith('folder'))).toEqual(['folder']);
  }, 120_000);

  it('inside a blob of 40 MiB sends again at most a few MiB of it', async () => {
    // Noted when they arrive: the end of a killed one may be seen late.
    const asked: { readonly url: string; readonly range: string }[] = [];
    const intercept = ({ url = '', headers }: IncomingMessage): boolean => {
      asked.push({ url, range: headers.range ?? '' });
      return false;
    };
    const fleet = { images: 1, layerSizes: [40 * 1024 * 1024], sharedBases: 0 };
    site = await openSite({ fleet, registry: { intercept } });
    const good = await packSite(site);
    const layer = largest(good);
    const out = site.path('b.tar');
    const upTo = (share: number) => ({ ...never(), bytes: layer.size * share });
    expect(await packAndKill(out, upTo(0.3))).toBe(true);
    for (const moment of [upTo(0.6), never()]) {
      const right = await rightBytes(`${out}.partial`, layer, good);
      asked.splice(0);
      await packAndKill(out, moment);
      const gets = asked.filter((r) => r.url.endsWith(`/blobs/${layer.digest}`));
      expect(gets).toHaveLength(1);
      const start = Number(/^bytes=(\d+)-$/.exec(gets[0]?.range ?? '')?.[1]);
      expect(start).toBeLessThanOrEqual(right);
      expect(right - start).toBeLessThanOrEqual(5 * 1024 * 1024);
    }
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  }, 120_000);
});

function never(): { readonly requests: number; readonly bytes: number } {
  return { requests: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY };
}

function largest(packed: Packed): Packed['entries'][number] {
  const found = packed.entries.toSorted((a, b) => b.size - a.size)[0];
  if (found === undefined) throw new Error('a bundle has entries');
  return found;
}
