import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { SealiftError } from '../../src/core/errors.ts';
import { trustedComment } from '../../src/trust/comment.ts';
import { type Candidate, downgradeFaults, judgeTrust, type TrustPolicy } from '../../src/trust/policy.ts';
import { messageHash, parseSignature, signatureFile } from '../../src/trust/signature.ts';
import { readSite } from '../../src/trust/site.ts';
import { compareVersions } from '../../src/trust/versions.ts';
import { keyOf } from './keys.ts';

const LOCK: Digest = `sha256:${'ab'.repeat(32)}`;
const OTHER: Digest = `sha256:${'cd'.repeat(32)}`;
const facts = { name: 'astrago', version: '2026.11', lock: LOCK };
const hash = messageHash().update('the list').digest();
const judged = { what: 'bundle', hash: async () => hash, facts: () => facts };
const none: TrustPolicy = { keys: [], isRequired: false, minVersion: undefined };

async function candidate(
  word: string,
  more: { readonly comment?: string; readonly message?: string; readonly what?: string } = {},
): Promise<Candidate> {
  const { secret } = await keyOf(word);
  const signed = more.message === undefined ? hash : messageHash().update(more.message).digest();
  const what = more.what ?? `B3SUMS.minisig of ${word}`;
  const file = signatureFile(signed, secret, { comment: more.comment ?? trustedComment(facts) });
  return { what, isInside: true, signature: parseSignature(file, what) };
}

async function policyOf(...words: string[]): Promise<TrustPolicy> {
  const keys = await Promise.all(words.map(async (word) => (await keyOf(word)).secret.public));
  return { keys, isRequired: true, minVersion: undefined };
}

async function codes(candidates: readonly Candidate[], policy: TrustPolicy): Promise<readonly string[]> {
  return (await judgeTrust(candidates, policy, judged)).faults.map((f) => f.code);
}

describe('what is trusted', () => {
  it('is a signature of any one of the keys', async () => {
    const policy = await policyOf('old', 'new');
    for (const word of ['old', 'new']) {
      const trust = await judgeTrust([await candidate(word)], policy, judged);
      expect(trust).toMatchObject({
        state: 'trusted',
        keyId: (await keyOf(word)).secret.public.id,
        faults: [],
      });
    }
  });

  it('is one good signature among others, wherever it lies', async () => {
    const policy = await policyOf('a');
    const [good, foreign] = [await candidate('a'), await candidate('b')];
    expect(await codes([foreign, good], policy)).toEqual([]);
    expect(await codes([good, foreign], policy)).toEqual([]);
  });

  it('is not an unsigned bundle, a foreign key, other bytes or another comment: each has its code', async () => {
    const policy = await policyOf('a');
    expect(await codes([], policy)).toEqual(['SIGNATURE_MISSING']);
    expect(await codes([await candidate('b')], policy)).toEqual(['SIGNATURE_KEY_UNKNOWN']);
    expect(await codes([await candidate('a', { message: 'another list' })], policy)).toEqual([
      'SIGNATURE_INVALID',
    ]);
    for (const other of [
      { ...facts, lock: OTHER },
      { ...facts, version: '2026.12' },
      { ...facts, name: 'other' },
    ]) {
      const signed = await candidate('a', { comment: trustedComment(other) });
      expect(await codes([signed], policy)).toEqual(['SIGNATURE_COMMENT_MISMATCH']);
    }
    expect(await codes([await candidate('a', { comment: 'timestamp:1' })], policy)).toEqual([
      'SIGNATURE_COMMENT_MISMATCH',
    ]);
  });

  it('is not a comment that was put into a good signature', async () => {
    const policy = await policyOf('a');
    const good = await candidate('a', { comment: trustedComment({ ...facts, version: '1' }) });
    if ('code' in good.signature) throw new Error('it can be read');
    const swapped = { ...good, signature: { ...good.signature, comment: trustedComment(facts) } };
    expect(await codes([swapped], policy)).toEqual(['SIGNATURE_INVALID']);
  });

  it('is nothing that nobody gave a key for: it is there, and not checked', async () => {
    expect((await judgeTrust([await candidate('a')], none, judged)).state).toBe('unchecked');
    expect((await judgeTrust([], none, judged)).state).toBe('none');
  });

  it('may be unsigned where no signature is required, but a signature that is there must be good', async () => {
    const policy = { ...(await policyOf('a')), isRequired: false };
    expect((await judgeTrust([], policy, judged)).state).toBe('none');
    expect(await codes([await candidate('b')], policy)).toEqual(['SIGNATURE_KEY_UNKNOWN']);
  });

  it('is no version below the lowest, signed or not', async () => {
    const signed = [await candidate('a')];
    const policy = await policyOf('a');
    expect(await codes(signed, { ...policy, minVersion: '2026.12' })).toEqual(['POLICY_DOWNGRADE']);
    expect(await codes(signed, { ...policy, minVersion: '2026.11' })).toEqual([]);
    expect(await codes(signed, { ...policy, minVersion: { astrago: '2027.1' } })).toEqual([
      'POLICY_DOWNGRADE',
    ]);
    expect(await codes(signed, { ...policy, minVersion: { other: '2027.1' } })).toEqual([]);
    expect(await codes([], { ...none, minVersion: '2027.1' })).toEqual(['POLICY_DOWNGRADE']);
  });
});

describe('going back', () => {
  const held = { where: 'receipt.json', ...facts };
  const found = (more: Partial<typeof facts>): string[] =>
    downgradeFaults({ ...facts, ...more }, [held]).map((f) => f.code);

  it('is a lower version, or the same one with another lock', () => {
    expect(found({ version: '2026.10' })).toEqual(['POLICY_DOWNGRADE']);
    expect(found({ lock: OTHER })).toEqual(['POLICY_DOWNGRADE']);
  });

  it('is not the same bundle again, a newer one or another name', () => {
    expect(found({})).toEqual([]);
    expect(found({ version: '2026.12', lock: OTHER })).toEqual([]);
    expect(found({ name: 'other', version: '1' })).toEqual([]);
  });
});

describe('the order of versions', () => {
  it('is that of numbers, and of what people write behind them', () => {
    const rising = [
      '1.9',
      '1.10',
      '2026.9',
      '2026.10-alpha',
      '2026.10-rc1',
      '2026.10-rc2',
      '2026.10-rc10',
      '2026.10',
      '2026.10-hotfix',
      '2026.10.1',
      '2026.11',
    ];
    for (const [i, a] of rising.entries()) {
      for (const [j, b] of rising.entries()) {
        expect(Math.sign(compareVersions(a, b)), `${a} and ${b}`).toBe(Math.sign(i - j));
      }
    }
  });

  it('is that of Semantic Versioning where both are such versions', () => {
    const rising = [
      '1.0.0-alpha',
      '1.0.0-alpha.1',
      '1.0.0-alpha.beta',
      '1.0.0-rc.1',
      '1.0.0',
      'v1.0.1',
      '1.10.0',
    ];
    for (let i = 1; i < rising.length; i += 1) {
      expect(compareVersions(rising[i - 1] ?? '', rising[i] ?? '')).toBeLessThan(0);
    }
  });

  it('is one order of all: no way up leads back to an old one', () => {
    const ends = [
      '',
      '.0',
      '.1',
      '-1',
      '-01',
      '-rc',
      '-rc.1',
      '-rc1',
      '-hotfix',
      '+1',
      '+a',
      '-rc+a',
      '_x',
      'a',
      'x',
    ];
    const all = ['1', '1.0', '1.0.0', 'v1.0.0'].flatMap((numbers) => ends.map((end) => numbers + end));
    const below = all.map((a) => all.map((b) => compareVersions(a, b) < 0));
    const loops: string[] = [];
    for (const [i, a] of all.entries()) {
      for (const [j, b] of all.entries()) {
        if (below[i]?.[j] !== true) continue;
        for (const [k, c] of all.entries()) {
          // c is not below b, so what is below b is below c.
          if (below[k]?.[j] === false && below[i]?.[k] === false) loops.push(`${a} < ${b} <= ${c} <= ${a}`);
        }
      }
    }
    expect(loops).toEqual([]);
    for (const [low, high] of [
      ['1.0.0-1', '1.0.0'],
      ['1.0.0', '1.0.0.0'],
      ['1.0.0-1', '1.0.0.0'],
      ['1.0.0+1', '1.0.0+a'],
      ['1.0.0-rc.1+b', '1.0.0-rc.1.0'],
      ['1.99999999999999999998', '1.99999999999999999999'],
    ] as const) {
      expect(compareVersions(low, high), `${low} and ${high}`).toBeLessThan(0);
    }
  });

  it('says the opposite when they are swapped, and the same of itself', () => {
    const version = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._+-]{0,12}$/);
    fc.assert(
      fc.property(version, version, (a, b) => {
        expect(Math.sign(compareVersions(a, b))).toBe(-Math.sign(compareVersions(b, a)) + 0);
        expect(compareVersions(a, a)).toBe(0);
      }),
    );
  });
});

describe('site.yaml', () => {
  let dir = '';
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'sealift-trust-'));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  const read = async (text: string): ReturnType<typeof readSite> => {
    const path = join(dir, 'site.yaml');
    await writeFile(path, text);
    return readSite(path);
  };

  it('says whom the site trusts', async () => {
    const text =
      'apiVersion: sealift-site/v1\ntrust:\n  keys: [a.pub, b.pub]\n  require: signature\n  minVersion: 2026.10\n';
    expect(await read(text)).toEqual({ keys: ['a.pub', 'b.pub'], isRequired: true, minVersion: '2026.10' });
    expect(await read('apiVersion: sealift-site/v1\n')).toEqual({
      keys: [],
      isRequired: false,
      minVersion: undefined,
    });
    const byName = await read('apiVersion: sealift-site/v1\ntrust: {minVersion: {astrago: 1.10}}\n');
    expect(byName.minVersion).toEqual({ astrago: '1.10' });
  });

  it.each([
    ['apiVersion: sealift-site/v2\n', 1, 13],
    ['trust: {}\n', 1, 1],
    ['apiVersion: sealift-site/v1\ntrust:\n  key: [a.pub]\n', 3, 3],
    ['apiVersion: sealift-site/v1\ntrust:\n  keys: a.pub\n', 3, 9],
    ['apiVersion: sealift-site/v1\ntrust:\n  keys: []\n', 3, 9],
    ['apiVersion: sealift-site/v1\ntrust:\n  require: maybe\n', 3, 12],
    ['apiVersion: sealift-site/v1\ntrust:\n  require: signature\n', 3, 12],
    ['apiVersion: sealift-site/v1\ntrust:\n  minVersion: [1]\n', 3, 15],
    ['apiVersion: sealift-site/v1\ntrust: ~\n', 2, 8],
    // What would otherwise ask for nothing, and nobody would see it.
    ['apiVersion: sealift-site/v1\nTrust: {keys: [a.pub], require: signature}\n', 2, 1],
    ['apiVersion: sealift-site/v1\ntrust: {keys: [a.pub]}\nrequire: signature\n', 3, 1],
    ['apiVersion: sealift-site/v1\ntrust: {keys: [a.pub]}\ntrust: {}\n', 3, 1],
  ])('is refused with the place of the fault: %j', async (text, line, column) => {
    const error: unknown = await read(text).catch((e: unknown) => e);
    if (!(error instanceof SealiftError)) throw error;
    expect(error.code).toBe('SITE_INVALID');
    expect(error.faults[0]?.position).toMatchObject({ line, column });
  });
});
