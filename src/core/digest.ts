import { SealiftError } from './errors.ts';

/**
 * A content digest, `sha256:` and 64 lower-case hex digits.
 * Source: OCI image-spec, descriptor.md, "Digests". sha512 is named in the spec but no registry in use stores
 * content by it, so it is refused by name rather than half supported.
 */
export type Digest = `sha256:${string}`;

const SHA256 = /^sha256:[0-9a-f]{64}$/;

/** True for a well-formed sha256 digest. */
export function isDigest(value: string): value is Digest {
  return SHA256.test(value);
}

/**
 * The digest in `text`.
 * @throws DIGEST_INVALID when it is not `sha256:<64 lower-case hex>`; `where` says what held it.
 */
export function parseDigest(text: string, where: string): Digest {
  if (isDigest(text)) return text;
  throw new SealiftError('DIGEST_INVALID', `${where}: "${text.slice(0, 90)}" is not a sha256 digest`, {
    hint: 'a digest is sha256: followed by 64 lower-case hex digits',
  });
}

/** The 64 hex digits of a digest. */
export function hexOf(digest: Digest): string {
  return digest.slice('sha256:'.length);
}

/** A digest from 64 lower-case hex digits. */
export function digestOfHex(hex: string): Digest {
  return parseDigest(`sha256:${hex}`, 'digest');
}

/** The empty blob and the empty JSON object, `{}`: never fetched, always known (registry.md 1.3). */
export const EMPTY_DIGEST: Digest = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
export const EMPTY_JSON_DIGEST: Digest =
  'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a';
