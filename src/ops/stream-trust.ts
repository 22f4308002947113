import type { StreamEnd } from '../bundle/stream-end.ts';
import { isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Vouched } from '../trust/comment.ts';
import { UNTRUSTED } from '../trust/lines.ts';
import { SIGNATURE_SUFFIX } from '../trust/places.ts';
import type { Trust, TrustPolicy } from '../trust/policy.ts';
import { NO_POLICY } from './trust.ts';

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
  const policy = about.policy ?? NO_POLICY;
  if (end === undefined) {
    const atFirst = { b3sums: Buffer.alloc(0), signature: undefined, faults: [] };
    return judgeStream(atFirst, { ...about, policy: { ...policy, isRequired: false } });
  }
  const trust = await judgeStream(end, { ...about, policy });
  const { file } = about;
  const isSettled = trust.state === 'trusted' || (policy.keys.length === 0 && trust.state !== 'none');
  if (isSettled || file === undefined) return trust;
  const beside = await besideOf(file, policy);
  return beside === undefined ? trust : judgeStream(end, { ...about, policy, beside });
}

/**
 * The signature that lies beside a file on a server. A page that says in its own words that nothing is there is none; where
 * nobody gave a key, neither is one that cannot be had.
 */
async function besideOf(
  file: NonNullable<Judged['file']>,
  { keys }: TrustPolicy,
): Promise<Buffer | undefined> {
  try {
    const bytes = await file.beside(SIGNATURE_SUFFIX, LIMITS.signatureText);
    return bytes?.toString('latin1').startsWith(UNTRUSTED) === true ? bytes : undefined;
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    if (keys.length === 0 || error.code === 'CONTENT_TOO_LARGE') return undefined;
    throw error;
  }
}
