/** A registry mirror that breaks in the middle of a blob: the same run goes on with the next one. */
import { readFile, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Event } from '../../src/core/events.ts';
import { pack } from '../../src/ops/pack.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { always, type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';

const LAYER = 3_000_000;
const CUT = 1_000_000;

let site: Site;
let good: Packed;
let layer: string;
let mirror: FaultProxy;

beforeEach(async () => {
  site = await openSite({ fleet: { images: 1, layerSizes: [LAYER], sharedBases: 0 } });
  good = await packSite(site);
  layer = good.entries.toSorted((a, b) => b.size - a.size)[0]?.digest ?? '';
  mirror = await startFaultProxy(site.source.host);
});

afterEach(async () => {
  await mirror.close();
  await site.close();
});

/** Packs through the mirror; which parts of the layer the registry itself was asked for directly. */
async function packThrough(): Promise<{ notes: string[]; same: boolean; ranges: string[]; fetched: number }> {
  const events: Event[] = [];
  const text = await readFile(site.manifestPath, 'utf8');
  await writeFile(
    site.manifestPath,
    `${text}registries: {"${site.source.host}": {mirrors: ["http://${mirror.host}"]}}\n`,
  );
  const out = site.path('out.tar');
  const before = site.source.requests.length;
  const { stats } = await pack({ manifestPath: site.manifestPath, out }, contextOf({ events }));
  const ranges = site.source.requests
    .slice(before)
    .flatMap((r) => (r.path.endsWith(`/${layer}`) ? [r.range] : []));
  return {
    notes: events.flatMap((e) => (e.type === 'note' ? [e.message] : [])),
    same: (await readFile(out)).equals(good.bytes),
    ranges,
    fetched: stats?.fetched.bytes ?? 0,
  };
}

const isLayer = ({ url, method }: { url: string; method: string }): boolean =>
  method === 'GET' && url.endsWith(`/${layer}`);

describe('a mirror', () => {
  it('that dies in the middle of a blob leaves the rest to the original, in the same run', async () => {
    mirror.decide = always(isLayer, { kind: 'cut', after: CUT });
    mirror.onFault = () => void mirror.close();
    const { notes, same, ranges } = await packThrough();
    expect(same).toBe(true);
    expect(notes).toEqual([expect.stringMatching(/ECONNREFUSED.*; it is not asked again$/)]);
    // Through the mirror first, then directly from the byte that came last.
    expect(ranges[0]).toBe('');
    expect(ranges.slice(1)).toEqual([`bytes=${CUT}-`]);
  });

  it('that changes a byte is found out, is poured all the same, and the original gives all', async () => {
    mirror.decide = always(isLayer, { kind: 'flip', at: CUT });
    const { notes, same, ranges } = await packThrough();
    expect(same).toBe(true);
    expect(notes).toEqual([
      expect.stringMatching(new RegExp(`^mirror ${mirror.host}: .*expected sha256:.*it is not asked again$`)),
    ]);
    expect(ranges).toEqual(['', '']);
  });
});
