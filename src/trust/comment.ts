import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';

/** What a trusted comment vouches for. */
export interface Vouched {
  readonly name: string;
  readonly version: string;
  /** SHA-256 of versions.lock. */
  readonly lock: Digest;
}

/** What names and versions of a manifest are made of: nothing that would need a way to be written in a comment. */
const WORD = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/;

/**
 * The trusted comment of a bundle or a lock: `name=… version=… lock=sha256:…`, without time, so that signing again gives
 * the same bytes.
 * @throws USAGE where a name or version has other characters than those that sealift.yaml allows
 */
export function trustedComment({ name, version, lock }: Vouched): string {
  for (const [what, text] of [
    ['name', name],
    ['version', version],
  ] as const) {
    if (WORD.test(text)) continue;
    throw new SealiftError('USAGE', `the ${what} ${JSON.stringify(text.slice(0, 200))} cannot be signed`, {
      hint: 'use letters, digits, ".", "_", "+" and "-", at most 128, a letter or digit first',
    });
  }
  return `name=${name} version=${version} lock=${lock}`;
}

/** What a trusted comment says; undefined for any text that `trustedComment` does not write. */
export function parseTrustedComment(comment: string): Vouched | undefined {
  const [, name = '', version = '', lock = ''] = /^name=(\S+) version=(\S+) lock=(\S+)$/.exec(comment) ?? [];
  if (!WORD.test(name) || !WORD.test(version) || !isDigest(lock)) return undefined;
  return { name, version, lock };
}
