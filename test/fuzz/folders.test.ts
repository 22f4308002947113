import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createBlake3 } from '../../src/io/blake3.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, packSite } from '../bundle/site.ts';
import type { Part } from '../bundle/tar-parts.ts';
import { hostileContent, type Origin, originOf } from './bundles.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, chanceOf, NAMES } from './chance.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

let room: Room;
let origin: Origin;

beforeAll(async () => {
  const fleet = { images: 1, layerSizes: [600], baseSize: 700, kinds: ['oci' as const] };
  const site = await openSite({ fleet });
  origin = originOf(await packSite(site));
  await site.close();
  room = openRoom();
  execFileSync('mkfifo', [room.path('in', 'pipe')]);
});
afterAll(() => room.close());

/** Writes a folder anew; what is still as it was is let be. */
function writeFolder(dir: string, parts: readonly Part[]): void {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(join(dir, 'blobs', 'sha256'), { recursive: true });
  for (const { name, body } of parts) writeFileSync(join(dir, name), body);
}

/** Puts something else in the place of a file, or beside it. */
function changeFile(path: string, chance: Chance): void {
  const away = (): void => rmSync(path, { recursive: true, force: true });
  const put = (make: () => void): void => {
    away();
    make();
  };
  const links = [
    room.path('canary'),
    '/dev/zero',
    '/etc/passwd',
    '.',
    '..',
    '/',
    'x',
    path,
    room.path('in', 'pipe'),
  ];
  const others = readdirSync(dirname(path)).map((name) => join(dirname(path), name));
  const beside = (): string => join(dirname(path), oddName(chance));
  const changes: (() => void)[] = [
    away,
    () => put(() => symlinkSync(chance.of(links), path)),
    () => symlinkSync(chance.of(links), beside()),
    () => put(() => linkSync(room.path('in', 'pipe'), path)),
    () => put(() => linkSync(chance.of(others), path)),
    () => linkSync(path, beside()),
    () => put(() => mkdirSync(path)),
    () => put(() => mkdirSync(join(path, 'a', 'b'), { recursive: true })),
    () => writeFileSync(path, changeBytes(readFileSync(path), chance)),
    () => truncateSync(path, chance.once(30) ? 2 ** 27 + 1 : chance.of([0, 1, 513, 70_000])),
    () => chmodSync(path, 0o000),
    () => copyFileSync(path, beside()),
    () => mkdirSync(beside()),
    () => renameSync(path, beside()),
  ];
  try {
    // To open a pipe would wait for ever: these tests themselves must not.
    if (lstatSync(path).isFile()) chance.of(changes)();
  } catch {
    // A disk does not take every name, and not every place is there.
  }
}

/** A name that a disk may take, seldom one that is no text at all. */
function oddName(chance: Chance): string {
  const name = chance.of(NAMES).replaceAll(/[/\0]/g, '_').slice(0, 250);
  return name === '' || name === '.' || name === '..' ? '...' : name;
}

/** A folder in the place of one of the bundle's own. */
function changeFolders(dir: string, chance: Chance): void {
  const blobs = join(dir, 'blobs');
  const all = join(blobs, 'sha256');
  const changes: (() => void)[] = [
    () => renameSync(all, join(blobs, 'sha512')),
    () => renameSync(blobs, join(dir, 'BLOBS')),
    () => {
      renameSync(all, join(dir, '..', 'elsewhere'));
      symlinkSync('../../elsewhere', all);
    },
    () => {
      renameSync(blobs, join(dir, '..', 'elsewhere'));
      symlinkSync(join(dir, '..', 'elsewhere'), blobs);
    },
    () => {
      for (let i = 0; i < 300; i += 1) writeFileSync(join(all, i.toString(16).padStart(64, '0')), '');
    },
    () => symlinkSync('..', join(blobs, 'loop')),
    () => execFileSync('bash', ['-c', `cd "$1" && touch $'\\xff\\xfe' $'blobs/sha256/\\xc3'`, 'x', dir]),
    () => mkdirSync(join(dir, 'x/'.repeat(300)), { recursive: true }),
  ];
  chance.of(changes)();
}

function makeFolder(dir: string, chance: Chance): void {
  rmSync(join(dir, '..', 'elsewhere'), { recursive: true, force: true });
  writeFolder(dir, chance.once(3) ? hostileContent(origin, chance) : origin.parts);
  if (chance.once(20)) changeFolders(dir, chance);
  const names = origin.parts.map((p) => p.name);
  for (let left = 1 + chance.below(2); left > 0; left -= 1) {
    const path = join(dir, chance.of(names));
    if (existsSync(path)) changeFile(path, chance);
  }
}

/** What was accepted holds exactly the files that its own list names, none of them a link. */
function expectHonest(dir: string): void {
  const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((d) => !d.isDirectory());
  expect(files.every((d) => d.isFile())).toBe(true);
  const lines = readFileSync(join(dir, 'B3SUMS'), 'latin1').split('\n').slice(0, -1);
  expect(files.length).toBe(lines.length + 1);
  for (const [hex, name = ''] of lines.map((line) => line.split('  '))) {
    expect(
      createBlake3()
        .update(readFileSync(join(dir, name)))
        .digest('hex'),
      name,
    ).toBe(hex);
  }
}

describe('the reader of folders', () => {
  it('ends with our errors on any folder, and follows nothing out of it', { timeout: HOUR }, async () => {
    const dir = room.path('in', 'folder');
    const make = (seed: number) => {
      makeFolder(dir, chanceOf(seed));
      return async () => (await verify({ bundle: dir, deep: true }, contextOf())).faults;
    };
    const accepted = (): void => {
      if (existsSync(join(dir, 'sealift.json'))) expectHonest(dir);
    };
    expect(await fuzz('folders', { room, share: 0.1, make, accepted })).toBeGreaterThan(0);
  });
});
