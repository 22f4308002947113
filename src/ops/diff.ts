import { beginsAsBundle, placeAt } from '../bundle/volumes.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { kindOf } from '../io/files.ts';
import { type DiffChange, type DiffKind, diffLocks, type LockDiff } from '../lock/diff.ts';
import type { Lock } from '../lock/schema.ts';
import { lockBytes } from '../lock/write.ts';
import { readLockFile } from './lock.ts';
import { blobsOf } from './ls.ts';

/** What one side of a comparison is. */
export interface DiffSide {
  readonly path: string;
  readonly kind: 'lock' | 'bundle';
  readonly name: string;
  readonly version: string;
}

/** Bytes of everything below an entry; null on a side that does not have it, or does not know because it is a lock. */
export interface EntrySize {
  readonly kind: DiffKind;
  /** As the entry is called in the result. */
  readonly name: string;
  readonly from: number | null;
  readonly to: number | null;
}

export interface DiffResult extends LockDiff {
  readonly a: DiffSide;
  readonly b: DiffSide;
  readonly equal: boolean;
  /**
   * Bytes and number of blobs that only one side has. Between two bundles they are exact; where one side is a lock
   * nothing is known about layers, and this is null.
   */
  readonly onlyA: { readonly blobs: number; readonly bytes: number } | null;
  readonly onlyB: { readonly blobs: number; readonly bytes: number } | null;
  /** Of the entries that differ, as far as a side is a bundle. */
  readonly sizes: readonly EntrySize[];
}

interface Side {
  readonly side: DiffSide;
  readonly lock: Lock;
  readonly blobs: ReadonlyMap<Digest, number> | undefined;
  /** By `<kind> <name>`; none of a lock. */
  readonly sizes: ReadonlyMap<string, number>;
}

/** A bundle is a folder or starts with the header of `oci-layout`; everything else is read as a lock. */
async function isBundle(path: string): Promise<boolean> {
  const place = await placeAt(path);
  if (typeof place !== 'string') return true;
  const kind = await kindOf(path);
  if (kind === undefined) {
    throw new SealiftError('FILE_NOT_FOUND', `${path}: no such file`, { hint: 'give two locks or bundles' });
  }
  if (kind === 'folder') return true;
  return beginsAsBundle(path);
}

async function readSide(path: string, context: Context): Promise<Side> {
  if (await isBundle(path)) {
    const content = await blobsOf(path, context);
    const { name, version } = content.lock;
    return { side: { path, kind: 'bundle', name, version }, ...content };
  }
  const { lock } = await readLockFile(path);
  const { name, version } = lock;
  return { side: { path, kind: 'lock', name, version }, lock, blobs: undefined, sizes: new Map() };
}

/** What an entry that moved on was called before: its name with the other tag or version at its end. */
function nameBefore({ name, changes }: DiffChange): string {
  const moved = changes.find((c) => c.fact === 'tag' || c.fact === 'version');
  if (moved === undefined || moved.to === null || !name.endsWith(moved.to)) return name;
  return name.slice(0, -moved.to.length) + (moved.from ?? '');
}

function entrySizes({ added, removed, changed }: LockDiff, a: Side, b: Side): EntrySize[] {
  const pairs = [
    ...changed.map((c) => ({ kind: c.kind, name: c.name, before: nameBefore(c), after: c.name })),
    ...added.map(({ kind, name }) => ({ kind, name, before: '', after: name })),
    ...removed.map(({ kind, name }) => ({ kind, name, before: name, after: '' })),
  ];
  return pairs
    .map(({ kind, name, before, after }) => {
      const from = a.sizes.get(`${kind} ${before}`) ?? null;
      const to = b.sizes.get(`${kind} ${after}`) ?? null;
      return { kind, name, from, to };
    })
    .filter(({ from, to }) => from !== null || to !== null);
}

function alone(of: Side, other: Side): DiffResult['onlyA'] {
  if (of.blobs === undefined || other.blobs === undefined) return null;
  const own = [...of.blobs].filter(([digest]) => other.blobs?.has(digest) !== true);
  return { blobs: own.length, bytes: own.reduce((sum, [, size]) => sum + size, 0) };
}

/**
 * Compares any two of lock and bundle.
 * @throws LOCK_INVALID, BUNDLE_…, FILE_NOT_FOUND
 */
export async function diff(pathA: string, pathB: string, context: Context): Promise<DiffResult> {
  const a = await readSide(pathA, context);
  const b = await readSide(pathB, context);
  const changes = diffLocks(a.lock, b.lock);
  const equal = lockBytes(a.lock).equals(lockBytes(b.lock));
  const only = { onlyA: alone(a, b), onlyB: alone(b, a) };
  return { ...changes, a: a.side, b: b.side, equal, ...only, sizes: entrySizes(changes, a, b) };
}
