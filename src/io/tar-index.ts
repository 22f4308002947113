import type { FileHandle } from 'node:fs/promises';
import { posix } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readAt } from './files.ts';
import { throwIfAborted } from './pool.ts';
import { TAR_BLOCK, tarPadding } from './tar.ts';
import {
  checksumOk,
  isZero,
  nameField,
  numberField,
  paxRecords,
  sizeField,
  textField,
  utf8Of,
} from './tar-fields.ts';

/** Where the content of one file of a tar lies, in bytes. */
export interface TarFile {
  readonly offset: number;
  readonly size: number;
}

/** What a tar holds, by normalised name: relative, without `.` and `..`. What has another name cannot be asked for. */
export interface TarIndex {
  /** The file of a name, through links inside the archive. @throws ARCHIVE_INVALID when the name is there twice */
  find(name: string): TarFile | undefined;
}

/** Links to links that are followed. */
const MAX_HOPS = 8;
const LINKS = new Set(['1', '2']);
/** Types that have no content, whatever their size field says (Go: isHeaderOnlyType). */
const HEADER_ONLY = new Set(['1', '2', '3', '4', '5', '6']);
const FILES = new Set(['\0', '0', '7']);

interface Link {
  readonly to: string;
  readonly isHard: boolean;
}

/** What stood in PAX and GNU headers for the next entry. */
interface Extra {
  path?: string | undefined;
  link?: string | undefined;
  size?: string | undefined;
}

interface Reading {
  readonly handle: FileHandle;
  readonly path: string;
  /** Bytes of the file. */
  readonly size: number;
  readonly files: Map<string, TarFile>;
  readonly links: Map<string, Link>;
  readonly twice: Set<string>;
  /** Characters of all names so far. */
  names: number;
  at: number;
}

function invalid(path: string, why: string): SealiftError {
  return new SealiftError('ARCHIVE_INVALID', `${path}: ${why}`, {
    hint: 'the archive is damaged or no tar archive: make it again, or copy it again',
  });
}

/** Too much, but perhaps a whole tar all the same: whoever asks what a file is must not take it for something else. */
function tooLarge(path: string, why: string): SealiftError {
  return new SealiftError('CONTENT_TOO_LARGE', `${path}: ${why}`);
}

/** A name as others ask for it; undefined for one that leads out of the archive. */
function plainName(name: string): string | undefined {
  if (name.startsWith('/') || name.split('/').includes('..')) return undefined;
  const plain = posix.normalize(name).replace(/\/$/, '');
  return plain === '' || plain === '.' ? undefined : plain;
}

async function readMeta(reading: Reading, block: Buffer): Promise<Buffer> {
  const { handle, path } = reading;
  const size = numberField(block, 124, 12);
  if (size === undefined) throw invalid(path, 'a tar header record with a bad size');
  if (size > LIMITS.tarMeta)
    throw tooLarge(path, `a tar header record of ${size} bytes, the limit is ${LIMITS.tarMeta}`);
  const data = await readAt(handle, reading.at, size);
  if (data.length < size) throw invalid(path, 'it ends inside a tar header');
  reading.at += size + tarPadding(size);
  return data;
}

/** Takes in PAX and GNU headers; false for the header of an entry. */
async function takeMeta(reading: Reading, block: Buffer, extra: Extra): Promise<boolean> {
  const { path } = reading;
  const type = String.fromCharCode(block[156] ?? 0);
  if (type === 'L' || type === 'K') {
    const data = await readMeta(reading, block);
    const text = utf8Of(textField(data, 0, data.length));
    if (type === 'L') extra.path = text ?? '/';
    else extra.link = text ?? '/';
    return true;
  }
  if (type !== 'x' && type !== 'g') return false;
  const records = paxRecords(await readMeta(reading, block));
  if (records === undefined) throw invalid(path, 'a bad PAX header');
  if (type === 'g') {
    if (records.has('path') || records.has('size') || records.has('linkpath'))
      throw invalid(path, 'a global PAX header that names a path');
    return true;
  }
  for (const key of records.keys()) if (key.startsWith('GNU.sparse.')) throw invalid(path, 'a sparse file');
  extra.path = records.get('path') || extra.path;
  extra.link = records.get('linkpath') || extra.link;
  extra.size = records.get('size') || extra.size;
  return true;
}

function sizeOf(reading: Reading, block: Buffer, extra: Extra): number {
  const size = sizeField(block, extra.size);
  if (size === undefined) throw invalid(reading.path, `a tar header with a bad size at byte ${reading.at}`);
  return size;
}

/** Takes in the entry whose header is `block`; `reading.at` stands behind the header. */
function takeEntry(reading: Reading, block: Buffer, extra: Extra): void {
  const { path, files, links, twice } = reading;
  const type = String.fromCharCode(block[156] ?? 0);
  if (type === 'S') throw invalid(path, 'a sparse file');
  const said = extra.path ?? utf8Of(nameField(block)) ?? '/';
  const size = HEADER_ONLY.has(type) ? 0 : sizeOf(reading, block, extra);
  const offset = reading.at;
  if (offset + size > reading.size) {
    const shown = JSON.stringify(said.slice(0, 200));
    throw invalid(path, `it ends at byte ${reading.size}, inside ${shown}, which has ${size} bytes`);
  }
  reading.at += size + tarPadding(size);
  const name = plainName(said);
  if (name === undefined || !(FILES.has(type) || LINKS.has(type)) || said.endsWith('/')) return;
  const to = extra.link ?? utf8Of(textField(block, 157, 100)) ?? '';
  reading.names += name.length + (LINKS.has(type) ? to.length : 0);
  if (reading.names > LIMITS.tarNames)
    throw tooLarge(path, `its names are longer than ${LIMITS.tarNames} bytes`);
  if (files.has(name) || links.has(name)) twice.add(name);
  else if (LINKS.has(type)) links.set(name, { to, isHard: type === '1' });
  else files.set(name, { offset, size });
}

function findIn({ files, links, twice, path }: Reading, name: string): TarFile | undefined {
  let at: string | undefined = name;
  for (let hops = 0; at !== undefined && hops <= MAX_HOPS; hops += 1) {
    if (twice.has(at)) throw invalid(path, `${JSON.stringify(at.slice(0, 200))} is in it twice`);
    const file = files.get(at);
    if (file !== undefined) return file;
    const link = links.get(at);
    if (link === undefined || link.to.startsWith('/')) return undefined;
    const to = posix.normalize(link.isHard ? link.to : posix.join(posix.dirname(at), link.to));
    at = plainName(to);
  }
  return undefined;
}

/**
 * Reads all headers of a tar of any tool, and none of the content. Nothing in it is believed beyond the file's own
 * length, and nothing is written anywhere.
 * @param options.size bytes of the file
 * @throws ARCHIVE_INVALID for anything but a whole tar, CONTENT_TOO_LARGE for more or longer names than the limits
 */
export async function indexTar(
  handle: FileHandle,
  options: { readonly path: string; readonly size: number; readonly signal: AbortSignal },
): Promise<TarIndex> {
  const { path, size, signal } = options;
  const reading: Reading = {
    handle,
    path,
    size,
    files: new Map(),
    links: new Map(),
    twice: new Set(),
    names: 0,
    at: 0,
  };
  let extra: Extra = {};
  for (let headers = 0; ; headers += 1) {
    throwIfAborted(signal);
    if (headers > LIMITS.bundleEntries)
      throw tooLarge(path, `it has more than ${LIMITS.bundleEntries} entries`);
    const block = await readAt(handle, reading.at, TAR_BLOCK);
    if (block.length === 0 && headers > 0) break;
    if (block.length < TAR_BLOCK)
      throw invalid(path, `it ends inside a tar header at byte ${reading.at + block.length}`);
    if (isZero(block)) break;
    if (!checksumOk(block)) throw invalid(path, `no tar header at byte ${reading.at}`);
    reading.at += TAR_BLOCK;
    if (await takeMeta(reading, block, extra)) continue;
    takeEntry(reading, block, extra);
    extra = {};
  }
  return { find: (name) => findIn(reading, name) };
}
