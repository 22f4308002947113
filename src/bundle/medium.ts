import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { KIB, LIMITS } from '../core/limits.ts';
import { diskError, errnoOf, kindOf, onDisk, readNow, readRange, readThrough } from '../io/files.ts';
import type { OpenFile } from '../io/open-file.ts';
import { tarPadding } from '../io/tar.ts';
import { type EntryList, type FoundEntry, foundEntries } from './entries.ts';
import { NOT_OURS } from './hints.ts';
import { B3SUMS, DOCUMENTS, SIGNATURE } from './names.ts';
import { isBundleName, notCanonical, scanTar } from './scan.ts';
import type { SweptRange } from './sweep.ts';
import { type Files, openFileOf, openVolumes } from './volume-files.ts';
import { type Place, pathOf, placeAt } from './volumes.ts';

/** Where a bundle's bytes lie: one tar, or a folder of the same shape. Holds open files until `close`. */
export interface Medium {
  readonly kind: 'tar' | 'folder';
  readonly path: string;
  /** In the order of the archive; a folder's in the order that the format prescribes for documents, then by name. */
  readonly entries: EntryList;
  /** The signature, which is not one of the entries; undefined where the bundle holds none. */
  readonly signature: FoundEntry | undefined;
  /** Of a tar: where its entries end, and the signature or the end of the archive begins. */
  readonly end: number;
  /** What is wrong with the structure itself. */
  readonly faults: readonly Fault[];
  /** Bytes of the tar, or of all entries together. */
  readonly size: number;
  /** Of a tar: the files that it lies in. */
  readonly files: Files | undefined;
  /**
   * Streams an entry's bytes from `from` (default 0), unverified.
   * @throws FILE_UNREADABLE, also for a disk that cannot read a part of it
   */
  read(entry: FoundEntry, from?: number): AsyncIterable<Buffer>;
  /** Where an entry's bytes lie, and how many behind them must be zero, for a thread that reads them by itself. */
  range(entry: FoundEntry): SweptRange;
  /** Bytes between entries that must be zero: faults where they are not. Reads all padding. */
  checkPadding(): Promise<Fault[]>;
  close(): Promise<void>;
}

/** So many bytes are read at once and synchronously; after so many reads others may speak. */
const PIECE = 256 * KIB;
const BREATH = 64;

/** A disk's own errors become ours: a bad sector is a fault of what was read, not of the program. */
async function* readable(source: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  try {
    yield* source;
  } catch (error) {
    throw diskError(error, what);
  }
}

/** Reads a range piece by piece. A larger piece lets others speak at once, small ones now and then. */
function pieceReader(): (
  file: OpenFile,
  range: { readonly position: number; readonly length: number },
) => AsyncGenerator<Buffer> {
  let reads = 0;
  return async function* (file, { position, length }) {
    for (let done = 0; done < length; ) {
      const want = Math.min(PIECE, length - done);
      if (want === PIECE || ++reads % BREATH === 0) await setImmediate();
      const bytes = readNow(file, position + done, want);
      if (bytes.length === 0) return;
      done += bytes.length;
      yield bytes;
    }
  };
}

const readPieces = pieceReader();

async function checkZeros(
  files: Files,
  path: string,
  range: { readonly from: number; readonly length: number; readonly what: string },
): Promise<Fault[]> {
  const where = { position: range.from, length: range.length };
  const bytes = onDisk(() => readThrough(files.file, where), path);
  const bad = bytes.findIndex((b) => b !== 0);
  if (bad < 0) return [];
  return [notCanonical(path, `${range.what} is not zero`, { offset: range.from + bad, files })];
}

/** A volume with nothing in it: an interrupted signing began it. */
function isBegun({ code, details }: Fault): boolean {
  return code === 'BUNDLE_ENTRY_EXTRA' && details?.found === 0;
}

async function tarMedium(path: string, files: Files, how: Opening): Promise<Medium> {
  try {
    const { entries, signature, end, faults } = await scanTar(files, path, how);
    return {
      kind: 'tar',
      path,
      size: files.size,
      files,
      entries,
      signature,
      end,
      faults: [...files.faults.filter((f) => how.toSums !== true || !isBegun(f)), ...faults],
      read: (entry, from = 0) => {
        const range = { position: entry.offset + from, length: entry.size - from };
        return readable(readPieces(files.file, range), `${path}: ${entry.name}`);
      },
      range: (entry) => ({
        file: files.file,
        position: entry.offset,
        length: entry.size,
        padding: tarPadding(entry.size),
        what: `${path}: ${entry.name}`,
      }),
      checkPadding: async () => {
        const found: Fault[] = [];
        for (const e of entries) {
          const range = {
            from: e.offset + e.size,
            length: tarPadding(e.size),
            what: `padding behind ${e.name}`,
          };
          found.push(...(await checkZeros(files, path, range)));
        }
        return found;
      },
      close: () => files.close(),
    };
  } catch (error) {
    await files.close();
    throw error;
  }
}

async function scanFolder(path: string): Promise<Pick<Medium, 'entries' | 'signature' | 'faults'>> {
  const entries: FoundEntry[] = [];
  const faults: Fault[] = [];
  const walk = async (under: string): Promise<void> => {
    const list = await readdir(join(path, under), { withFileTypes: true });
    for (const d of list.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const name = under === '' ? d.name : `${under}/${d.name}`;
      if (d.isDirectory() && (name === 'blobs' || name === 'blobs/sha256')) await walk(name);
      else if (d.isFile() && isBundleName(name)) {
        entries.push({ name, size: (await stat(join(path, name))).size, offset: 0 });
      } else {
        const what = d.isSymbolicLink()
          ? 'is a link, which a bundle never holds'
          : 'does not belong to a bundle';
        faults.push(
          fault('BUNDLE_ENTRY_EXTRA', `${path}: "${name.slice(0, 200)}" ${what}`, {
            details: { entry: name },
            hint: NOT_OURS,
          }),
        );
      }
      if (entries.length + faults.length > LIMITS.bundleEntries)
        throw new SealiftError('CONTENT_TOO_LARGE', `${path}: more than ${LIMITS.bundleEntries} entries`);
    }
  };
  await walk('');
  const rank = (e: FoundEntry): number => {
    const at = DOCUMENTS.indexOf(e.name);
    return at >= 0 ? at : e.name === B3SUMS ? 1e9 : DOCUMENTS.length;
  };
  entries.sort((a, b) => rank(a) - rank(b));
  const signature = entries.find((e) => e.name === SIGNATURE);
  return { entries: foundEntries(entries.filter((e) => e !== signature)), signature, faults };
}

/** The bytes of one file of a folder, opened only while they are read. */
async function* fileBytes(path: string, range: { from: number; length: number }): AsyncGenerator<Buffer> {
  const handle = await open(path, 'r');
  try {
    yield* readRange(handle, { position: range.from, length: range.length });
  } finally {
    await handle.close();
  }
}

async function folderMedium(path: string): Promise<Medium> {
  const { entries, signature, faults } = await scanFolder(path);
  if (entries.length === 0) {
    throw new SealiftError('BUNDLE_NOT_FOUND', `${path}: no bundle is in this folder`, {
      hint: 'give the path of a bundle, its first volume, or the folder where its volumes are',
    });
  }
  return {
    kind: 'folder',
    path,
    size: entries.bytes(),
    files: undefined,
    entries,
    signature,
    end: 0,
    faults,
    read: (entry, from = 0) =>
      readable(
        fileBytes(join(path, entry.name), { from, length: entry.size - from }),
        `${path}: ${entry.name}`,
      ),
    range: (entry) => ({
      file: join(path, entry.name),
      position: 0,
      length: entry.size,
      padding: 0,
      what: `${path}: ${entry.name}`,
    }),
    checkPadding: async () => [],
    close: async () => {},
  };
}

/** How a bundle's bytes are opened. */
export interface Opening {
  /** Looks at nothing behind B3SUMS: to sign a bundle again where signing was interrupted. */
  readonly toSums?: boolean | undefined;
}

/**
 * Opens a bundle's bytes, a tar, its volumes or a folder, and reads its structure. A path may also be that of one volume or
 * of the folder where they lie.
 * @throws BUNDLE_NOT_FOUND, FILE_UNREADABLE, CONTENT_TOO_LARGE
 */
export async function openMedium(given: Place, how: Opening = {}): Promise<Medium> {
  const place = typeof given === 'string' ? await placeAt(given) : given;
  try {
    return typeof place === 'string'
      ? await mediumAt(place, how)
      : await tarMedium(place.path, await openVolumes(place), how);
  } catch (error) {
    throw errnoOf(error) === '' ? error : diskError(error, pathOf(place));
  }
}

async function mediumAt(path: string, how: Opening): Promise<Medium> {
  const kind = await kindOf(path);
  if (kind === undefined) {
    throw new SealiftError('BUNDLE_NOT_FOUND', `${path}: no such file or folder`, {
      hint: 'give the path of a bundle that `sealift pack` wrote',
    });
  }
  if (kind === 'other') {
    // Opening a pipe would wait for ever, and a bundle is read at many places, not from front to back.
    throw new SealiftError('BUNDLE_NOT_FOUND', `${path}: neither a file nor a folder`, {
      hint: 'copy the bundle to a file first: it is read in place',
    });
  }
  return kind === 'folder' ? folderMedium(path) : tarMedium(path, await openFileOf(path), how);
}

/** Whether a bundle lies in volumes of this length. */
export function hasVolumes({ files, size }: Pick<Medium, 'files' | 'size'>, volumeSize: number): boolean {
  return files?.volumeSize === volumeSize || (files?.volumeSize !== undefined && size <= volumeSize);
}
