import { createHash, type Hash, sign, verify } from 'node:crypto';
import { base64Line, linesOf, type Reading, refuse, UNTRUSTED } from './lines.ts';
import { ALGORITHM, keyIdOf, type PublicKey } from './public-key.ts';
import type { SecretKey } from './secret-key.ts';

/**
 * The untrusted comment of every signature: what minisign writes when it is told none, so that both make the same bytes.
 * It is not signed, so there is one form of it.
 */
export const SIGNATURE_COMMENT = 'signature from minisign secret key';

const TRUSTED = 'trusted comment: ';
const PREHASHED = 'ED';
const LENGTH = 2 + 8 + 64;

/** A signature file, read and not yet checked. */
export interface Signature {
  /** Of the key that it says it is from: not signed. */
  readonly keyId: string;
  readonly signature: Buffer;
  /** The trusted comment: signed together with the signature. */
  readonly comment: string;
  readonly commentSignature: Buffer;
  /** Its bytes. */
  readonly text: string;
}

/**
 * Reads a signature file of minisign: exactly the bytes that minisign writes for a prehashed signature.
 * @throws SIGNATURE_INVALID
 */
export function parseSignature(bytes: Uint8Array, what: string): Signature {
  const reading: Reading = { what, code: 'SIGNATURE_INVALID' };
  const [untrusted = '', line = '', trusted = '', global = ''] = linesOf(bytes, reading, 4);
  if (untrusted !== `${UNTRUSTED}${SIGNATURE_COMMENT}`) {
    refuse(
      reading,
      `line 1 must be "${UNTRUSTED}${SIGNATURE_COMMENT}": it is not signed, so nothing else may stand there`,
      'sign without -c: minisign then writes this comment',
    );
  }
  const data = base64Line(line, reading, { line: 2, length: LENGTH });
  const algorithm = data.toString('latin1', 0, 2);
  if (algorithm === ALGORITHM) {
    refuse(
      reading,
      'is a legacy signature, which is not accepted',
      'sign without -l (minisign 0.10 or newer)',
    );
  }
  if (algorithm !== PREHASHED) refuse(reading, 'not an Ed25519 signature of minisign');
  if (!trusted.startsWith(TRUSTED)) refuse(reading, `line 3 does not begin with "${TRUSTED}"`);
  const signature: Signature = {
    keyId: keyIdOf(data.subarray(2, 10)),
    signature: data.subarray(10),
    comment: trusted.slice(TRUSTED.length),
    commentSignature: base64Line(global, reading, { line: 4, length: 64 }),
    text: Buffer.from(bytes).toString('utf8'),
  };
  if (!signature.text.endsWith('\n')) refuse(reading, 'does not end with a line feed');
  return signature;
}

/** Hashes what is signed: BLAKE2b-512, 64 bytes. */
export function messageHash(): Hash {
  return createHash('blake2b512');
}

/** What the second signature signs: the first one and the trusted comment. */
function globalMessage(signature: Buffer, comment: string): Buffer {
  return Buffer.concat([signature, Buffer.from(comment)]);
}

/** What a signature is, measured with one key. */
export type Verdict = 'good' | 'wrong-message' | 'wrong-comment';

/** @param hash of what is signed (`messageHash`) */
export function checkSignature(found: Signature, hash: Buffer, { key }: PublicKey): Verdict {
  const { signature, comment, commentSignature } = found;
  if (!verify(null, hash, key, signature)) return 'wrong-message';
  return verify(null, globalMessage(signature, comment), key, commentSignature) ? 'good' : 'wrong-comment';
}

/**
 * The file of a signature, byte for byte what minisign writes.
 * @param hash of what is signed (`messageHash`)
 * @param options.comment one line
 */
export function signatureFile(
  hash: Buffer,
  { key, public: { text } }: SecretKey,
  options: { readonly comment: string },
): Buffer {
  const { comment } = options;
  const signature = sign(null, hash, key);
  const id = Buffer.from(text, 'base64').subarray(2, 10);
  const first = Buffer.concat([Buffer.from(PREHASHED), id, signature]).toString('base64');
  const global = sign(null, globalMessage(signature, comment), key).toString('base64');
  return Buffer.from(`${UNTRUSTED}${SIGNATURE_COMMENT}\n${first}\n${TRUSTED}${comment}\n${global}\n`);
}
