import { trustedComment, type Vouched } from '../trust/comment.ts';
import { SIGNATURE_SUFFIX } from '../trust/places.ts';
import { type Candidate, judgeTrust, type Trust, type TrustPolicy } from '../trust/policy.ts';
import type { SecretKey } from '../trust/secret-key.ts';
import { messageHash, signatureFile } from '../trust/signature.ts';
import { SIGNATURE } from './names.ts';
import { candidateOf } from './signature.ts';
import type { StreamEnd } from './stream-end.ts';
import type { StreamOptions } from './stream-writer.ts';

/** Signs a bundle that goes out in order: its B3SUMS is known when it has gone. @throws USAGE, as `trustedComment` */
export function streamSigner(secret: SecretKey, vouched: Vouched): NonNullable<StreamOptions['sign']> {
  const comment = trustedComment(vouched);
  return async (b3sums) => {
    const hash = messageHash();
    for (const piece of b3sums) hash.update(piece);
    return { name: SIGNATURE, bytes: signatureFile(hash.digest(), secret, { comment }) };
  };
}

/**
 * Judges the trust of a bundle that came in order: all of it has passed and was compared with its B3SUMS, so a good
 * signature of that list vouches for every byte.
 * @param about.facts what its documents say, which were compared with each other
 * @param about.beside a signature that lies beside it
 */
export async function judgeStream(
  end: StreamEnd,
  about: {
    readonly what: string;
    readonly facts: Vouched;
    readonly policy: TrustPolicy;
    readonly beside?: Buffer | undefined;
  },
): Promise<Trust> {
  const { what, facts, policy, beside } = about;
  const { b3sums, signature } = end;
  const inside = { what: `${what}: ${SIGNATURE}`, isInside: true };
  const outside = { what: `${what}${SIGNATURE_SUFFIX}`, isInside: false };
  const candidates: Candidate[] = [];
  if (signature !== undefined) candidates.push(await candidateOf(inside, async () => signature));
  if (beside !== undefined) candidates.push(await candidateOf(outside, async () => beside));
  return judgeTrust(candidates, policy, { what, hash: async () => b3sums, facts: () => facts });
}
