import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import {
  diskError,
  kindOf,
  readFileIfExists,
  readNow,
  syncFolder,
  writeAll,
  writeFileAtomic,
} from '../io/files.ts';
import { closeOpened, type Joined, joinFiles, KEPT_OPEN } from '../io/open-file.ts';
import { holdPath, type Paths, pathsOf } from './partial.ts';
import type { BundlePlan } from './plan.ts';
import { backgroundSync, cutBehind, folderSink, type Sink, tarSink, writeFrame } from './sink.ts';
import { type Form, volumePath, volumeSizeIn, volumesFor, volumesIn } from './volumes.ts';

/** A file in the folder under construction that names the volumes: all are whole and are being moved to their final places. */
const WHOLE = 'whole';
/** Bytes that are read at once of what was written. */
const PIECE = 256 * 1024;

/** A volume that is written. Bytes. */
interface Part {
  readonly path: string;
  readonly size: number;
}

/** Makes every volume, and keeps them open where they are not too many. */
async function openParts(folder: string, parts: readonly Part[]): Promise<FileHandle[]> {
  const handles: FileHandle[] = [];
  try {
    for (const { path, size } of parts) {
      const handle = await open(path, (await kindOf(path)) === undefined ? 'wx+' : 'r+', 0o644);
      handles.push(handle);
      await cutBehind(handle, size);
      if (parts.length > KEPT_OPEN) await handles.pop()?.close();
    }
    return handles;
  } catch (error) {
    for (const handle of handles) await handle.close();
    throw diskError(error, folder, { side: 'destination' });
  }
}

/** Has the disk take all volumes. */
async function syncParts(parts: readonly Part[], handles: readonly FileHandle[]): Promise<void> {
  for (const [i, { path }] of parts.entries()) {
    const handle = handles[i] ?? (await open(path, 'r+'));
    try {
      await handle.sync();
    } finally {
      if (handles[i] === undefined) await handle.close();
    }
  }
}

/** Opens what a bundle is written into, beside its final path. @throws DISK_FULL, FILE_UNREADABLE, USAGE */
export async function openSink(
  paths: Paths,
  { plan, kind }: { readonly plan: BundlePlan; readonly kind: Form },
): Promise<Sink> {
  const volumeSize = volumeSizeIn(kind);
  if (volumeSize !== undefined) return volumeSink(paths, { plan, volumeSize });
  return kind === 'tar' ? tarSink(paths, plan) : folderSink(paths);
}

/**
 * A tar in volumes, each written in its place from the beginning: there is never a whole file. Until all are whole they lie
 * in a folder beside; then they take their names, the first one last.
 */
async function volumeSink(
  paths: Paths,
  { plan, volumeSize }: { readonly plan: BundlePlan; readonly volumeSize: number },
): Promise<Sink> {
  const { partial, out } = paths;
  const orDiskError = (error: unknown): never => {
    throw diskError(error, partial, { side: 'destination' });
  };
  const { count, width } = volumesFor(plan.size, volumeSize);
  await mkdir(partial, { recursive: true }).catch(orDiskError);
  const ends = Array.from({ length: count }, (_, i) => Math.min(plan.size, (i + 1) * volumeSize));
  const stem = join(partial, basename(out));
  const parts: Part[] = ends.map((end, i) => ({
    path: volumePath(stem, i + 1, width),
    size: end - i * volumeSize,
  }));
  const handles = await openParts(partial, parts);
  const files = parts.map(({ path }, i) => handles[i]?.fd ?? path);
  const file = joinFiles({ files, ends, flags: 'r+' });
  const sync = backgroundSync(handles);
  let closed = false;
  const close = async (): Promise<void> => {
    // The system tells a failed sync once: what is in the files cannot be believed by a later run.
    await sync.settle().catch(() => rm(paths.journal, { force: true }));
    if (!closed) for (const handle of handles) await handle.close();
    closed = true;
    closeOpened(file);
  };
  return {
    path: partial,
    slot: async (entry) => ({
      file,
      path: partial,
      position: entry.offset,
      write: (chunk, position) => writeAll(file, chunk, { position: entry.offset + position, path: partial }),
      read: (length) => pieces(file, entry.offset, length),
      close: async () => {},
    }),
    wrote: sync.wrote,
    finish: async () => {
      writeFrame(file, plan, partial);
      await sync.settle().catch(orDiskError);
      await syncParts(parts, handles).catch(orDiskError);
      await close();
      await writeFileAtomic(join(partial, WHOLE), parts.map(({ path }) => basename(path)).join('\n')).catch(
        orDiskError,
      );
      await settleVolumes(out);
    },
    close,
  };
}

async function* pieces(file: Joined, from: number, length: number): AsyncGenerator<Buffer> {
  for (let done = 0; done < length; ) {
    const bytes = readNow(file, from + done, Math.min(PIECE, length - done));
    done += bytes.length;
    yield bytes;
  }
}

/**
 * Older volumes where new ones come, each first one last. With numbers of another width only those that follow each other from
 * the first on: a file that ends in a year is none of them.
 */
async function olderVolumes(out: string, names: readonly string[]): Promise<string[]> {
  const width = (path: string): number => path.length - path.lastIndexOf('.') - 1;
  const all = await volumesIn(dirname(out), basename(out));
  const following = new Map<number, number>();
  const isOlder = (path: string): boolean => {
    const digits = width(path);
    if (digits === width(names[0] ?? '')) return true;
    const next = (following.get(digits) ?? 0) + 1;
    if (basename(path) !== basename(volumePath(out, next, digits))) return false;
    following.set(digits, next);
    return true;
  };
  return all.filter(isOlder).reverse();
}

/**
 * Ends what a run that was stopped had begun: whole volumes get their final names. Not while another run does that.
 * @throws PACK_BUSY, FILE_UNREADABLE, DISK_FULL
 */
export async function settleStopped(out: string, verb?: 'pack' | 'merge'): Promise<void> {
  if ((await kindOf(join(pathsOf(out).partial, WHOLE))) === undefined) return;
  const release = await holdPath(out, verb);
  try {
    await settleVolumes(out);
  } finally {
    await release();
  }
}

/**
 * Gives whole volumes their final names, also those of a run that was stopped while it did. Older volumes of this name go
 * first, so that none of them is taken for one of these. Does nothing where no whole volumes wait.
 * @throws FILE_UNREADABLE, DISK_FULL
 */
async function settleVolumes(out: string): Promise<void> {
  const { partial } = pathsOf(out);
  const list = await readFileIfExists(join(partial, WHOLE));
  if (list === undefined) return;
  const names = list.toString('utf8').split('\n');
  const folder = dirname(out);
  try {
    const there = new Set(await readdir(partial));
    const waiting = names.filter((name) => there.has(name));
    const moved = new Set(names.filter((name) => !there.has(name)));
    // Where none waits the older ones went before, and what is there now may be a signature.
    for (const path of waiting.length === 0 ? [] : await olderVolumes(out, names)) {
      if (!moved.has(basename(path))) await rm(path, { force: true });
    }
    // The first one moves last: it is the one that the verbs take.
    for (const name of waiting.reverse()) await rename(join(partial, name), join(folder, name));
    await syncFolder(folder);
    await rm(partial, { recursive: true, force: true });
  } catch (error) {
    throw diskError(error, out, { side: 'destination' });
  }
}
