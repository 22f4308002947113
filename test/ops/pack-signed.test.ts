/** What a pack that signs does with what is at its path already: it signs its own bundle, and nothing else. */
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { SigningKey } from '../../src/ops/keys.ts';
import { packSigned, type SignedPack } from '../../src/ops/pack-signed.ts';
import { sign, signBundle } from '../../src/ops/sign.ts';
import { verify } from '../../src/ops/verify.ts';
import { publicKeyFile } from '../../src/trust/public-key.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { keyOf } from '../trust/keys.ts';

let site: Site;
let good: Packed;
let signed: Buffer;
let key: SigningKey;
let path = '';

/** Where the entries of the unsigned bundle end. */
const end = (): number => good.bytes.length - 1024;

/** The signed bundle as a kill in the middle of signing leaves it. */
function torn(): Buffer {
  const bytes = Buffer.from(signed);
  bytes.fill(0, end(), end() + 512);
  return bytes;
}

beforeAll(async () => {
  site = await openSite();
  good = await packSite(site);
  const { secret, file } = await keyOf('a');
  const password = async (): Promise<string> => Promise.reject(new Error('it has none'));
  key = { path: site.path('a.key'), password };
  await writeFile(key.path, file);
  await writeFile(site.path('a.pub'), publicKeyFile(secret.public));
  await cp(good.path, site.path('signed.tar'));
  await sign({ path: site.path('signed.tar'), key }, contextOf());
  signed = await readFile(site.path('signed.tar'));
});
afterAll(() => site.close());

beforeEach(async () => {
  path = site.path('tried.tar');
  for (const name of await readdir(site.dir)) {
    if (name.startsWith('tried')) await rm(site.path(name), { recursive: true });
  }
  await site.lockFor();
});

const packed = (more: Partial<Parameters<typeof packSigned>[0]> = {}): Promise<SignedPack> =>
  packSigned({ manifestPath: site.manifestPath, out: path, key, ...more }, contextOf());

describe('a pack that signs', () => {
  it('signs nothing of what it refuses to replace', async () => {
    await writeFile(path, torn());
    // A delta may not replace what it builds on, nor the complete bundle of its lock.
    await cp(good.path, site.path('tried-base.tar'));
    await expect(packed({ since: [site.path('tried-base.tar')] })).rejects.toMatchObject({
      code: 'TARGET_CONFLICT',
    });
    expect(await readFile(path)).toEqual(torn());
    await expect(packed({ out: `${path}/` })).rejects.toMatchObject({ code: 'USAGE' });
    expect(await readFile(path)).toEqual(torn());
  });

  it('does not sign a bundle of another lock, which it replaces', async () => {
    await writeFile(path, torn());
    await site.lockFor(site.images.slice(0, 1));
    const { packed: result } = await packed();
    expect(result.outcome).toBe('packed');
    const found = await verify({ bundle: path, keys: [site.path('a.pub')] }, contextOf());
    expect(found).toMatchObject({ faults: [], chain: 'signature', images: 1 });
  });

  it('packs again where more than a torn signature lies behind the entries', async () => {
    await writeFile(path, Buffer.concat([signed, Buffer.alloc(20_000, 1)]));
    const { packed: result } = await packed();
    expect(result.outcome).toBe('packed');
    expect(await readFile(path)).toEqual(signed);
  });

  it('signs its volumes, also where a bundle in one file has their name', async () => {
    await cp(good.path, path);
    const { packed: result, signature } = await packed({
      volumeSize: Math.ceil(good.bytes.length / 2) + 1024,
    });
    expect([result.kind, signature.written]).toEqual(['volumes', true]);
    expect(await readFile(path)).toEqual(good.bytes);
    const parts = [await readFile(`${path}.001`), await readFile(`${path}.002`)];
    expect(Buffer.concat(parts)).toEqual(signed);
  });

  it('goes on where signing began one more volume, and packs again where there are more', async () => {
    const volumeSize = end() + 1024;
    const unsigned = async (): Promise<void> => {
      await writeFile(`${path}.001`, good.bytes);
      await writeFile(`${path}.002`, '');
    };
    await unsigned();
    expect((await packed({ volumeSize })).packed.outcome).toBe('present');
    expect(Buffer.concat([await readFile(`${path}.001`), await readFile(`${path}.002`)])).toEqual(signed);
    await unsigned();
    await writeFile(`${path}.003`, 'of another bundle');
    expect((await packed({ volumeSize })).packed.outcome).toBe('packed');
    const names = (await readdir(site.dir)).filter((name) => name.startsWith('tried.tar.0'));
    expect(names.sort()).toEqual(['tried.tar.001', 'tried.tar.002']);
  });
});

describe('a bundle that is to be signed', () => {
  it('is the one that is expected, or nothing is signed', async () => {
    await writeFile(path, good.bytes);
    const { secret } = await keyOf('a');
    const lock = `sha256:${'0'.repeat(64)}` as const;
    const signing = signBundle(path, secret, { detached: false, lock, context: contextOf() });
    await expect(signing).rejects.toMatchObject({ code: 'BUNDLE_LOCK_DIFFERS' });
    expect(await readFile(path)).toEqual(good.bytes);
  });

  it('is refused where more than a torn signature lies behind its entries', async () => {
    await writeFile(path, Buffer.concat([signed, Buffer.alloc(20_000, 1)]));
    await expect(sign({ path, key }, contextOf())).rejects.toMatchObject({ code: 'BUNDLE_NOT_CANONICAL' });
    expect((await readFile(path)).length).toBe(signed.length + 20_000);
  });
});
