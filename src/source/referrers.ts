import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { type Fault, fault, faultOf, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { imageName, type Reference } from '../core/reference.ts';
import { attachedTags, type Include } from '../core/referrer.ts';
import { mapBounded, throwIfAborted } from '../io/pool.ts';
import type { ReferrerLock } from '../lock/schema.ts';
import { referrerKey } from '../lock/write.ts';
import { parseManifest } from '../oci/manifest.ts';
import { artifactTypeOf } from '../oci/referrers.ts';
import type { Registries } from './registries.ts';

/** Manifests that are asked about at once; each is four requests. */
const ASK_PARALLEL = 2;

/** What travels with an image, and what about it could not be asked or is not what it says. */
export interface FoundReferrers {
  /** In the lock's order. */
  readonly referrers: readonly ReferrerLock[];
  readonly warnings: readonly Fault[];
}

interface Search {
  readonly registries: Registries;
  readonly ref: Reference;
  readonly include: readonly Include[];
  readonly signal: AbortSignal;
  readonly warnings: Fault[];
}

function warn(search: Search, error: unknown, what: string): void {
  throwIfAborted(search.signal);
  if (!(error instanceof SealiftError)) throw error;
  const { code, message } = faultOf(error);
  const name = imageName(search.ref);
  // One host that does not answer says the same about every manifest of the image.
  if (search.warnings.some((w) => w.code === code && w.details?.what === what)) return;
  search.warnings.push(
    fault(code, `${name}: ${what}: ${message}`, {
      details: { name, what },
      hint: `the lock was made without it; ask again with \`sealift lock --update ${name}\`, or write include: [] for the image`,
    }),
  );
}

/** The tags of cosign for one manifest, asked by HEAD: no registry counts that as a pull. */
async function attachedTo(search: Search, subject: Digest): Promise<ReferrerLock[]> {
  const { registries, ref } = search;
  const found = await Promise.all(
    attachedTags(subject).map(async (tag): Promise<ReferrerLock | undefined> => {
      try {
        const there = await registries.describe(ref, tag);
        if (there === undefined) return undefined;
        const { mediaType, digest, size } = there;
        return { digest, mediaType, size, subject, tag };
      } catch (error) {
        warn(search, error, 'its signatures cannot be asked for');
        return undefined;
      }
    }),
  );
  return found.filter((r) => r !== undefined);
}

/** A listed referrer, read: its own `subject` must be what it was listed for. */
async function readReferrer(
  search: Search,
  listed: Descriptor,
  subject: Digest,
): Promise<ReferrerLock | undefined> {
  try {
    const { descriptor, bytes } = await search.registries.getManifest(search.ref, listed.digest);
    const parsed = parseManifest(bytes, descriptor);
    if (parsed.subject?.digest !== subject) {
      const about = parsed.subject?.digest ?? 'nothing';
      throw new SealiftError(
        'OCI_MANIFEST_INVALID',
        `${listed.digest} is listed as a referrer of ${subject}, but is about ${about}`,
      );
    }
    const { mediaType, digest, size } = descriptor;
    const artifactType = artifactTypeOf(parsed);
    return { digest, mediaType, size, subject, ...(artifactType === undefined ? {} : { artifactType }) };
  } catch (error) {
    warn(search, error, `the referrer ${listed.digest} is left out`);
    return undefined;
  }
}

/** What the referrers API, or the fallback tag, lists for one manifest. */
async function referrersOf(search: Search, subject: Digest): Promise<ReferrerLock[]> {
  let list: readonly Descriptor[];
  try {
    list = await search.registries.referrers(search.ref, subject);
  } catch (error) {
    if (error instanceof SealiftError && error.code === 'CONTENT_TOO_LARGE') throw error;
    warn(search, error, 'its referrers cannot be asked for');
    return [];
  }
  const limits = { limit: ASK_PARALLEL, signal: search.signal };
  const read = await mapBounded(list, limits, (listed) => readReferrer(search, listed, subject));
  return read.filter((r) => r !== undefined);
}

/** One manifest's own, by both ways: first by the one that costs less where the host does not answer. */
async function ask(search: Search, subject: Digest): Promise<ReferrerLock[]> {
  const attached = search.include.includes('signatures') ? await attachedTo(search, subject) : [];
  const referring = search.include.includes('referrers') ? await referrersOf(search, subject) : [];
  return [...attached, ...referring];
}

function tooMany(search: Search): SealiftError {
  return new SealiftError(
    'CONTENT_TOO_LARGE',
    `${imageName(search.ref)}: more than ${LIMITS.referrers} signatures, attestations and referrers`,
    { hint: 'leave them out for this image with {ref: …, include: []}' },
  );
}

/**
 * Finds the signatures, attestations and other referrers of every carried manifest of an image, and theirs in turn
 * (registry.md 1.5). What cannot be asked, or is about something else, is a warning: the image itself is not in doubt.
 * @throws CONTENT_TOO_LARGE when there are more than LIMITS.referrers; ABORTED
 */
export async function findReferrers(
  registries: Registries,
  wanted: {
    readonly ref: Reference;
    /** Every carried manifest and index. */
    readonly subjects: readonly Digest[];
    readonly include: readonly Include[];
    readonly signal: AbortSignal;
  },
): Promise<FoundReferrers> {
  const { ref, include, signal } = wanted;
  const search: Search = { registries, ref, include, signal, warnings: [] };
  const own = new Set(wanted.subjects);
  const asked = new Set<Digest>();
  const found: ReferrerLock[] = [];
  let level: Digest[] = include.length === 0 ? [] : [...own];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > LIMITS.referrerDepth) {
      const deep = `referrers of referrers are followed ${LIMITS.referrerDepth} deep, there are more`;
      warn(search, new SealiftError('OCI_MANIFEST_INVALID', deep), 'some are left out');
      break;
    }
    for (const digest of level) asked.add(digest);
    const lists = await mapBounded(level, { limit: ASK_PARALLEL, signal }, (subject) => ask(search, subject));
    // A tag may lead back to the image itself, or to a referrer that was found before: such a way ends there.
    const fresh = lists.flat().filter((r) => !own.has(r.digest) && r.digest !== r.subject);
    found.push(...fresh);
    if (found.length > LIMITS.referrers) throw tooMany(search);
    level = [...new Set(fresh.map((r) => r.digest))].filter((d) => !asked.has(d));
  }
  return { referrers: found.sort(inLockOrder), warnings: search.warnings };
}

function inLockOrder(a: ReferrerLock, b: ReferrerLock): number {
  const [x, y] = [referrerKey(a), referrerKey(b)];
  return x < y ? -1 : x > y ? 1 : 0;
}
