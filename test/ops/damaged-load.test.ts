/** A load from a damaged or forged bundle: it is refused, and the targets stay as they were. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { PlannedEntry } from '../../src/bundle/plan.ts';
import { blake3Of, digestOf } from '../../src/io/verify.ts';
import { load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, placeOf, SEED, seeded } from '../bundle/site.ts';
import { joined, partsOf } from '../bundle/tar-parts.ts';
import { bodyOf } from '../io/server.ts';
import { pushImage } from '../support/fleet.ts';
import {
  damagedAt,
  describePlace,
  expectRefused,
  faultsOf,
  openGood,
  openTargets,
  type Place,
  placeAt,
} from './damaged.ts';

const { site, good } = await openGood();

/** Whether a load into empty targets has to read this byte: all but padding and the digits of B3SUMS. */
function isReadByLoad({ at, part, entry }: Place): boolean {
  if (part === 'padding') return false;
  if (part !== 'content' || entry?.kind !== 'sums') return true;
  return !/[0-9a-f]/.test(String.fromCharCode(good.bytes[at] ?? 0));
}

describe(`loading a damaged bundle (seed ${SEED})`, () => {
  it('is refused with --verify for a byte flipped anywhere, and nothing at all reaches a target', async () => {
    const targets = await openTargets(site, 'with-verify');
    const before = await targets.seen();
    const random = seeded(SEED + 3);
    for (let i = 0; i < 120; i++) {
      const entry = good.entries[i % good.entries.length];
      const near = (entry?.offset ?? 0) - 512 + Math.floor(random() * (1024 + (entry?.size ?? 0)));
      const place = placeAt(good, i % 2 === 0 ? near : Math.floor(random() * good.bytes.length));
      const path = await damagedAt(site, good, { at: place.at, mask: 1 + Math.floor(random() * 255) });
      await expectRefused({ ...targets.options(path), verify: true }, describePlace(place));
    }
    expect(await targets.seen()).toEqual(before);
    await targets.close();
  });

  it('is refused wherever it has to read the byte, and no tag, tree or file changes anywhere', async () => {
    const random = seeded(SEED + 4);
    const places = good.entries.flatMap((e) => {
      const within = e.size === 0 ? [] : [e.offset + Math.floor(random() * e.size)];
      return [...within, e.offset - 512 + Math.floor(random() * 512)].map((at) => placeAt(good, at));
    });
    const read = places.filter(isReadByLoad);
    expect(read.length).toBeGreaterThan(50);
    for (const [i, place] of read.entries()) {
      const targets = await openTargets(site, `refused-${i}`);
      const before = await targets.seen();
      const path = await damagedAt(site, good, { at: place.at, mask: 0x10 });
      await expectRefused(targets.options(path), describePlace(place));
      expect(await targets.seen(), describePlace(place)).toEqual(before);
      await targets.close();
    }
  });

  it('is refused by a chart tree alone for a byte flipped anywhere in the archive', async () => {
    const chart = good.entries.find((e) => e.digest !== undefined && isGzip(e) && !isLayer(e));
    const random = seeded(SEED + 5);
    const dir = site.path('only-trees');
    for (let i = 0; i < 60; i++) {
      const at = (chart?.offset ?? 0) + (i < 20 ? i : Math.floor(random() * (chart?.size ?? 0)));
      const path = await damagedAt(site, good, { at: at, mask: 1 + Math.floor(random() * 255) });
      const error = await expectRefused(
        { bundle: path, chartTrees: [dir] },
        describePlace(placeAt(good, at)),
      );
      expect(error.details).toMatchObject({ entry: chart?.name, offset: chart?.offset });
      await mkdir(dir, { recursive: true });
      expect(await readdir(dir)).toEqual([]);
    }
  });

  it('leaves a byte alone that it need not read, and loads right content', async () => {
    const targets = await openTargets(site, 'padding');
    const entry = good.entries.find((e) => e.kind === 'blob' && e.size % 512 !== 0);
    const path = await damagedAt(site, good, { at: (entry?.offset ?? 0) + (entry?.size ?? 0), mask: 1 });
    const result = await load(targets.options(path), contextOf());
    expect(result.failed).toBe(0);
    await expectRefused({ ...targets.options(path), verify: true }, 'padding');
    await targets.close();
  });

  it('goes on with a good copy after a bad blob stopped it on all targets', async () => {
    const targets = await openTargets(site, 'again');
    const before = await targets.seen();
    const largest = good.entries.filter((e) => e.kind === 'blob').toSorted((a, b) => a.size - b.size);
    const last = largest.at(0);
    const error = await expectRefused(
      targets.options(await damagedAt(site, good, { at: last?.offset ?? 0, mask: 1 })),
      'a small blob',
    );
    expect(error.details).toMatchObject({ entry: last?.name, offset: last?.offset });
    expect(await targets.seen()).toEqual(before);

    const result = await load(targets.options(good.path), contextOf());
    expect(result.failed).toBe(0);
    const after = await targets.seen();
    for (const { name, tag } of site.images) expect(after.tags).toHaveProperty([`${name}:${tag}`]);
    expect(Object.keys(after.files).length).toBeGreaterThan(Object.keys(before.files).length);
    expect(after.files).toMatchObject(before.files);
    await targets.close();
  });
});

function isGzip(entry: PlannedEntry): boolean {
  return entry.kind === 'blob' && good.bytes.readUInt16BE(entry.offset) === 0x1f8b;
}

function isLayer(entry: PlannedEntry): boolean {
  return site.images.some((i) => entry.digest !== undefined && i.blobs.has(entry.digest));
}

describe('a bundle that was made to look right', () => {
  /** The good bundle with another layer, and B3SUMS made anew. */
  async function forge(): Promise<{ path: string; name: string }> {
    const parts = partsOf(good);
    const index = good.entries.findIndex((e) => isLayer(e) && e.kind === 'blob');
    const forged = parts.map((p, i) =>
      i === index ? { ...p, body: Buffer.alloc(p.body.length, 'evil') } : p,
    );
    const sums = forged.slice(0, -1).map((p) => `${blake3Of(p.body)}  ${p.name}\n`);
    const last = forged.length - 1;
    const path = site.path('forged.tar');
    const body = Buffer.from(sums.join(''));
    await writeFile(path, joined(forged.map((p, i) => (i === last ? { ...p, body } : p))));
    return { path, name: parts[index]?.name ?? '' };
  }

  it('is found with --deep and --lock when a blob was swapped and every list was made anew', async () => {
    const { path, name } = await forge();
    const plain = await verify({ bundle: path }, contextOf());
    expect([plain.chain, plain.faults]).toEqual(['b3sums', []]); // It finds damage, and says that it walked that chain.
    for (const options of [{ deep: true }, { lockPath: site.lockPath }]) {
      const faults = await faultsOf({ bundle: path, ...options });
      expect(faults).toEqual([
        expect.objectContaining({
          code: 'BUNDLE_CHECKSUM_MISMATCH',
          details: expect.objectContaining({ entry: name, hash: 'SHA-256' }),
        }),
      ]);
    }
    const targets = await openTargets(site, 'forged');
    const before = await targets.seen();
    await expectRefused(targets.options(path), 'forged');
    expect(await targets.seen()).toEqual(before);
    await targets.close();
  });

  it('is named, not the registry, where that stored what came under its own digest', async () => {
    const { path, name } = await forge();
    const hex = name.split('/').at(-1) ?? '';
    const registry = await startRegistry({
      storage: 'memory',
      intercept: async (request, response) => {
        if (request.method !== 'PUT' || request.url?.includes(hex) !== true) return false;
        const digest = digestOf(await bodyOf(request));
        response.writeHead(201, { 'docker-content-digest': digest }).end();
        return true;
      },
    });
    onTestFinished(() => registry.close());
    const { message } = await expectRefused({ bundle: path, registries: [placeOf(registry)] }, 'forged');
    expect(message).toContain(name);
  });

  it('is found with --lock when another bundle was made with the same names', async () => {
    const other = await openSite({ fleet: { seed: 2 } });
    try {
      const text = await readFile(site.manifestPath, 'utf8');
      for (const image of other.images) await pushImage(site.source.host, image);
      const dir = site.path('other');
      await mkdir(dir);
      await writeFile(join(dir, 'sealift.yaml'), text);
      await writeFile(join(dir, 'notes.txt'), 'other notes\n');
      await lock({ manifestPath: join(dir, 'sealift.yaml') }, contextOf());
      const out = join(dir, 'b.tar');
      await pack({ manifestPath: join(dir, 'sealift.yaml'), out }, contextOf());
      expect((await verify({ bundle: out, deep: true }, contextOf())).faults).toEqual([]);

      const { faults, chain } = await verify({ bundle: out, lockPath: site.lockPath }, contextOf());
      expect(chain).toBe('lock');
      expect(new Set(faults.map((f) => f.code))).toEqual(new Set(['BUNDLE_LOCK_DIFFERS']));
      const messages = faults.map((f) => f.message).join('\n');
      for (const { name } of site.images) expect(messages).toContain(name);
      expect(messages).toContain('notes.txt');
    } finally {
      await other.close();
    }
  });
});
