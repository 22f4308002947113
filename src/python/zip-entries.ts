import { createInflateRaw } from 'node:zlib';
import { fromRandomAccessReaderPromise, RandomAccessReader, type ZipFile } from 'yauzl';
import { KIB, LIMITS } from '../core/limits.ts';
import { collect } from '../io/verify.ts';
import { invalidPackage } from './metadata.ts';

/** Bytes that can be read at any place. */
export interface SeekableBlob {
  /** Bytes. */
  readonly size: number;
  /** `length` bytes from `from` on. */
  read(from: number, length: number): Promise<Buffer>;
}

/** Read at once, and kept of these: a reader of a zip asks for 46 bytes at a time. */
const BLOCK = 128 * KIB;
const BLOCKS_KEPT = 16;

class BlockReader extends RandomAccessReader {
  readonly #blob: SeekableBlob;
  readonly #blocks = new Map<number, Promise<Buffer>>();
  /** What the blob itself failed with: not the fault of what is in it. */
  failure: { readonly error: unknown } | undefined;

  constructor(blob: SeekableBlob) {
    super();
    this.#blob = blob;
  }

  #block(at: number): Promise<Buffer> {
    const known = this.#blocks.get(at);
    if (known !== undefined) return known;
    const [oldest] = this.#blocks.keys();
    if (this.#blocks.size >= BLOCKS_KEPT && oldest !== undefined) this.#blocks.delete(oldest);
    const read = this.#blob.read(at, Math.min(BLOCK, this.#blob.size - at));
    read.catch((error: unknown) => {
      this.failure ??= { error };
    });
    this.#blocks.set(at, read);
    return read;
  }

  async fill(into: Buffer, from: number): Promise<void> {
    for (let filled = 0; filled < into.length; ) {
      const position = from + filled;
      const at = position - (position % BLOCK);
      const block = await this.#block(at);
      const copied = block.copy(into, filled, position - at);
      if (copied === 0) throw new Error(`it ends at byte ${position}`);
      filled += copied;
    }
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null) => void,
  ): void {
    this.fill(buffer.subarray(offset, offset + length), position).then(
      () => callback(null),
      (error: unknown) => callback(error instanceof Error ? error : new Error(String(error))),
    );
  }
}

async function findIn(
  zip: ZipFile,
  of: { readonly reader: BlockReader; readonly what: string; readonly isWanted: (name: string) => boolean },
): Promise<Buffer | undefined> {
  const { reader, what, isWanted } = of;
  if (zip.entryCount > LIMITS.packageEntries) {
    throw invalidPackage(what, `it has ${zip.entryCount} files, the limit is ${LIMITS.packageEntries}`);
  }
  let found: Buffer | undefined;
  for await (const entry of zip.eachEntry()) {
    const name = entry.fileName;
    if (!isWanted(name)) continue;
    if (found !== undefined) throw invalidPackage(what, `it has two files like ${name.slice(0, 200)}`);
    if (entry.uncompressedSize > LIMITS.packageMetadata || entry.compressedSize > LIMITS.packageMetadata) {
      const limit = LIMITS.packageMetadata;
      throw invalidPackage(
        what,
        `${name.slice(0, 200)} has ${entry.uncompressedSize} bytes, the limit is ${limit}`,
      );
    }
    // Its own reading of ranges is by streams, which would not end where the blob fails.
    const { fileDataStart } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
    if (entry.isEncrypted() || ![0, 8].includes(entry.compressionMethod)) {
      throw invalidPackage(what, `${name.slice(0, 200)} is encrypted, or compressed in an unknown way`);
    }
    const packed = Buffer.alloc(entry.compressedSize);
    await reader.fill(packed, fileDataStart);
    found =
      entry.compressionMethod === 0 ? packed : await inflate(packed, { limit: entry.uncompressedSize, what });
  }
  return found;
}

async function inflate(
  packed: Buffer,
  about: { readonly limit: number; readonly what: string },
): Promise<Buffer> {
  const plain = createInflateRaw();
  plain.end(packed);
  return collect(plain, about);
}

/**
 * The content of the one file in a zip whose name is wanted; undefined when there is none.
 * @param of.what the zip's name, for messages
 * @throws PACKAGE_INVALID for a bad zip, a second such file, one above LIMITS.packageMetadata; what the blob's reading throws
 */
export async function readZipEntry(
  blob: SeekableBlob,
  of: { readonly what: string; readonly isWanted: (name: string) => boolean },
): Promise<Buffer | undefined> {
  const reader = new BlockReader(blob);
  try {
    const zip = await fromRandomAccessReaderPromise(reader, blob.size, { autoClose: false });
    return await findIn(zip, { ...of, reader });
  } catch (error) {
    if (reader.failure !== undefined && reader.failure.error === error) throw error;
    if (error instanceof Error && 'code' in error && error.code === 'PACKAGE_INVALID') throw error;
    throw invalidPackage(of.what, `a damaged zip: ${error instanceof Error ? error.message : ''}`, error);
  }
}
