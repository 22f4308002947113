import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { TAR_BLOCK, tarPadding } from '../io/tar.ts';
import {
  checksumOk,
  isZero,
  nameField,
  numberField,
  paxRecords,
  sizeField,
  textField,
  utf8Of,
} from '../io/tar-fields.ts';

/**
 * Reads a tar of any tool the way Helm's reader (Go's archive/tar) understands it, and refuses what the two could
 * understand differently. Formats: POSIX.1-2017 pax and ustar, GNU long names, old v7.
 */

/** What one read may use up, shared by a chart and everything nested in it. */
export interface Budget {
  /** Bytes of file content. */
  content: number;
  /** Headers of any kind. */
  headers: number;
  /** Bytes that come out of gzip: content, headers and padding. */
  stream: number;
}

/** Limits of helm.md 1.2 point 2. */
export function chartBudget(): Budget {
  return {
    content: LIMITS.chartUnpacked,
    headers: LIMITS.chartFiles,
    stream: LIMITS.chartUnpacked + LIMITS.chartFiles * 4 * TAR_BLOCK,
  };
}

export function bomb(what: string, why: string): SealiftError {
  return new SealiftError('CHART_ARCHIVE_BOMB', `${what}: ${why}`, {
    hint: 'Helm refuses such a chart too; take the large files out of it',
    details: { maxUnpackedBytes: LIMITS.chartUnpacked, maxFiles: LIMITS.chartFiles },
  });
}

export function broken(what: string, why: string, options: { readonly cause?: unknown } = {}): SealiftError {
  return new SealiftError('CHART_ARCHIVE_INVALID', `${what}: ${why}`, {
    hint: 'fetch the archive again; if it stays like this, ask its publisher',
    ...options,
  });
}

export interface TarEntry {
  readonly name: string;
  readonly kind: 'file' | 'folder' | 'link' | 'special';
  /** Bytes. */
  readonly size: number;
  /** For the message about links and specials. */
  readonly detail: string;
  /** The content; can be asked for once, before the next entry. Unread content is skipped. */
  read(): Promise<Buffer>;
}

/** Takes exact numbers of bytes from a stream of chunks. */
class ByteSource {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #current: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterator<Uint8Array>) {
    this.#chunks = chunks;
  }

  /** The next piece of at most `length` bytes; undefined at the end. */
  async some(length: number): Promise<Uint8Array | undefined> {
    while (this.#current.length === 0) {
      const { done, value } = await this.#chunks.next();
      if (done === true) return undefined;
      this.#current = value;
    }
    const part = this.#current.subarray(0, length);
    this.#current = this.#current.subarray(part.length);
    return part;
  }

  /** `length` bytes; fewer only at the end. */
  async take(length: number): Promise<Buffer> {
    const out = Buffer.alloc(length);
    let filled = 0;
    while (filled < length) {
      const part = await this.some(length - filled);
      if (part === undefined) return out.subarray(0, filled);
      out.set(part, filled);
      filled += part.length;
    }
    return out;
  }

  /** Whether there were that many bytes to pass over. */
  async skip(length: number): Promise<boolean> {
    for (let left = length; left > 0; ) {
      const part = await this.some(left);
      if (part === undefined) return false;
      left -= part.length;
    }
    return true;
  }
}

function decodeName(bytes: Uint8Array, what: string): string {
  const name = utf8Of(bytes);
  if (name === undefined) throw broken(what, 'a file name is not UTF-8');
  return name;
}

function paxOf(data: Buffer, what: string): Map<string, string> {
  const records = paxRecords(data);
  if (records === undefined) throw broken(what, 'a bad PAX header');
  return records;
}

/** Long names that came before the header that they belong to. */
interface Extra {
  path?: string;
  size?: string;
}

const KINDS: Readonly<Record<string, TarEntry['kind']>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'link',
  '2': 'link',
  '3': 'special',
  '4': 'special',
  '5': 'folder',
  '6': 'special',
};
const DETAILS: Readonly<Record<string, string>> = {
  '1': 'a hard link',
  '2': 'a symbolic link',
  '3': 'a character device',
  '4': 'a block device',
  '6': 'a named pipe',
};

function headerName(block: Buffer, what: string): string {
  return decodeName(nameField(block), what);
}

/** The kind of an entry: by its type, and never against the file type that some tools put in the mode. */
function kindOf(block: Buffer, name: string): { readonly kind: TarEntry['kind']; readonly detail: string } {
  const type = String.fromCharCode(block[156] ?? 0);
  const kind = KINDS[type] ?? 'special';
  const detail = DETAILS[type] ?? `an entry of unknown type "${JSON.stringify(type).slice(1, -1)}"`;
  if (kind === 'file' && type === '\0' && name.endsWith('/')) return { kind: 'folder', detail };
  const modeType = (numberField(block, 100, 8) ?? 0) & 0o170000;
  if (kind === 'file' && modeType !== 0 && modeType !== 0o100000) {
    return { kind: 'special', detail: `a file whose mode says that it is none (${modeType.toString(8)})` };
  }
  return { kind, detail };
}

async function readMeta(source: ByteSource, block: Buffer, what: string): Promise<Buffer> {
  const size = numberField(block, 124, 12);
  if (size === undefined) throw broken(what, 'a tar header with a bad size');
  if (size > LIMITS.tarMeta)
    throw bomb(what, `a tar header record of ${size} bytes, the limit is ${LIMITS.tarMeta}`);
  const data = await source.take(size);
  if (data.length < size || !(await source.skip(tarPadding(size))))
    throw broken(what, 'it ends inside a tar header');
  return data;
}

/** Takes in PAX and GNU headers; false for a header of an entry. */
async function takeMeta(
  source: ByteSource,
  block: Buffer,
  options: { readonly extra: Extra; readonly what: string },
): Promise<boolean> {
  const { extra, what } = options;
  const type = String.fromCharCode(block[156] ?? 0);
  if (type === 'g') {
    // Go does not apply global headers; the only ones in use (git archive) hold a comment.
    const records = paxOf(await readMeta(source, block, what), what);
    if (records.has('path') || records.has('size'))
      throw broken(what, 'a global PAX header that names a path');
    return true;
  }
  if (type === 'x') {
    const records = paxOf(await readMeta(source, block, what), what);
    for (const key of records.keys()) {
      if (key.startsWith('GNU.sparse.')) throw broken(what, 'a sparse file');
    }
    const [path, size] = [records.get('path'), records.get('size')];
    if (path !== undefined && path !== '') extra.path = path;
    if (size !== undefined && size !== '') extra.size = size;
    return true;
  }
  if (type === 'L' || type === 'K') {
    const data = await readMeta(source, block, what);
    if (type === 'L') extra.path = decodeName(textField(data, 0, data.length), what);
    return true;
  }
  return false;
}

function sizeOf(block: Buffer, extra: Extra, what: string): number {
  const size = sizeField(block, extra.size);
  if (size === undefined) throw broken(what, 'a tar header with a bad size');
  return size;
}

/** After the first zero block there may be nothing but zeros. */
async function checkEnd(source: ByteSource, what: string): Promise<void> {
  for (
    let part = await source.some(TAR_BLOCK);
    part !== undefined;
    part = await source.some(64 * TAR_BLOCK)
  ) {
    if (!isZero(part)) throw broken(what, 'data after the end of the tar archive');
  }
}

/**
 * The entries of a tar, in order. The stream is read to its very end.
 * @throws CHART_ARCHIVE_INVALID for anything but a whole, plain tar; CHART_ARCHIVE_BOMB when `budget` is used up
 */
export async function* readTar(
  chunks: AsyncGenerator<Uint8Array>,
  options: { readonly what: string; readonly budget: Budget },
): AsyncGenerator<TarEntry> {
  try {
    yield* readEntries(new ByteSource(chunks), options);
  } finally {
    await chunks.return(undefined);
  }
}

async function* readEntries(
  source: ByteSource,
  options: { readonly what: string; readonly budget: Budget },
): AsyncGenerator<TarEntry> {
  const { what, budget } = options;
  let extra: Extra = {};
  for (;;) {
    const block = await source.take(TAR_BLOCK);
    if (block.length === 0) return;
    if (block.length < TAR_BLOCK) throw broken(what, 'it ends inside a tar header');
    if (isZero(block)) return checkEnd(source, what);
    if (!checksumOk(block)) throw broken(what, 'a tar header with a wrong checksum');
    if (--budget.headers < 0) throw bomb(what, `more than ${LIMITS.chartFiles} entries`);
    if (await takeMeta(source, block, { extra, what })) continue;

    const name = extra.path ?? headerName(block, what);
    const { kind, detail } = kindOf(block, name);
    // Only files have content, whatever the size field of the others says (Go: isHeaderOnlyType).
    const size =
      kind === 'file' || KINDS[String.fromCharCode(block[156] ?? 0)] === undefined
        ? sizeOf(block, extra, what)
        : 0;
    extra = {};
    if (size > budget.content) {
      throw bomb(what, `"${name.slice(0, 200)}" brings it over ${LIMITS.chartUnpacked} bytes unpacked`);
    }
    budget.content -= size;
    let unread = size;
    const ended = (): SealiftError => broken(what, `it ends inside "${name.slice(0, 200)}"`);
    yield {
      name,
      kind,
      size,
      detail,
      async read() {
        const data = await source.take(unread);
        if (data.length < unread) throw ended();
        unread = 0;
        return data;
      },
    };
    if (!(await source.skip(unread)) || !(await source.skip(tarPadding(size)))) throw ended();
  }
}
