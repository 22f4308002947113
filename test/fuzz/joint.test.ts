import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Fault } from '../../src/core/errors.ts';
import { load } from '../../src/ops/load.ts';
import { ls } from '../../src/ops/ls.ts';
import { merge } from '../../src/ops/merge.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, packSite, type Site } from '../bundle/site.ts';
import { hostileBundle, type Origin, originOf } from './bundles.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, chanceOf } from './chance.ts';
import { expectHonest, readPacked } from './honest.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

let room: Room;
const origins: Origin[] = [];
/** Bundles that together are whole, each set by the places of its members in `origins`. */
let sets: readonly (readonly number[])[];

async function more(site: Site, name: string, options: { since?: string[]; repair?: string }): Promise<void> {
  const out = site.path(name);
  await pack({ manifestPath: site.manifestPath, out, ...options }, contextOf());
  origins.push(originOf(await readPacked(out)));
}

/** Three bundles of a product that grows, their deltas, and a repair. */
beforeAll(async () => {
  const fleet = { images: 3, layerSizes: [600], baseSize: 700, kinds: ['oci' as const, 'docker' as const] };
  const site = await openSite({ fleet });
  for (const count of [1, 2, 3]) {
    await site.lockFor(site.images.slice(0, count));
    origins.push(originOf(await packSite(site, `full${count}.tar`)));
    const since = [site.path(`full${count - 1}.tar`)];
    if (count > 1) await more(site, `delta${count}.tar`, { since });
  }
  await more(site, 'far.tar', { since: [site.path('full1.tar')] });
  const bytes = readFileSync(site.path('full3.tar'));
  bytes.fill(1, Math.floor(bytes.length * 0.7), Math.floor(bytes.length * 0.8));
  writeFileSync(site.path('damaged.tar'), bytes);
  const repair = site.path('repair.json');
  await verify({ bundle: site.path('damaged.tar'), requestPath: repair }, contextOf());
  await more(site, 'fix.tar', { repair });
  origins.push(originOf({ ...(await readPacked(site.path('full3.tar'))), bytes }));
  await site.close();
  // full1 full2 delta2 full3 delta3 far fix damaged
  sets = [
    [0, 2],
    [1, 4],
    [0, 2, 4],
    [0, 5],
    [7, 6],
    [3, 6],
    [0, 5, 6],
    [1, 4, 6, 7],
  ];
  room = openRoom();
});
afterAll(() => room.close());

/** Some of a set, in any order, of which one or more are something else now. @returns how many files there are */
function makeSet(chance: Chance): string[] {
  for (const name of readdirSync(room.path('in'))) rmSync(room.path('in', name), { recursive: true });
  const chosen = [...chance.of(sets)];
  if (chance.once(6)) chosen.splice(chance.below(chosen.length), 1);
  if (chance.once(6)) chosen.push(chance.below(origins.length));
  const victim = chance.once(10) ? -1 : chance.below(chosen.length);
  return chosen
    .sort(() => chance.next() - 0.5)
    .map((at, i) => {
      const path = room.path('in', `${i}.tar`);
      const { bytes } = origins[at] ?? { bytes: Buffer.alloc(0) };
      const wrong = (): Buffer => {
        if (chance.once(3)) return changeBytes(bytes, chance);
        return hostileBundle(chance.once(3) ? origins : origins.slice(at, at + 1), chance);
      };
      writeFileSync(path, i === victim || chance.once(8) ? wrong() : bytes);
      return path;
    });
}

describe('the reader of several bundles that are used as one', () => {
  it(
    'ends with our errors, and makes only bundles that are what their lock says',
    { timeout: HOUR },
    async () => {
      const out = room.path('in', 'out');
      let paths: string[] = [];
      let isWhole = false;
      const verbs: readonly (() => Promise<readonly Fault[]>)[] = [
        async () => {
          const [bundle = '', ...others] = paths;
          const { faults, leftOut } = await verify({ bundle, others, deep: true }, contextOf());
          isWhole = leftOut === null || leftOut.checked.blobs === leftOut.blobs;
          return faults;
        },
        async () => {
          await merge({ out, bundles: paths }, contextOf());
          return [];
        },
        async () => {
          const [bundle = '', ...others] = paths;
          const targets = { chartTrees: [`${out}/charts`], files: [`${out}/files`] };
          const { targets: done } = await load({ bundle, others, ...targets, verify: true }, contextOf());
          return done.flatMap((t) => [t.fault ?? [], ...t.entries.map((e) => e.fault ?? [])].flat());
        },
        async () => {
          await ls(paths, contextOf());
          return [];
        },
      ];
      const make = (seed: number) => {
        const chance = chanceOf(seed);
        paths = makeSet(chance);
        isWhole = false;
        return chance.of(verbs);
      };
      const left = (): string[] => readdirSync(room.path('in')).filter((name) => !/^\d\.tar$/.test(name));
      const accepted = async (seed: number): Promise<void> => {
        const where = `seed ${seed}`;
        expect(
          left().filter((name) => name !== 'out'),
          where,
        ).toEqual([]);
        if (isWhole) await merge({ out, bundles: paths }, contextOf());
        if (existsSync(out) && !existsSync(`${out}/files`)) await expectHonest(out, origins, where);
      };
      const refused = (seed: number): void => {
        // An interrupted merge is gone on with.
        const rest = left().filter((name) => !name.startsWith('out.partial'));
        expect(rest, `seed ${seed}`).toEqual([]);
      };
      expect(await fuzz('several', { room, share: 0.03, make, accepted, refused })).toBeGreaterThan(0);
    },
  );
});
