import type { Dirent } from 'node:fs';
import { access, constants, readdir } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { diskError, errnoOf, kindOf, spaceOf } from '../io/files.ts';
import { type Finding, finding, findingOf, someOf, type TargetReport } from './finding.ts';

/** Entries of a folder that are looked at. */
const LOOKED_AT = 20_000;
/** How deep files may lie below the folder of a target. */
const DEPTH = 16;

/** The nearest folder above that is there. */
async function nearestOf(folder: string): Promise<string> {
  let at = folder;
  while ((await kindOf(at)) === undefined && dirname(at) !== at) at = dirname(at);
  return at;
}

/** A folder that cannot be read is somebody else's. */
function entriesOf(folder: string): Promise<Dirent[]> {
  return readdir(folder, { withFileTypes: true }).catch(() => []);
}

/** What stopped loads left: names as `besidePath` makes them. */
async function leftoversIn(folder: string, depth: number): Promise<string[]> {
  const found: string[] = [];
  const folders: (readonly [string, number])[] = [[folder, 0]];
  let seen = 0;
  for (let next = folders.pop(); next !== undefined && seen < LOOKED_AT; next = folders.pop()) {
    const [at, level] = next;
    for (const entry of await entriesOf(at)) {
      if (++seen > LOOKED_AT) break;
      const path = join(at, entry.name);
      if (/^\..+\.[0-9a-f]{12}\.tmp$/.test(entry.name)) found.push(relative(folder, path));
      else if (entry.isDirectory() && level < depth) folders.push([path, level + 1]);
    }
  }
  return found.sort();
}

function refused(error: unknown, path: string): Finding {
  const errno = errnoOf(error);
  if (errno === 'EROFS') {
    return finding('fault', 'STORE_READ_ONLY', {
      message: `${path}: the file system is read-only`,
      fix: `mount -o remount,rw "$(findmnt -n -o TARGET -T ${path})", or give another folder`,
    });
  }
  if (errno === 'EACCES' || errno === 'EPERM') {
    return finding('fault', 'FOLDER', {
      message: `${path}: this user may not write there`,
      fix: `run the load as the user that it belongs to (ls -ld ${path}), or with sudo`,
    });
  }
  return findingOf(diskError(error, path));
}

/**
 * Checks a folder that is loaded into without writing there: whether it is there or can be made, writable, and what
 * stopped loads left in it.
 * @param kind a chart tree's leftovers lie at its top, those of files beside each
 */
export async function checkFolder(folder: string, kind: 'chart-tree' | 'files'): Promise<TargetReport> {
  const nearest = await nearestOf(folder);
  if ((await kindOf(nearest)) !== 'folder') {
    const fix = `move ${nearest} away, or give another folder`;
    return { findings: [finding('fault', 'FOLDER', { message: `${nearest} is a file, not a folder`, fix })] };
  }
  try {
    await access(nearest, constants.W_OK | constants.X_OK);
  } catch (error) {
    return { findings: [refused(error, nearest)] };
  }
  const isThere = nearest === folder;
  const findings: Finding[] = [
    isThere
      ? finding('ok', 'FOLDER', { message: `${folder} is there and can be written to` })
      : finding('info', 'FOLDER', { message: `${folder} is not there: the load makes it in ${nearest}` }),
  ];
  const left = isThere ? await leftoversIn(folder, kind === 'files' ? DEPTH : 0) : [];
  if (left.length > 0) {
    findings.push(
      finding('warning', 'HALF_WRITTEN', {
        message: `${folder}: a load was stopped while it wrote, and left ${someOf(left)}`,
        fix: 'load the same bundle once more: it finishes what was begun and clears it away',
        details: { left: left.slice(0, 1000) },
      }),
    );
  }
  const { free } = await spaceOf(folder);
  return { findings, ...(Number.isFinite(free) ? { room: { free, where: nearest } } : {}) };
}
