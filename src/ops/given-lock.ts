import { resolve } from 'node:path';
import type { Bundle } from '../bundle/reader.ts';
import { hexOf } from '../core/digest.ts';
import { type Fault, fault } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readFileLimited } from '../io/files.ts';
import { digestOf } from '../io/verify.ts';
import { diffLocks } from '../lock/diff.ts';
import { parseLock } from '../lock/read.ts';
import type { Trust, TrustPolicy } from '../trust/policy.ts';
import { judgeLock } from './trust.ts';
import type { Chain } from './verify.ts';

/** A lock that came another way. */
export interface GivenLock {
  readonly path: string;
  readonly bytes: Buffer;
  readonly trust: Trust;
}

/**
 * Reads the lock that is given beside a bundle, and judges it.
 * @returns `own`: the policy for the bundle itself. A signed lock vouches for all of it: then it needs no signature of its own
 * @throws FILE_NOT_FOUND, and what `judgeLock` throws
 */
export async function readGivenLock(
  lockPath: string | undefined,
  policy: TrustPolicy | undefined,
): Promise<{ readonly given: GivenLock | undefined; readonly own: TrustPolicy | undefined }> {
  if (lockPath === undefined) return { given: undefined, own: policy };
  const bytes = await readFileLimited(lockPath, {
    limit: LIMITS.lockText,
    missing: 'FILE_NOT_FOUND',
    hint: 'give the lock that came with the bundle another way',
  });
  const lock = { bytes, lock: () => parseLock(bytes, lockPath) };
  const trust = await judgeLock(resolve(lockPath), lock, policy);
  const isVouched = policy !== undefined && trust.state === 'trusted';
  const own = isVouched ? { ...policy, isRequired: false } : policy;
  return { given: { path: lockPath, bytes, trust }, own };
}

/** In what the lock of a bundle differs from it. @param bundle.path how it is called in messages */
export function compareWithLock(
  bundle: { readonly path: string } & Pick<Bundle, 'lock' | 'lockDigest'>,
  { path: lockPath, bytes }: GivenLock,
): Fault[] {
  const digest = digestOf(bytes);
  if (digest === bundle.lockDigest) return [];
  const given = parseLock(bytes, lockPath);
  const { added, removed, changed } = diffLocks(given, bundle.lock);
  const hint = 'this bundle was packed from another lock: use the bundle that belongs to this lock';
  const headline = fault(
    'BUNDLE_LOCK_DIFFERS',
    `${bundle.path}: its lock is ${hexOf(bundle.lockDigest)}, ${lockPath} is ${hexOf(digest)}`,
    { hint },
  );
  return [
    headline,
    ...added.map((e) =>
      fault('BUNDLE_LOCK_DIFFERS', `${e.kind} ${e.name} is in the bundle and not in ${lockPath}`),
    ),
    ...removed.map((e) =>
      fault('BUNDLE_LOCK_DIFFERS', `${e.kind} ${e.name} is in ${lockPath} and not in the bundle`),
    ),
    ...changed.map((e) => {
      const what = e.changes.map((c) => `${c.fact} ${c.from ?? 'none'} → ${c.to ?? 'none'}`).join(', ');
      return fault('BUNDLE_LOCK_DIFFERS', `${e.kind} ${e.name} differs from ${lockPath}: ${what}`);
    }),
  ];
}

/** The strongest chain that was walked to every byte. */
export function chainOf(walked: {
  readonly trust: Trust;
  readonly given: GivenLock | undefined;
  readonly deep: boolean;
}): Chain {
  if (walked.given?.trust.state === 'trusted') return 'signed-lock';
  if (walked.trust.state === 'trusted') return 'signature';
  if (walked.given !== undefined) return 'lock';
  return walked.deep ? 'digests' : 'b3sums';
}
