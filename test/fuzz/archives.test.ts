import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { indexTar } from '../../src/io/tar-index.ts';
import { digestOf } from '../../src/io/verify.ts';
import { ls } from '../../src/ops/ls.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf } from '../bundle/site.ts';
import { joined, type Part, withBody } from '../bundle/tar-parts.ts';
import { layoutFiles, savedFiles, savedLayout } from '../support/archives.ts';
import { makeFleet } from '../support/fleet.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, chanceOf, NAMES } from './chance.ts';
import { changeDocument } from './json.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';
import { changeParts, partOf, tarOfParts } from './tars.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

let room: Room;
let origins: readonly (readonly Part[])[];

/** An OCI layout, both ways of docker save, and a layout with an index in an index. */
beforeAll(() => {
  const images = [
    ...makeFleet({ images: 2, layerSizes: [600], baseSize: 700, kinds: ['attested', 'nested'] }),
  ];
  const [first] = images;
  if (first === undefined) throw new Error('no image');
  const named = { 'org.opencontainers.image.ref.name': 'registry.example/app:1' };
  const files = [
    layoutFiles(images, () => named),
    savedFiles(first, ['app:1', 'app:latest']).files,
    savedLayout(first, { name: 'app:1', layers: true }).files,
    savedLayout(first, { name: 'app:1', layers: false }).files,
  ];
  origins = files.map((of) => [...of].map(([name, body]) => partOf(name, body)));
  room = openRoom();
});
afterAll(() => room.close());

const isJson = ({ body }: Part): boolean => body[0] === 0x7b || body[0] === 0x5b;

/** A document of an archive changed; where it is a blob, everything names its new digest. */
function changeJsonIn(parts: readonly Part[], chance: Chance): Part[] {
  const part = chance.of(parts.filter(isJson));
  const body = changeDocument(part.body, chance);
  const [from, to] = [digestOf(part.body), digestOf(body)];
  const put = (p: Part): Part => {
    if (p === part) return withBody(partOf(p.name.replace(from.slice(7), to.slice(7)), body), body);
    if (!isJson(p) || !p.body.includes(from.slice(7))) return p;
    const text = p.body.toString().replaceAll(from.slice(7), to.slice(7));
    const sized = text.replaceAll(`"size":${part.body.length}`, `"size":${body.length}`);
    return withBody(p, Buffer.from(sized));
  };
  return parts.map(put);
}

/** A link in the place of a file, to another file of the archive or out of it. */
function linked(parts: readonly Part[], chance: Chance): Part[] {
  const at = chance.below(parts.length);
  const to = chance.once(2) ? chance.of(parts).name : chance.of([...NAMES, room.path('canary'), '../canary']);
  return parts.map((p, i) => (i === at ? linkOf(p.name, to.slice(0, 100), chance.of(['1', '2'])) : p));
}

function linkOf(name: string, to: string, type: string): Part {
  const part = partOf(name, Buffer.alloc(0));
  part.header.write(type, 156, 'latin1');
  part.header.write(to, 157, 'utf8');
  part.header.write('        ', 148, 'latin1');
  const sum = part.header.reduce((a, b) => a + b, 0);
  part.header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return part;
}

function hostileArchive(chance: Chance): Buffer {
  const parts = chance.of(origins);
  const makers: (() => Buffer)[] = [
    () => changeBytes(joined(parts), chance),
    () => tarOfParts(changeParts(parts, chance), chance),
    () => joined(changeJsonIn(parts, chance)),
    () => joined(changeJsonIn(parts, chance)),
    () => joined(linked(parts, chance)),
    () => joined([...parts, ...changeParts(chance.of(origins), chance)]),
  ];
  const bytes = chance.of(makers)();
  if (!chance.once(6)) return bytes;
  const pressed = gzipSync(bytes, { level: 1 });
  return chance.once(2) ? changeBytes(pressed, chance) : pressed;
}

describe('the readers of what other tools made', () => {
  it('end with our errors on any archive', { timeout: HOUR }, async () => {
    const path = room.path('in', 'hostile.tar');
    const make = (seed: number) => {
      const chance = chanceOf(seed);
      writeFileSync(path, hostileArchive(chance));
      const isListed = chance.once(4);
      return async () => {
        if (!isListed) return (await verify({ bundle: path, deep: true }, contextOf())).faults;
        await ls(path, contextOf());
        return [];
      };
    };
    expect(await fuzz('archives', { room, share: 0.12, make, accepted: () => {} })).toBeGreaterThan(0);
  });

  it('find in any tar only what lies inside it', { timeout: HOUR }, async () => {
    const path = room.path('in', 'hostile.tar');
    const { signal } = contextOf();
    const make = (seed: number) => {
      const chance = chanceOf(seed);
      const bytes = tarOfParts(changeParts(chance.of(origins), chance), chance);
      writeFileSync(path, bytes);
      const names = [...chance.of(origins).map((p) => p.name), ...NAMES];
      return async () => {
        const handle = await open(path, 'r');
        try {
          const index = await indexTar(handle, { path, size: bytes.length, signal });
          for (const name of names) {
            const file = index.find(name);
            if (file !== undefined) expect(file.offset + file.size).toBeLessThanOrEqual(bytes.length);
          }
        } finally {
          await handle.close();
        }
        return [];
      };
    };
    expect(await fuzz('tar index', { room, share: 0.1, make, accepted: () => {} })).toBeGreaterThan(0);
  });
});
