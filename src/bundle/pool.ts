import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { kindOf } from '../io/files.ts';
import { blobName } from './entries.ts';
import type { FileRange } from './hash.ts';
import type { JournalState } from './journal.ts';
import { openMedium } from './medium.ts';

/** Blobs that are on this disk already: an older bundle, or an interrupted pack of another lock. Bytes are unverified. */
export interface BlobPool {
  readonly what: string;
  /** Where it has a blob's bytes, as it believes; undefined when it does not have it. */
  range(digest: Digest): FileRange | undefined;
  close(): Promise<void>;
}

/** The older bundle at `path` as a pool, if there is one that can be read. */
export async function bundlePool(path: string): Promise<BlobPool | undefined> {
  if ((await kindOf(path)) === undefined) return undefined;
  const medium = await openMedium(path);
  return {
    what: path,
    range: (digest) => {
      const entry = medium.entries.findBlob(digest);
      return entry === undefined ? undefined : medium.range(entry);
    },
    close: () => medium.close(),
  };
}

/** What an interrupted pack of another plan had complete, as a pool. */
export async function journalPool(path: string, state: JournalState): Promise<BlobPool> {
  const handle = state.kind === 'tar' ? await open(path, 'r') : undefined;
  return {
    what: path,
    range: (digest) => {
      const at = state.done.get(digest);
      if (at === undefined) return undefined;
      const what = `${path}: ${blobName(digest)}`;
      return handle === undefined
        ? { file: join(path, blobName(digest)), position: 0, length: at.size, what }
        : { file: handle.fd, position: at.offset, length: at.size, what };
    },
    close: async () => handle?.close(),
  };
}
