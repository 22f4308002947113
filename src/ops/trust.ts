import { dirname, join, resolve } from 'node:path';
import type { Given } from '../bundle/joint.ts';
import type { Medium } from '../bundle/medium.ts';
import { errorOf, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { kindOf, readFileLimited } from '../io/files.ts';
import { digestOf } from '../io/verify.ts';
import type { Lock } from '../lock/schema.ts';
import { signaturePaths } from '../trust/places.ts';
import type { Trust, TrustPolicy } from '../trust/policy.ts';
import type { PublicKey } from '../trust/public-key.ts';
import type { SiteTrust } from '../trust/site.ts';
import { findSite } from './site.ts';

/** What a verb is told about trust; the rest comes from the environment and from the site's file. */
export interface TrustOptions {
  /** Public keys: paths of their files, or their base64 lines. Any one of them is enough, and a signature is required. */
  readonly keys?: readonly string[];
  /** The site's file. Default: `site.yaml` in the working folder, where there is one. */
  readonly sitePath?: string;
}

/** The variable that names public keys, separated by ":"; with it a signature is required. */
export const TRUST_VARIABLE = 'SEALIFT_TRUST';

async function readKey(text: string, folder: string): Promise<PublicKey> {
  const { isKeyText, parseKeyText, parsePublicKey } = await import('../trust/public-key.ts');
  if (isKeyText(text)) return parseKeyText(text, text);
  const path = resolve(folder, text);
  const bytes = await readFileLimited(path, {
    limit: LIMITS.signatureText,
    missing: 'FILE_NOT_FOUND',
    hint: 'give the path of a public key file (NAME.pub), or the key itself (RW…)',
  });
  return parsePublicKey(bytes, path);
}

async function siteOf({ sitePath }: TrustOptions): Promise<{ trust: SiteTrust; folder: string } | undefined> {
  const path = await findSite(sitePath === undefined ? {} : { sitePath });
  if (path === undefined) return undefined;
  const { readSite } = await import('../trust/site.ts');
  return { trust: await readSite(path), folder: dirname(path) };
}

/** The keys of the variable. One that is set asks for a signature, so it must not come to nothing by a slip. */
function wordsOf(variable: string): string[] {
  const words = variable.split(':').filter((word) => word !== '');
  if (words.length > 0 || variable === '') return words;
  throw new SealiftError('USAGE', `${TRUST_VARIABLE}="${variable}" names no key`, {
    hint: `write ${TRUST_VARIABLE}=release.pub, or unset it`,
  });
}

/**
 * What is trusted here. Keys: from the options, or else from SEALIFT_TRUST, or else from the site's file; what else the
 * site's file says holds in any case.
 * @returns undefined where nobody says anything
 * @throws KEY_INVALID, FILE_NOT_FOUND, SITE_INVALID, USAGE
 */
export async function policyOf(options: TrustOptions, context: Context): Promise<TrustPolicy | undefined> {
  const site = await siteOf(options);
  if (site !== undefined && options.sitePath === undefined) {
    // It may have come on the same stick as the bundle: whoever works there sees who decides.
    context.emit({ type: 'note', message: `what is trusted here says ${join(site.folder, 'site.yaml')}` });
  }
  const variable = wordsOf(context.env[TRUST_VARIABLE] ?? '');
  const own = options.keys ?? [];
  const words = own.length > 0 ? own : variable;
  const isFromSite = words.length === 0;
  const named = isFromSite ? (site?.trust.keys ?? []) : words;
  if (named.length === 0 && site === undefined) return undefined;
  if (named.length > LIMITS.trustedKeys) {
    throw new SealiftError('USAGE', `${named.length} keys are given, more than ${LIMITS.trustedKeys}`);
  }
  const folder = isFromSite ? (site?.folder ?? '.') : '.';
  const keys: PublicKey[] = [];
  for (const word of named) keys.push(await readKey(word, folder));
  const isRequired = !isFromSite || site?.trust.isRequired === true;
  return { keys, isRequired, minVersion: site?.trust.minVersion };
}

/** Nobody said what is trusted. */
export const NO_POLICY: TrustPolicy = { keys: [], isRequired: false, minVersion: undefined };

const UNSIGNED: Trust = { state: 'none', keyId: null, at: null, lock: null, faults: [] };

async function isThere(paths: readonly string[]): Promise<boolean> {
  for (const at of paths) if ((await kindOf(at)) === 'file') return true;
  return false;
}

/** Judges one opened bundle before its documents are believed (`judgeSignatures`). */
export async function judgeBundle(medium: Medium, policy: TrustPolicy | undefined): Promise<Trust> {
  const isPlain = policy === undefined && medium.signature === undefined;
  const volumes = medium.files?.parts.map((part) => part.path);
  if (isPlain && !(await isThere(signaturePaths(medium.path, volumes)))) return UNSIGNED;
  const { judgeSignatures } = await import('../bundle/signature.ts');
  return judgeSignatures(medium, policy ?? NO_POLICY);
}

/** Throws what was judged. */
export function refuseUntrusted(trust: Trust, what: string): void {
  if (trust.faults.length > 0) throw errorOf(trust.faults, `${what}: it is not trusted here`);
}

/** A bundle, and those that are given beside it. */
type Beside = Pick<Given, 'medium' | 'info'> & {
  readonly suppliers: readonly Pick<Given, 'medium' | 'info'>[];
};

/**
 * Judges bundles that belong together. The main one's signature counts; where it has none that is good, as a repair that
 * nobody signed, one with the same lock may vouch for it: a signature names the lock, and the lock every byte.
 */
export async function judgeGiven(
  { medium, info, suppliers }: Beside,
  policy: TrustPolicy | undefined,
): Promise<{ readonly trust: Trust; readonly isOwn: boolean }> {
  const trust = await judgeBundle(medium, policy);
  if (trust.faults.length === 0 || info === undefined) return { trust, isOwn: true };
  for (const other of suppliers.filter((s) => s.info?.lock === info.lock)) {
    const found = await judgeBundle(other.medium, policy);
    if (found.state === 'trusted' && found.faults.length === 0) return { trust: found, isOwn: false };
  }
  return { trust, isOwn: true };
}

/**
 * Judges one opened bundle and refuses it before anything of it is used. For a bundle with others beside it (a base, a
 * repair) the main one is judged: its lock names every byte of the others that is taken.
 * @throws SIGNATURE_MISSING, SIGNATURE_INVALID, SIGNATURE_KEY_UNKNOWN, SIGNATURE_COMMENT_MISMATCH, POLICY_DOWNGRADE
 */
export async function requireTrust(given: Given, policy: TrustPolicy | undefined): Promise<Trust> {
  const { trust } = await judgeGiven(given, policy);
  refuseUntrusted(trust, given.medium.path);
  return trust;
}

/** What another tool made has no signature of ours. @throws SIGNATURE_MISSING */
export function refuseForeign(policy: TrustPolicy | undefined, path: string): void {
  if (policy?.isRequired !== true) return;
  throw new SealiftError('SIGNATURE_MISSING', `${path}: was made by another tool and cannot be signed`, {
    hint: 'pack its images into a bundle with sealift and sign that',
  });
}

/** A lock that came another way. */
interface GivenLock {
  readonly bytes: Buffer;
  /** What they say. */
  lock(): Pick<Lock, 'name' | 'version'>;
}

/**
 * Judges the signature beside a lock that came another way. Whoever gave it trusts it already, so one without a signature is
 * no fault; a signature that is there must be good.
 */
export async function judgeLock(
  path: string,
  given: GivenLock,
  policy: TrustPolicy | undefined,
): Promise<Trust> {
  const beside = signaturePaths(path);
  return (await isThere(beside)) ? judgeLockBy(path, given, policy) : UNSIGNED;
}

/**
 * Judges the signature that one of these keys must have made of a lock.
 * @throws KEY_INVALID, FILE_NOT_FOUND, SITE_INVALID, USAGE
 */
export async function judgeSignedLock(
  path: string,
  given: GivenLock,
  who: TrustOptions & { readonly context: Context },
): Promise<Trust> {
  return judgeLockBy(path, given, await policyOf(who, who.context));
}

async function judgeLockBy(path: string, given: GivenLock, policy: TrustPolicy | undefined): Promise<Trust> {
  const [{ signaturesIn }, { judgeTrust }, { messageHash }] = await Promise.all([
    import('../bundle/signature.ts'),
    import('../trust/policy.ts'),
    import('../trust/signature.ts'),
  ]);
  const lock = digestOf(given.bytes);
  return judgeTrust(await signaturesIn(signaturePaths(path)), policy ?? NO_POLICY, {
    what: path,
    hash: async () => messageHash().update(given.bytes).digest(),
    facts: () => {
      const { name, version } = given.lock();
      return { name, version, lock };
    },
  });
}
