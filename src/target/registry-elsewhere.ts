import type { Digest } from '../core/digest.ts';
import { isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { mapBounded } from '../io/pool.ts';
import type { Registry } from '../oci/registry.ts';

/** Blobs that are asked for at once. */
const ASK_PARALLEL = 8;
/** Repositories in which the last blobs were found: what lay together before is mostly found together. */
const RECENT = 4;

function lastPart(repository: string): string {
  return repository.slice(repository.lastIndexOf('/') + 1);
}

/** The repositories of a registry; none where it does not tell them, or not to us. */
async function repositoriesOf(registry: Registry): Promise<string[]> {
  try {
    return await registry.listRepositories();
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    return [];
  }
}

/** A repository that may not be read has nothing for us. */
async function hasBlob(registry: Registry, repository: string, digest: Digest): Promise<boolean> {
  try {
    return await registry.hasBlob(repository, digest);
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    return false;
  }
}

/**
 * Looks for blobs in the repositories of a registry that do not need them: an image that was renamed or moved between two
 * deliveries is where the older one put it. Repositories with the same last part of the name come first, and only so
 * many questions are asked.
 * @param about.own repositories that something is loaded into
 * @param about.usersOf the repositories that need a blob
 * @returns one repository for each blob that is found
 */
export async function findElsewhere(
  digests: readonly Digest[],
  about: {
    readonly registry: Registry;
    readonly signal: AbortSignal;
    readonly own: readonly string[];
    readonly usersOf: (digest: Digest) => readonly string[];
    /** Questions in all; default LIMITS.blobsElsewhere. */
    readonly most?: number;
  },
): Promise<Map<Digest, string>> {
  const { registry, signal, own, usersOf } = about;
  const all = [...new Set([...own, ...(await repositoriesOf(registry))])];
  const byPart = new Map<string, string[]>();
  for (const name of all) {
    const same = byPart.get(lastPart(name));
    if (same === undefined) byPart.set(lastPart(name), [name]);
    else same.push(name);
  }
  const found = new Map<Digest, string>();
  let recent: readonly string[] = [];
  let left: number = about.most ?? LIMITS.blobsElsewhere;
  /** Where a blob may be: each repository once. There may be very many of both, so it is no list. */
  function* placesFor(users: readonly string[]): Generator<string> {
    const told = new Set(users);
    const alike = [...new Set(users.map(lastPart))].flatMap((part) => byPart.get(part) ?? []);
    for (const list of [recent, alike, all]) {
      for (const name of list) {
        if (told.has(name)) continue;
        told.add(name);
        yield name;
      }
    }
  }
  await mapBounded(digests, { limit: ASK_PARALLEL, signal }, async (digest) => {
    for (const repository of placesFor(usersOf(digest))) {
      if (left === 0) return;
      left -= 1;
      if (!(await hasBlob(registry, repository, digest))) continue;
      found.set(digest, repository);
      recent = [repository, ...recent.filter((name) => name !== repository)].slice(0, RECENT);
      return;
    }
  });
  return found;
}
