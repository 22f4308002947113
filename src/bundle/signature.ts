import { faultOf, isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { kindOf, readFileLimited } from '../io/files.ts';
import { collect } from '../io/verify.ts';
import type { Vouched } from '../trust/comment.ts';
import { signaturePaths } from '../trust/places.ts';
import { type Candidate, judgeTrust, type Trust, type TrustPolicy } from '../trust/policy.ts';
import { messageHash, parseSignature } from '../trust/signature.ts';
import { openDocument, readDocument } from './compare.ts';
import { parseInfo } from './documents.ts';
import type { Medium } from './medium.ts';
import { B3SUMS, SIGNATURE } from './names.ts';

/** A signature that was found: read, or why it cannot be. */
export async function candidateOf(
  where: Pick<Candidate, 'what' | 'isInside'>,
  read: () => Promise<Buffer>,
): Promise<Candidate> {
  try {
    return { ...where, signature: parseSignature(await read(), where.what) };
  } catch (error) {
    if (isAbort(error)) throw error;
    const { message, ...rest } = faultOf(error);
    return { ...where, signature: { ...rest, code: 'SIGNATURE_INVALID', message } };
  }
}

/** The signatures in those of these files that are there. */
export async function signaturesIn(paths: readonly string[]): Promise<Candidate[]> {
  const found: Candidate[] = [];
  for (const at of paths) {
    if ((await kindOf(at)) !== 'file') continue;
    const read = (): Promise<Buffer> =>
      readFileLimited(at, { limit: LIMITS.signatureText, missing: 'FILE_NOT_FOUND' });
    found.push(await candidateOf({ what: at, isInside: false }, read));
  }
  return found;
}

/** Every signature of a bundle: the one inside first. */
async function signaturesOf(medium: Medium): Promise<Candidate[]> {
  const { signature, path, files } = medium;
  const volumes = files?.parts.map((part) => part.path);
  const beside = await signaturesIn(signaturePaths(path, volumes));
  if (signature === undefined) return beside;
  const what = `${path}: ${SIGNATURE}`;
  const limit = LIMITS.signatureText;
  return [
    await candidateOf({ what, isInside: true }, () => collect(medium.read(signature), { limit, what })),
    ...beside,
  ];
}

/** BLAKE2b-512 of B3SUMS, which is what a signature of a bundle signs. @throws BUNDLE_ENTRY_MISSING, FILE_UNREADABLE */
export async function hashB3Sums(medium: Medium): Promise<Buffer> {
  const hash = messageHash();
  for await (const piece of openDocument(medium, B3SUMS)) hash.update(piece);
  return hash.digest();
}

/** What `sealift.json` says; undefined where it cannot be read: whoever opens the bundle tells why. */
async function factsOf(medium: Medium): Promise<Vouched | undefined> {
  try {
    return parseInfo(await readDocument(medium, 'sealift.json'), medium.path);
  } catch (error) {
    if (isAbort(error)) throw error;
    return undefined;
  }
}

/**
 * Judges the trust of one bundle by its B3SUMS, its signatures and its `sealift.json` alone, before anything else in it is
 * read. When it is `trusted`, B3SUMS is what was signed, and the name, version and lock of `sealift.json` are those that
 * the signer named; opening the bundle then compares versions.lock with that lock.
 */
export async function judgeSignatures(medium: Medium, policy: TrustPolicy): Promise<Trust> {
  const candidates = await signaturesOf(medium);
  const facts = await factsOf(medium);
  let hash: Promise<Buffer> | undefined;
  return judgeTrust(candidates, policy, {
    what: medium.path,
    hash: () => {
      // Nothing is a signature of a list that lacks; that it lacks is told by whoever opens the bundle.
      hash ??= hashB3Sums(medium).catch((error: unknown) => {
        if (error instanceof SealiftError && error.code === 'BUNDLE_ENTRY_MISSING') return Buffer.alloc(0);
        throw error;
      });
      return hash;
    },
    facts: () => facts,
  });
}
