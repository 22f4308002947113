import { createPublicKey, type KeyObject } from 'node:crypto';
import { base64Line, linesOf, type Reading, refuse, UNTRUSTED, unixLines } from './lines.ts';

/** What signs and what is trusted, in minisign's form: "Ed", 8 bytes of key id, 32 bytes of Ed25519. */
export interface PublicKey {
  /** Sixteen hex digits, as minisign shows it. */
  readonly id: string;
  /** The base64 line of its file. */
  readonly text: string;
  readonly key: KeyObject;
}

/** Of every key and of what a legacy signature was made by. */
export const ALGORITHM = 'Ed';
const LENGTH = 2 + 8 + 32;

/** DER of a SubjectPublicKeyInfo of Ed25519 before its 32 bytes (RFC 8410). */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex');

/** A key id as minisign shows it: the number that its 8 bytes are, lowest first, in hex digits. */
export function keyIdOf(bytes: Buffer): string {
  return bytes.readBigUInt64LE().toString(16).toUpperCase().padStart(16, '0');
}

/** The key that 42 bytes are. */
export function publicKeyOf(bytes: Buffer, reading: Reading): PublicKey {
  if (bytes.toString('latin1', 0, 2) !== ALGORITHM) refuse(reading, 'not an Ed25519 public key of minisign');
  return {
    id: keyIdOf(bytes.subarray(2, 10)),
    text: bytes.toString('base64'),
    key: createPublicKey({
      key: Buffer.concat([SPKI, bytes.subarray(10)]),
      format: 'der',
      type: 'spki',
    }),
  };
}

const reading = (what: string): Reading => ({ what, code: 'KEY_INVALID' });

/** Whether a text can be only the key itself, and not the path of its file: `RW…`, 56 characters. */
export function isKeyText(text: string): boolean {
  return /^RW[A-Za-z0-9+/]{54}$/.test(text);
}

/** The key of its base64 line alone. @throws KEY_INVALID */
export function parseKeyText(line: string, what: string): PublicKey {
  return publicKeyOf(base64Line(line, reading(what), { line: 1, length: LENGTH }), reading(what));
}

/**
 * Reads a public key file of minisign: a comment, which says nothing that counts, and the key.
 * @throws KEY_INVALID
 */
export function parsePublicKey(bytes: Uint8Array, what: string): PublicKey {
  const [comment = '', line = ''] = linesOf(unixLines(bytes), reading(what), 2);
  if (!comment.startsWith(UNTRUSTED)) {
    refuse(reading(what), `line 1 does not begin with "${UNTRUSTED}"`, 'give the public key file, NAME.pub');
  }
  if (line.length > 100) {
    refuse(reading(what), 'is a secret key', 'give the public key, NAME.pub; keep the secret one secret');
  }
  return publicKeyOf(base64Line(line, reading(what), { line: 2, length: LENGTH }), reading(what));
}

/** The file of a public key, as minisign writes it. */
export function publicKeyFile({ id, text }: PublicKey): string {
  return `${UNTRUSTED}minisign public key ${id.replace(/^0+(?=.)/, '')}\n${text}\n`;
}
