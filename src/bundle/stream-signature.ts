import type { Vouched } from '../trust/comment.ts';
import { judgeTrust, type Trust, type TrustPolicy } from '../trust/policy.ts';
import { SIGNATURE } from './plan.ts';
import { candidateOf } from './signature.ts';
import type { StreamEnd } from './stream-reader.ts';

/**
 * Judges the trust of a bundle that came in order: all of it has passed and was compared with its B3SUMS, so a good
 * signature of that list vouches for every byte.
 * @param about.facts what its documents say, which were compared with each other
 */
export async function judgeStream(
  end: StreamEnd,
  about: { readonly what: string; readonly facts: Vouched; readonly policy: TrustPolicy },
): Promise<Trust> {
  const { what, facts, policy } = about;
  const { b3sums, signature } = end;
  const where = { what: `${what}: ${SIGNATURE}`, isInside: true };
  const candidates = signature === undefined ? [] : [await candidateOf(where, async () => signature)];
  return judgeTrust(candidates, policy, { what, hash: async () => b3sums, facts: () => facts });
}
