import type { Descriptor } from '../../core/descriptor.ts';
import type { Digest } from '../../core/digest.ts';
import { type Fault, fault, SealiftError } from '../../core/errors.ts';
import { type Entry, type Item, newEntry, type OnConflict } from '../target.ts';
import type { WebServer } from './server.ts';

/** A repository of a Nexus as a target, in which each item is one file, or a few. */
export interface AssetPlace {
  readonly server: WebServer;
  readonly repository: string;
  readonly onConflict: OnConflict;
}

/** One file in a repository: an entry of its own, so that the receipt says of each what was written. */
export interface AssetEntry extends Entry {
  /** Below the repository, as people write it: `installers/tool.sh`. */
  readonly name: string;
  /** Below the server's base, encoded. */
  readonly path: string;
  readonly blob: Descriptor;
  /** Goes only where that one is. */
  readonly after?: AssetEntry;
  /** SHA-1 of its bytes as they were sent, 40 hex digits: what Nexus tells with HEAD. */
  sha1?: string;
}

/** Characters that no name on a server may have. */
const HOSTILE = /[\p{Cc}\p{Cs}\\]/u;

/**
 * The encoded path of a file in a repository (registry.md 2.4): each segment percent-encoded.
 * @throws TARGET_FAILED for a name that a server would read as another one
 */
export function assetPath({ repository }: Pick<AssetPlace, 'repository'>, name: string): string {
  const segments = name.split('/');
  const isHostile = HOSTILE.test(name) || segments.some((s) => s === '' || s === '.' || s === '..');
  if (!isHostile) {
    return ['repository', repository, ...segments].map((s) => encodeURIComponent(s)).join('/');
  }
  throw new SealiftError(
    'TARGET_FAILED',
    `${JSON.stringify(name.slice(0, 200))}: no name for a file on a server`,
    { hint: 'give it a name without empty parts, `.`, `..`, backslashes and control characters' },
  );
}

/** An entry for one file of an item; one that cannot have its name there has failed already. */
export function assetEntry(
  item: Item,
  place: AssetPlace,
  asset: { readonly name: string; readonly blob: Descriptor; readonly after?: AssetEntry },
): AssetEntry {
  const { server, repository } = place;
  try {
    const path = assetPath(place, asset.name);
    return { ...newEntry(item, server.url(path).href), ...asset, path, content: asset.blob.digest };
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    const entry = newEntry(item, `${server.base.href}repository/${encodeURIComponent(repository)}/?`);
    const { message, hint } = error;
    const refused = fault(error.code, message, hint === undefined ? {} : { hint });
    return { ...entry, ...asset, path: '', content: asset.blob.digest, state: 'failed', fault: refused };
  }
}

/** What to do about something else under a name. */
export const CONFLICT_HINT =
  'compare the two; delete the one there, or set `onConflict: replace` (or keep) for this target';

/** Something else is under the name of an entry. Both digests are in the message and in the details. */
export function conflictFault(entry: AssetEntry, hint = CONFLICT_HINT): Fault {
  const expected: Digest = entry.blob.digest;
  const found = entry.found ?? null;
  return fault(
    'TARGET_CONFLICT',
    `${entry.as}: there is something else: expected ${expected}, found ${found ?? 'another size'}`,
    { hint, details: { expected, found } },
  );
}
