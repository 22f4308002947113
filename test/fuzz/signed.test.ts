import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { sign } from '../../src/ops/sign.ts';
import { verify } from '../../src/ops/verify.ts';
import { parsePublicKey, publicKeyFile } from '../../src/trust/public-key.ts';
import { parseSecretKey } from '../../src/trust/secret-key.ts';
import { parseSignature } from '../../src/trust/signature.ts';
import { contextOf, openSite, packSite } from '../bundle/site.ts';
import { joined, type Part } from '../bundle/tar-parts.ts';
import { keyOf } from '../trust/keys.ts';
import { hostileBundle, hostileContent, type Origin, originOf } from './bundles.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, chanceOf, NAMES } from './chance.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';
import { changeParts, partOf, tarOfParts } from './tars.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

interface Signed {
  readonly origin: Origin;
  readonly signature: Buffer;
  readonly bytes: Buffer;
  readonly key: string;
}

let room: Room;
const signed: Signed[] = [];
let texts: { secret: Buffer; publicKey: Buffer };
/** The public key that is trusted, as a line. */
let trusted = '';

/** Two bundles of the trusted key, and one of another. */
beforeAll(async () => {
  for (const [at, word] of ['a', 'b', 'a'].entries()) {
    const fleet = { images: 1, layerSizes: [600 + at], baseSize: 700, kinds: ['oci' as const] };
    const site = await openSite({ fleet });
    const packed = await packSite(site);
    const { secret, file } = await keyOf(word);
    const [, line = ''] = publicKeyFile(secret.public).split('\n');
    if (word === 'a') trusted = line;
    texts = { secret: Buffer.from(file), publicKey: Buffer.from(publicKeyFile(secret.public)) };
    writeFileSync(site.path('key'), file);
    const key = { path: site.path('key'), password: async () => '' };
    await sign({ path: packed.path, key, detached: true }, contextOf());
    const signature = await readFile(`${packed.path}.minisig`);
    await sign({ path: packed.path, key }, contextOf());
    signed.push({ origin: originOf(packed), signature, bytes: await readFile(packed.path), key: line });
    await site.close();
  }
  room = openRoom();
});
afterAll(() => room.close());

/** A text of few lines with something else in it. */
function changeText(text: Buffer, chance: Chance): Buffer {
  if (chance.once(2)) return changeBytes(text, chance);
  const lines = text.toString().split('\n');
  const at = chance.below(lines.length);
  const line = lines[at] ?? '';
  const changes: (() => readonly string[])[] = [
    () => [],
    () => [line, line],
    () => [`${line}\r`],
    () => [`${line} `],
    () => [line.slice(0, chance.below(line.length + 1))],
    () => [line.replace(/:.*/, `: ${chance.of(NAMES)}`)],
    () => [`${line}=`],
    () => [line.replaceAll('/', '_')],
    () => [`trusted comment: name=site version=9 lock=sha256:${'0'.repeat(64)}`],
    () => ['A'.repeat(chance.of([1, 56, 100, 104, 212, 70_000]))],
  ];
  lines.splice(at, 1, ...chance.of(changes)());
  return Buffer.from(lines.join('\n'));
}

function hostileSigned(chance: Chance): { readonly bytes: Buffer; readonly beside: Buffer | undefined } {
  const { origin, signature, bytes } = chance.of(signed);
  const of = (text: Buffer): Part => partOf('B3SUMS.minisig', text);
  const makers: (() => { readonly bytes: Buffer; readonly beside?: Buffer })[] = [
    () => ({ bytes }),
    () => ({ bytes: changeBytes(bytes, chance) }),
    () => ({ bytes: tarOfParts(changeParts([...origin.parts, of(signature)], chance), chance) }),
    () => ({ bytes: joined([...origin.parts, of(changeText(signature, chance))]) }),
    () => ({ bytes: joined([...origin.parts, of(chance.of(signed).signature)]) }),
    () => ({ bytes: joined([...hostileContent(origin, chance), of(signature)]) }),
    () => ({ bytes: joined(hostileContent(origin, chance)), beside: signature }),
    () => ({ bytes: origin.bytes, beside: changeText(signature, chance) }),
    () => ({ bytes: chance.of(signed).bytes, beside: chance.of(signed).signature }),
  ];
  return { beside: undefined, ...chance.of(makers)() };
}

describe('what a key vouches for', () => {
  it('is the bundle that was signed with it, and no other bytes at all', { timeout: HOUR }, async () => {
    const path = room.path('in', 'hostile.tar');
    let made: ReturnType<typeof hostileSigned>;
    const make = (seed: number) => {
      made = hostileSigned(chanceOf(seed));
      writeFileSync(path, made.bytes);
      rmSync(`${path}.minisig`, { force: true });
      if (made.beside !== undefined) writeFileSync(`${path}.minisig`, made.beside);
      return async () => (await verify({ bundle: path, deep: true, keys: [trusted] }, contextOf())).faults;
    };
    const accepted = (seed: number): void => {
      const known = signed.filter((s) => s.key === trusted).flatMap((s) => [s.bytes, s.origin.bytes]);
      expect(
        known.some((k) => k.equals(made.bytes)),
        `seed ${seed}`,
      ).toBe(true);
    };
    expect(await fuzz('signed bundles', { room, share: 0.05, make, accepted })).toBeGreaterThan(0);
  });

  it('is put at the end of a bundle, and changes nothing before it', { timeout: HOUR }, async () => {
    const path = room.path('in', 'hostile.tar');
    const key = { path: room.path('in', 'key'), password: async () => '' };
    const origins = signed.map((s) => s.origin);
    const [, own = ''] = texts.publicKey.toString().split('\n');
    let before: Buffer = Buffer.alloc(0);
    for (const name of readdirSync(room.path('in'))) rmSync(room.path('in', name));
    const make = (seed: number) => {
      const chance = chanceOf(seed);
      before = chance.once(3) ? hostileSigned(chance).bytes : hostileBundle(origins, chance);
      writeFileSync(path, before);
      writeFileSync(key.path, texts.secret);
      const detached = chance.once(4);
      return async () => {
        await sign({ path, key, detached }, contextOf());
        return [];
      };
    };
    const left = (): string[] => readdirSync(room.path('in')).sort();
    const accepted = async (seed: number): Promise<void> => {
      const after = readFileSync(path);
      const isBeside = left().includes('hostile.tar.minisig');
      const kept = isBeside ? before.length : after.lastIndexOf('B3SUMS.minisig\0');
      expect(kept, `seed ${seed}`).toBeGreaterThan(0);
      expect(after.subarray(0, kept).equals(before.subarray(0, kept)), `seed ${seed}`).toBe(true);
      const found = await verify({ bundle: path, keys: [own] }, contextOf());
      expect(found.signature.state, `seed ${seed}`).toBe('trusted');
      rmSync(`${path}.minisig`, { force: true });
    };
    const refused = (seed: number): void => {
      expect(readFileSync(path).equals(before), `seed ${seed}`).toBe(true);
      expect(left(), `seed ${seed}`).toEqual(['hostile.tar', 'key']);
    };
    expect(await fuzz('signing', { room, share: 0.02, make, accepted, refused })).toBeGreaterThan(0);
  });

  it('has files whose readers end with our errors', { timeout: HOUR }, async () => {
    const make = (seed: number) => {
      const chance = chanceOf(seed);
      const [text, read] = chance.of([
        [texts.secret, parseSecretKey],
        [texts.publicKey, parsePublicKey],
        [chance.of(signed).signature, parseSignature],
      ] as const);
      const changed = changeText(text, chance);
      return async () => {
        read(changed, 'text');
        return [];
      };
    };
    expect(await fuzz('key files', { room, share: 0.08, make, accepted: () => {} })).toBeGreaterThan(0);
  });
});
