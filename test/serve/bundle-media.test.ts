import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createBlake3 } from '../../src/io/blake3.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { sign } from '../../src/ops/sign.ts';
import { verify } from '../../src/ops/verify.ts';
import { publicKeyFile } from '../../src/trust/public-key.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import { keyOf } from '../trust/keys.ts';
import { ask, serveBundles } from './bundle-site.ts';

let site: Site;
const BIG = Buffer.from(Array.from({ length: 900_000 }, (_, i) => (i * 13 + (i >> 8)) & 255));

beforeAll(async () => {
  site = await makeSite();
});

afterAll(() => site.close());

async function bundleOf(name: string): Promise<string> {
  await site.put(`${name}/big`, BIG);
  return await site.bundle(name, 'files: [{path: big, name: big}]\n');
}

/** A bundle as volumes of so many bytes, those with an odd number in one folder and the others in another. */
async function splitInto(tar: string, size: number): Promise<readonly [odd: string, even: string]> {
  const folders = [`${tar}.odd`, `${tar}.even`] as const;
  for (const folder of folders) await mkdir(folder);
  const bytes = await readFile(tar);
  for (let n = 1; (n - 1) * size < bytes.length; n += 1) {
    const folder = folders[n % 2 === 1 ? 0 : 1];
    const part = bytes.subarray((n - 1) * size, n * size);
    await writeFile(join(folder, `b.tar.${String(n).padStart(3, '0')}`), part);
  }
  return folders;
}

describe('volumes', () => {
  it('are served as one bundle, whatever folder each lies in', async () => {
    const [odd, even] = await splitInto(await bundleOf('vol'), 200_000);
    const serving = await serveBundles([even, odd]);
    try {
      const whole = await ask(serving.url, { path: '/files/big' });
      expect(whole.ended && whole.body.equals(BIG)).toBe(true);
      const rest = await ask(serving.url, { path: '/files/big', headers: { range: 'bytes=399990-' } });
      expect(rest.ended && rest.body.equals(BIG.subarray(399_990))).toBe(true);
    } finally {
      await serving.close();
    }
  });

  it('of which one is cut short meanwhile give no zeros in its place', async () => {
    const [odd, even] = await splitInto(await bundleOf('short'), 200_000);
    const serving = await serveBundles([odd, even]);
    try {
      const part = { path: '/files/big', headers: { range: 'bytes=300000-300999' } };
      expect((await ask(serving.url, part)).body).toEqual(BIG.subarray(300_000, 301_000));
      await truncate(join(even, 'b.tar.002'), 0);
      expect((await ask(serving.url, part)).status).toBe(500);
      expect((await ask(serving.url, { path: '/files/big' })).ended).toBe(false);
    } finally {
      await serving.close();
    }
  });

  it('of which one lacks are refused at the start', async () => {
    const [odd, even] = await splitInto(await bundleOf('lack'), 200_000);
    await rm(join(even, 'b.tar.002'));
    await expect(serveBundles([odd, even])).rejects.toMatchObject({
      code: expect.stringMatching(/^BUNDLE_/),
    });
  });
});

describe('a delta', () => {
  const CHANGED = Buffer.from('changed');

  /** A first version with two files, and a delta to a second one in which `name` is another. */
  async function versions(folder: string): Promise<readonly [base: string, delta: string]> {
    await site.put(`${folder}/name`, 'first');
    await site.put(`${folder}/big`, BIG);
    const files = 'files: [{path: big, name: big}, {path: name, name: name}]\n';
    const base = await site.bundle(folder, files);
    const first = `${base}.first`;
    await rename(base, first);
    await site.put(`${folder}/name`, CHANGED);
    const manifestPath = join(site.dir, folder, 'sealift.yaml');
    const text = await readFile(manifestPath, 'utf8');
    await writeFile(manifestPath, text.replace('version: "1"', 'version: "2"'));
    await lock({ manifestPath, updateAll: true }, testContext());
    const out = `${base}.delta`;
    await pack({ manifestPath, out, since: [first] }, testContext());
    return [first, out];
  }

  it('says what it lacks, and has everything with its base, whose older names do not count', async () => {
    const [base, delta] = await versions('delta');
    const alone = await serveBundles([delta]);
    try {
      const lacking = await ask(alone.url, { path: '/files/big' });
      expect(lacking.status).toBe(404);
      expect(lacking.body.toString()).toContain('serve the base of the delta too');
      const tag = createHash('sha256').update(BIG).digest('hex');
      const blob = await ask(alone.url, { path: `/v2/files/big/blobs/sha256:${tag}` });
      expect([blob.status, JSON.parse(blob.body.toString()).errors[0].code]).toEqual([404, 'BLOB_UNKNOWN']);
      expect(blob.body.toString()).toContain('serve the base of the delta too');
      expect((await ask(alone.url, { path: '/files/name' })).body).toEqual(CHANGED);
    } finally {
      await alone.close();
    }
    for (const order of [
      [base, delta],
      [delta, base],
    ]) {
      const both = await serveBundles(order);
      try {
        expect((await ask(both.url, { path: '/files/name' })).body).toEqual(CHANGED);
        const whole = await ask(both.url, { path: '/files/big' });
        expect(whole.ended && whole.body.equals(BIG)).toBe(true);
      } finally {
        await both.close();
      }
    }
  });
});

describe('a repair', () => {
  it('is asked before the bundle that it repairs', async () => {
    const tar = await bundleOf('repair');
    const bad = `${tar}.bad`;
    const bytes = await readFile(tar);
    bytes[bytes.indexOf(BIG) + 500_000] = (BIG[500_000] ?? 0) ^ 1;
    await writeFile(bad, bytes);
    const requestPath = join(site.dir, 'repair.json');
    await verify({ bundle: bad, requestPath }, testContext());
    const out = `${tar}.fix`;
    const manifestPath = join(site.dir, 'repair', 'sealift.yaml');
    await pack({ manifestPath, out, repair: requestPath }, testContext());
    const serving = await serveBundles([bad, out]);
    try {
      const whole = await ask(serving.url, { path: '/files/big' });
      expect(whole.ended && whole.body.equals(BIG)).toBe(true);
    } finally {
      await serving.close();
    }
  });
});

describe('a repair that nobody signed', () => {
  it('is taken beside a signed bundle of the same lock, and checked by SHA-256', async () => {
    const { secret, file } = await keyOf('c');
    const path = await site.put('c.key', file);
    const pub = await site.put('c.pub', publicKeyFile(secret.public));
    const tar = await bundleOf('vouched');
    await sign({ path: tar, key: { path, password: async () => '' } }, testContext());
    const bytes = await readFile(tar);
    bytes[bytes.indexOf(BIG) + 500_000] = (BIG[500_000] ?? 0) ^ 1;
    const bad = `${tar}.bad`;
    await writeFile(bad, bytes);
    const requestPath = join(site.dir, 'vouched.json');
    await verify({ bundle: bad, requestPath }, testContext());
    const out = `${tar}.fix`;
    await pack(
      { manifestPath: join(site.dir, 'vouched', 'sealift.yaml'), out, repair: requestPath },
      testContext(),
    );
    for (const words of [
      [bad, out],
      [out, bad],
    ]) {
      const serving = await serveBundles(words, { keys: [pub] });
      const whole = await ask(serving.url, { path: '/files/big' });
      const rest = await ask(serving.url, { path: '/files/big', headers: { range: 'bytes=800000-' } });
      await serving.close();
      expect(whole.ended && whole.body.equals(BIG)).toBe(true);
      expect(rest.ended && rest.body.equals(BIG.subarray(800_000))).toBe(true);
    }
    await expect(serveBundles([out], { keys: [pub] })).rejects.toMatchObject({ code: 'SIGNATURE_MISSING' });
    // Somebody changed it, and its own list of BLAKE3 to match: nothing but SHA-256 knows.
    const forged = await readFile(out);
    const at = forged.indexOf(BIG);
    forged[at] = (BIG[0] ?? 0) ^ 1;
    const wrong = createBlake3()
      .update(forged.subarray(at, at + BIG.length))
      .digest('hex');
    const right = createBlake3().update(BIG).digest('hex');
    const evil = `${out}.evil`;
    await writeFile(evil, Buffer.from(forged.toString('latin1').replace(right, wrong), 'latin1'));
    const serving = await serveBundles([bad, evil], { keys: [pub] });
    const whole = await ask(serving.url, { path: '/files/big' });
    const rest = await ask(serving.url, { path: '/files/big', headers: { range: 'bytes=800000-' } });
    await serving.close();
    expect([whole.ended, rest.ended && rest.status < 400]).toEqual([false, false]);
    expect(whole.body.length).toBeLessThan(BIG.length);
  });
});

describe('a policy of the site', () => {
  it('holds for serving too', async () => {
    const tar = await bundleOf('trust');
    const keys = await Promise.all(
      ['a', 'b'].map(async (word) => {
        const { secret, file } = await keyOf(word);
        const path = await site.put(`${word}.key`, file);
        return { path, pub: await site.put(`${word}.pub`, publicKeyFile(secret.public)) };
      }),
    );
    const [own, other] = keys;
    if (own === undefined || other === undefined) throw new Error('no keys');
    const served = (pub: string) => serveBundles([tar], { keys: [pub] });
    await expect(served(own.pub)).rejects.toMatchObject({ code: 'SIGNATURE_MISSING' });
    const key = { path: own.path, password: async () => Promise.reject(new Error('it has none')) };
    await sign({ path: tar, key }, testContext());
    await expect(served(other.pub)).rejects.toMatchObject({ code: 'SIGNATURE_KEY_UNKNOWN' });
    const serving = await served(own.pub);
    const whole = await ask(serving.url, { path: '/files/big' });
    await serving.close();
    expect(whole.ended && whole.body.equals(BIG)).toBe(true);
  });
});
