import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { LIMITS, MIB } from '../core/limits.ts';
import { besidePath, diskError, freeSpace, readRange } from './files.ts';
import { throwIfAborted } from './pool.ts';

/** Free space that is never used up, and how often it is looked at. Bytes. */
const SPACE_KEPT = 64 * MIB;
const SPACE_ASKED_EVERY = 64 * MIB;

export interface SpoolOptions {
  readonly signal: AbortSignal;
  /** Default the system's folder for temporary files. */
  readonly tempDir?: string;
}

async function refuseFull(folder: string, path: string): Promise<void> {
  const free = await freeSpace(folder);
  if (free >= SPACE_KEPT) return;
  throw new SealiftError('DISK_FULL', `${folder}: no space left to unpack ${path}`, {
    hint: 'set TMPDIR to a folder with more space, or uncompress the archive yourself',
    details: { free },
  });
}

/** A growing file without a name: nothing is left of it however the program ends. */
export class Spool {
  readonly handle: FileHandle;
  readonly #folder: string;
  readonly #of: string;
  readonly #signal: AbortSignal;
  #size = 0;
  #asked = Number.NEGATIVE_INFINITY;

  private constructor(
    handle: FileHandle,
    of: { readonly folder: string; readonly what: string; readonly signal: AbortSignal },
  ) {
    this.handle = handle;
    this.#folder = of.folder;
    this.#of = of.what;
    this.#signal = of.signal;
  }

  /** @param what for messages: whose content it holds */
  static async open(what: string, { signal, tempDir }: SpoolOptions): Promise<Spool> {
    const folder = tempDir ?? tmpdir();
    const temp = besidePath(join(folder, 'sealift-archive'));
    const handle = await open(temp, 'wx+', 0o600).catch((error: unknown) => {
      throw diskError(error, temp);
    });
    try {
      await unlink(temp);
    } catch (error) {
      await handle.close();
      throw diskError(error, temp);
    }
    return new Spool(handle, { folder, what, signal });
  }

  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  /** Adds a chunk at the end; one at a time. @throws DISK_FULL, FILE_UNREADABLE, CONTENT_TOO_LARGE, ABORTED */
  async write(chunk: Uint8Array): Promise<void> {
    throwIfAborted(this.#signal);
    if (this.#size - this.#asked >= SPACE_ASKED_EVERY) {
      await refuseFull(this.#folder, this.#of);
      this.#asked = this.#size;
    }
    await this.#append(chunk);
    if (this.#size > LIMITS.archiveUnpacked) {
      throw new SealiftError('CONTENT_TOO_LARGE', `${this.#of}: more than ${LIMITS.archiveUnpacked} bytes`);
    }
  }

  /** A disk that is nearly full takes a part of a chunk; the rest then says why. */
  async #append(chunk: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < chunk.length; ) {
        const { bytesWritten } = await this.handle.write(chunk, done, chunk.length - done, this.#size);
        done += bytesWritten;
        this.#size += bytesWritten;
      }
    } catch (error) {
      throw diskError(error, this.#folder);
    }
  }

  read(range: { readonly position: number; readonly length: number }): AsyncIterable<Buffer> {
    return readRange(this.handle, range);
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}
