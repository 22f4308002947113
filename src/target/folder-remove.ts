import { lstat, realpath, rename, rm } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { hashFile, hashTree } from '../helm/tree.ts';
import { besidePath, diskError, errnoOf, syncFolder } from '../io/files.ts';
import { type AddedItem, type Removal, type RemoveOptions, removing } from './removal.ts';

/** The one path that an item added, which must lie inside the folder: a receipt may have been written by anybody. */
async function ownPath(dir: string, item: AddedItem): Promise<string> {
  const [path = '', ...others] = item.added.names;
  const below = relative(dir, path);
  const isInside = isAbsolute(path) && below !== '' && below !== '..' && !below.startsWith(`..${sep}`);
  const parent = isInside ? await realpath(dirname(path)).catch(() => undefined) : undefined;
  const root = await realpath(dir).catch(() => undefined);
  if (others.length > 0 || !isInside) {
    throw new SealiftError('TARGET_CONFLICT', `${path}: does not lie in ${dir}`, {
      hint: 'the receipt was changed, or is of another folder',
    });
  }
  if (parent === undefined || root === undefined || parent === root || parent.startsWith(root + sep))
    return path;
  throw new SealiftError('TARGET_CONFLICT', `${path}: a link leads out of ${dir}`, {
    hint: 'look at the folder: something replaced a part of it by a link',
  });
}

/** The digest of what is at a path, by its kind; undefined where nothing is, null for something else. */
async function digestAt(path: string, kind: 'chart' | 'file'): Promise<Digest | null | undefined> {
  try {
    const found = await lstat(path);
    if (kind === 'file') return found.isFile() ? await hashFile(path) : null;
    return found.isDirectory() ? (await hashTree(path)).digest : null;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    // A tree with links or special files in it is nobody's of ours.
    if (error instanceof SealiftError) return null;
    throw diskError(error, path);
  }
}

/** Removes by a rename first: a kill leaves nothing half there. */
async function removePath(path: string): Promise<void> {
  const aside = besidePath(path);
  try {
    await rename(path, aside);
    await rm(aside, { recursive: true, force: true });
    await syncFolder(dirname(path));
  } catch (error) {
    throw diskError(error, path);
  }
}

/**
 * Takes files, or the folders of charts, out of a folder, where they are still as they were written.
 * @param place.dir absolute
 */
export async function removeFromFolder(
  place: { readonly dir: string; readonly kind: 'chart-tree' | 'files' },
  items: readonly AddedItem[],
  { context, dryRun }: RemoveOptions,
): Promise<Removal[]> {
  const removals: Removal[] = [];
  for (const item of items) {
    context.signal.throwIfAborted();
    const kind = place.kind === 'files' ? 'file' : 'chart';
    const removal = await removing(item, async () => {
      const path = await ownPath(place.dir, item);
      const found = await digestAt(path, kind);
      if (found === undefined) return 'gone';
      if (found !== item.content) return 'changed';
      if (dryRun) return 'remove';
      await removePath(path);
      return 'removed';
    });
    removals.push(removal);
  }
  return removals;
}

/**
 * Removes the lock beside a chart tree once nothing of its bundle is left there.
 * @param lock its digest: another one is another bundle's, or a later version's
 */
export async function removeTreeLock(
  dir: string,
  about: { readonly bundle: string; readonly lock: Digest },
): Promise<void> {
  for (const name of ['versions.lock', `versions.${about.bundle}.lock`]) {
    const path = join(dir, name);
    if ((await digestAt(path, 'file')) === about.lock) await removePath(path);
  }
}
