import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { isAbort, SealiftError } from '../core/errors.ts';
import { KIB, LIMITS } from '../core/limits.ts';
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
import { invalidPackage } from './metadata.ts';

/** Exact numbers of bytes out of a stream of chunks, up to a limit in all. */
class Reading {
  readonly what: string;
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);
  #taken = 0;

  constructor(chunks: AsyncIterable<Uint8Array>, what: string) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.what = what;
  }

  /** False at the end. */
  async #more(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#chunks.next();
      if (done === true) return false;
      this.#taken += value.length;
      if (this.#taken > LIMITS.packageUnpacked) {
        throw invalidPackage(this.what, `it unpacks to more than ${LIMITS.packageUnpacked} bytes`);
      }
      this.#rest = value;
    }
    return true;
  }

  /** Fewer only at the end. */
  async take(length: number): Promise<Buffer> {
    const out = Buffer.alloc(length);
    let filled = 0;
    while (filled < length && (await this.#more())) {
      const part = this.#rest.subarray(0, length - filled);
      out.set(part, filled);
      filled += part.length;
      this.#rest = this.#rest.subarray(part.length);
    }
    return out.subarray(0, filled);
  }

  async skip(length: number): Promise<void> {
    for (let left = length; left > 0; ) {
      if (!(await this.#more())) throw invalidPackage(this.what, 'it is cut off');
      const passed = Math.min(left, this.#rest.length);
      this.#rest = this.#rest.subarray(passed);
      left -= passed;
    }
  }

  /** A small part that is kept. */
  async whole(size: number, limit: number): Promise<Buffer> {
    if (size > limit) throw invalidPackage(this.what, `a part of ${size} bytes, the limit is ${limit}`);
    const bytes = await this.take(size);
    if (bytes.length < size) throw invalidPackage(this.what, 'it is cut off');
    return bytes;
  }
}

/** What a PAX or GNU header said of the entry that follows. */
interface Extra {
  path?: string | undefined;
  size?: string | undefined;
}

/** Types of entries that have no content, whatever their size field says. */
const HEADER_ONLY = new Set(['1', '2', '3', '4', '5', '6']);
const FILES = new Set(['\0', '0', '7']);
const META = new Set(['x', 'g', 'L', 'K']);

async function takeMeta(
  reading: Reading,
  type: string,
  options: { size: number; extra: Extra },
): Promise<void> {
  const { size, extra } = options;
  const data = await reading.whole(size, LIMITS.tarMeta);
  await reading.skip(tarPadding(size));
  if (type === 'L') extra.path = utf8Of(textField(data, 0, data.length));
  if (type !== 'x') return;
  const records = paxRecords(data);
  if (records === undefined) throw invalidPackage(reading.what, 'a bad PAX header');
  extra.path = records.get('path') || extra.path;
  extra.size = records.get('size') || extra.size;
}

async function findIn(reading: Reading, isWanted: (name: string) => boolean): Promise<Buffer | undefined> {
  let extra: Extra = {};
  for (let entries = 0; entries <= LIMITS.packageEntries; entries += 1) {
    const block = await reading.take(TAR_BLOCK);
    if (block.length === 0 || isZero(block)) return undefined;
    if (block.length < TAR_BLOCK || !checksumOk(block)) throw invalidPackage(reading.what, 'a damaged tar');
    const type = String.fromCharCode(block[156] ?? 0);
    const size = META.has(type) ? numberField(block, 124, 12) : sizeField(block, extra.size);
    if (size === undefined) throw invalidPackage(reading.what, 'a tar header with a bad size');
    if (META.has(type)) {
      await takeMeta(reading, type, { size, extra });
      continue;
    }
    const name = extra.path ?? utf8Of(nameField(block)) ?? '';
    extra = {};
    if (FILES.has(type) && isWanted(name)) return reading.whole(size, LIMITS.packageMetadata);
    const content = HEADER_ONLY.has(type) ? 0 : size;
    await reading.skip(content + tarPadding(content));
  }
  throw invalidPackage(reading.what, `it has more than ${LIMITS.packageEntries} files`);
}

/**
 * The content of the first file of a wanted name in a .tar.gz, which is read no further than that; undefined when there
 * is none.
 * @param of.what the archive's name, for messages
 * @throws PACKAGE_INVALID for a bad archive or too much in it; what the source throws
 */
export async function readTarGzEntry(
  source: AsyncIterable<Uint8Array>,
  of: { readonly what: string; readonly isWanted: (name: string) => boolean },
): Promise<Buffer | undefined> {
  const unzip = createGunzip({ chunkSize: 64 * KIB });
  let failure: { readonly error: unknown } | undefined;
  const guarded = async function* (): AsyncGenerator<Uint8Array> {
    try {
      yield* source;
    } catch (error) {
      failure = { error };
      throw error;
    }
  };
  const fed = pipeline(guarded, unzip);
  fed.catch(() => {}); // Its end is seen below, or of no interest when the file was found.
  try {
    return await findIn(new Reading(unzip, of.what), of.isWanted);
  } catch (error) {
    if (failure !== undefined) throw failure.error;
    if (error instanceof SealiftError || isAbort(error)) throw error;
    throw invalidPackage(of.what, `a damaged gzip: ${error instanceof Error ? error.message : ''}`, error);
  } finally {
    unzip.destroy();
    await fed.catch(() => {});
  }
}
