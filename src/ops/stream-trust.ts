import type { StreamEnd } from '../bundle/stream-end.ts';
import { LIMITS } from '../core/limits.ts';
import type { Vouched } from '../trust/comment.ts';
import { SIGNATURE_SUFFIX } from '../trust/places.ts';
import type { Trust, TrustPolicy } from '../trust/policy.ts';

/** What is judged of a bundle that was not read from a file. */
interface Judged {
  readonly what: string;
  /** What its documents say, which were compared with each other. */
  readonly facts: Vouched;
  readonly policy: TrustPolicy | undefined;
  /** Where it lies on a server, a signature may lie beside it. */
  readonly file?: {
    readonly beside: (suffix: string, limit: number) => Promise<Buffer | undefined>;
  };
}

/**
 * What is trusted here of a bundle that comes in order. Who signed it stands at its end: without that, only what its
 * documents say is judged.
 */
export async function judgeEnd(end: StreamEnd | undefined, about: Judged): Promise<Trust> {
  const { judgeStream } = await import('../bundle/stream-signature.ts');
  const policy = about.policy ?? { keys: [], isRequired: false, minVersion: undefined };
  if (end === undefined) {
    const atFirst = { b3sums: Buffer.alloc(0), signature: undefined, faults: [] };
    return judgeStream(atFirst, { ...about, policy: { ...policy, isRequired: false } });
  }
  const isAsked = policy.keys.length > 0 && end.signature === undefined;
  const beside = isAsked ? await about.file?.beside(SIGNATURE_SUFFIX, LIMITS.signatureText) : undefined;
  return judgeStream(end, { ...about, policy, beside });
}
