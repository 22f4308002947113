import type { ErrorCode } from '../core/errors.ts';

/**
 * What a repository does not let anybody write: `once` is a name or blob that is there already and may not be written
 * again, `read-only` is everything.
 */
export type WritePolicy = 'once' | 'read-only';

/**
 * The policy behind a refusal. Nexus has one code for all of it (BLOB_UPLOAD_INVALID) and tells the rest in words, which
 * its databases write in two ways (registry.md 2.4, 2.7, 2.8; nexus-public #696, #967). So nothing more depends on
 * them than how it is told, and how long a blob is waited for that somebody else may be sending.
 * @param text the start of the answer
 */
export function policyIn(status: number, text: string): WritePolicy | undefined {
  if (status !== 400 && status !== 503) return undefined;
  if (/\bis read-only\b|\bin read-only mode\b/.test(text)) return 'read-only';
  return /\bcannot be updated\b|\bdoes not allow updating assets\b/.test(text) ? 'once' : undefined;
}

const ONCE =
  'this repository takes every name once (Nexus: deployment policy "Disable redeploy"): load under another tag, or let its owner allow redeploys';
const READ_ONLY_REPOSITORY =
  'this repository takes no writes (Nexus: deployment policy "Read-only"): load into another one, or let its owner change the policy';
const READ_ONLY_SERVER =
  'end the read-only mode (Nexus: Administration, System, Nodes), then run the same command again';

/** The code and the hint of such a refusal. */
export function policyMeaning(policy: WritePolicy, status: number): readonly [ErrorCode, string] {
  if (policy === 'once') return ['REGISTRY_FAILED', ONCE];
  return ['TARGET_READ_ONLY', status === 503 ? READ_ONLY_SERVER : READ_ONLY_REPOSITORY];
}
