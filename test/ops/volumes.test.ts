/** Bundles in volumes: written, read from several folders, damaged in every way that media know. */
import {
  chmod,
  copyFile,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { holdPath } from '../../src/bundle/partial.ts';
import { settleStopped } from '../../src/bundle/volume-sink.ts';
import { placesOf } from '../../src/bundle/volumes.ts';
import type { SealiftError } from '../../src/core/errors.ts';
import { load } from '../../src/ops/load.ts';
import { ls } from '../../src/ops/ls.ts';
import { merge } from '../../src/ops/merge.ts';
import { pack } from '../../src/ops/pack.ts';
import { type VerifyResult, verify } from '../../src/ops/verify.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, type Packed, packSite, placeOf, type Site } from '../bundle/site.ts';

const SIZE = 70_000;
let site: Site;
let good: Packed;
/** The volumes of the bundle, fresh for each test. */
let dir: string;
let names: string[];

beforeAll(async () => {
  site = await openSite({ fleet: { layerSizes: [90_000, 1000], baseSize: 150_000 } });
  good = await packSite(site);
  await pack(
    { manifestPath: site.manifestPath, out: site.path('kept', 'b.tar'), volumeSize: SIZE },
    contextOf(),
  );
  names = (await readdir(site.path('kept'))).sort();
}, 60_000);

afterAll(() => site.close());

beforeEach(async () => {
  dir = site.path(`v${Math.random().toString(36).slice(2)}`);
  await mkdir(dir);
  for (const name of names) await copyFile(site.path('kept', name), join(dir, name));
});

async function check(...words: string[]): Promise<VerifyResult> {
  const [bundle = '', ...others] = words.map((w) => join(dir, w));
  return verify({ bundle, others }, contextOf());
}

const volume = (number: number): string => `b.tar.${String(number).padStart(3, '0')}`;

describe('a bundle in volumes', () => {
  it('is the same bytes as one file when its volumes are joined, each of them as long as it was asked for', async () => {
    const parts = await Promise.all(names.map((name) => readFile(join(dir, name))));
    expect(names[0]).toBe('b.tar.001');
    expect(names).toHaveLength(Math.ceil(good.bytes.length / SIZE));
    expect(parts.slice(0, -1).every((part) => part.length === SIZE)).toBe(true);
    expect(Buffer.concat(parts).equals(good.bytes)).toBe(true);
  });

  it('is there already when it is packed again, and is written anew in volumes of another size', async () => {
    const out = join(dir, 'b.tar');
    const again = await pack({ manifestPath: site.manifestPath, out, volumeSize: SIZE }, contextOf());
    expect(again.outcome).toBe('present');
    const larger = { manifestPath: site.manifestPath, out, volumeSize: 2 * SIZE };
    expect((await pack(larger, contextOf())).outcome).toBe('packed');
    const now = (await readdir(dir)).sort();
    expect(now).toHaveLength(Math.ceil(good.bytes.length / (2 * SIZE)));
    const parts = await Promise.all(now.map((name) => readFile(join(dir, name))));
    expect(Buffer.concat(parts).equals(good.bytes)).toBe(true);
  });

  it('takes the place of older volumes of any count, and of no file that only ends in a year', async () => {
    const out = join(dir, 'b.tar');
    for (const name of names) await rm(join(dir, name), { force: true });
    const other = ['b.tar.0001', 'b.tar.0002'];
    for (const name of [...other, 'b.tar.2025']) await writeFile(join(dir, name), 'older');
    await mkdir(`${out}.partial`);
    await writeFile(`${out}.partial/whole`, names.join('\n'));
    for (const name of names) await copyFile(site.path('kept', name), join(`${out}.partial`, name));
    const again = await pack({ manifestPath: site.manifestPath, out, volumeSize: SIZE }, contextOf());
    expect(again.outcome).toBe('present');
    expect((await readdir(dir)).sort()).toEqual([...names, 'b.tar.2025']);
    for (const word of ['b.tar', 'b.tar.001', '.']) expect((await check(word)).faults).toEqual([]);
  });

  it('keeps a signature that was written after a stop between the last name and the end', async () => {
    const out = join(dir, 'b.tar');
    await mkdir(`${out}.partial`);
    await writeFile(`${out}.partial/whole`, names.join('\n'));
    const more = `b.tar.${String(names.length + 1).padStart(3, '0')}`;
    await writeFile(join(dir, more), 'signature');
    await settleStopped(out);
    expect((await readdir(dir)).sort()).toEqual([...names, more].sort());
  });

  it('gets its names from one run at a time', async () => {
    const out = join(dir, 'b.tar');
    await mkdir(`${out}.partial`);
    await writeFile(`${out}.partial/whole`, names.join('\n'));
    const release = await holdPath(out);
    try {
      const packing = pack({ manifestPath: site.manifestPath, out, volumeSize: SIZE }, contextOf());
      await expect(packing).rejects.toMatchObject({ code: 'PACK_BUSY' });
      expect(await readdir(dir)).toEqual(expect.arrayContaining(names));
    } finally {
      await release();
    }
  });

  it('is not written under a name that a volume has, and a whole one of such a name is read', async () => {
    const out = join(dir, 'site-1.2.345');
    const packing = pack({ manifestPath: site.manifestPath, out }, contextOf());
    await expect(packing).rejects.toMatchObject({ code: 'USAGE' });
    await writeFile(out, good.bytes);
    await writeFile(join(dir, 'site-1.2.346'), good.bytes);
    expect((await check('site-1.2.345')).faults).toEqual([]);
  });

  it.each([
    ['its first volume', () => ['b.tar.001']],
    ['any volume', () => ['b.tar.003']],
    ['the name without a number', () => ['b.tar']],
    ['the folder', () => ['.']],
    ['a pattern', () => ['b.tar.*']],
    ['all volumes in any order', () => [...names].reverse()],
  ])('is taken by %s', async (_, words) => {
    const result = await check(...words());
    expect(result.faults).toEqual([]);
    expect(result.images).toBe(3);
    expect(await placesOf(words().map((w) => join(dir, w)))).toHaveLength(1);
  });

  it('is loaded and listed from two folders, and its files stay as they are', async () => {
    await mkdir(join(dir, 'second'));
    for (const name of names.slice(2)) await rename(join(dir, name), join(dir, 'second', name));
    const paths = [
      ...names.slice(0, 2).map((n) => join(dir, n)),
      ...names.slice(2).map((n) => join(dir, 'second', n)),
    ];
    for (const path of paths) await chmod(path, 0o444);
    const facts = (): Promise<unknown[]> =>
      Promise.all(
        paths.map(async (p) => (({ mtimeMs, ino, mode, size }) => [mtimeMs, ino, mode, size])(await stat(p))),
      );
    const before = await facts();
    const target = await startRegistry({ storage: 'memory' });
    try {
      const given = { bundle: join(dir, 'b.tar.001'), others: [join(dir, 'second')] };
      const result = await load({ ...given, registries: [placeOf(target)] }, contextOf());
      expect(result.failed).toBe(0);
      expect((await verify({ ...given, deep: true }, contextOf())).faults).toEqual([]);
      const listed = await ls([given.bundle, ...given.others], contextOf());
      expect(listed.size).toBe(good.bytes.length);
    } finally {
      await target.close();
    }
    expect(await facts()).toEqual(before);
  });

  it('is a file in a folder too, where it is the only one, and several are not guessed at', async () => {
    const folder = join(dir, 'one');
    await mkdir(folder);
    await copyFile(good.path, join(folder, 'b.tar'));
    expect((await verify({ bundle: folder }, contextOf())).images).toBe(3);
    await copyFile(good.path, join(folder, 'c.tar'));
    await expect(verify({ bundle: folder }, contextOf())).rejects.toMatchObject({
      code: 'USAGE',
      message: /several/,
    });
  });

  it('is not guessed at where its folder, or its name, also has another bundle', async () => {
    const several = { code: 'USAGE', message: /several bundles .*: .*b\.tar/ };
    await copyFile(good.path, join(dir, 'other.tar'));
    await expect(check('.')).rejects.toMatchObject(several);
    expect((await check('b.tar')).faults).toEqual([]);
    await rm(join(dir, 'other.tar'));
    await copyFile(join(dir, volume(1)), join(dir, 'b.tar.0001'));
    for (const word of ['.', 'b.tar']) await expect(check(word)).rejects.toMatchObject(several);
    expect((await check('b.tar.001')).faults).toEqual([]);
  });

  it('is not in a folder that has none', async () => {
    await mkdir(join(dir, 'none'));
    await expect(check('none')).rejects.toMatchObject({ code: 'BUNDLE_NOT_FOUND', message: /no bundle/ });
  });

  it('lists what it holds without reading its blobs', async () => {
    const listed = await ls(join(dir, 'b.tar.001'), contextOf());
    expect(listed.size).toBe(good.bytes.length);
    expect(listed.artifacts.filter((a) => a.kind === 'image')).toHaveLength(3);
  });
});

describe('damage to volumes', () => {
  it('names one that is missing, and what it should hold', async () => {
    await rm(join(dir, volume(3)));
    const { faults } = await check('b.tar.001');
    expect(faults[0]).toMatchObject({
      code: 'BUNDLE_VOLUME_MISSING',
      details: { volume: join(dir, volume(3)) },
    });
    expect(faults[0]?.message).toContain(`volume 3 of ${names.length}, ${SIZE} bytes`);
  });

  it.each([
    ['a folder', (path: string) => mkdir(path), 'what has this name is a folder'],
    ['a link that leads nowhere', (path: string) => symlink('nowhere', path), 'leads to no file'],
  ])('names %s that stands in its place', async (_, make, said) => {
    await rm(join(dir, volume(3)));
    await make(join(dir, volume(3)));
    const { faults } = await check('b.tar.001');
    expect(faults[0]).toMatchObject({ code: 'BUNDLE_VOLUME_MISSING' });
    expect(faults[0]?.message).toContain(said);
  });

  it('names all that lack before what follows from it, also the first one, and hashes nothing of them', async () => {
    for (const number of [2, 4, 5]) await rm(join(dir, volume(number)));
    const { faults, bytes } = await check('b.tar.001');
    expect(faults.slice(0, 3).map((f) => f.details?.volume)).toEqual(
      [2, 4, 5].map((n) => join(dir, volume(n))),
    );
    for (const { hint, message } of faults) expect(hint, message).toBeDefined();
    expect(bytes).toBeLessThan(good.bytes.length - 3 * SIZE);
    await rm(join(dir, volume(1)));
    await expect(check('b.tar.003')).rejects.toMatchObject({ code: 'BUNDLE_VOLUME_MISSING' });
  });

  it('names the last one when it is missing: the size in the first tells that there is one', async () => {
    await rm(join(dir, volume(names.length)));
    const { faults } = await check('b.tar.001');
    expect(faults[0]).toMatchObject({
      code: 'BUNDLE_VOLUME_MISSING',
      details: { volume: join(dir, volume(names.length)) },
    });
  });

  it.each([1, 2])('names one that is too short: volume %i', async (number) => {
    await truncate(join(dir, volume(number)), SIZE - 1000);
    const found = await check('b.tar.001').then(
      (r) => r.faults,
      (e: SealiftError) => e.faults,
    );
    const short = found.find((f) => f.code === 'BUNDLE_TRUNCATED');
    expect(short?.message).toContain(
      `${volume(number)}: volume ${number} of ${names.length} has ${SIZE - 1000} of ${SIZE}`,
    );
  });

  it('names the volume, the entry and the bytes where one bit is wrong', async () => {
    const victim = good.entries.find((e) => e.size > 2 * SIZE);
    if (victim === undefined) throw new Error('an entry spans volumes');
    const at = victim.offset + SIZE;
    const handle = await open(join(dir, volume(Math.floor(at / SIZE) + 1)), 'r+');
    await handle.write(Buffer.from([(good.bytes[at] ?? 0) ^ 1]), 0, 1, at % SIZE);
    await handle.close();
    const { faults } = await check('b.tar.001');
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatchObject({ code: 'BUNDLE_CHECKSUM_MISMATCH', details: { entry: victim.name } });
    const first = Math.floor(victim.offset / SIZE) + 1;
    expect(faults[0]?.message).toContain(`${volume(first)} bytes ${victim.offset % SIZE} to ${SIZE - 1}`);
    expect(faults[0]?.message).toContain(volume(first + 1));
  });

  it('names two that were swapped', async () => {
    await rename(join(dir, volume(2)), join(dir, 'x'));
    await rename(join(dir, volume(4)), join(dir, volume(2)));
    await rename(join(dir, 'x'), join(dir, volume(4)));
    const { faults } = await check('b.tar.001');
    // Why it is so is told first.
    const wrong = faults.slice(0, 2).map((f) => f.details);
    expect(wrong).toEqual([
      expect.objectContaining({ volume: join(dir, volume(2)), holds: 4 }),
      expect.objectContaining({ volume: join(dir, volume(4)), holds: 2 }),
    ]);
  });

  it('names one that holds the bytes of another', async () => {
    await copyFile(join(dir, volume(3)), join(dir, volume(5)));
    const { faults } = await check('b.tar.001');
    expect(faults.find((f) => f.code === 'BUNDLE_VOLUME_WRONG')?.details).toMatchObject({
      volume: join(dir, volume(5)),
      holds: 3,
    });
  });

  it('names one that is given twice from different places', async () => {
    await mkdir(join(dir, 'other'));
    await copyFile(join(dir, volume(2)), join(dir, 'other', volume(2)));
    await expect(check('b.tar.001', 'other')).rejects.toMatchObject({
      code: 'USAGE',
      message: /same volume/,
    });
  });

  it('names one that does not belong to it', async () => {
    await copyFile(join(dir, volume(1)), join(dir, volume(names.length + 3)));
    const { faults } = await check('b.tar.001');
    expect(faults[0]).toMatchObject({
      code: 'BUNDLE_ENTRY_EXTRA',
      details: { volume: join(dir, volume(names.length + 3)) },
    });
  });

  it('is told by a merge too, which then writes nothing and says how to ask for the rest', async () => {
    await rm(join(dir, volume(3)));
    const out = join(dir, 'whole.tar');
    const failed = await merge({ out, bundles: [join(dir, 'b.tar.001')] }, contextOf()).catch((e) => e);
    expect(failed).toMatchObject({ code: 'BUNDLE_VOLUME_MISSING' });
    expect(failed.faults.at(-1)).toMatchObject({
      code: 'BUNDLE_ENTRY_MISSING',
      hint: expect.stringContaining('--write-request'),
    });
    expect((await readdir(dir)).filter((name) => name.startsWith('whole'))).toEqual([]);
  });

  it('is never loaded', async () => {
    await rm(join(dir, volume(names.length - 1)));
    const target = await startRegistry({ storage: 'memory' });
    try {
      const options = { bundle: join(dir, 'b.tar.001'), registries: [placeOf(target)] };
      await expect(load(options, contextOf())).rejects.toMatchObject({ code: 'BUNDLE_VOLUME_MISSING' });
      expect(target.requests.filter((r) => r.method !== 'GET')).toEqual([]);
    } finally {
      await target.close();
    }
  });
});
