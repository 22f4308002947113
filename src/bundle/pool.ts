import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { kindOf } from '../io/files.ts';
import { blobName } from './entries.ts';
import type { FileRange } from './hash.ts';
import type { JournalState } from './journal.ts';
import { type Medium, openMedium } from './medium.ts';
import { type Files, openFileOf, openVolumes } from './volume-files.ts';
import { placeAt, volumeSizeIn } from './volumes.ts';

/** Blobs that are on this disk already: an older bundle, or an interrupted pack of another lock. Bytes are unverified. */
export interface BlobPool {
  readonly what: string;
  /** Where it has a blob's bytes, as it believes; undefined when it does not have it. */
  range(digest: Digest): FileRange | undefined;
  close(): Promise<void>;
}

/** An opened bundle as a pool; whoever opened it closes it. */
export function mediumPool(medium: Medium): BlobPool {
  return {
    what: medium.path,
    range: (digest) => {
      const entry = medium.entries.findBlob(digest);
      return entry === undefined ? undefined : medium.range(entry);
    },
    close: async () => {},
  };
}

/** The older bundle at `path` as a pool, if there is one that can be read. */
export async function bundlePool(path: string): Promise<BlobPool | undefined> {
  const place = await placeAt(path);
  if (typeof place === 'string' && (await kindOf(place)) === undefined) return undefined;
  const medium = await openMedium(place);
  return { ...mediumPool(medium), what: path, close: () => medium.close() };
}

async function filesOf(path: string, { kind }: JournalState): Promise<Files | undefined> {
  if (kind === 'folder') return undefined;
  const volumeSize = volumeSizeIn(kind);
  if (volumeSize === undefined) return openFileOf(path);
  const place = await placeAt(path);
  return typeof place === 'string' ? undefined : openVolumes(place, { volumeSize });
}

/** What an interrupted pack of another plan had complete, as a pool. */
export async function journalPool(path: string, state: JournalState): Promise<BlobPool> {
  const files = await filesOf(path, state);
  return {
    what: path,
    range: (digest) => {
      const at = state.done.get(digest);
      if (at === undefined) return undefined;
      const what = `${path}: ${blobName(digest)}`;
      return files === undefined
        ? { file: join(path, blobName(digest)), position: 0, length: at.size, what }
        : { file: files.file, position: at.offset, length: at.size, what };
    },
    close: async () => files?.close(),
  };
}
