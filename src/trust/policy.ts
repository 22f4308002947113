import type { Digest } from '../core/digest.ts';
import { type Fault, fault } from '../core/errors.ts';
import { parseTrustedComment, trustedComment, type Vouched } from './comment.ts';
import type { PublicKey } from './public-key.ts';
import { checkSignature, type Signature } from './signature.ts';
import { compareVersions } from './versions.ts';

/** Who and what a site trusts. Without keys nothing about signatures is judged. */
export interface TrustPolicy {
  /** The signature of any one of them is enough. */
  readonly keys: readonly PublicKey[];
  /** Refuse what has no signature at all. */
  readonly isRequired: boolean;
  /** The lowest version that is taken: of every bundle, or by its name. */
  readonly minVersion: string | Readonly<Record<string, string>> | undefined;
}

/** A signature that was found: read, or why it cannot be. */
export interface Candidate {
  /** Where it lies, for messages. */
  readonly what: string;
  /** Part of the bundle itself: then one that cannot be read is damage, whoever trusts it. */
  readonly isInside: boolean;
  readonly signature: Signature | Fault;
}

/** What was judged about the signatures of a bundle or a lock. */
export interface Trust {
  /**
   * `none`: there is no signature. `unchecked`: there is one, and nobody gave a key. `trusted`: one fits and is of a
   * trusted key. `refused`: see the faults.
   */
  readonly state: 'none' | 'unchecked' | 'trusted' | 'refused';
  /** Of the signature that counted, or the first one. */
  readonly keyId: string | null;
  /** Where that signature lies. */
  readonly at: string | null;
  /** The lock that it vouches for; null unless `trusted`. */
  readonly lock: Digest | null;
  readonly faults: readonly Fault[];
}

/** What is judged: its name for messages, the hash of the signed bytes, and what its own documents say. */
export interface Judged {
  readonly what: string;
  /** BLAKE2b-512 of the signed bytes; asked for only where there is a key and a signature. */
  hash(): Promise<Buffer>;
  /** undefined where it cannot be read: the fault of that is told by its reader. Asked for behind a good signature. */
  facts(): Vouched | undefined;
}

/** What is wrong with one signature; undefined when it is good and of a trusted key. */
async function faultOf(
  { what, signature }: Candidate,
  { keys }: TrustPolicy,
  judged: Judged,
): Promise<Fault | undefined> {
  if ('code' in signature) return signature;
  const { keyId, comment } = signature;
  const known = keys.filter((key) => key.id === keyId);
  if (known.length === 0) {
    return fault(
      'SIGNATURE_KEY_UNKNOWN',
      `${what}: signed with the key ${keyId}, which is not trusted here (trusted: ${keys.map((k) => k.id).join(', ')})`,
      {
        hint: 'if this key is right, get its public key from the one who signed, on another way than the bundle',
        details: { keyId, trusted: keys.map((k) => k.id) },
      },
    );
  }
  const hash = await judged.hash();
  const verdicts = known.map((key) => checkSignature(signature, hash, key));
  if (!verdicts.includes('good')) {
    const isComment = verdicts.includes('wrong-comment');
    const why = isComment
      ? 'its trusted comment was changed'
      : `it is not a signature of this ${judged.what}`;
    return fault('SIGNATURE_INVALID', `${what}: ${why}`, {
      hint: 'do not use it: get the bundle and its signature again from where they were made',
      details: { keyId },
    });
  }
  return commentFault(what, comment, judged.facts());
}

function commentFault(what: string, comment: string, facts: Vouched | undefined): Fault | undefined {
  const stated = parseTrustedComment(comment);
  const differs = (['name', 'version', 'lock'] as const).filter(
    (key) => stated !== undefined && facts !== undefined && stated[key] !== facts[key],
  );
  if (stated !== undefined && differs.length === 0) return undefined;
  const said = differs.map((key) => `${key} expected ${facts?.[key]}, found ${stated?.[key]}`).join('; ');
  const why = stated === undefined ? 'is not "name=… version=… lock=sha256:…"' : said;
  return fault(
    'SIGNATURE_COMMENT_MISMATCH',
    `${what}: its trusted comment ${stated === undefined ? why : `is of another bundle: ${why}`}`,
    {
      hint: `sign it again with \`sealift sign\`${byMinisign(facts)}`,
      details: { comment: comment.slice(0, 500) },
    },
  );
}

/** How minisign would be told the right comment. */
function byMinisign(facts: Vouched | undefined): string {
  if (facts === undefined) return '';
  try {
    return `, or with \`minisign -S -t '${trustedComment(facts)}'\``;
  } catch {
    return '';
  }
}

/** Below the lowest version that the policy takes. */
function versionFault(policy: TrustPolicy, judged: Judged): Fault | undefined {
  const facts = policy.minVersion === undefined ? undefined : judged.facts();
  if (facts === undefined || policy.minVersion === undefined) return undefined;
  const { name, version } = facts;
  const least =
    typeof policy.minVersion === 'string'
      ? policy.minVersion
      : Object.hasOwn(policy.minVersion, name)
        ? policy.minVersion[name]
        : undefined;
  if (least === undefined || compareVersions(version, least) >= 0) return undefined;
  return fault('POLICY_DOWNGRADE', `${name} ${version}: the policy takes ${least} and newer only`, {
    hint: 'use a newer bundle, or have trust.minVersion in site.yaml lowered by whoever decides it',
    details: { name, version, minVersion: least },
  });
}

/**
 * The one place that decides what "trusted" means. One good signature of a trusted key is enough, whatever others there are;
 * where none is good, every one's fault is told. A signature that is there must be good, also where none is required.
 */
export async function judgeTrust(
  candidates: readonly Candidate[],
  policy: TrustPolicy,
  judged: Judged,
): Promise<Trust> {
  const low = versionFault(policy, judged);
  const lows = low === undefined ? [] : [low];
  const [first] = candidates;
  const idOf = (c: Candidate | undefined): string | null =>
    c === undefined || 'code' in c.signature ? null : c.signature.keyId;
  const about = { keyId: idOf(first), at: first?.what ?? null, lock: null };
  if (first === undefined) {
    const missing = fault('SIGNATURE_MISSING', `${judged.what}: has no signature, and one is required`, {
      hint: 'use the signed one; or sign it where it was made with `sealift sign`',
    });
    const faults = [...(policy.isRequired ? [missing] : []), ...lows];
    return { ...about, state: faults.length > 0 ? 'refused' : 'none', faults };
  }
  if (policy.keys.length === 0) {
    const broken = candidates.flatMap((c) => (c.isInside && 'code' in c.signature ? [c.signature] : []));
    const faults = [...broken, ...lows];
    return { ...about, state: faults.length > 0 ? 'refused' : 'unchecked', faults };
  }
  const faults: Fault[] = [];
  for (const candidate of candidates) {
    const bad = await faultOf(candidate, policy, judged);
    if (bad === undefined) {
      const found = { keyId: idOf(candidate), at: candidate.what, faults: lows };
      if (lows.length > 0) return { ...found, state: 'refused', lock: null };
      return { ...found, state: 'trusted', lock: judged.facts()?.lock ?? null };
    }
    faults.push(bad);
  }
  return { ...about, state: 'refused', faults: [...faults, ...lows] };
}

/** What a place says that it holds already: a receipt, or the lock beside a chart tree. */
export interface Held {
  /** For messages: its path. */
  readonly where: string;
  readonly name: string;
  readonly version: string;
  readonly lock: string;
}

/**
 * An old bundle is an attack too, however rightly it is signed: a lower version than what a place holds of the same bundle,
 * or the same version of another content.
 */
export function downgradeFaults(bundle: Vouched, held: readonly Held[]): Fault[] {
  return held.flatMap(({ where, name, version, lock }) => {
    if (name !== bundle.name) return [];
    const order = compareVersions(bundle.version, version);
    if (order > 0 || (order === 0 && lock === bundle.lock)) return [];
    const why =
      order < 0
        ? `has ${version} already, this bundle is the older ${bundle.version}`
        : `has ${version} with another lock: expected ${lock}, found ${bundle.lock}`;
    return [
      fault('POLICY_DOWNGRADE', `${where}: ${name}: ${why}`, {
        hint: 'to go back on purpose, add --allow-downgrade',
        details: { name, held: version, heldLock: lock, found: bundle.version, foundLock: bundle.lock },
      }),
    ];
  });
}
