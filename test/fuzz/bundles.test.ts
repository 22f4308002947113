import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { load } from '../../src/ops/load.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { joined } from '../bundle/tar-parts.ts';
import { makeWheel, packPackages } from '../support/packages.ts';
import { hostileBundle, type Origin, originOf } from './bundles.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, chanceOf } from './chance.ts';
import { expectHonest, readPacked } from './honest.ts';
import { partsOfModel } from './model.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

let room: Room;
let origins: Origin[];

/** A bundle without what an earlier one of the same site has. */
async function deltaOf(site: Site): Promise<Packed> {
  await site.lockFor(site.images.slice(0, 1));
  const base = await packSite(site, 'base.tar');
  await site.lockFor();
  const path = site.path('delta.tar');
  await pack({ manifestPath: site.manifestPath, out: path, since: [base.path] }, contextOf());
  return readPacked(path);
}

/** A bundle of Python packages. */
async function packagesOf(dir: string): Promise<Packed> {
  const alpha = makeWheel('alpha', '1.0', { requiresPython: '>=3.8', yanked: 'broken' });
  const beta = makeWheel('beta-lib', '2.1.post1', { tag: 'cp311-cp311-musllinux_1_2_x86_64' });
  const pins = [
    { name: 'alpha', version: '1.0', marker: 'python_version < "3.12"' },
    { name: 'beta-lib', version: '2.1.post1' },
  ];
  const asked = { packages: ['alpha<2'], indexes: ['https://pypi.example/simple/'] };
  return readPacked(await packPackages(dir, [alpha, beta], { python: { pins, ...asked } }));
}

/** Three bundles of a few KiB, as different as bundles can be, and a delta. */
beforeAll(async () => {
  origins = [];
  for (const kinds of [['oci'], ['attested', 'docker']] as const) {
    const fleet = { images: kinds.length, layerSizes: [600], baseSize: 700, kinds: [...kinds] };
    const site: Site = await openSite({ fleet });
    origins.push(originOf(await packSite(site)));
    if (kinds.length > 1) origins.push(originOf(await deltaOf(site)));
    if (kinds.length > 1) origins.push(originOf(await packagesOf(site.path('packages'))));
    await site.close();
  }
  room = openRoom();
});
afterAll(() => room.close());

/** Volumes of a bundle in a folder, one of them lost, cut, exchanged or something else. */
function makeVolumes(dir: string, chance: Chance): void {
  for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true, force: true });
  const bytes = chance.once(3) ? hostileBundle(origins, chance) : chance.of(origins).bytes;
  const size = chance.of([512, 4096, 5000, 20_000, 100_000]);
  const pathOf = (n: number): string => join(dir, `hostile.tar.${String(n).padStart(3, '0')}`);
  const count = Math.max(1, Math.ceil(bytes.length / size));
  for (let n = 1; n <= count; n += 1) writeFileSync(pathOf(n), bytes.subarray((n - 1) * size, n * size));
  const [a, b] = [pathOf(1 + chance.below(count)), pathOf(1 + chance.below(count))];
  const [one, other] = [readFileSync(a), readFileSync(b)];
  const changes: (() => void)[] = [
    () => {},
    () => rmSync(a),
    () => writeFileSync(a, changeBytes(one, chance)),
    () => writeFileSync(a, one.subarray(0, chance.below(one.length))),
    () => writeFileSync(a, Buffer.concat([one, other])),
    () => {
      writeFileSync(a, other);
      writeFileSync(b, one);
    },
    () => writeFileSync(pathOf(count + 1), other),
    () => renameSync(a, pathOf(count + 1 + chance.below(500))),
    () => renameSync(a, join(dir, `hostile.tar.${chance.of(['000', '0001', '1', '999999', 'x'])}`)),
    () => {
      rmSync(a);
      symlinkSync(chance.of([room.path('canary'), b, '/dev/zero', a, dir]), a);
    },
    () => {
      rmSync(a);
      mkdirSync(a);
    },
    () => writeFileSync(join(dir, 'other.tar.001'), other),
  ];
  chance.of(changes)();
}

describe('the reader of bundles', () => {
  it('has a model that makes the very bundle that it was made of', () => {
    for (const { bytes, model } of origins) expect(joined(partsOfModel(model)).equals(bytes)).toBe(true);
  });

  it(
    'ends with our errors on any tar, and accepts only bundles that are what their lock says',
    { timeout: HOUR },
    async () => {
      const path = room.path('in', 'hostile.tar');
      const make = (seed: number) => {
        writeFileSync(path, hostileBundle(origins, chanceOf(seed)));
        return async () => (await verify({ bundle: path, deep: true }, contextOf())).faults;
      };
      const accepted = (seed: number) => expectHonest(path, origins, `seed ${seed}`);
      expect(await fuzz('bundles', { room, share: 0.22, make, accepted })).toBeGreaterThan(0);
    },
  );

  it(
    'loads nothing of a tar that is refused, and nothing beside its folders',
    { timeout: HOUR },
    async () => {
      const path = room.path('in', 'hostile.tar');
      const out = room.path('in', 'out');
      const make = (seed: number) => {
        rmSync(out, { recursive: true, force: true });
        writeFileSync(path, hostileBundle(origins, chanceOf(seed)));
        const targets = { chartTrees: [join(out, 'charts')], files: [join(out, 'files')] };
        return async () => {
          const result = await load({ bundle: path, verify: true, ...targets }, contextOf());
          return result.targets.flatMap((t) =>
            [t.fault ?? [], ...t.entries.map((e) => e.fault ?? [])].flat(),
          );
        };
      };
      const refused = (seed: number) => expect(existsSync(out), `seed ${seed}`).toBe(false);
      // Of a bundle of packages nothing is for these targets.
      const accepted = () => {
        const made = existsSync(out) ? readdirSync(out).sort() : [];
        expect([[], ['charts', 'files']]).toContainEqual(made);
      };
      expect(await fuzz('loads', { room, share: 0.05, make, accepted, refused })).toBeGreaterThan(0);
    },
  );

  it(
    'ends with our errors on volumes of any kind, and joins only what belongs together',
    { timeout: HOUR },
    async () => {
      const first = room.path('in', 'hostile.tar.001');
      const make = (seed: number) => {
        makeVolumes(room.path('in'), chanceOf(seed));
        return async () => (await verify({ bundle: first, deep: true }, contextOf())).faults;
      };
      const joinedTo = room.path('in', 'joined.tar');
      const accepted = async (seed: number): Promise<void> => {
        const names = readdirSync(room.path('in')).filter((name) => /^hostile\.tar\.\d+$/.test(name));
        const bytes = names.sort().map((name) => readFileSync(room.path('in', name)));
        writeFileSync(joinedTo, Buffer.concat(bytes));
        await expectHonest(joinedTo, origins, `seed ${seed}`);
        rmSync(joinedTo);
      };
      expect(await fuzz('volumes', { room, share: 0.05, make, accepted })).toBeGreaterThan(0);
    },
  );
});
