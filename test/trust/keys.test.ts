import { createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { blake2b } from '../../src/trust/blake2b.ts';
import { parseKeyText, parsePublicKey, publicKeyFile } from '../../src/trust/public-key.ts';
import { deriveKey, parametersOf } from '../../src/trust/scrypt.ts';
import { makeKey, parseSecretKey, unlock } from '../../src/trust/secret-key.ts';
import { codeOf, messageOf, randomOf, SMALL_LIMITS } from './keys.ts';

const { signal } = new AbortController();
const reading = { what: 'a.key', code: 'KEY_INVALID' } as const;

describe('BLAKE2b of our own', () => {
  it('is that of Node for 64 bytes, whatever the message', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (message) => {
        expect(blake2b(message, 64)).toEqual(createHash('blake2b512').update(message).digest());
      }),
      { numRuns: 60 },
    );
  });

  it('knows the ends of blocks', () => {
    for (const length of [0, 1, 127, 128, 129, 255, 256, 257]) {
      const message = Buffer.alloc(length, 7);
      expect(blake2b(message, 64)).toEqual(createHash('blake2b512').update(message).digest());
    }
  });

  it('gives the 32 bytes that b2sum -l 256 gives', () => {
    expect(blake2b(Buffer.from('abc'), 32).toString('hex')).toBe(
      'bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319',
    );
  });
});

describe('a key without a password', () => {
  it('is read again from its file, for any random bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 72, maxLength: 72 }), async (random) => {
        const { secret, file } = await makeKey(Buffer.from(random), undefined, { signal });
        const read = await unlock(parseSecretKey(Buffer.from(file), 'a.key'), undefined, { signal });
        expect(read.public.text).toBe(secret.public.text);
        expect(parsePublicKey(Buffer.from(publicKeyFile(secret.public)), 'a.pub').id).toBe(secret.public.id);
        expect(parseKeyText(secret.public.text, '--key').id).toBe(secret.public.id);
      }),
      { numRuns: 30 },
    );
  });

  it('is refused when any one bit of its key part is another', async () => {
    const { file } = await makeKey(randomOf('key'), undefined, { signal });
    const [comment = '', line = ''] = file.split('\n');
    for (let at = 62; at < 126; at += 1) {
      const data = Buffer.from(line, 'base64');
      data[at] = (data[at] ?? 0) ^ 1;
      const bad = parseSecretKey(Buffer.from(`${comment}\n${data.toString('base64')}\n`), 'a.key');
      expect(await codeOf(() => unlock(bad, undefined, { signal }))).toBe('KEY_INVALID');
    }
  });
});

describe('a key with a password', () => {
  it('opens with that password only', async () => {
    const limits = SMALL_LIMITS;
    const { secret, file } = await makeKey(randomOf('key'), 'pässword', { signal, limits });
    const locked = parseSecretKey(Buffer.from(file), 'a.key');
    expect(locked.isEncrypted).toBe(true);
    expect((await unlock(locked, 'pässword', { signal })).public.text).toBe(secret.public.text);
    expect(await codeOf(() => unlock(locked, 'passwort', { signal }))).toBe('KEY_PASSWORD_WRONG');
    expect(await codeOf(() => unlock(locked, undefined, { signal }))).toBe('KEY_PASSWORD_WRONG');
    expect(file).not.toContain(secret.public.text.slice(20, 40));
  });

  it('is refused when a byte of what is encrypted was changed', async () => {
    const { file } = await makeKey(randomOf('key'), 'pw', { signal, limits: SMALL_LIMITS });
    const [comment = '', line = ''] = file.split('\n');
    for (const at of [54, 62, 100, 157]) {
      const data = Buffer.from(line, 'base64');
      data[at] = (data[at] ?? 0) ^ 0x80;
      const bad = parseSecretKey(Buffer.from(`${comment}\n${data.toString('base64')}\n`), 'a.key');
      expect(await codeOf(() => unlock(bad, 'pw', { signal }))).toBe('KEY_PASSWORD_WRONG');
    }
  });

  it('says where memory lacks, and names the key that needs none', async () => {
    const { file } = await makeKey(randomOf('key'), 'pw', { signal, limits: SMALL_LIMITS });
    const locked = parseSecretKey(Buffer.from(file), 'a.key');
    const short = { signal, available: 1000 };
    expect(await codeOf(() => unlock(locked, 'pw', short))).toBe('MEMORY_LACKING');
    await expect(unlock(locked, 'pw', short)).rejects.toMatchObject({
      hint: expect.stringContaining('keygen --no-password'),
    });
  });

  it('gives up when it is told to stop', async () => {
    const stop = new AbortController();
    stop.abort();
    const derived = deriveKey('pw', {
      salt: Buffer.alloc(32),
      limits: SMALL_LIMITS,
      length: 104,
      reading,
      signal: stop.signal,
    });
    expect(await codeOf(() => derived)).toBe('ABORTED');
  });
});

describe('the parameters of scrypt', () => {
  it('are those that libsodium chooses', () => {
    expect(parametersOf({ ops: 33_554_432n, memory: 1_073_741_824n }, reading)).toEqual({
      N: 2 ** 20,
      r: 8,
      p: 1,
    });
    // crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_INTERACTIVE and its memory.
    expect(parametersOf({ ops: 524_288n, memory: 16_777_216n }, reading)).toEqual({ N: 2 ** 14, r: 8, p: 1 });
    expect(parametersOf({ ops: 0n, memory: 0n }, reading).N).toBe(2);
  });

  it('have a limit: a hostile file cannot ask for more than minisign does', async () => {
    for (const limits of [
      { ops: 33_554_433n, memory: 1024n },
      { ops: 1n, memory: 1_073_741_825n },
      { ops: 2n ** 64n - 1n, memory: 2n ** 64n - 1n },
    ]) {
      expect(await codeOf(() => parametersOf(limits, reading))).toBe('KEY_INVALID');
    }
  });
});

describe('a key file from Windows', () => {
  it('is read: minisign writes and reads such line ends there', async () => {
    const { file, secret } = await makeKey(randomOf('key'), undefined, { signal });
    const windows = (text: string): Buffer => Buffer.from(text.replaceAll('\n', '\r\n'));
    const read = await unlock(parseSecretKey(windows(file), 'a.key'), undefined, { signal });
    expect(read.public.text).toBe(secret.public.text);
    expect(parsePublicKey(windows(publicKeyFile(secret.public)), 'a.pub').text).toBe(secret.public.text);
    const odd = Buffer.from(file.replace('\n', '\r\r\n'));
    expect(await codeOf(() => parseSecretKey(odd, 'a.key'))).toBe('KEY_INVALID');
  });
});

describe('a hostile key file', () => {
  const text = (bytes: Buffer): string => bytes.toString('latin1');

  it('is refused at any cut, each with its own words', async () => {
    const { file, secret } = await makeKey(randomOf('key'), undefined, { signal });
    const pub = publicKeyFile(secret.public);
    for (let length = 0; length < file.length - 1; length += 1) {
      expect(await codeOf(() => parseSecretKey(Buffer.from(file.slice(0, length)), 'a.key'))).toBe(
        'KEY_INVALID',
      );
    }
    for (let length = 0; length < pub.length - 1; length += 1) {
      expect(await codeOf(() => parsePublicKey(Buffer.from(pub.slice(0, length)), 'a.pub'))).toBe(
        'KEY_INVALID',
      );
    }
  });

  it('is never anything but read or refused', async () => {
    const { file, secret } = await makeKey(randomOf('key'), undefined, { signal });
    const pub = publicKeyFile(secret.public);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(file, pub),
        fc.nat(300),
        fc.uint8Array({ maxLength: 6 }),
        async (good, at, put) => {
          const bytes = Buffer.from(good);
          bytes.set(put.subarray(0, Math.max(0, bytes.length - at)), Math.min(at, bytes.length));
          for (const read of [parseSecretKey, parsePublicKey]) {
            const code = await codeOf(() => read(bytes, 'k'));
            expect([undefined, 'KEY_INVALID']).toContain(code);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('says what it is when the wrong half is given', async () => {
    const { file, secret } = await makeKey(randomOf('key'), undefined, { signal });
    expect(await messageOf(() => parsePublicKey(Buffer.from(file), 'a'))).toContain('is a secret key');
    const pub = publicKeyFile(secret.public);
    expect(await messageOf(() => parseSecretKey(Buffer.from(pub), 'a'))).toContain('is a public key');
  });

  it('cannot be large, binary, of other algorithms or of other letters for the same bytes', async () => {
    const { file } = await makeKey(randomOf('key'), undefined, { signal });
    const line = file.split('\n')[1] ?? '';
    const replaced = (from: number, put: string): string => {
      const data = Buffer.from(line, 'base64');
      data.write(put, from, 'latin1');
      return data.toString('base64');
    };
    const messages = await Promise.all(
      [
        text(randomBytes(5000)),
        text(Buffer.from([0xff, 0xfe, 0x0a])),
        `untrusted comment: \u001b[2J\n${line}\n`,
        `comment\n${line}\n`,
        `untrusted comment: x\n${replaced(0, 'Xx')}\n`,
        `untrusted comment: x\n${replaced(2, 'Ar')}\n`,
        `untrusted comment: x\n${replaced(4, 'S2')}\n`,
        `untrusted comment: x\n ${line}\n`,
        `untrusted comment: x\n${line.slice(0, -4)}\n`,
        `untrusted comment: x\n${line}\n\n`,
      ].map((bad) => messageOf(() => parseSecretKey(Buffer.from(bad, 'latin1'), 'k'))),
    );
    expect(new Set(messages).size).toBe(messages.length);
    expect(messages).not.toContain(undefined);
  });
});
