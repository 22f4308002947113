import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { parseTrustedComment, trustedComment } from '../../src/trust/comment.ts';
import { makeKey } from '../../src/trust/secret-key.ts';
import { checkSignature, messageHash, parseSignature, signatureFile } from '../../src/trust/signature.ts';
import { codeOf, keyOf, messageOf } from './keys.ts';

const LOCK: Digest = `sha256:${'ab'.repeat(32)}`;
const COMMENT = trustedComment({ name: 'astrago', version: '2026.11', lock: LOCK });
const hashOf = (message: Uint8Array): Buffer => messageHash().update(message).digest();

describe('a signature', () => {
  it('is good for its own message and key, and for no other, whatever they are', async () => {
    const other = await keyOf('other');
    const { signal } = new AbortController();
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 72, maxLength: 72 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.stringMatching(/^[ -~]{0,80}$/),
        async (random, message, comment) => {
          const { secret } = await makeKey(Buffer.from(random), undefined, { signal });
          const hash = hashOf(message);
          const file = signatureFile(hash, secret, { comment });
          const read = parseSignature(file, 's');
          expect(read.comment).toBe(comment);
          expect(read.keyId).toBe(secret.public.id);
          expect(checkSignature(read, hash, secret.public)).toBe('good');
          expect(checkSignature(read, hashOf(Buffer.concat([message, Buffer.of(0)])), secret.public)).toBe(
            'wrong-message',
          );
          expect(checkSignature(read, hash, other.secret.public)).toBe('wrong-message');
          expect(checkSignature({ ...read, comment: `${comment}.` }, hash, secret.public)).toBe(
            'wrong-comment',
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  it('has the same bytes each time that it is made', async () => {
    const { secret } = await keyOf('a');
    const [one, two] = [1, 2].map(() =>
      signatureFile(hashOf(Buffer.from('x')), secret, { comment: COMMENT }),
    );
    expect(one).toEqual(two);
    expect(one?.length).toBeLessThan(1024);
  });

  it('is refused at any cut and with anything behind it', async () => {
    const { secret } = await keyOf('a');
    const file = signatureFile(hashOf(Buffer.from('x')), secret, { comment: COMMENT });
    for (let length = 0; length < file.length; length += 1) {
      expect(await codeOf(() => parseSignature(file.subarray(0, length), 's'))).toBe('SIGNATURE_INVALID');
    }
    for (const more of ['\n', ' ', 'x\n', '\0']) {
      const longer = Buffer.concat([file, Buffer.from(more)]);
      expect(await codeOf(() => parseSignature(longer, 's'))).toBe('SIGNATURE_INVALID');
    }
  });

  it('never passes as good when one of its bytes is another', async () => {
    const { secret } = await keyOf('a');
    const hash = hashOf(Buffer.from('x'));
    const file = signatureFile(hash, secret, { comment: COMMENT });
    for (let at = 0; at < file.length; at += 1) {
      const bad = Buffer.from(file);
      bad[at] = (bad[at] ?? 0) ^ 1;
      const code = await codeOf(() => {
        const read = parseSignature(bad, 's');
        // The key id is not signed: with another one the signature is of an unknown key.
        if (read.keyId === secret.public.id)
          expect(checkSignature(read, hash, secret.public)).not.toBe('good');
      });
      expect([undefined, 'SIGNATURE_INVALID']).toContain(code);
    }
  });

  it('has one untrusted comment, is prehashed, and each fault has its own words', async () => {
    const { secret } = await keyOf('a');
    const file = signatureFile(hashOf(Buffer.from('x')), secret, { comment: COMMENT }).toString();
    const lines = file.split('\n');
    const legacy = Buffer.from(lines[1] ?? '', 'base64');
    legacy.write('Ed', 0, 'latin1');
    const wrong = Buffer.from(lines[1] ?? '', 'base64');
    wrong.write('XX', 0, 'latin1');
    const messages = await Promise.all(
      [
        file.replace('signature from', 'Signature from'),
        file.replace('untrusted comment: ', 'untrusted comment:'),
        file.replace(lines[1] ?? '', legacy.toString('base64')),
        file.replace(lines[1] ?? '', wrong.toString('base64')),
        file.replace('\ntrusted', '\nTrusted'),
        file.replaceAll('\n', '\r\n'),
        file.replace(lines[3] ?? '', 'AAAA'),
        'x'.repeat(5000),
      ].map((bad) => messageOf(() => parseSignature(Buffer.from(bad), 's'))),
    );
    expect(messages).not.toContain(undefined);
    expect(new Set(messages).size).toBeGreaterThanOrEqual(messages.length - 1);
    expect(messages[2]).toContain('legacy');
  });
});

describe('a trusted comment', () => {
  it('says the same again when it is read', () => {
    const word = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/);
    fc.assert(
      fc.property(word, word, fc.stringMatching(/^[0-9a-f]{64}$/), (name, version, hex) => {
        const vouched = { name, version, lock: `sha256:${hex}` as Digest };
        expect(parseTrustedComment(trustedComment(vouched))).toEqual(vouched);
      }),
    );
  });

  it('is not made of names that could be read in two ways', async () => {
    for (const name of ['a b', 'a=b', '', 'é', 'a\nversion=2', 'x'.repeat(129), 'a version=9']) {
      expect(await codeOf(() => trustedComment({ name, version: '1', lock: LOCK }))).toBe('USAGE');
      expect(await codeOf(() => trustedComment({ name: 'a', version: name, lock: LOCK }))).toBe('USAGE');
    }
  });

  it('is nothing else', () => {
    for (const text of [
      '',
      'timestamp:1\tfile:B3SUMS\thashed',
      `name=a  version=1 lock=${LOCK}`,
      `name=a version=1 lock=${LOCK} `,
      ` name=a version=1 lock=${LOCK}`,
      `name=a version=1 lock=${LOCK} time=1`,
      `version=1 name=a lock=${LOCK}`,
      'name=a version=1 lock=sha256:AB',
    ]) {
      expect(parseTrustedComment(text)).toBeUndefined();
    }
  });
});
