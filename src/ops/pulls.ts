import { countOf } from '../core/count.ts';
import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { fault, SealiftError } from '../core/errors.ts';
import { imageName, type Reference } from '../core/reference.ts';
import type { Quota } from '../io/rate-limit.ts';
import { imageSource, type Lock } from '../lock/schema.ts';
import { type ChartAccess, ociReference } from '../source/chart-archive.ts';
import type { ResolveTools } from './resolve.ts';

/** The registry that counts: a GET of a manifest is one pull, HEAD and blobs are none (registry.md 1.3 "Docker Hub"). */
const COUNTING = 'docker.io';

/** A manifest that will be asked for. */
export interface Pull {
  readonly host: string;
  readonly repository: string;
  /** Tag or digest. */
  readonly reference: string;
}

/** Every manifest that a pack asks for, each once at a registry. @param has true for those that need not be asked for */
export function* pullsOfPack(lock: Lock, has: (digest: Digest) => boolean): Generator<Pull> {
  const known = new DigestTable();
  const once = function* ({ host, repository }: Reference, digests: readonly Digest[]): Generator<Pull> {
    for (const reference of digests) {
      // Of the others nobody counts.
      if (host !== COUNTING || known.indexOf(reference) >= 0 || has(reference)) continue;
      known.add(reference);
      yield { host, repository, reference };
    }
  };
  for (const image of lock.images) {
    const beside = (image.referrers ?? []).map((referrer) => referrer.digest);
    const digests = [image.digest, ...Object.values(image.platforms), ...image.others, ...beside];
    yield* once(imageSource(image), digests);
  }
  for (const { source, manifest } of lock.charts) {
    if (source.type === 'oci') yield* once(ociReference(source.ref), [manifest.digest]);
  }
}

/** The manifests that a lock asks for at least: one for each image that is not pinned already. */
export function* pullsOfLock(
  tools: Pick<ResolveTools, 'state' | 'before' | 'check' | 'moves'>,
): Generator<Pull> {
  const { state, before, check, moves } = tools;
  const locked = new Set(Array.from(before?.images ?? [], (image) => image.ref));
  for (const { ref, source } of state.manifest.images) {
    const name = imageName(ref);
    if (locked.has(name) && !moves('image', name) && check.satisfied.images.has(name)) continue;
    const { host, repository } = source;
    yield { host, repository, reference: source.digest ?? source.tag ?? 'latest' };
  }
}

function windowText(ms: number): string {
  const minutes = Math.round(ms / 60_000);
  return minutes >= 60 && minutes % 60 === 0 ? `${minutes / 60} h` : `${minutes} min`;
}

function leftText({ limit, remaining, windowMs, byLogin }: Quota): string {
  const of = limit === undefined ? '' : ` of ${limit}`;
  const window = windowMs === undefined ? '' : ` in ${windowText(windowMs)}`;
  const whose = byLogin === undefined ? '' : byLogin ? ' for this login' : ' for this address';
  return `${remaining}${of}${window} are left${whose}`;
}

/**
 * Says what a run will cost at Docker Hub before the first pull, and how much is left there. Costs one request, which
 * is not counted; none where mirrors are asked first. Where nothing is told, nothing is said.
 * @param pulls at least these
 * @throws REGISTRY_RATE_LIMITED when they are more than what is left and nobody wants to wait (--no-wait)
 */
export async function announcePulls(
  pulls: Iterable<Pull>,
  access: Pick<ChartAccess, 'http' | 'context' | 'registries'>,
): Promise<void> {
  let first: Pull | undefined;
  let needed = 0;
  for (const pull of pulls) {
    if (pull.host !== COUNTING) continue;
    first ??= pull;
    needed += 1;
  }
  if (first === undefined) return;
  const quota = await access.registries.quota(first, first.reference);
  if (quota === undefined) return;
  const { context, http } = access;
  const what = `${COUNTING}: ${countOf(needed, 'pull')} needed, ${leftText(quota)}`;
  if (quota.remaining >= needed) return context.emit({ type: 'note', message: what });
  const end = quota.windowMs === undefined ? undefined : new Date(context.now() + quota.windowMs);
  const until =
    end === undefined ? '' : `; the limit ends at ${end.toISOString().replace(/\.\d+/, '')} at the latest`;
  const login =
    quota.byLogin === true
      ? ''
      : `a login (\`sealift login ${COUNTING}\` or \`docker login\`) gives a higher limit; `;
  if (http.waits) {
    const hint = `${login}else this run waits when the limit is reached (--no-wait: it fails)`;
    return context.emit({
      type: 'warning',
      fault: fault('REGISTRY_RATE_LIMITED', what + until, { hint }),
    });
  }
  throw new SealiftError('REGISTRY_RATE_LIMITED', what + until, {
    hint: `${login}or leave out --no-wait: then the run waits for the limit to end`,
    details: {
      needed,
      ...quota,
      ...(end === undefined ? {} : { resetAt: end.toISOString() }),
    },
  });
}
