import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { MIB } from '../core/limits.ts';
import { diskError, kindOf, readRange, syncFolder, writeAll } from '../io/files.ts';
import type { OpenFile } from '../io/open-file.ts';
import { tarHeader } from '../io/tar.ts';
import type { Paths } from './partial.ts';
import type { BundlePlan, PlannedEntry } from './plan.ts';

/** The place of one entry's content while a bundle is written. */
export interface Slot {
  /** An open file, its path for messages, and where in it the content begins. */
  readonly file: OpenFile;
  readonly path: string;
  readonly position: number;
  /** Writes at `position` bytes from the start of the content. */
  write(chunk: Uint8Array, position: number): void;
  /** Streams the first `length` bytes of what was written. */
  read(length: number): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** A bundle under construction beside its final path: a tar with every entry in its place, or a folder of files. */
export interface Sink {
  /** The path under construction. */
  readonly path: string;
  slot(entry: PlannedEntry): Promise<Slot>;
  /** Hears that so many bytes more are written, and has the disk take them now and then: so the end need not wait for all. */
  wrote(bytes: number): void;
  /** Writes headers and ends, syncs, and puts the result at its final path in one step. */
  finish(): Promise<void>;
  close(): Promise<void>;
}

/** All that is between contents: each header with the padding before it, and the end. */
export function writeFrame(file: OpenFile, plan: BundlePlan, path: string): void {
  let at = 0;
  for (const { name, size, offset } of plan.entries) {
    const frame = Buffer.alloc(offset - at);
    const header = tarHeader(name, size);
    header.copy(frame, frame.length - header.length);
    writeAll(file, frame, { position: at, path });
    at = offset + size;
  }
  writeAll(file, Buffer.alloc(plan.size - at), { position: at, path });
}

/**
 * Cuts what an earlier run wrote behind the end. A file is never made longer before it is written: FAT would fill all of it
 * with zeros first.
 */
export async function cutBehind(handle: FileHandle, size: number): Promise<void> {
  if ((await handle.stat()).size > size) await handle.truncate(size);
}

/** How many written bytes may wait before the disk is asked to take them. */
const SYNC_EVERY = 16 * MIB;

async function syncAll(handles: readonly FileHandle[]): Promise<void> {
  for (const handle of handles) await handle.datasync();
}

/** Syncs in the background while more is written. A failure is told once, by the system too: it is kept until `settle`. */
export function backgroundSync(handles: readonly FileHandle[]): {
  wrote(bytes: number): void;
  settle(): Promise<void>;
} {
  let waiting = 0;
  let running: Promise<void> | undefined;
  let failure: unknown;
  return {
    wrote: (bytes) => {
      waiting += bytes;
      if (running !== undefined || waiting < SYNC_EVERY) return;
      waiting = 0;
      running = syncAll(handles)
        .catch((error: unknown) => {
          failure ??= error;
        })
        .finally(() => {
          running = undefined;
        });
    },
    settle: async () => {
      await running;
      if (failure !== undefined) throw failure;
    },
  };
}

/**
 * One tar: content lands at its final offset, headers come last. Writes are synchronous: they go to the page cache and
 * are faster than a thread-pool round trip.
 */
export async function tarSink(paths: Paths, plan: BundlePlan): Promise<Sink> {
  const { partial, out } = paths;
  const orDiskError = (error: unknown): never => {
    throw diskError(error, partial, { side: 'destination' });
  };
  const flags = (await kindOf(partial)) === undefined ? 'wx+' : 'r+';
  const handle: FileHandle = await open(partial, flags, 0o644).catch(orDiskError);
  const sync = backgroundSync([handle]);
  let closed = false;
  const close = async (): Promise<void> => {
    // The system tells a failed sync once: what is in the file cannot be believed by a later run.
    await sync.settle().catch(() => rm(paths.journal, { force: true }));
    if (!closed) await handle.close();
    closed = true;
  };
  try {
    await cutBehind(handle, plan.size).catch(orDiskError);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    path: partial,
    slot: async (entry) => ({
      file: handle.fd,
      path: partial,
      position: entry.offset,
      write: (chunk, position) =>
        writeAll(handle.fd, chunk, { position: entry.offset + position, path: partial }),
      read: (length) => readRange(handle, { position: entry.offset, length }),
      close: async () => {},
    }),
    wrote: sync.wrote,
    finish: async () => {
      writeFrame(handle.fd, plan, partial);
      await sync.settle().catch(orDiskError);
      await handle.sync().catch(orDiskError);
      await close();
      await rename(partial, out).catch(orDiskError);
      await syncFolder(dirname(out));
    },
    close,
  };
}

/** The file of one entry in a folder. */
async function fileSlot(path: string, entry: PlannedEntry): Promise<Slot> {
  const orDiskError = (error: unknown): never => {
    throw diskError(error, path, { side: 'destination' });
  };
  const flags = (await kindOf(path)) === undefined ? 'wx+' : 'r+';
  const handle = await open(path, flags, 0o644).catch(orDiskError);
  return {
    file: handle.fd,
    path,
    position: 0,
    write: (chunk, position) => writeAll(handle.fd, chunk, { position, path }),
    read: (length) => readRange(handle, { position: 0, length }),
    close: async () => {
      try {
        await cutBehind(handle, entry.size).catch(orDiskError);
        await handle.sync().catch(orDiskError);
      } finally {
        await handle.close();
      }
    },
  };
}

/** A folder of the same shape: each blob is a file. The finished folder takes the place of an older one by rename. */
export async function folderSink(paths: Paths): Promise<Sink> {
  const { partial, out, replaced } = paths;
  const orDiskError = (error: unknown): never => {
    throw diskError(error, partial, { side: 'destination' });
  };
  await mkdir(join(partial, 'blobs', 'sha256'), { recursive: true }).catch(orDiskError);
  return {
    path: partial,
    slot: (entry) => fileSlot(join(partial, entry.name), entry),
    // Each file is synced when its slot is closed.
    wrote: () => {},
    finish: async () => {
      await syncFolder(join(partial, 'blobs', 'sha256'));
      await syncFolder(join(partial, 'blobs'));
      await syncFolder(partial);
      await rm(replaced, { recursive: true, force: true });
      if ((await kindOf(out)) !== undefined) await rename(out, replaced).catch(orDiskError);
      await rename(partial, out).catch(orDiskError);
      await syncFolder(dirname(out));
      await rm(replaced, { recursive: true, force: true });
    },
    close: async () => {},
  };
}
