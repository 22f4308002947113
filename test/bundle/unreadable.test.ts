/** Bundles on a disk that cannot read some of its sectors: everything else is still judged, and what lacks is asked for. */
import { readlinkSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { merge } from '../../src/ops/merge.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, failuresOnEmpty, openSite, type Packed, packSite, type Site } from './site.ts';

/** The sectors of a file that cannot be read: each file by the end of its path, from byte to byte. */
const bad = vi.hoisted(() => new Map<string, readonly (readonly [number, number])[]>());

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>();
  const readSync = (fd: number, buffer: Buffer, from: number, length: number, at: number): number => {
    const path = readlinkSync(`/proc/self/fd/${fd}`);
    const ranges = [...bad].find(([end]) => path.endsWith(end))?.[1] ?? [];
    const hit = ranges.find(([start, end]) => start < at + length && end > at);
    // As Linux does: what comes before the bad sector is given first.
    if (hit !== undefined && hit[0] > at) return fs.readSync(fd, buffer, from, hit[0] - at, at);
    if (hit !== undefined) throw Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });
    return fs.readSync(fd, buffer, from, length, at);
  };
  return { ...fs, readSync };
});

const SECTOR = 2048;
const SIZE = 50_000;
let site: Site;
let good: Packed;

beforeAll(async () => {
  site = await openSite({ fleet: { layerSizes: [40_000, 9000], baseSize: 60_000 } });
  good = await packSite(site);
  await mkdir(site.path('v'));
  for (let n = 1; (n - 1) * SIZE < good.bytes.length; n += 1) {
    const part = good.bytes.subarray((n - 1) * SIZE, n * SIZE);
    await writeFile(site.path('v', `b.tar.${String(n).padStart(3, '0')}`), part);
  }
}, 60_000);

afterAll(() => site.close());
afterEach(() => bad.clear());

/** The sectors of the tar that some bytes lie in. */
function sectorsOf(from: number, to: number): readonly [number, number] {
  return [from - (from % SECTOR), Math.ceil(to / SECTOR) * SECTOR];
}

function entryOf(name: string): { readonly offset: number; readonly size: number; readonly name: string } {
  const entry = good.entries.find((e) => e.name === name);
  if (entry === undefined) throw new Error(`no ${name}`);
  return entry;
}

/** What verify says of it, each fault with its entry; every one has a hint. */
async function said(bundle: string): Promise<string[]> {
  const { faults } = await verify({ bundle }, contextOf());
  for (const one of faults) expect(one.hint, one.message).toBeDefined();
  return faults.map((f) => `${f.code} ${f.message}`);
}

describe('sectors that cannot be read', () => {
  const layer = (): (typeof good.entries)[number] => {
    const found = good.entries.filter((e) => e.kind === 'blob' && e.size > 30_000)[1];
    if (found === undefined) throw new Error('a bundle has layers');
    return found;
  };

  it('inside a layer are a fault of that layer alone', async () => {
    const { offset, name } = layer();
    bad.set('good.tar', [sectorsOf(offset + 10_000, offset + 10_001)]);
    const all = await said(good.path);
    expect(all).toHaveLength(1);
    expect(all[0]).toMatch(new RegExp(`BUNDLE_CHECKSUM_MISMATCH .*${name}.*cannot be read`));
  });

  it('with a header in them hide only what they hold, and a repair brings it', async () => {
    const { offset, name } = layer();
    bad.set('good.tar', [sectorsOf(offset - 512, offset)]);
    const requestPath = site.path('repair.json');
    const all = await verify({ bundle: good.path, requestPath }, contextOf());
    expect(all.faults.map((f) => f.message).join('\n')).toContain('a header that the disk cannot read');
    expect(all.request?.blobs).toBeGreaterThan(0);
    const fix = site.path('fix.tar');
    await pack({ manifestPath: site.manifestPath, out: fix, repair: requestPath }, contextOf());
    expect((await readFile(fix)).includes(name)).toBe(true);
    const given = { bundle: good.path, others: [fix] };
    expect((await verify(given, contextOf())).faults).toEqual([]);
    expect(await failuresOnEmpty(given)).toBe(0);
    const out = site.path('whole.tar');
    await merge({ out, bundles: [good.path, fix] }, contextOf());
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  });

  it.each(['index.json', 'SHA256SUMS', 'B3SUMS'])('in %s are a fault of it', async (name) => {
    const { offset, size } = entryOf(name);
    bad.set('good.tar', [[offset, offset + size]]);
    const all = await said(good.path);
    expect(all.join('\n')).toMatch(new RegExp(`${name}.*cannot be read`));
    expect(all.every((line) => !line.includes('INTERNAL'))).toBe(true);
  });

  it.each(['sealift.json', 'versions.lock'])('in %s say that nothing can be said', async (name) => {
    const { offset, size } = entryOf(name);
    bad.set('good.tar', [[offset, offset + size]]);
    await expect(verify({ bundle: good.path }, contextOf())).rejects.toMatchObject({
      code: 'FILE_UNREADABLE',
      hint: expect.stringContaining('disk'),
    });
  });

  it('at the beginning of a volume, and all of another one, are named with their volumes', async () => {
    bad.set('b.tar.003', [[0, SECTOR]]);
    bad.set('b.tar.004', [[0, SIZE]]);
    const all = (await said(site.path('v'))).join('\n');
    expect(all).toContain('b.tar.003 bytes 0 to');
    expect(all).toContain('b.tar.004');
    expect(all).not.toContain('INTERNAL');
  });
});
