/** One wrong byte anywhere, or a byte less: verify names it, with entry and offset. */
import { writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { exitCodeOf, type Fault } from '../../src/core/errors.ts';
import { blake3Of } from '../../src/io/verify.ts';
import type { VerifyOptions } from '../../src/ops/verify.ts';
import { SEED, seeded } from '../bundle/site.ts';
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

/** The fault that names a damaged place, by entry and offset. */
function namingFault(faults: readonly Fault[], { at, part, entry }: Place): Fault | undefined {
  const end = good.bytes.length - 1024;
  return faults.find(({ details }) => {
    if (part === 'header') return details?.offset === (entry?.offset ?? 0) - 512;
    if (part === 'padding') return details?.offset === at;
    if (part === 'end') return details?.offset === (at < end + 512 ? end : at);
    return details?.entry === entry?.name && details?.offset === entry?.offset;
  });
}

async function expectNamed(place: Place, mask: number, options: Partial<VerifyOptions> = {}): Promise<void> {
  const path = await damagedAt(site, good, { at: place.at, mask: mask });
  const faults = await faultsOf({ bundle: path, ...options });
  const what = `${describePlace(place)}, mask ${mask}: ${faults.map((f) => f.message).join('; ')}`;
  expect(namingFault(faults, place), what).toBeDefined();
  expect(
    faults.map((f) => exitCodeOf(f.code)),
    what,
  ).toEqual(faults.map(() => 5));
  if (place.part === 'content') {
    // Nothing else is blamed.
    const blamed = faults.map((f) => f.details?.entry).filter((e) => e !== undefined);
    expect(new Set(blamed), what).toEqual(new Set([place.entry?.name]));
  }
  const isBlob = place.part === 'content' && place.entry?.kind === 'blob';
  if (isBlob || place.part === 'padding' || place.part === 'end') expect(faults, what).toHaveLength(1);
}

describe(`a byte flipped in a bundle (seed ${SEED})`, () => {
  it('is named by verify in every byte of a header, for each kind of entry', async () => {
    const firsts = ['document', 'manifest', 'config', 'blob', 'sums'].map((kind) =>
      good.entries.find((e) => e.kind === kind),
    );
    expect(firsts).not.toContain(undefined);
    const random = seeded(SEED);
    const blob = firsts[3]?.offset ?? 0;
    for (let i = 0; i < 512; i++)
      await expectNamed(placeAt(good, blob - 512 + i), 1 + Math.floor(random() * 255));
    // One byte of each field (POSIX ustar), and the first unused one, in the others.
    for (const entry of firsts) {
      for (const field of [
        0, 100, 108, 116, 124, 136, 148, 156, 157, 257, 263, 265, 297, 329, 337, 345, 500,
      ]) {
        await expectNamed(placeAt(good, (entry?.offset ?? 0) - 512 + field), 1 + Math.floor(random() * 255));
      }
    }
  });

  it('is named by verify in every byte of sealift.json, also where it becomes another number or name', async () => {
    const info = good.entries.find((e) => e.name === 'sealift.json');
    for (let i = 0; i < (info?.size ?? 0); i++) {
      await expectNamed(placeAt(good, (info?.offset ?? 0) + i), i % 2 === 0 ? 1 : 8);
    }
  });

  it('is named by verify with entry and offset at 500 random places of the whole file', async () => {
    const random = seeded(SEED + 1);
    const hit = new Map<string, number>();
    for (let i = 0; i < 500; i++) {
      const place = placeAt(good, Math.floor(random() * good.bytes.length));
      await expectNamed(place, 1 + Math.floor(random() * 255), { deep: i % 3 === 0 });
      const kind = place.part === 'content' ? `content of a ${place.entry?.kind}` : place.part;
      hit.set(kind, (hit.get(kind) ?? 0) + 1);
    }
    expect([...hit.keys()]).toEqual(
      expect.arrayContaining(['header', 'padding', 'content of a document', 'content of a blob']),
    );
  });

  it('is named by verify at 20 random places of every single entry and its padding', async () => {
    const random = seeded(SEED + 2);
    for (const entry of good.entries) {
      const span = Math.ceil(entry.size / 512) * 512;
      for (let i = 0; i < 20; i++) {
        const lockPath = i % 4 === 0 ? { lockPath: site.lockPath } : {};
        const at = entry.offset + Math.floor(random() * span);
        await expectNamed(placeAt(good, at), 1 + Math.floor(random() * 255), lockPath);
      }
    }
  });

  it('is named by verify in every line of both lists, in the hash and in the name', async () => {
    for (const list of ['SHA256SUMS', 'B3SUMS']) {
      const entry = good.entries.find((e) => e.name === list);
      const end = (entry?.offset ?? 0) + (entry?.size ?? 0);
      for (let at = entry?.offset ?? 0; at < end; at = good.bytes.indexOf('\n', at) + 1) {
        const deep = at % 2 === 0;
        const digit = (good.bytes[at + 7] ?? 0) === 0x30 ? 1 : (good.bytes[at + 7] ?? 0) ^ 0x30;
        await expectNamed(placeAt(good, at + 7), digit, { deep });
        await expectNamed(placeAt(good, at + 68), 1, { deep });
      }
    }
  });

  it('twice is named twice', async () => {
    const blobs = good.entries.filter((e) => e.kind === 'blob' && e.size > 0);
    const bytes = Buffer.from(good.bytes);
    for (const e of blobs) bytes[e.offset] = (bytes[e.offset] ?? 0) ^ 1;
    const path = site.path('many.tar');
    await writeFile(path, bytes);
    const faults = await faultsOf({ bundle: path });
    expect(faults.map((f) => f.details?.entry)).toEqual(blobs.map((e) => e.name));
    for (const [i, f] of faults.entries()) {
      const e = blobs[i];
      const content = good.bytes.subarray(e?.offset, (e?.offset ?? 0) + (e?.size ?? 0));
      expect(f.details).toMatchObject({ hash: 'BLAKE3', expected: blake3Of(content) });
      expect(f.message).toContain(`at byte ${e?.offset}`);
    }
  });
});

describe('a bundle that was cut off', () => {
  it('is named truncated at every length', async () => {
    const path = site.path('cut.tar');
    const lengths = new Set<number>([0, 1, good.bytes.length - 1, good.bytes.length - 512]);
    const random = seeded(SEED + 6);
    for (const e of good.entries) {
      for (const at of [e.offset - 512, e.offset - 100, e.offset, e.offset + e.size]) lengths.add(at);
      lengths.add(e.offset + Math.floor(random() * (e.size + 512)));
    }
    const targets = await openTargets(site, 'cut');
    const before = await targets.seen();
    for (const length of lengths) {
      if (length >= good.bytes.length) continue;
      await writeFile(path, good.bytes.subarray(0, length));
      const faults = await faultsOf({ bundle: path });
      expect(
        faults.map((f) => f.code),
        `${length} bytes`,
      ).toContain('BUNDLE_TRUNCATED');
      expect(faults.map((f) => exitCodeOf(f.code))).toEqual(faults.map(() => 5));
      await expectRefused(targets.options(path), `${length} bytes`);
    }
    expect(await targets.seen()).toEqual(before);
    await targets.close();
  });
});
