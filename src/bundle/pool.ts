import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { errnoOf, kindOf, readRange } from '../io/files.ts';
import type { JournalState } from './journal.ts';
import { openMedium } from './medium.ts';
import { blobName } from './plan.ts';

/** Blobs that are on this disk already: an older bundle, or an interrupted pack of another lock. Bytes are unverified. */
export interface BlobPool {
  readonly what: string;
  /** @throws CONTENT_NOT_FOUND from the stream when the disk cannot read it */
  open(digest: Digest): AsyncIterable<Buffer> | undefined;
  close(): Promise<void>;
}

/** What a pool cannot read it does not have: the content is then fetched. */
async function* orAbsent(source: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  try {
    yield* source;
  } catch (error) {
    if (!(error instanceof SealiftError) && errnoOf(error) === '') throw error;
    throw new SealiftError('CONTENT_NOT_FOUND', `${what} cannot be read`, { cause: error, side: 'source' });
  }
}

/** The older bundle at `path` as a pool, if there is one that can be read. */
export async function bundlePool(path: string): Promise<BlobPool | undefined> {
  if ((await kindOf(path)) === undefined) return undefined;
  const medium = await openMedium(path);
  const byName = new Map(medium.entries.map((e) => [e.name, e]));
  return {
    what: path,
    open: (digest) => {
      const entry = byName.get(blobName(digest));
      return entry === undefined ? undefined : orAbsent(medium.read(entry), `${path}: ${entry.name}`);
    },
    close: () => medium.close(),
  };
}

async function* fileBytes(path: string): AsyncGenerator<Buffer> {
  const handle = await open(path, 'r');
  try {
    yield* readRange(handle, { position: 0, length: (await handle.stat()).size });
  } finally {
    await handle.close();
  }
}

/** What an interrupted pack of another plan had complete, as a pool. */
export async function journalPool(path: string, state: JournalState): Promise<BlobPool> {
  if (state.kind === 'folder') {
    return {
      what: path,
      open: (digest) =>
        state.done.has(digest) ? orAbsent(fileBytes(join(path, blobName(digest))), path) : undefined,
      close: async () => {},
    };
  }
  const handle = await open(path, 'r');
  return {
    what: path,
    open: (digest) => {
      const at = state.done.get(digest);
      if (at === undefined) return undefined;
      return orAbsent(readRange(handle, { position: at.offset, length: at.size }), path);
    },
    close: () => handle.close(),
  };
}
