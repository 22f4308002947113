import { existsSync, lstatSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { hashTree, unpackChart } from '../../src/helm/tree.ts';
import { changedHeader, joined, type Part } from '../bundle/tar-parts.ts';
import { demoFiles } from '../support/charts.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, chanceOf, NAMES } from './chance.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';
import { changeParts, partOf, tarOfParts } from './tars.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

let room: Room;
let parts: readonly Part[];

function chartParts(root: string): Part[] {
  return Object.entries(demoFiles(root)).map(([path, data]) => partOf(`${root}/${path}`, Buffer.from(data)));
}

beforeAll(() => {
  room = openRoom();
  const inner = gzipSync(joined(chartParts('inner')), { level: 1 });
  parts = [
    ...chartParts('demo'),
    partOf('demo/charts/inner-1.2.3.tgz', inner),
    partOf('demo/templates/_a.tpl', Buffer.from('\ufeff{{ .x }}')),
  ];
});
afterAll(() => room.close());

/** A file with a name that leads elsewhere, or that is there in another way already. */
function oddFile(chance: Chance): Part {
  const name = chance.of([
    ...NAMES,
    ...NAMES.map((n) => `demo/${n}`),
    'DEMO/Chart.yaml',
    'demo/Chart.yaml/x',
    'demo',
  ]);
  return partOf(name.slice(0, 100), Buffer.from(chance.of(['', 'x', 'a: &a [*a]\n', 'x'.repeat(3000)])));
}

function linkTo(chance: Chance): Part {
  const part = partOf(chance.of(['demo/link', 'demo/values.yaml', 'demo/templates']), Buffer.alloc(0));
  const to = Buffer.alloc(100);
  to.write(chance.of([room.path('canary'), '../../canary', '/etc/passwd', '.', 'values.yaml']));
  return { ...part, header: changedHeader(part.header, { 156: chance.of(['1', '2', '3', '6']), 157: to }) };
}

function hostileChart(chance: Chance): Buffer {
  const inserted = (part: Part): Part[] => {
    const at = chance.below(parts.length + 1);
    return [...parts.slice(0, at), part, ...parts.slice(at)];
  };
  const makers: (() => readonly Part[])[] = [
    () => changeParts(parts, chance),
    () => changeParts(parts, chance),
    () => inserted(oddFile(chance)),
    () => inserted(linkTo(chance)),
    () => changeParts(inserted(oddFile(chance)), chance),
    () => inserted(partOf('demo/charts/x.tgz', gzipSync(tarOfParts(changeParts(parts, chance), chance)))),
  ];
  const tar = tarOfParts(chance.of(makers)(), chance);
  const bytes = gzipSync(chance.once(10) ? changeBytes(tar, chance) : tar, { level: 1 });
  return chance.once(12) ? changeBytes(bytes, chance) : bytes;
}

/** In any pieces. */
async function* piecesOf(bytes: Buffer, chance: Chance): AsyncGenerator<Uint8Array> {
  const size = chance.of([1 + chance.below(700), 65_536]);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

describe('the reader of chart archives', () => {
  it(
    'ends with our errors on any archive, and puts nothing beside its folder',
    { timeout: HOUR },
    async () => {
      const dir = room.path('in', 'chart');
      let tree = '';
      const make = (seed: number) => {
        rmSync(dir, { recursive: true, force: true });
        const chance = chanceOf(seed);
        const bytes = hostileChart(chance);
        return async () => {
          ({ tree } = await unpackChart(piecesOf(bytes, chance), { dir, what: 'chart' }));
          return [];
        };
      };
      const beside = (seed: number): void => {
        expect(readdirSync(room.path('in')), `seed ${seed}`).toEqual(existsSync(dir) ? ['chart'] : []);
        const all = existsSync(dir) ? readdirSync(dir, { recursive: true }) : [];
        const kinds = all.map((name) => lstatSync(join(dir, String(name))));
        expect(
          kinds.every((k) => k.isFile() || k.isDirectory()),
          `seed ${seed}`,
        ).toBe(true);
      };
      const accepted = async (seed: number): Promise<void> => {
        beside(seed);
        expect((await hashTree(dir)).digest, `seed ${seed}`).toBe(tree);
      };
      expect(await fuzz('charts', { room, share: 0.12, make, accepted, refused: beside })).toBeGreaterThan(0);
    },
  );
});
