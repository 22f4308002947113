import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { load } from '../../src/ops/load.ts';
import { merge } from '../../src/ops/merge.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { hostileBundle, type Origin, originOf } from './bundles.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, chanceOf } from './chance.ts';
import { changeDocument } from './json.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

let room: Room;
let site: Site;
let full: Packed;
let base: Origin;
/** A repair request, and what stands for a bundle: a receipt, SHA256SUMS, the lock. */
let texts: Readonly<Record<'repair' | 'receipt' | 'sums' | 'lock', Buffer>>;
const at = (...names: string[]): string => room.path('in', ...names);

beforeAll(async () => {
  const fleet = { images: 2, layerSizes: [600, 300], baseSize: 700, kinds: ['oci' as const] };
  site = await openSite({ fleet });
  await site.lockFor(site.images.slice(0, 1));
  const first = await packSite(site, 'base.tar');
  base = originOf(first);
  const lockText = readFileSync(site.lockPath);
  const receiptPath = site.path('receipt.json');
  await load({ bundle: first.path, files: [site.path('files')], receiptPath }, contextOf());
  await site.lockFor();
  full = await packSite(site, 'full.tar');
  const damaged = Buffer.from(full.bytes);
  for (const { offset, kind } of full.entries) if (kind === 'blob') damaged.writeUInt8(1, offset);
  writeFileSync(site.path('damaged.tar'), damaged);
  const requestPath = site.path('repair.json');
  await verify({ bundle: site.path('damaged.tar'), requestPath }, contextOf());
  const sums = base.parts.find((p) => p.name === 'SHA256SUMS')?.body ?? Buffer.alloc(0);
  const [repair, receipt] = [readFileSync(requestPath), readFileSync(receiptPath)];
  texts = { repair, receipt, sums, lock: lockText };
  room = openRoom();
  for (const name of ['sealift.yaml', 'versions.lock', 'notes.txt', 'full.tar'])
    cpSync(site.path(name), at('site', name));
});
afterAll(async () => {
  await site.close();
  room.close();
});

/** A line more, less, twice, or of something else. */
function changeLines(text: Buffer, chance: Chance): Buffer {
  const lines = text.toString().split('\n');
  const other = full.entries.map((e) => `${e.digest?.slice(7) ?? '0'.repeat(64)}  ${e.name}`);
  const put = chance.of([[], [chance.of(lines), chance.of(lines)], [chance.of(other)], ['x'.repeat(70_000)]]);
  lines.splice(chance.below(lines.length), 1, ...put);
  return Buffer.from(lines.join('\n'));
}

function changeText(text: Buffer, chance: Chance): Buffer {
  if (chance.once(10)) return text;
  if (chance.once(4)) return changeBytes(text, chance);
  return text[0] === 0x7b ? changeDocument(text, chance) : changeLines(text, chance);
}

type Kind = keyof typeof texts | 'bundle';

/** Puts one thing there that a pack builds on. */
function makeBase(name: string, chance: Chance): { readonly kind: Kind; readonly path: string } {
  const kind = chance.of<Kind>(['repair', 'receipt', 'receipt', 'sums', 'lock', 'bundle']);
  const path = at(name);
  const bytes = kind === 'bundle' ? hostileBundle([base], chance) : changeText(texts[kind], chance);
  writeFileSync(path, bytes);
  // A lock stands for the bundle beside it.
  if (kind === 'lock')
    writeFileSync(`${path}.tar`, chance.once(2) ? base.bytes : hostileBundle([base], chance));
  return { kind, path };
}

/** What a bundle that leaves something out brings, and what it leaves out, is all that it is of. */
async function expectPart(path: string, where: string): Promise<void> {
  const alone = await verify({ bundle: path, deep: true }, contextOf());
  expect(alone.faults, where).toEqual([]);
  const out = at('whole.tar');
  await merge({ out, bundles: [path, at('site', 'full.tar')] }, contextOf());
  expect(readFileSync(out).equals(full.bytes), where).toBe(true);
  rmSync(out);
}

/** A request's blobs are what is brought besides manifests, as far as the lock knows them. */
function expectAsked(path: string, request: string, where: string): void {
  const { blobs } = JSON.parse(readFileSync(request, 'utf8')) as { blobs: { digest: Digest }[] };
  const asked = new Set(blobs.map((b) => b.digest));
  const bytes = readFileSync(path);
  for (const { digest, kind } of full.entries) {
    if (digest === undefined || kind === 'manifest') continue;
    expect(bytes.includes(`blobs/sha256/${digest.slice(7)}\0`), `${where}: ${digest}`).toBe(
      asked.has(digest),
    );
  }
}

describe('what a pack builds on', () => {
  it('makes a bundle that is right with its base, or ends with our errors', { timeout: HOUR }, async () => {
    const out = at('out.tar');
    const manifestPath = at('site', 'sealift.yaml');
    let given: { readonly kind: Kind; readonly path: string }[] = [];
    const make = (seed: number) => {
      for (const name of readdirSync(at())) if (name !== 'site') rmSync(at(name), { recursive: true });
      const chance = chanceOf(seed);
      given = [makeBase('one', chance)];
      const [{ kind, path } = { kind: 'repair', path: '' }] = given;
      if (kind !== 'repair') while (chance.once(4)) given.push(makeBase(`more${given.length}`, chance));
      const since = given.map((g) => g.path);
      const by = kind === 'repair' ? { repair: path } : { since };
      return async () => {
        await pack({ manifestPath, out, ...by }, contextOf());
        return [];
      };
    };
    const accepted = async (seed: number): Promise<void> => {
      await expectPart(out, `seed ${seed}`);
      const [one] = given;
      if (one?.kind === 'repair') expectAsked(out, one.path, `seed ${seed}`);
    };
    const refused = (seed: number): void => {
      const left = readdirSync(at()).filter((name) => name.startsWith('out'));
      expect(left, `seed ${seed}`).toEqual([]);
    };
    expect(await fuzz('bases', { room, share: 0.01, make, accepted, refused })).toBeGreaterThan(0);
  });
});
