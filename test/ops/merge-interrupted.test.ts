/** Packs into volumes and merges that are stopped anywhere, and then run again: the same end state. */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Context } from '../../src/core/events.ts';
import { merge } from '../../src/ops/merge.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';

const SIZE = 70_000;
let site: Site;
let good: Packed;
let first: Packed;

beforeAll(async () => {
  site = await openSite({ fleet: { layerSizes: [90_000, 1000], baseSize: 150_000 } });
  await site.lockFor(site.images.slice(0, 2));
  first = await packSite(site, 'first.tar');
  await site.lockFor();
  good = await packSite(site);
}, 60_000);

afterAll(() => site.close());

/** A context that is stopped after so many events. */
function stoppedAfter(events: number): Context {
  const controller = new AbortController();
  let left = events;
  return {
    ...contextOf({ signal: controller.signal }),
    emit: () => {
      left -= 1;
      if (left === 0) controller.abort();
    },
  };
}

async function joined(out: string): Promise<Buffer> {
  const folder = join(out, '..');
  const names = (await readdir(folder)).filter((n) => n.startsWith(`${basename(out)}.0`)).sort();
  return Buffer.concat(await Promise.all(names.map((n) => readFile(join(folder, n)))));
}

describe('work that is stopped', () => {
  it('is taken up by the next pack into volumes, wherever it stopped', async () => {
    const options = { manifestPath: site.manifestPath, volumeSize: SIZE };
    let stops = 0;
    for (const events of [1, 5, 12, 20, 30, 45, 60]) {
      const out = site.path(`p${events}`, 'b.tar');
      const stopped = await pack({ ...options, out }, stoppedAfter(events)).then(
        () => false,
        () => true,
      );
      if (stopped) stops += 1;
      await pack({ ...options, out }, contextOf());
      expect((await joined(out)).equals(good.bytes)).toBe(true);
      expect((await readdir(join(out, '..'))).filter((n) => n.includes('partial'))).toEqual([]);
    }
    expect(stops).toBeGreaterThan(3);
  });

  it('is taken up by the next merge, wherever it stopped', async () => {
    const delta = site.path('delta.tar');
    await pack({ manifestPath: site.manifestPath, out: delta, since: [first.path] }, contextOf());
    let stops = 0;
    for (const events of [1, 3, 6, 10, 15, 25, 40]) {
      const out = site.path(`m${events}.tar`);
      const bundles = [first.path, delta];
      const stopped = await merge({ out, bundles }, stoppedAfter(events)).then(
        () => false,
        () => true,
      );
      if (stopped) stops += 1;
      await merge({ out, bundles }, contextOf());
      expect((await readFile(out)).equals(good.bytes)).toBe(true);
    }
    expect(stops).toBeGreaterThan(3);
  });

  it('is finished where a kill came while whole volumes were given their names', async () => {
    const out = site.path('k', 'b.tar');
    const options = { manifestPath: site.manifestPath, out, volumeSize: SIZE };
    await pack(options, contextOf());
    const names = (await readdir(site.path('k'))).sort();
    for (let moved = 0; moved <= names.length; moved += 1) {
      // The last ones have their names; the others wait, and volumes of an older bundle are still there.
      const waiting = names.slice(0, names.length - moved);
      const partial = `${out}.partial`;
      await mkdir(partial, { recursive: true });
      for (const name of waiting) {
        await writeFile(join(partial, name), await readFile(join(site.path('k'), name)));
        await writeFile(join(site.path('k'), name), 'of an older bundle');
      }
      // Older ones go before the first of these gets its name: where none waits, none of them is left.
      if (waiting.length > 0) await writeFile(join(site.path('k'), 'b.tar.099'), 'of an older bundle');
      await writeFile(join(partial, 'whole'), names.join('\n'));
      const result = await pack(options, contextOf());
      expect(result.outcome).toBe('present');
      expect((await readdir(site.path('k'))).sort()).toEqual(names);
      expect((await verify({ bundle: out, deep: true }, contextOf())).faults).toEqual([]);
      await rm(partial, { recursive: true, force: true });
    }
  });
});
