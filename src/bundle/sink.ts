import { writeSync } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { diskError, kindOf, readRange, syncFolder } from '../io/files.ts';
import { TAR_END, tarHeader } from '../io/tar.ts';
import type { BundlePlan, PlannedEntry } from './plan.ts';

/** The place of one entry's content while a bundle is written. */
export interface Slot {
  /** Writes at `position` bytes from the start of the content. */
  write(chunk: Uint8Array, position: number): void;
  /** Streams the first `length` bytes of what was written. */
  read(length: number): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** A bundle under construction beside its final path: a tar with every entry in its place, or a folder of files. */
export interface Sink {
  readonly kind: 'tar' | 'folder';
  /** The path under construction. */
  readonly path: string;
  slot(entry: PlannedEntry): Promise<Slot>;
  /** Writes headers and ends, syncs, and puts the result at its final path in one step. */
  finish(): Promise<void>;
  close(): Promise<void>;
}

function writeAll(fd: number, chunk: Uint8Array, position: number, path: string): void {
  try {
    for (let done = 0; done < chunk.length; ) {
      done += writeSync(fd, chunk, done, chunk.length - done, position + done);
    }
  } catch (error) {
    throw diskError(error, path);
  }
}

/** One tar: content lands at its final offset, headers come last. Writes are synchronous: they go to the page cache and are faster than a thread-pool round trip. */
export async function tarSink(partial: string, out: string, plan: BundlePlan): Promise<Sink> {
  const handle: FileHandle = await open(partial, (await kindOf(partial)) === undefined ? 'wx+' : 'r+', 0o644);
  let closed = false;
  const close = async (): Promise<void> => {
    if (!closed) await handle.close();
    closed = true;
  };
  try {
    await handle.truncate(plan.size);
  } catch (error) {
    await close();
    throw diskError(error, partial);
  }
  return {
    kind: 'tar',
    path: partial,
    slot: async (entry) => ({
      write: (chunk, position) => writeAll(handle.fd, chunk, entry.offset + position, partial),
      read: (length) => readRange(handle, { position: entry.offset, length }),
      close: async () => {},
    }),
    finish: async () => {
      for (const entry of plan.entries) {
        const header = tarHeader(entry.name, entry.size);
        writeAll(handle.fd, header, entry.offset - header.length, partial);
      }
      writeAll(handle.fd, Buffer.alloc(TAR_END), plan.size - TAR_END, partial);
      await handle.sync().catch((error: unknown) => {
        throw diskError(error, partial);
      });
      await close();
      await rename(partial, out);
      await syncFolder(dirname(out));
    },
    close,
  };
}

/** A folder of the same shape: each blob is a file. The finished folder takes the place of an older one by rename. */
export async function folderSink(partial: string, out: string): Promise<Sink> {
  await mkdir(join(partial, 'blobs', 'sha256'), { recursive: true });
  return {
    kind: 'folder',
    path: partial,
    slot: async (entry) => {
      const path = join(partial, entry.name);
      const handle = await open(path, (await kindOf(path)) === undefined ? 'wx+' : 'r+', 0o644);
      return {
        write: (chunk, position) => writeAll(handle.fd, chunk, position, path),
        read: (length) => readRange(handle, { position: 0, length }),
        close: async () => {
          // Cuts what an earlier, longer try may have left behind.
          await handle.truncate(Math.min((await handle.stat()).size, entry.size));
          await handle.sync();
          await handle.close();
        },
      };
    },
    finish: async () => {
      await syncFolder(join(partial, 'blobs', 'sha256'));
      await syncFolder(partial);
      const old = `${out}.replaced`;
      await rm(old, { recursive: true, force: true });
      if ((await kindOf(out)) !== undefined) await rename(out, old);
      await rename(partial, out);
      await syncFolder(dirname(out));
      await rm(old, { recursive: true, force: true });
    },
    close: async () => {},
  };
}
