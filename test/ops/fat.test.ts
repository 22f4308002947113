/** Packing onto a file system without holes (FAT, exFAT): what is written far behind the end of a file is written twice. */
import { mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { pathsOf } from '../../src/bundle/partial.ts';
import { openBundle } from '../../src/bundle/reader.ts';
import { openSink } from '../../src/bundle/volume-sink.ts';
import type { Event } from '../../src/core/events.ts';
import { pack } from '../../src/ops/pack.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';

/** The number of the file system that is told for every folder; undefined for the real one. */
const told = vi.hoisted(() => ({ type: undefined as number | undefined }));

vi.mock('node:fs/promises', async (original) => {
  const fs = await original<typeof import('node:fs/promises')>();
  const statfs = async (path: string) => {
    const real = await fs.statfs(path);
    return { ...real, type: told.type ?? real.type };
  };
  return { ...fs, statfs };
});

let site: Site;
let good: Packed;

beforeAll(async () => {
  site = await openSite({ fleet: { images: 8, layerSizes: [9000, 3000, 1000], baseSize: 20_000 } });
  good = await packSite(site);
}, 60_000);

afterAll(() => site.close());
afterEach(() => {
  told.type = undefined;
});

/** The places in the tar of what is fetched, in the order in which it is begun. */
async function begun(out: string): Promise<number[]> {
  const events: Event[] = [];
  await pack({ manifestPath: site.manifestPath, out, volumeSize: 30_000 }, contextOf({ events }));
  const places = new Map(good.entries.map(({ name }, place) => [name, place]));
  const starts = events.flatMap((event) => (event.type === 'start' ? (places.get(event.id) ?? []) : []));
  const manifests = good.entries.filter(({ kind }) => kind !== 'blob').length;
  return starts.filter((place) => place >= manifests - 2);
}

/** How far what is begun is before its turn, in entries. */
function ahead(places: readonly number[]): number {
  const order = places.toSorted((a, b) => a - b);
  return Math.max(...places.map((place, turn) => order.indexOf(place) - turn));
}

it.each([
  ['FAT', 0x4d44],
  ['exFAT', 0x2011bab0],
])(
  'fetches blobs in the order of the tar on %s, but for those that come at the same time',
  async (name, type) => {
    told.type = type;
    const places = await begun(site.path(name, 'b.tar'));
    expect(places.length).toBeGreaterThan(12);
    expect(ahead(places)).toBeLessThan(6);
  },
);

it('fetches the largest first on any other', async () => {
  told.type = 0xef53;
  expect(ahead(await begun(site.path('ext4', 'b.tar')))).toBeGreaterThan(6);
});

it('gives no volume its length before it is written', async () => {
  const bundle = await openBundle(good.path, { signal: contextOf().signal });
  await bundle.close();
  if (bundle.plan === undefined) throw new Error('a bundle that was opened strictly has a plan');
  await mkdir(site.path('sink'));
  const out = site.path('sink', 'b.tar');
  const sink = await openSink(pathsOf(out), { plan: bundle.plan, kind: 'volumes:30000' });
  try {
    const names = await readdir(`${out}.partial`);
    const sizes = await Promise.all(names.map(async (n) => (await stat(join(`${out}.partial`, n))).size));
    expect(sizes).toEqual(Array.from({ length: Math.ceil(bundle.plan.size / 30_000) }, () => 0));
  } finally {
    await sink.close();
  }
});
