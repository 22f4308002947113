import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ErrorOptions, SealiftError } from '../core/errors.ts';
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

/** What a spool is for. */
export interface SpoolUse {
  /** For messages: whose content it holds. */
  readonly what: string;
  /** What room is needed for: `to unpack a.tar.gz`. */
  readonly purpose: string;
  /** What to do instead of making room. */
  readonly instead?: string;
  /** It stays so small that nothing is kept free for others; default false. */
  readonly small?: boolean;
}

function noSpace(
  folder: string,
  { purpose, instead }: SpoolUse,
  about: Pick<ErrorOptions, 'cause' | 'details'>,
): SealiftError {
  return new SealiftError('DISK_FULL', `${folder}: no space left ${purpose}`, {
    ...about,
    hint: ['set TMPDIR to a folder with more space', ...(instead === undefined ? [] : [instead])].join(
      ', or ',
    ),
  });
}

/** What a disk says, with what was to be done there. */
function spoolError(error: unknown, folder: string, use: SpoolUse): unknown {
  const ours = diskError(error, folder);
  if (!(ours instanceof SealiftError)) return ours;
  if (ours.code === 'DISK_FULL') return noSpace(folder, use, { cause: error });
  return new SealiftError(ours.code, `${ours.message} (needed ${use.purpose})`, {
    cause: error,
    hint: ours.hint ?? 'set TMPDIR to another folder',
  });
}

/** A growing file without a name: nothing is left of it however the program ends. */
export class Spool {
  readonly handle: FileHandle;
  readonly #folder: string;
  readonly #use: SpoolUse;
  readonly #signal: AbortSignal;
  #size = 0;
  #asked = Number.NEGATIVE_INFINITY;

  private constructor(
    handle: FileHandle,
    of: { readonly folder: string; readonly use: SpoolUse; readonly signal: AbortSignal },
  ) {
    this.handle = handle;
    this.#folder = of.folder;
    this.#use = of.use;
    this.#signal = of.signal;
  }

  /** @throws DISK_FULL, FILE_UNREADABLE that say what it is for */
  static async open(use: SpoolUse, { signal, tempDir }: SpoolOptions): Promise<Spool> {
    const folder = tempDir ?? tmpdir();
    const temp = besidePath(join(folder, 'sealift-spool'));
    const handle = await open(temp, 'wx+', 0o600).catch((error: unknown) => {
      throw spoolError(error, folder, use);
    });
    try {
      await unlink(temp);
    } catch (error) {
      await handle.close();
      throw spoolError(error, folder, use);
    }
    return new Spool(handle, { folder, use, signal });
  }

  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  /** Adds a chunk at the end; one at a time. @throws DISK_FULL, FILE_UNREADABLE, CONTENT_TOO_LARGE, ABORTED */
  async write(chunk: Uint8Array): Promise<void> {
    throwIfAborted(this.#signal);
    if (this.#use.small !== true && this.#size - this.#asked >= SPACE_ASKED_EVERY) {
      const free = await freeSpace(this.#folder);
      if (free < SPACE_KEPT) throw noSpace(this.#folder, this.#use, { details: { free } });
      this.#asked = this.#size;
    }
    await this.#append(chunk);
    if (this.#size > LIMITS.archiveUnpacked) {
      throw new SealiftError(
        'CONTENT_TOO_LARGE',
        `${this.#use.what}: more than ${LIMITS.archiveUnpacked} bytes`,
      );
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
      throw spoolError(error, this.#folder, this.#use);
    }
  }

  /** @throws FILE_UNREADABLE */
  async *read(range: { readonly position: number; readonly length: number }): AsyncGenerator<Buffer> {
    try {
      yield* readRange(this.handle, range);
    } catch (error) {
      throw spoolError(error, this.#folder, this.#use);
    }
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}
