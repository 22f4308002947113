import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keygen, openKey, type SigningKey } from '../../src/ops/keys.ts';
import { sign } from '../../src/ops/sign.ts';
import { verify } from '../../src/ops/verify.ts';
import { parsePublicKey, publicKeyFile } from '../../src/trust/public-key.ts';
import { makeKey } from '../../src/trust/secret-key.ts';
import { checkSignature, messageHash, parseSignature, signatureFile } from '../../src/trust/signature.ts';
import { contextOf, openSite, packSite, type Site } from '../bundle/site.ts';
import { peer, run } from '../support/peers.ts';

let site: Site;
let dir = '';
const at = (name: string): string => join(dir, name);
const PASSWORD = 'correct hörse';

const minisign = (args: readonly string[], input = ''): ReturnType<typeof run> =>
  run(peer('minisign'), args, { input, cwd: dir });

function keyAt(path: string, password = ''): SigningKey {
  return { path, password: async () => password };
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-minisign-'));
  site = await openSite();
  await packSite(site, 'a.tar');
  await minisign(['-G', '-W', '-p', 'theirs.pub', '-s', 'theirs.key']);
  await keygen({ out: at('ours'), password: undefined }, contextOf());
});
afterAll(async () => {
  await site.close();
  await rm(dir, { recursive: true, force: true });
});

/** The signed part of a signed bundle, unpacked as anybody would. */
async function unpackSums(bundle: string): Promise<void> {
  execFileSync('tar', ['xf', bundle, '-C', dir, 'B3SUMS', 'B3SUMS.minisig']);
}

describe('the real minisign', () => {
  it('makes keys that sign our bundles, and checks what we sign with them', async () => {
    const bundle = at('a.tar');
    await cp(site.path('a.tar'), bundle);
    await sign({ path: bundle, key: keyAt(at('theirs.key')) }, contextOf());
    expect(await verify({ bundle, keys: [at('theirs.pub')] }, contextOf())).toMatchObject({
      faults: [],
      chain: 'signature',
    });
    await unpackSums(bundle);
    const { stdout } = await minisign(['-V', '-p', 'theirs.pub', '-m', 'B3SUMS']);
    expect(stdout).toContain('Signature and comment signature verified');
    expect(stdout).toContain('Trusted comment: name=site version=2026.11 lock=sha256:');
  });

  it('writes the same bytes as we do, and its signature beside a bundle is one of ours', async () => {
    const bundle = at('b.tar');
    await cp(site.path('a.tar'), bundle);
    execFileSync('tar', ['xf', bundle, '-C', dir, 'B3SUMS', 'versions.lock']);
    const lock = createHash('sha256')
      .update(await readFile(at('versions.lock')))
      .digest('hex');
    const comment = `name=site version=2026.11 lock=sha256:${lock}`;
    const out = ['-x', 'b.tar.minisig', '-t', comment, '-m', 'B3SUMS'];
    await minisign(['-S', '-s', 'ours.key', ...out]);
    expect(await verify({ bundle, keys: [at('ours.pub')] }, contextOf())).toMatchObject({
      faults: [],
      chain: 'signature',
      signature: { at: `${bundle}.minisig` },
    });
    const theirs = await readFile(at('b.tar.minisig'));
    const done = await sign({ path: bundle, key: keyAt(at('ours.key')), detached: true }, contextOf());
    expect(done.written).toBe(false);
    expect(await readFile(at('b.tar.minisig'))).toEqual(theirs);
    await minisign(['-S', '-s', 'ours.key', ...out, '-c', 'another comment']);
    expect((await verify({ bundle, keys: [at('ours.pub')] }, contextOf())).faults[0]).toMatchObject({
      code: 'SIGNATURE_INVALID',
      message: expect.stringContaining('line 1 must be'),
    });
    await minisign(['-S', '-l', '-s', 'ours.key', ...out]);
    expect((await verify({ bundle, keys: [at('ours.pub')] }, contextOf())).faults[0]?.message).toContain(
      'legacy',
    );
  });

  it('signs a lock in CI, and checks ours', async () => {
    await cp(site.lockPath, at('versions.lock'));
    await sign({ path: at('versions.lock'), key: keyAt(at('ours.key')) }, contextOf());
    const { stdout } = await minisign(['-V', '-p', 'ours.pub', '-m', 'versions.lock']);
    expect(stdout).toContain('verified');
  });

  it('makes keys with a password that we open, and opens ours', async () => {
    await minisign(['-G', '-p', 'locked.pub', '-s', 'locked.key'], `${PASSWORD}\n${PASSWORD}\n`);
    const opened = await openKey(keyAt(at('locked.key'), PASSWORD), contextOf());
    const { text } = parsePublicKey(await readFile(at('locked.pub')), 'locked.pub');
    expect(opened.public.text).toBe(text);
    await expect(openKey(keyAt(at('locked.key'), 'wrong'), contextOf())).rejects.toMatchObject({
      code: 'KEY_PASSWORD_WRONG',
    });
    const made = await keygen({ out: at('ours-locked'), password: async () => PASSWORD }, contextOf());
    expect(made.isEncrypted).toBe(true);
    await writeFile(at('m'), 'message');
    await minisign(['-S', '-s', 'ours-locked.key', '-m', 'm'], `${PASSWORD}\n`);
    expect((await minisign(['-V', '-p', 'ours-locked.pub', '-m', 'm'])).stdout).toContain('verified');
    // A password that was taken away leaves a checksum, which minisign itself never writes without one.
    await minisign(['-C', '-W', '-s', 'locked.key'], `${PASSWORD}\n`);
    expect((await openKey(keyAt(at('locked.key')), contextOf())).public.text).toBe(text);
  });

  it('agrees with us about any key and any message, both ways', async () => {
    const { signal } = new AbortController();
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 72, maxLength: 72 }),
        fc.uint8Array({ maxLength: 5000 }),
        fc.stringMatching(/^[!-~][ -~]{0,60}$/),
        async (random, message, comment) => {
          const { secret, file } = await makeKey(Buffer.from(random), undefined, { signal });
          await writeFile(at('p.key'), file);
          await writeFile(at('p.pub'), publicKeyFile(secret.public));
          await writeFile(at('p'), message);
          const hash = messageHash().update(message).digest();
          const ours = signatureFile(hash, secret, { comment });
          await writeFile(at('p.minisig'), ours);
          expect((await minisign(['-V', '-p', 'p.pub', '-m', 'p'])).stdout).toContain('verified');
          await minisign(['-S', '-s', 'p.key', '-t', comment, '-m', 'p']);
          const theirs = await readFile(at('p.minisig'));
          expect(theirs).toEqual(ours);
          expect(checkSignature(parseSignature(theirs, 'p'), hash, secret.public)).toBe('good');
        },
      ),
      { numRuns: 40 },
    );
  });
});
