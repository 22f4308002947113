import { execFileSync } from 'node:child_process';
import { cp, mkdir, readdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openTail, type TailSpace, writeTail } from '../../src/bundle/append-signature.ts';
import { openMedium } from '../../src/bundle/medium.ts';
import { hashB3Sums } from '../../src/bundle/signature.ts';
import { placeAt } from '../../src/bundle/volumes.ts';
import { type Fault, SealiftError } from '../../src/core/errors.ts';
import { hold } from '../../src/io/hold.ts';
import type { SigningKey } from '../../src/ops/keys.ts';
import { type LoadOptions, load } from '../../src/ops/load.ts';
import { checkLockFile } from '../../src/ops/lock.ts';
import { ls } from '../../src/ops/ls.ts';
import { pack } from '../../src/ops/pack.ts';
import { packSigned } from '../../src/ops/pack-signed.ts';
import { type SignOptions, sign } from '../../src/ops/sign.ts';
import { type VerifyOptions, type VerifyResult, verify } from '../../src/ops/verify.ts';
import { publicKeyFile } from '../../src/trust/public-key.ts';
import { messageHash, signatureFile } from '../../src/trust/signature.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { keyOf } from '../trust/keys.ts';

let site: Site;
let good: Packed;
let path = '';
const keys: Record<'a' | 'b', SigningKey & { readonly pub: string; readonly id: string }> = {
  a: { path: '', pub: '', id: '', password: async () => '' },
  b: { path: '', pub: '', id: '', password: async () => '' },
};

beforeAll(async () => {
  site = await openSite();
  good = await packSite(site);
  await pack({ manifestPath: site.manifestPath, out: `${site.path('good')}/` }, contextOf());
  for (const word of ['a', 'b'] as const) {
    const { secret, file } = await keyOf(word);
    const [key, pub] = [site.path(`${word}.key`), site.path(`${word}.pub`)];
    await writeFile(key, file);
    await writeFile(pub, publicKeyFile(secret.public));
    const password = async (): Promise<string> => Promise.reject(new Error('it has none'));
    keys[word] = { path: key, pub, id: secret.public.id, password };
  }
});
afterAll(() => site.close());

beforeEach(async () => {
  path = site.path('tried.tar');
  for (const name of await readdir(site.dir)) {
    if (name.startsWith('tried')) await rm(site.path(name), { recursive: true });
  }
  await cp(good.path, path);
});

const signed = (more: Partial<SignOptions> = {}): ReturnType<typeof sign> =>
  sign({ path, key: keys.a, ...more }, contextOf());

const verified = (more: Partial<VerifyOptions> = {}): Promise<VerifyResult> =>
  verify({ bundle: path, keys: [keys.a.pub], ...more }, contextOf());

const codesOf = (faults: readonly Fault[]): string[] => [...new Set(faults.map((f) => f.code))];

/** The codes of a verify, whether it ends or throws. */
async function codes(more: Partial<VerifyOptions> = {}): Promise<string[]> {
  try {
    return codesOf((await verified(more)).faults);
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    return codesOf(error.faults);
  }
}

const loaded = (more: Partial<LoadOptions> = {}): ReturnType<typeof load> =>
  load({ bundle: path, keys: [keys.a.pub], chartTrees: [site.path('tried-tree')], ...more }, contextOf());

async function codeOfLoad(more: Partial<LoadOptions> = {}): Promise<string | undefined> {
  return loaded(more).then(
    () => undefined,
    (error: unknown) => (error instanceof SealiftError ? error.code : 'other'),
  );
}

describe('a signed bundle', () => {
  it('is the unsigned one up to its end, and one more entry', async () => {
    expect(await signed()).toMatchObject({
      kind: 'bundle',
      written: true,
      isDetached: false,
      keyId: keys.a.id,
    });
    const bytes = await readFile(path);
    const end = good.bytes.length - 1024;
    expect(bytes.subarray(0, end)).toEqual(good.bytes.subarray(0, end));
    expect(bytes.length).toBe(end + 512 + 512 + 1024);
    const names = execFileSync('tar', ['tf', path], { encoding: 'utf8' }).trim().split('\n');
    expect(names.slice(-2)).toEqual(['B3SUMS', 'B3SUMS.minisig']);
    expect(names).toHaveLength(good.entries.length + 1);
  });

  it('is verified and loaded by its key, alone or among others, as a file or in one line', async () => {
    await signed();
    const line = (await readFile(keys.a.pub, 'utf8')).split('\n')[1] ?? '';
    for (const given of [[keys.a.pub], [keys.b.pub, keys.a.pub], [line]]) {
      expect(await verified({ keys: given })).toMatchObject({
        faults: [],
        chain: 'signature',
        signature: { state: 'trusted', keyId: keys.a.id },
        entries: good.entries.length,
      });
    }
    const { bundle, failed } = await loaded();
    expect({ signedBy: bundle.signedBy, failed }).toEqual({ signedBy: keys.a.id, failed: 0 });
  });

  it('is everything that an unsigned one is where nobody asks: listed, verified, loaded, packed already', async () => {
    await signed();
    const before = await stat(path, { bigint: true });
    expect(await verified({ keys: [] })).toMatchObject({
      faults: [],
      chain: 'b3sums',
      signature: { state: 'unchecked', keyId: keys.a.id },
    });
    expect(await verified({ keys: [], lockPath: site.lockPath })).toMatchObject({
      faults: [],
      chain: 'lock',
    });
    expect(await ls(path, contextOf())).toMatchObject({ signedBy: keys.a.id });
    expect((await ls(good.path, contextOf())).signedBy).toBeNull();
    expect((await loaded({ keys: [] })).bundle.signedBy).toBeNull();
    expect((await pack({ manifestPath: site.manifestPath, out: path }, contextOf())).outcome).toBe('present');
    expect((await stat(path, { bigint: true })).mtimeNs).toBe(before.mtimeNs);
  });

  it('is not written again by the same key, and is given another signature by another key', async () => {
    await signed();
    const first = await readFile(path);
    const before = await stat(path, { bigint: true });
    expect((await signed()).written).toBe(false);
    expect((await stat(path, { bigint: true })).mtimeNs).toBe(before.mtimeNs);
    expect((await signed({ key: keys.b })).written).toBe(true);
    expect(await codes()).toEqual(['SIGNATURE_KEY_UNKNOWN']);
    expect(await codes({ keys: [keys.b.pub] })).toEqual([]);
    await signed();
    expect(await readFile(path)).toEqual(first);
  });

  it('may be a folder, where the signature is a file', async () => {
    path = site.path('tried-folder');
    await cp(site.path('good'), path, { recursive: true });
    await signed();
    expect(await readdir(path)).toContain('B3SUMS.minisig');
    expect(await verified()).toMatchObject({ faults: [], chain: 'signature' });
    expect((await loaded()).bundle.signedBy).toBe(keys.a.id);
    expect((await signed()).written).toBe(false);
    expect((await signed({ key: keys.b })).written).toBe(true);
    expect(await codes()).toEqual(['SIGNATURE_KEY_UNKNOWN']);
    const again = await pack({ manifestPath: site.manifestPath, out: `${path}/` }, contextOf());
    expect(again.outcome).toBe('present');
  });

  it('may have its signature beside it, and then is not touched itself', async () => {
    const result = await signed({ detached: true });
    expect(result).toMatchObject({ at: `${path}.minisig`, isDetached: true });
    expect(await readFile(path)).toEqual(good.bytes);
    expect(await verified()).toMatchObject({
      faults: [],
      chain: 'signature',
      signature: { at: `${path}.minisig` },
    });
    expect((await loaded()).bundle.signedBy).toBe(keys.a.id);
    // One of several is enough: the one inside is of a key that is not trusted.
    await signed({ key: keys.b });
    expect(await codes()).toEqual([]);
  });
});

describe('what is not to be trusted', () => {
  /** Puts a signature of our own making at the end. */
  async function signWith(comment: string): Promise<void> {
    const medium = await openMedium(path, { toSums: true });
    const signature = signatureFile(await hashB3Sums(medium), (await keyOf('a')).secret, { comment });
    const space = openTail(path, { from: medium.end, volumeSize: undefined });
    await writeTail(space, { end: medium.end, signature });
    space.close();
    await medium.close();
  }

  async function flip(offset: number): Promise<void> {
    const bytes = await readFile(path);
    bytes[offset] = (bytes[offset] ?? 0) ^ 1;
    await writeFile(path, bytes);
  }

  const nothingWritten = async (): Promise<void> =>
    expect((await readdir(site.dir)).filter((n) => n === 'tried-tree')).toEqual([]);

  it('is an unsigned bundle, or one whose signature was taken away', async () => {
    expect(await codes()).toEqual(['SIGNATURE_MISSING']);
    expect(await codeOfLoad()).toBe('SIGNATURE_MISSING');
    await signed();
    const bytes = await readFile(path);
    await writeFile(path, Buffer.concat([bytes.subarray(0, good.bytes.length - 1024), Buffer.alloc(1024)]));
    expect(await codes()).toEqual(['SIGNATURE_MISSING']);
    expect(await codeOfLoad()).toBe('SIGNATURE_MISSING');
    await nothingWritten();
  });

  it('is one of a foreign key', async () => {
    await signed({ key: keys.b });
    expect(await codes()).toEqual(['SIGNATURE_KEY_UNKNOWN']);
    expect(await codeOfLoad()).toBe('SIGNATURE_KEY_UNKNOWN');
    await nothingWritten();
  });

  it('is one whose signature is of another bundle', async () => {
    await signWith(`name=site version=2026.11 lock=sha256:${'0'.repeat(64)}`);
    expect(await codes()).toEqual(['SIGNATURE_COMMENT_MISMATCH']);
    expect(await codeOfLoad()).toBe('SIGNATURE_COMMENT_MISMATCH');
    // What minisign writes when it is told no comment.
    await signWith('timestamp:1700000000\tfile:B3SUMS\thashed');
    expect(await codeOfLoad()).toBe('SIGNATURE_COMMENT_MISMATCH');
    await nothingWritten();
  });

  it('is one whose trusted comment was swapped', async () => {
    await signed();
    const bytes = await readFile(path);
    const at = bytes.lastIndexOf('version=2026.11');
    bytes.write('version=2026.12', at);
    await writeFile(path, bytes);
    expect(await codes()).toEqual(['SIGNATURE_INVALID']);
    expect(await codeOfLoad()).toBe('SIGNATURE_INVALID');
    await nothingWritten();
  });

  it('is one with another list of its bytes; wrong bytes themselves have another code', async () => {
    await signed();
    const sums = good.entries.find((e) => e.name === 'B3SUMS');
    await flip((sums?.offset ?? 0) + 3);
    expect((await codes())[0]).toBe('SIGNATURE_INVALID');
    expect(await codeOfLoad()).toBe('SIGNATURE_INVALID');
    await flip((sums?.offset ?? 0) + 3);
    const blob = good.entries.findLast((e) => e.kind === 'blob');
    await flip((blob?.offset ?? 0) + 3);
    expect(await codes()).toEqual(['BUNDLE_CHECKSUM_MISMATCH']);
    expect(await codeOfLoad({ verify: true })).toBe('BUNDLE_CHECKSUM_MISMATCH');
    await nothingWritten();
  });

  it('is told before damage elsewhere, also where the bundle cannot even be opened', async () => {
    await signed({ key: keys.b });
    const lock = good.entries.find((e) => e.name === 'versions.lock');
    await flip((lock?.offset ?? 0) + 3);
    expect((await codes())[0]).toBe('SIGNATURE_KEY_UNKNOWN');
    expect((await codes()).length).toBeGreaterThan(1);
    expect(await codeOfLoad()).toBe('SIGNATURE_KEY_UNKNOWN');
  });

  it('is a signature that is damaged: each of its bytes counts, and what lies behind it', async () => {
    await signed();
    const length = (await readFile(path)).length;
    const end = good.bytes.length - 1024;
    for (let at = end; at < length; at += at < end + 512 ? 64 : 37) {
      await flip(at);
      expect((await codes()).length, `byte ${at}`).toBeGreaterThan(0);
      expect(await codeOfLoad(), `byte ${at}`).toMatch(/^(?:SIGNATURE|BUNDLE)_/);
      await flip(at);
    }
    expect(await codes()).toEqual([]);
    await nothingWritten();
  });

  it('is a second signature, or one before its place', async () => {
    await signed();
    const bytes = await readFile(path);
    const end = good.bytes.length - 1024;
    const entry = bytes.subarray(end, end + 1024);
    await writeFile(path, Buffer.concat([bytes.subarray(0, end), entry, entry, Buffer.alloc(1024)]));
    expect(await codes()).toContain('BUNDLE_NOT_CANONICAL');
    const sums = (good.entries.find((e) => e.name === 'B3SUMS')?.offset ?? 0) - 512;
    const before = [bytes.subarray(0, sums), entry, bytes.subarray(sums, end), Buffer.alloc(1024)];
    await writeFile(path, Buffer.concat(before));
    expect(await codes()).toContain('BUNDLE_NOT_CANONICAL');
  });
});

describe('the policy of a site', () => {
  async function siteFile(trust: string): Promise<string> {
    const at = site.path('tried-site.yaml');
    await writeFile(at, `apiVersion: sealift-site/v1\ntrust: ${trust}\n`);
    return at;
  }

  it('refuses unsigned bundles where it says so, with keys beside its file', async () => {
    const sitePath = await siteFile('{keys: [a.pub], require: signature}');
    const options = { keys: [], sitePath };
    expect(await codeOfLoad(options)).toBe('SIGNATURE_MISSING');
    await signed();
    expect(await verified(options)).toMatchObject({ faults: [], chain: 'signature' });
    expect((await loaded(options)).bundle.signedBy).toBe(keys.a.id);
  });

  it('takes versions from the lowest on', async () => {
    await signed();
    const old = { keys: [keys.a.pub], sitePath: await siteFile('{minVersion: 2026.12}') };
    expect(await codes(old)).toEqual(['POLICY_DOWNGRADE']);
    expect(await codeOfLoad(old)).toBe('POLICY_DOWNGRADE');
    expect(await codeOfLoad({ sitePath: await siteFile('{minVersion: {site: 2026.9}}') })).toBeUndefined();
  });

  it('comes from SEALIFT_TRUST too, and then a signature is required', async () => {
    const context = { ...contextOf(), env: { SEALIFT_TRUST: `${keys.b.pub}:${keys.a.pub}` } };
    const run = (): ReturnType<typeof load> =>
      load({ bundle: path, chartTrees: [site.path('tried-tree')] }, context);
    await expect(run()).rejects.toMatchObject({ code: 'SIGNATURE_MISSING' });
    await signed();
    expect((await run()).bundle.signedBy).toBe(keys.a.id);
    context.env.SEALIFT_TRUST = ':';
    await expect(run()).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('is refused itself where a key cannot be read', async () => {
    expect(await codeOfLoad({ keys: [site.path('none.pub')] })).toBe('FILE_NOT_FOUND');
    expect(await codeOfLoad({ keys: [keys.a.path] })).toBe('KEY_INVALID');
    expect(await codeOfLoad({ sitePath: site.path('none.yaml') })).toBe('FILE_NOT_FOUND');
  });
});

describe('going back to an older bundle', () => {
  it('is refused by what the receipt and the chart tree say, unless it is meant', async () => {
    await signed();
    const receiptPath = site.path('tried-receipt.json');
    await loaded({ receiptPath });
    // The same again is no step back.
    expect(await codeOfLoad({ receiptPath })).toBeUndefined();
    const receipt = await readFile(receiptPath, 'utf8');
    await writeFile(receiptPath, receipt.replace('"version": "2026.11"', '"version": "2026.12"'));
    const elsewhere = { chartTrees: [site.path('tried-other')], receiptPath };
    expect(await codeOfLoad(elsewhere)).toBe('POLICY_DOWNGRADE');
    expect(await codeOfLoad({ ...elsewhere, dryRun: true })).toBe('POLICY_DOWNGRADE');
    expect((await readdir(site.dir)).includes('tried-other')).toBe(false);
    expect(await codeOfLoad({ ...elsewhere, allowDowngrade: true })).toBeUndefined();
    const lock = site.path('tried-tree/versions.lock');
    const text = await readFile(lock, 'utf8');
    await writeFile(lock, text.replace('2026.11', '2026.12'));
    expect(await codeOfLoad()).toBe('POLICY_DOWNGRADE');
    // What cannot be read does not say that there was nothing.
    await writeFile(receiptPath, receipt.slice(0, -20));
    expect(await codeOfLoad(elsewhere)).toBe('TARGET_CONFLICT');
    expect(await readFile(receiptPath, 'utf8')).toBe(receipt.slice(0, -20));
    expect(await codeOfLoad({ ...elsewhere, allowDowngrade: true })).toBeUndefined();
    await writeFile(receiptPath, '');
    expect(await codeOfLoad(elsewhere)).toBeUndefined();
    // The same version of another content.
    await writeFile(lock, `${text.trimEnd()} \n`.replace(/ \n$/, '\n'));
    await writeFile(receiptPath, receipt.replace(/"lock": "sha256:\w{8}/, '"lock": "sha256:00000000'));
    expect(await codeOfLoad({ receiptPath })).toBe('POLICY_DOWNGRADE');
  });
});

describe('two loads at once', () => {
  const busy = async (name: string, work: () => Promise<void>): Promise<void> => {
    const held = await hold(name, { command: 'sealift load' });
    if (!('release' in held)) throw new Error('somebody else holds it');
    await work().finally(held.release);
  };

  it('ask one after the other what is there: an older bundle is refused by what the first one wrote', async () => {
    await loaded({ keys: [] });
    const lock = site.path('tried-tree/versions.lock');
    await writeFile(lock, (await readFile(lock, 'utf8')).replace('2026.11', '2026.12'));
    // While the first one runs the second one does not even look.
    await busy(`load chart-tree ${await realpath(site.path('tried-tree'))}`, async () => {
      expect(await codeOfLoad({ keys: [] })).toBe('TARGET_BUSY');
    });
    expect(await codeOfLoad({ keys: [] })).toBe('POLICY_DOWNGRADE');
  });

  it('do not write one receipt', async () => {
    const receiptPath = site.path('tried-receipt.json');
    await busy(`load receipt ${await realpath(site.dir)}/tried-receipt.json`, async () => {
      expect(await codeOfLoad({ keys: [], receiptPath })).toBe('TARGET_BUSY');
      expect(await codeOfLoad({ keys: [], receiptPath, dryRun: true })).toBeUndefined();
      expect(await codeOfLoad({ keys: [] })).toBeUndefined();
    });
    expect(await codeOfLoad({ keys: [], receiptPath })).toBeUndefined();
  });
});

describe('a lock that is signed alone', () => {
  it('vouches for the whole bundle, which then needs no signature of its own', async () => {
    const lockPath = site.path('tried.lock');
    await cp(site.lockPath, lockPath);
    const text = await readFile(lockPath, 'utf8');
    const result = await sign({ path: lockPath, key: keys.a }, contextOf());
    expect(result).toMatchObject({
      kind: 'lock',
      at: `${lockPath}.minisig`,
      name: 'site',
      version: '2026.11',
    });
    expect((await sign({ path: lockPath, key: keys.a }, contextOf())).written).toBe(false);
    expect(await verified({ lockPath })).toMatchObject({ faults: [], chain: 'signed-lock' });
    expect(await codes({ lockPath, keys: [keys.b.pub] })).toEqual([
      'SIGNATURE_KEY_UNKNOWN',
      'SIGNATURE_MISSING',
    ]);
    for (const other of [text.replace('2026.11', '2026.12'), `${text}\n`]) {
      await writeFile(lockPath, other);
      expect((await codes({ lockPath }))[0]).toBe('SIGNATURE_INVALID');
    }
  });
});

describe('a lock whose signature is checked in CI', () => {
  const check = (more: readonly string[] = [keys.a.pub]): ReturnType<typeof checkLockFile> =>
    checkLockFile(
      { manifestPath: site.manifestPath, lockPath: site.path('tried.lock'), keys: more },
      contextOf(),
    );
  const found = async (more?: readonly string[]): Promise<string[]> => codesOf((await check(more)).faults);

  it('is of one of the keys, and in step with the manifest', async () => {
    const lockPath = site.path('tried.lock');
    await cp(site.lockPath, lockPath);
    expect(await found()).toEqual(['SIGNATURE_MISSING']);
    await sign({ path: lockPath, key: keys.a }, contextOf());
    const { signature, faults } = await check([keys.b.pub, keys.a.pub]);
    expect({ signature, faults }).toEqual({
      signature: { state: 'trusted', keyId: keys.a.id, at: `${lockPath}.minisig` },
      faults: [],
    });
    expect(await found([keys.b.pub])).toEqual(['SIGNATURE_KEY_UNKNOWN']);
    const text = await readFile(lockPath, 'utf8');
    await writeFile(lockPath, text.replace('2026.11', '2026.12'));
    expect(await found()).toEqual(['SIGNATURE_INVALID', 'LOCK_STALE']);
    // Signed by hand, of another lock.
    const comment = `name=site version=2026.11 lock=sha256:${'0'.repeat(64)}`;
    const hash = messageHash().update(text).digest();
    await writeFile(lockPath, text);
    await writeFile(`${lockPath}.minisig`, signatureFile(hash, (await keyOf('a')).secret, { comment }));
    expect(await found()).toEqual(['SIGNATURE_COMMENT_MISMATCH']);
  });
});

describe('a pack that signs', () => {
  const packed = (more: Partial<Parameters<typeof packSigned>[0]> = {}): ReturnType<typeof packSigned> =>
    packSigned({ manifestPath: site.manifestPath, out: path, key: keys.a, ...more }, contextOf());

  it('makes what a pack and a sign make, and does nothing where that is there', async () => {
    await signed();
    const wanted = await readFile(path);
    await rm(path);
    const first = await packed();
    expect([first.packed.outcome, first.signature.written]).toEqual(['packed', true]);
    expect(await readFile(path)).toEqual(wanted);
    const before = await stat(path, { bigint: true });
    const again = await packed();
    expect([again.packed.outcome, again.signature.written]).toEqual(['present', false]);
    expect((await stat(path, { bigint: true })).mtimeNs).toBe(before.mtimeNs);
  });

  it('does not pack again where only the signing was interrupted', async () => {
    await signed();
    const wanted = await readFile(path);
    const torn = Buffer.from(wanted);
    torn.fill(0, good.bytes.length - 1024, good.bytes.length - 512);
    await writeFile(path, torn);
    expect(await codes({ keys: [] })).toContain('BUNDLE_NOT_CANONICAL');
    expect((await packed()).packed.outcome).toBe('present');
    expect(await readFile(path)).toEqual(wanted);
  });

  it('signs volumes as a split of the signed bundle, also where one more is needed, and packs them once', async () => {
    await signed();
    const wanted = await readFile(path);
    await rm(path);
    for (const volumeSize of [Math.ceil(good.bytes.length / 3), good.bytes.length]) {
      const first = await packed({ volumeSize });
      const names = (await readdir(site.dir)).filter((n) => n.startsWith('tried.tar.')).sort();
      const parts = await Promise.all(names.map((n) => readFile(site.path(n))));
      expect([first.packed.outcome, first.signature.written, names.length]).toEqual([
        'packed',
        true,
        Math.ceil(wanted.length / volumeSize),
      ]);
      expect(Buffer.concat(parts)).toEqual(wanted);
      const again = await packed({ volumeSize });
      expect([again.packed.outcome, again.signature.written]).toEqual(['present', false]);
      expect(await codes({ bundle: `${path}.001` })).toEqual([]);
      for (const name of names) await rm(site.path(name));
    }
  });

  it('signs a delta, which is trusted by its own signature, and loaded where its base is', async () => {
    await site.lockFor(site.images.slice(0, 2));
    const base = site.path('tried-base.tar');
    await pack({ manifestPath: site.manifestPath, out: base }, contextOf());
    await site.lockFor();
    const delta = site.path('tried-delta.tar');
    await packSigned(
      { manifestPath: site.manifestPath, out: delta, since: [base], key: keys.a },
      contextOf(),
    );
    const given = { bundle: delta, others: [base] };
    expect(await verified(given)).toMatchObject({ faults: [], chain: 'signature' });
    expect((await loaded(given)).bundle.signedBy).toBe(keys.a.id);
    expect(await codes({ ...given, keys: [keys.b.pub] })).toEqual(['SIGNATURE_KEY_UNKNOWN']);
    expect(await codeOfLoad({ bundle: base })).toBe('SIGNATURE_MISSING');
  });

  it('says before it begins that the key is none', async () => {
    await rm(path);
    await expect(packed({ key: { ...keys.a, path: keys.a.pub } })).rejects.toMatchObject({
      code: 'KEY_INVALID',
    });
    expect((await readdir(site.dir)).filter((n) => n.startsWith('tried'))).toEqual([]);
  });
});

describe('volumes that are signed', () => {
  const end = (): number => good.bytes.length - 1024;

  /** Splits the bundle, and returns what joins the volumes. */
  async function split(size: number): Promise<() => Promise<Buffer>> {
    await rm(path);
    for (let at = 0, n = 1; at < good.bytes.length; at += size, n += 1) {
      const name = `${path}.${String(n).padStart(3, '0')}`;
      await writeFile(name, good.bytes.subarray(at, at + size));
    }
    return async () => {
      const names = (await readdir(site.dir)).filter((n) => n.startsWith('tried.tar.')).sort();
      return Buffer.concat(await Promise.all(names.map((n) => readFile(site.path(n)))));
    };
  }

  const sizes: Record<string, () => number> = {
    'of which the last has room': () => Math.ceil(good.bytes.length / 4),
    'of which the last is full': () => good.bytes.length / 4,
    'that begin between the two last blocks': () => end() + 512,
    'that begin within the block of the header': () => end() + 100,
    'that begin where the signature begins': () => end(),
  };

  for (const [words, size] of Object.entries(sizes)) {
    it(`are an equal split again: ${words}`, async () => {
      await signed();
      const wanted = await readFile(path);
      const joined = await split(Math.floor(size()));
      const first = `${path}.001`;
      const untouched = await stat(first, { bigint: true });
      expect(await signed({ path: first })).toMatchObject({ written: true, at: path });
      expect(await joined()).toEqual(wanted);
      const names = (await readdir(site.dir)).filter((n) => n.startsWith('tried.tar.')).sort();
      for (const name of names.slice(0, -1))
        expect((await stat(site.path(name))).size).toBe(Math.floor(size()));
      if (end() >= size()) expect((await stat(first, { bigint: true })).mtimeNs).toBe(untouched.mtimeNs);
      expect(await codes({ bundle: first })).toEqual([]);
      expect((await signed({ path: first })).written).toBe(false);
    });
  }

  it('may lie in several folders, in any order, for who signs and for who looks', async () => {
    const joined = await split(Math.ceil(good.bytes.length / 3));
    const [here, there] = [site.path('tried-1'), site.path('tried-2')];
    for (const folder of [here, there]) await mkdir(folder);
    for (const n of [1, 2, 3]) {
      await rename(`${path}.00${n}`, `${n === 2 ? there : here}/tried.tar.00${n}`);
    }
    expect(await joined()).toHaveLength(0);
    const [first, second] = [`${here}/tried.tar.001`, `${there}/tried.tar.002`];
    await expect(signed({ path: first })).rejects.toMatchObject({ code: 'BUNDLE_VOLUME_MISSING' });
    await expect(signed({ path: first, others: [good.path] })).rejects.toMatchObject({ code: 'USAGE' });
    const { at } = await signed({ path: second, others: [here], detached: true });
    expect(at).toBe(`${there}/tried.tar.minisig`);
    expect(await codes({ bundle: second, others: [first] })).toEqual([]);
    expect(await codes({ bundle: first, others: [second] })).toEqual([]);
    expect((await loaded({ bundle: first, others: [second] })).bundle.signedBy).toBe(keys.a.id);
    await rm(at);
    expect(await codes({ bundle: first, others: [second] })).toEqual(['SIGNATURE_MISSING']);
    const before = await stat(first, { bigint: true });
    expect((await signed({ path: second, others: [first] })).isDetached).toBe(false);
    expect((await stat(first, { bigint: true })).mtimeNs).toBe(before.mtimeNs);
    expect(await codes({ bundle: first, others: [second] })).toEqual([]);
  });

  it('may have their signature beside them', async () => {
    await split(Math.ceil(good.bytes.length / 3));
    expect(await signed({ path: `${path}.002`, detached: true })).toMatchObject({ at: `${path}.minisig` });
    expect(await codes({ bundle: `${path}.001` })).toEqual([]);
  });
});

/** A space that ends as a process ends: in the middle of one step, and nothing comes after. */
function dying(space: TailSpace, stepsLeft: number): TailSpace & { readonly isDead: () => boolean } {
  let left = stepsLeft;
  const step = (half: () => void): void => {
    if (left > 0) {
      left -= 1;
      return;
    }
    if (left === 0) half();
    left = -1;
    throw new Error('killed');
  };
  return {
    ...{ path: space.path, size: () => space.size(), read: (at, n) => space.read(at, n) },
    write: (at, bytes) => {
      step(() => space.write(at, bytes.subarray(0, bytes.length >> 1)));
      space.write(at, bytes);
    },
    resize: (size) => {
      step(() => space.resize(space.size() + ((size - space.size()) >> 1)));
      space.resize(size);
    },
    sync: async () => {
      step(() => {});
      await space.sync();
    },
    close: () => space.close(),
    isDead: () => left < 0,
  };
}

describe('signing on a disk that is full', () => {
  it('puts back what was there, signed or not', async () => {
    for (const first of [undefined, 'b'] as const) {
      if (first !== undefined) await signed({ key: keys[first] });
      const before = await readFile(path);
      const medium = await openMedium(path, { toSums: true });
      for (const failing of ['resize', 'write', 'sync'] as const) {
        const space = openTail(path, { from: medium.end, volumeSize: undefined });
        let calls = 0;
        const full = (): void => {
          calls += 1;
          if (calls === 1) throw new SealiftError('DISK_FULL', 'no space left');
        };
        const tried = writeTail(
          {
            path,
            size: () => space.size(),
            read: (at, length) => space.read(at, length),
            write: (at, bytes) => {
              if (failing === 'write') full();
              space.write(at, bytes);
            },
            resize: (size) => {
              if (failing === 'resize') full();
              space.resize(size);
            },
            sync: async () => {
              if (failing === 'sync') full();
              await space.sync();
            },
            close: () => space.close(),
          },
          { end: medium.end, signature: Buffer.alloc(800, 'x') },
        );
        await expect(tried).rejects.toMatchObject({ code: 'DISK_FULL' });
        space.close();
        expect(await readFile(path), `${failing} fails`).toEqual(before);
      }
      await medium.close();
    }
  });
});

describe('signing that is killed', () => {
  /** Kills at each step, and lets another run finish. @returns how many steps there were */
  async function killEverywhere(first: 'a' | 'b' | undefined, files: () => Promise<Buffer>): Promise<number> {
    const start = site.path('tried-start');
    await mkdir(start);
    const own = (await readdir(site.dir)).filter((n) => n.startsWith('tried.tar'));
    for (const name of own) await cp(site.path(name), `${start}/${name}`);
    const restore = async (): Promise<void> => {
      for (const name of await readdir(site.dir)) {
        if (name.startsWith('tried.tar')) await rm(site.path(name));
      }
      for (const name of own) await cp(`${start}/${name}`, site.path(name));
      if (first !== undefined) await signed({ key: keys[first] });
    };
    await restore();
    await signed();
    const wanted = await files();
    for (let steps = 0; ; steps += 1) {
      await restore();
      const place = await placeAt(path);
      const medium = await openMedium(place, { toSums: true });
      const comment = (await readFile(site.path('tried-comment'))).toString();
      const signature = signatureFile(await hashB3Sums(medium), (await keyOf('a')).secret, { comment });
      const volumeSize = typeof place === 'string' ? undefined : medium.files?.volumeSize;
      const space = dying(openTail(place, { from: medium.end, volumeSize }), steps);
      const ended = await writeTail(space, { end: medium.end, signature }).then(
        () => true,
        () => false,
      );
      space.close();
      await medium.close();
      // Whatever is there now is whole, or refused; never taken for a good signature of other bytes.
      const between = await codes({ keys: [keys.a.pub, keys.b.pub] });
      expect(
        between.every((code) => /^(?:SIGNATURE_MISSING|BUNDLE_)/.test(code)),
        `${steps}: ${between}`,
      ).toBe(true);
      await signed();
      expect(await files(), `after a kill at step ${steps}`).toEqual(wanted);
      expect(await codes()).toEqual([]);
      if (ended) return steps;
    }
  }

  beforeEach(async () => {
    const { lock } = await verified({ keys: [] });
    await writeFile(site.path('tried-comment'), `name=site version=2026.11 lock=${lock}`);
  });

  it('ends the same when it is repeated: of an unsigned bundle', async () => {
    expect(await killEverywhere(undefined, () => readFile(path))).toBe(5);
  });

  it('ends the same when it is repeated: of volumes, of which one more is needed', async () => {
    await rm(path);
    const size = good.bytes.length / 2;
    for (const n of [1, 2]) {
      await writeFile(`${path}.00${n}`, good.bytes.subarray((n - 1) * size, n * size));
    }
    const stem = path;
    path = `${stem}.001`;
    const joined = async (): Promise<Buffer> => {
      const names = (await readdir(site.dir)).filter((n) => n.startsWith('tried.tar.')).sort();
      return Buffer.concat(await Promise.all(names.map((n) => readFile(site.path(n)))));
    };
    expect(await killEverywhere(undefined, joined)).toBe(5);
    expect((await readdir(site.dir)).filter((n) => n.startsWith('tried.tar.'))).toHaveLength(3);
  });

  it('ends the same when it is repeated: over the signature of another key', async () => {
    expect(await killEverywhere('b', () => readFile(path))).toBe(7);
  });
});
