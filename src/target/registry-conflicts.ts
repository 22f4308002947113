import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { backoffMs } from '../io/http.ts';
import { sleep } from '../io/pool.ts';
import type { ManifestContent, Registry } from '../oci/registry.ts';
import type { PlacedEntry } from './registry-plan.ts';
import { isRefusal, LOST_BLOB } from './registry-refusals.ts';
import { failEntry, type OnConflict } from './target.ts';

/** What happens to a tag that leads to something else. */
export interface ConflictRule {
  readonly onConflict: OnConflict;
  /** The tag `latest` is written over whatever the rule: the repository says that it moves (Nexus's latestPolicy). */
  readonly movesLatest: boolean;
}

/** A tag or a digest of a repository. */
interface NamePlace {
  readonly repository: string;
  readonly reference: string;
}

/** Something else is under an entry's name. @param by who forbids to write over it */
export function conflictOf(entry: PlacedEntry, found: string, by: 'us' | 'registry'): SealiftError {
  const own = entry.item.root.digest;
  const hint =
    by === 'us'
      ? 'nothing was changed there: load under another tag, or say onConflict: replace (or keep) for this target'
      : 'the registry takes every tag once (Nexus: deployment policy "Disable redeploy"): load under another tag, delete the old one, or let its owner allow redeploys (for `latest` alone: "Allow redeploy only on latest tag")';
  return new SealiftError('TARGET_CONFLICT', `${entry.as}: is ${found} there, and ${own} here`, {
    hint,
    details: { found, expected: own },
    side: 'destination',
  });
}

/** Decides about a tag that leads to something else: the entry fails, is kept as it is there, or is written over. */
export function meetConflict(entry: PlacedEntry, found: Digest, rule: ConflictRule): void {
  const { repository, tag } = entry.place;
  const isMoved =
    rule.onConflict === 'replace' || (rule.onConflict === 'fail' && tag === 'latest' && rule.movesLatest);
  if (isMoved) {
    entry.notes.push(`${repository}:${tag} is ${found} there and becomes ${entry.item.root.digest}`);
  } else if (rule.onConflict === 'keep') entry.state = 'kept';
  else failEntry(entry, conflictOf(entry, found, 'us'));
}

/**
 * Puts a manifest where it may be already: a repository that takes every name once refuses it then, and where the same
 * is there that is no failure (registry.md 2.8).
 * @returns the registry's word about the referrers, or `there` when it had it
 * @throws what the registry said, as `putManifest`
 */
export async function putOrFind(
  registry: Registry,
  place: NamePlace,
  about: { readonly content: ManifestContent; readonly context: Context },
): Promise<{ readonly indexed: boolean; readonly there: boolean }> {
  const { repository, reference } = place;
  const { content, context } = about;
  try {
    return { ...(await registry.putManifest(repository, reference, content)), there: false };
  } catch (error) {
    if (!isOnce(error)) throw error;
    const asks = error.details?.policy === 'once' ? LIMITS.tries : 1;
    const found = await appearing(registry, place, { asks, context });
    if (found !== content.descriptor.digest) throw error;
    return { indexed: false, there: true };
  }
}

/** What is found under a name that somebody else may be about to write. */
async function appearing(
  registry: Registry,
  { repository, reference }: NamePlace,
  about: { readonly asks: number; readonly context: Context },
): Promise<Digest | undefined> {
  const { asks, context } = about;
  for (let ask = 1; ; ask += 1) {
    const found = await registry.resolve(repository, reference);
    if (found !== undefined || ask >= asks) return found;
    const waitMs = backoffMs(ask, context.random);
    const what = `${repository} manifest ${reference}`;
    context.emit({ type: 'retry', what, reason: 'not there yet', waitMs: Math.round(waitMs) });
    await sleep(waitMs, context.signal);
  }
}

/** A refusal that may only say that the name is taken. */
function isOnce(error: unknown): error is SealiftError {
  if (!(error instanceof SealiftError) || isRefusal(error, LOST_BLOB)) return false;
  const { status, policy } = error.details ?? {};
  return policy !== 'read-only' && (status === 400 || status === 409);
}

/**
 * Has a tag lead to a manifest. What came under it since the plan is a conflict as any other.
 * @returns false where it stays as it is there
 * @throws TARGET_CONFLICT where the registry does not let it move
 */
export async function putTag(
  registry: Registry,
  entry: PlacedEntry,
  about: { readonly content: ManifestContent; readonly context: Context; readonly rule: ConflictRule },
): Promise<boolean> {
  const { repository, tag } = entry.place;
  const { digest } = about.content.descriptor;
  if (tag === undefined || entry.found === digest) return true;
  if (entry.found === undefined && about.rule.onConflict !== 'replace') {
    const found = await registry.resolve(repository, tag);
    if (found !== undefined && found !== digest) {
      entry.found = found;
      entry.added = { names: [], manifests: entry.added?.manifests ?? [] };
      meetConflict(entry, found, about.rule);
      if (entry.state !== 'write') return false;
    }
  }
  try {
    await putOrFind(registry, { repository, reference: tag }, about);
    return true;
  } catch (error) {
    const found = isOnce(error) ? await registry.resolve(repository, tag) : undefined;
    if (found === undefined) throw error;
    entry.found = found;
    throw conflictOf(entry, found, 'registry');
  }
}
