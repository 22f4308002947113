import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, fault } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError, kindOf, readRange, syncFolder } from '../io/files.ts';
import { digestStream } from '../io/verify.ts';
import { readChartArchive } from './archive.ts';
import { type ChartContent, treeDigest } from './content.ts';
import { compareBytes, isOddPath } from './paths.ts';

/** A path below a folder, in `/` form. */
export interface TreeFile {
  readonly path: string;
  readonly kind: 'file' | 'folder' | 'link' | 'special';
}

/** What an unpacked chart holds. */
export interface TreeListing {
  /** Path → SHA-256, in byte order. */
  readonly entries: ReadonlyMap<string, Digest>;
  /** Links, devices and names that no chart may have, by path. */
  readonly faults: ReadonlyMap<string, Fault>;
}

/**
 * Walks a folder without following links; a folder comes before what is in it.
 * @param enter whether to go into a folder, and to list a file
 */
export async function* walkTree(
  dir: string,
  enter: (file: TreeFile) => boolean = () => true,
): AsyncGenerator<TreeFile> {
  let count = 0;
  const pending: string[] = [''];
  for (let folder = pending.pop(); folder !== undefined; folder = pending.pop()) {
    const items = await readdir(join(dir, folder), { withFileTypes: true }).catch((error: unknown) => {
      throw diskError(error, join(dir, folder ?? ''));
    });
    for (const item of items.sort((a, b) => compareBytes(a.name, b.name))) {
      const path = folder === '' ? item.name : `${folder}/${item.name}`;
      const kind = item.isFile()
        ? 'file'
        : item.isDirectory()
          ? 'folder'
          : item.isSymbolicLink()
            ? 'link'
            : 'special';
      if (++count > LIMITS.chartFiles) {
        throw errorOf([fault('CHART_ARCHIVE_BOMB', `${dir}: more than ${LIMITS.chartFiles} files`)], dir);
      }
      if (!enter({ path, kind })) continue;
      if (kind === 'folder') pending.push(path);
      yield { path, kind };
    }
  }
}

/** Why a file of a tree cannot be in a chart; undefined for a plain file or folder. */
export function treeFault(file: TreeFile, dir: string): Fault | undefined {
  const where = `${dir}: ${JSON.stringify(file.path.slice(0, 200))}`;
  const hint = 'a chart holds only files: replace it by a copy, or remove it';
  if (file.kind === 'link') return fault('CHART_ARCHIVE_LINK', `${where} is a symbolic link`, { hint });
  if (file.kind === 'special') return fault('CHART_ARCHIVE_SPECIAL', `${where} is no regular file`, { hint });
  if (isOddPath(file.path)) {
    return fault('CHART_ARCHIVE_INVALID', `${where}: the name has characters that no chart may have`);
  }
  return undefined;
}

/** Opens a file but never through a link that took its place. */
export async function openPlain(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    throw diskError(error, path);
  }
}

export async function hashFile(path: string): Promise<Digest> {
  const handle = await openPlain(path);
  try {
    const range = { position: 0, length: Number.MAX_SAFE_INTEGER };
    return (await digestStream(readRange(handle, range))).digest;
  } catch (error) {
    throw diskError(error, path);
  } finally {
    await handle.close();
  }
}

/** Every file below `dir` with its hash. Empty folders do not count. */
export async function listTree(dir: string): Promise<TreeListing> {
  const found: [string, Digest][] = [];
  const faults = new Map<string, Fault>();
  for await (const file of walkTree(dir)) {
    const bad = treeFault(file, dir);
    if (bad !== undefined) faults.set(file.path, bad);
    else if (file.kind === 'file') found.push([file.path, await hashFile(join(dir, file.path))]);
  }
  return { entries: new Map(found.sort((a, b) => compareBytes(a[0], b[0]))), faults };
}

/**
 * The tree hash of an unpacked chart: the same as `ChartContent.tree` of its archive when nobody touched it.
 * @throws CHART_ARCHIVE_LINK, CHART_ARCHIVE_SPECIAL, CHART_ARCHIVE_INVALID with every fault
 */
export async function hashTree(dir: string): Promise<{ readonly digest: Digest; readonly files: number }> {
  const { entries, faults } = await listTree(dir);
  if (faults.size > 0) {
    throw errorOf([...faults.values()], `${dir}: ${faults.size} entries that no chart may have`);
  }
  return { digest: treeDigest(entries), files: entries.size };
}

/** How a tree on disk differs from what it should be; all lists in byte order, all empty when it is untouched. */
export interface TreeDifference {
  /** Other content, or something else than a file. */
  readonly changed: readonly string[];
  readonly missing: readonly string[];
  readonly extra: readonly string[];
}

/**
 * Compares a folder with the files that it should hold (`ChartContent.entries`).
 * A folder that is not there has every file missing.
 */
export async function diffTree(dir: string, expected: ReadonlyMap<string, Digest>): Promise<TreeDifference> {
  const isAbsent = (await kindOf(dir)) === undefined;
  const { entries, faults }: TreeListing = isAbsent
    ? { entries: new Map(), faults: new Map() }
    : await listTree(dir);
  const there = (path: string): boolean => entries.has(path) || faults.has(path);
  const paths = [...expected.keys()].sort(compareBytes);
  return {
    changed: paths.filter((p) => there(p) && entries.get(p) !== expected.get(p)),
    missing: paths.filter((p) => !there(p)),
    extra: [...entries.keys(), ...faults.keys()].filter((p) => !expected.has(p)).sort(compareBytes),
  };
}

async function writeSynced(path: string, data: Buffer): Promise<void> {
  try {
    const handle = await open(path, 'wx', 0o644);
    try {
      await handle.writeFile(data);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw diskError(error, path);
  }
}

/**
 * Unpacks a chart archive so that `dir` is what `helm pull --untar` makes of it: files 0644 and folders 0755 under the
 * umask, no BOM, no empty folders. Everything is on disk when the promise is fulfilled; when it is rejected the caller
 * removes `dir`, which should be a temporary folder beside the final one.
 * @param options.dir empty or absent
 * @throws as `readChartArchive`; FILE_UNREADABLE, DISK_FULL
 */
export async function unpackChart(
  source: AsyncIterable<Uint8Array>,
  options: { readonly dir: string; readonly what: string },
): Promise<ChartContent> {
  const { dir, what } = options;
  const folders = new Set<string>();
  const make = async (folder: string): Promise<void> => {
    if (folders.has(folder)) return;
    await mkdir(folder, { recursive: true, mode: 0o755 }).catch((error: unknown) => {
      throw diskError(error, folder);
    });
    for (let at = folder; at.length >= dir.length && !folders.has(at); at = dirname(at)) folders.add(at);
  };
  await make(dir);
  const content = await readChartArchive(source, {
    what,
    async onFile(path, data) {
      const target = join(dir, path);
      await make(dirname(target));
      await writeSynced(target, data);
    },
  });
  for (const folder of [...folders].sort(compareBytes).reverse()) await syncFolder(folder);
  return content;
}
