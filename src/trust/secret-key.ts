import { createPrivateKey, createPublicKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import { SealiftError } from '../core/errors.ts';
import { blake2b } from './blake2b.ts';
import { base64Line, linesOf, type Reading, refuse, UNTRUSTED, unixLines } from './lines.ts';
import { ALGORITHM, type PublicKey, publicKeyOf } from './public-key.ts';
import { deriveKey, type KdfLimits, MINISIGN_LIMITS } from './scrypt.ts';

/** A key that signs. */
export interface SecretKey {
  readonly public: PublicKey;
  readonly key: KeyObject;
}

/** What a secret key file holds, still locked where it has a password. */
export interface SecretKeyFile {
  readonly isEncrypted: boolean;
  /** Where it came from, for messages. */
  readonly what: string;
  readonly salt: Buffer;
  readonly limits: KdfLimits;
  /** Key id, seed, public key, checksum; encrypted where `isEncrypted`. */
  readonly body: Buffer;
}

/** What is needed to lock or unlock a key. */
export interface Unlocking {
  readonly signal: AbortSignal;
  /** Bytes of memory that may be taken; for tests. */
  readonly available?: number;
}

/**
 * The fields of a secret key file of minisign: "Ed", how it is encrypted ("Sc" or two zeros), "B2", salt, two limits, and
 * then what is encrypted: key id, seed, public key, BLAKE2b-256 of "Ed" and all of these.
 */
const LENGTH = 158;
const BODY_FROM = 54;
const BODY = LENGTH - BODY_FROM;
const CHECKSUM_FROM = 72;
const SCRYPT = 'Sc';
const CHECKSUM = 'B2';
const PLAIN = '\0\0';

/** DER of a PKCS #8 key of Ed25519 before its 32 bytes (RFC 8410). */
const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex');

const readingOf = (what: string): Reading => ({ what, code: 'KEY_INVALID' });

/**
 * Reads a secret key file of minisign, encrypted or not. Nothing is derived yet.
 * @throws KEY_INVALID
 */
export function parseSecretKey(bytes: Uint8Array, what: string): SecretKeyFile {
  const reading = readingOf(what);
  const [comment = '', line = ''] = linesOf(unixLines(bytes), reading, 2);
  if (!comment.startsWith(UNTRUSTED)) {
    refuse(reading, `line 1 does not begin with "${UNTRUSTED}"`, 'give the secret key file, NAME.key');
  }
  if (line.length < 100) refuse(reading, 'is a public key', 'give the secret key file, NAME.key, to sign');
  const data = base64Line(line, reading, { line: 2, length: LENGTH });
  const word = (at: number): string => data.toString('latin1', at, at + 2);
  if (word(0) !== ALGORITHM) refuse(reading, 'not an Ed25519 secret key of minisign');
  if (word(2) !== SCRYPT && word(2) !== PLAIN)
    refuse(reading, 'its encryption is not the scrypt of minisign');
  if (word(4) !== CHECKSUM) refuse(reading, 'its checksum is not the BLAKE2b of minisign');
  return {
    isEncrypted: word(2) === SCRYPT,
    what,
    salt: data.subarray(6, 38),
    limits: { ops: data.readBigUInt64LE(38), memory: data.readBigUInt64LE(46) },
    body: data.subarray(BODY_FROM),
  };
}

function checksumOf(body: Buffer): Buffer {
  return blake2b(Buffer.concat([Buffer.from(ALGORITHM), body.subarray(0, CHECKSUM_FROM)]), 32);
}

/** Encrypts and decrypts: the same step. */
async function mask(
  body: Buffer,
  password: string,
  about: Pick<SecretKeyFile, 'salt' | 'limits' | 'what'> & Unlocking,
): Promise<Buffer> {
  const { salt, limits, what, ...how } = about;
  const stream = await deriveKey(password, { salt, limits, length: BODY, reading: readingOf(what), ...how });
  return Buffer.from(body.map((byte, i) => byte ^ (stream[i] ?? 0)));
}

/**
 * The key in a file.
 * @param password of an encrypted one
 * @throws KEY_PASSWORD_WRONG, MEMORY_LACKING, KEY_INVALID
 */
export async function unlock(
  file: SecretKeyFile,
  password: string | undefined,
  how: Unlocking,
): Promise<SecretKey> {
  if (!file.isEncrypted) return keyOf(file.body, file);
  if (password === undefined) throw new SealiftError('KEY_PASSWORD_WRONG', `${file.what}: has a password`);
  const body = await mask(file.body, password, { ...file, ...how });
  if (!timingSafeEqual(checksumOf(body), body.subarray(CHECKSUM_FROM))) {
    throw new SealiftError('KEY_PASSWORD_WRONG', `${file.what}: the password is wrong`, {
      hint: 'type it again; if it is right, the key file is damaged',
    });
  }
  return keyOf(body, file);
}

function keyOf(body: Buffer, { what, isEncrypted }: SecretKeyFile): SecretKey {
  const reading = readingOf(what);
  const checksum = body.subarray(CHECKSUM_FROM);
  // minisign writes zeros, and a checksum only into a key whose password was taken away.
  if (!isEncrypted && checksum.some((byte) => byte !== 0) && !checksumOf(body).equals(checksum)) {
    refuse(reading, 'its checksum is wrong: the file is damaged');
  }
  const id = body.subarray(0, 8);
  const stated = body.subarray(40, CHECKSUM_FROM);
  const key = createPrivateKey({
    key: Buffer.concat([PKCS8, body.subarray(8, 40)]),
    format: 'der',
    type: 'pkcs8',
  });
  const derived = createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32);
  if (!derived.equals(stated)) refuse(reading, 'its two halves do not belong together: the file is damaged');
  return { key, public: publicKeyOf(Buffer.concat([Buffer.from(ALGORITHM), id, stated]), reading) };
}

/**
 * Makes a new key and its file, as minisign writes it.
 * @param random 72 bytes: key id, seed and salt
 * @param password undefined for a key without one
 * @throws MEMORY_LACKING
 */
export async function makeKey(
  random: Buffer,
  password: string | undefined,
  how: Unlocking & { readonly limits?: KdfLimits },
): Promise<{ readonly secret: SecretKey; readonly file: string }> {
  const [id, seed, salt] = [random.subarray(0, 8), random.subarray(8, 40), random.subarray(40, 72)];
  const key = createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: 'der', type: 'pkcs8' });
  const point = createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32);
  const what = 'the new key';
  const secret = {
    key,
    public: publicKeyOf(Buffer.concat([Buffer.from(ALGORITHM), id, point]), readingOf(what)),
  };
  const plain = Buffer.concat([id, seed, point]);
  if (password === undefined) {
    const empty = Buffer.alloc(32 + 16);
    return { secret, file: fileText(PLAIN, Buffer.concat([empty, plain, Buffer.alloc(32)])) };
  }
  const { limits = MINISIGN_LIMITS, ...rest } = how;
  const numbers = Buffer.alloc(16);
  numbers.writeBigUInt64LE(limits.ops, 0);
  numbers.writeBigUInt64LE(limits.memory, 8);
  const whole = Buffer.concat([plain, checksumOf(plain)]);
  const body = await mask(whole, password, { salt, limits, what, ...rest });
  return { secret, file: fileText(SCRYPT, Buffer.concat([salt, numbers, body])) };
}

/** The file of a secret key. minisign itself says "encrypted" of both kinds. */
function fileText(encryption: string, rest: Buffer): string {
  const data = Buffer.concat([Buffer.from(`${ALGORITHM}${encryption}${CHECKSUM}`, 'latin1'), rest]);
  return `${UNTRUSTED}minisign encrypted secret key\n${data.toString('base64')}\n`;
}
