import { open } from 'node:fs/promises';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { diskError, errnoOf, kindOf, readAt } from '../io/files.ts';
import { diffLocks, type LockDiff } from '../lock/diff.ts';
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
}

interface Side {
  readonly side: DiffSide;
  readonly lock: Lock;
  readonly blobs: ReadonlyMap<Digest, number> | undefined;
}

/** A bundle is a folder or starts with the header of `oci-layout`; everything else is read as a lock. */
async function isBundle(path: string): Promise<boolean> {
  const kind = await kindOf(path);
  if (kind === undefined) {
    throw new SealiftError('FILE_NOT_FOUND', `${path}: no such file`, { hint: 'give two locks or bundles' });
  }
  if (kind === 'folder') return true;
  try {
    const handle = await open(path, 'r');
    try {
      return (await readAt(handle, 0, 512)).toString('latin1').startsWith('oci-layout\0');
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw errnoOf(error) === '' ? error : diskError(error, path);
  }
}

async function readSide(path: string, context: Context): Promise<Side> {
  if (await isBundle(path)) {
    const { lock, blobs } = await blobsOf(path, context);
    return { side: { path, kind: 'bundle', name: lock.name, version: lock.version }, lock, blobs };
  }
  const { lock } = await readLockFile(path);
  return { side: { path, kind: 'lock', name: lock.name, version: lock.version }, lock, blobs: undefined };
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
  return { ...changes, a: a.side, b: b.side, equal, onlyA: alone(a, b), onlyB: alone(b, a) };
}
