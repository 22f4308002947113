import type { FileHandle } from 'node:fs/promises';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError, errnoOf, kindOf, readAt, readRange } from '../io/files.ts';
import { readTarHeader, TAR_BLOCK, TAR_END, tarHeader, tarPadding } from '../io/tar.ts';
import { B3SUMS, DOCUMENTS } from './plan.ts';

/** An entry as it was found. Offset and size in bytes; in a folder every offset is 0. */
export interface FoundEntry {
  readonly name: string;
  readonly size: number;
  readonly offset: number;
}

/** Where a bundle's bytes lie: one tar, or a folder of the same shape. Holds open files until `close`. */
export interface Medium {
  readonly kind: 'tar' | 'folder';
  readonly path: string;
  /** In the order of the archive; a folder's in the order that the format prescribes for documents, then by name. */
  readonly entries: readonly FoundEntry[];
  /** What is wrong with the structure itself. */
  readonly faults: readonly Fault[];
  /** Bytes of the file, or of all entries together. */
  readonly size: number;
  /** Streams an entry's bytes from `from` (default 0), unverified. */
  read(entry: FoundEntry, from?: number): AsyncIterable<Buffer>;
  /** Bytes between entries and behind the last one that must be zero: faults where they are not. Reads all padding. */
  checkPadding(): Promise<Fault[]>;
  close(): Promise<void>;
}

function notCanonical(path: string, offset: number, why: string): Fault {
  return fault('BUNDLE_NOT_CANONICAL', `${path}: ${why} at byte ${offset}`, { details: { offset } });
}

/** Looks for the next block that is a canonical header, from a block boundary on; only used to go on after damage. */
async function nextHeader(handle: FileHandle, from: number, size: number): Promise<number | undefined> {
  const chunk = 1024 * TAR_BLOCK;
  for (let at = from; at < size; at += chunk) {
    const bytes = await readAt(handle, at, Math.min(chunk + 2 * TAR_BLOCK, size - at));
    for (let i = 0; i < chunk && i + TAR_BLOCK <= bytes.length; i += TAR_BLOCK) {
      if (bytes.toString('latin1', i + 257, i + 262) !== 'ustar') continue;
      const found = readTarHeader(bytes.subarray(i));
      if (found !== undefined && isBundleName(found.name)) return at + i;
    }
  }
  return undefined;
}

const BLOB_NAME = /^blobs\/sha256\/[0-9a-f]{64}$/;

function isBundleName(name: string): boolean {
  return BLOB_NAME.test(name) || name === B3SUMS || DOCUMENTS.some((d) => d === name);
}

interface Scan {
  readonly entries: FoundEntry[];
  readonly faults: Fault[];
  /** Where the end blocks begin. */
  end: number;
}

async function scanTar(handle: FileHandle, path: string, size: number): Promise<Scan> {
  const scan: Scan = { entries: [], faults: [], end: 0 };
  let at = 0;
  while (scan.entries.length < LIMITS.bundleEntries) {
    const bytes = await readAt(handle, at, 3 * TAR_BLOCK);
    if (bytes.length >= TAR_BLOCK && bytes.subarray(0, TAR_BLOCK).every((b) => b === 0)) break;
    const header = readTarHeader(bytes);
    if (header === undefined || !isBundleName(header.name)) {
      if (at + TAR_BLOCK > size) {
        scan.faults.push(fault('BUNDLE_TRUNCATED', `${path}: ends at byte ${size}, inside the archive`));
        break;
      }
      const why = header === undefined ? 'not a canonical header' : `unknown entry "${header.name}"`;
      scan.faults.push(notCanonical(path, at, why));
      const next = await nextHeader(handle, at + TAR_BLOCK, size);
      if (next === undefined) break;
      at = next;
      continue;
    }
    const offset = at + tarHeader(header.name, header.size).length;
    if (offset + header.size > size) {
      scan.faults.push(
        fault(
          'BUNDLE_TRUNCATED',
          `${path}: ${header.name} needs ${header.size} bytes from byte ${offset}, the file ends at byte ${size}`,
          {
            details: { entry: header.name, offset, expected: header.size, found: Math.max(0, size - offset) },
          },
        ),
      );
      break;
    }
    scan.entries.push({ name: header.name, size: header.size, offset });
    at = offset + header.size + tarPadding(header.size);
  }
  scan.end = at;
  if (scan.faults.length === 0 && size !== at + TAR_END) {
    const code = size < at + TAR_END ? 'BUNDLE_TRUNCATED' : 'BUNDLE_NOT_CANONICAL';
    const what = size < at + TAR_END ? 'bytes lack' : 'bytes too many';
    scan.faults.push(
      fault(code, `${path}: ${Math.abs(size - at - TAR_END)} ${what} at the end (byte ${at})`, {
        details: { offset: at, expected: at + TAR_END, found: size },
      }),
    );
  }
  return scan;
}

async function tarMedium(path: string): Promise<Medium> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    const scan = await scanTar(handle, path, size);
    const zeros = async (from: number, to: number, what: string): Promise<Fault[]> => {
      for await (const part of readRange(handle, { position: from, length: Math.max(0, to - from) })) {
        const bad = part.findIndex((b) => b !== 0);
        if (bad >= 0) return [notCanonical(path, from + bad, `${what} is not zero`)];
        from += part.length;
      }
      return [];
    };
    return {
      kind: 'tar',
      path,
      size,
      entries: scan.entries,
      faults: scan.faults,
      read: (entry, from = 0) =>
        readRange(handle, { position: entry.offset + from, length: entry.size - from }),
      checkPadding: async () => {
        const faults: Fault[] = [];
        for (const e of scan.entries) {
          const end = e.offset + e.size;
          faults.push(...(await zeros(end, end + tarPadding(e.size), `padding behind ${e.name}`)));
        }
        faults.push(...(await zeros(scan.end, Math.min(size, scan.end + TAR_END), 'the end of the archive')));
        return faults;
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function scanFolder(path: string): Promise<{ entries: FoundEntry[]; faults: Fault[] }> {
  const entries: FoundEntry[] = [];
  const faults: Fault[] = [];
  const walk = async (under: string): Promise<void> => {
    const list = await readdir(join(path, under), { withFileTypes: true });
    for (const d of list.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const name = under === '' ? d.name : `${under}/${d.name}`;
      if (d.isDirectory() && (name === 'blobs' || name === 'blobs/sha256')) await walk(name);
      else if (d.isFile() && isBundleName(name)) {
        entries.push({ name, size: (await stat(join(path, name))).size, offset: 0 });
      } else
        faults.push(
          fault('BUNDLE_ENTRY_EXTRA', `${path}: "${name.slice(0, 200)}" does not belong to a bundle`),
        );
      if (entries.length > LIMITS.bundleEntries)
        throw new SealiftError('CONTENT_TOO_LARGE', `${path}: too many entries`);
    }
  };
  await walk('');
  const rank = (e: FoundEntry): number => {
    const at = (DOCUMENTS as readonly string[]).indexOf(e.name);
    return at >= 0 ? at : e.name === B3SUMS ? 1e9 : DOCUMENTS.length;
  };
  entries.sort((a, b) => rank(a) - rank(b));
  return { entries, faults };
}

async function folderMedium(path: string): Promise<Medium> {
  const { entries, faults } = await scanFolder(path);
  return {
    kind: 'folder',
    path,
    size: entries.reduce((sum, e) => sum + e.size, 0),
    entries,
    faults,
    read: async function* (entry, from = 0) {
      const handle = await open(join(path, entry.name), 'r');
      try {
        yield* readRange(handle, { position: from, length: entry.size - from });
      } finally {
        await handle.close();
      }
    },
    checkPadding: async () => [],
    close: async () => {},
  };
}

/**
 * Opens a bundle's bytes, a tar or a folder, and reads its structure.
 * @throws BUNDLE_NOT_FOUND, FILE_UNREADABLE
 */
export async function openMedium(path: string): Promise<Medium> {
  const kind = await kindOf(path);
  if (kind === undefined) {
    throw new SealiftError('BUNDLE_NOT_FOUND', `${path}: no such file or folder`, {
      hint: 'give the path of a bundle that `sealift pack` wrote',
    });
  }
  try {
    return kind === 'folder' ? await folderMedium(path) : await tarMedium(path);
  } catch (error) {
    throw errnoOf(error) === '' ? error : diskError(error, path);
  }
}
