import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { ByteSource } from '../io/byte-source.ts';
import { readTarHeader, TAR_BLOCK, TAR_END, tarHeader, tarPadding } from '../io/tar.ts';
import type { FoundEntry } from './entries.ts';
import { isBundleName } from './scan.ts';

/**
 * The entries of a bundle that comes in order, by its strict grammar: each header is computed anew and compared byte for
 * byte, all padding is zero, and the end is exactly there. The first byte that is not as it must be ends the reading.
 */
export class StreamTar {
  readonly #source: ByteSource;
  /** Bytes of the entry that was begun and is not read yet, and what follows it. */
  #left = 0;
  #padding = 0;
  #count = 0;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  get what(): string {
    return this.#source.what;
  }

  /** Makes a fault of what was read the error that ends everything. */
  wrong(found: Fault): SealiftError {
    const { code, message, hint = this.#source.again, details } = found;
    return new SealiftError(code, message, {
      side: 'source',
      hint,
      ...(details === undefined ? {} : { details }),
    });
  }

  notCanonical(offset: number, why: string): SealiftError {
    const message = `${this.what}: ${why} at byte ${offset}`;
    return this.wrong(fault('BUNDLE_NOT_CANONICAL', message, { details: { offset } }));
  }

  truncated(what: string): SealiftError {
    const found = this.#source.position;
    const message = `${this.what}: ended at byte ${found}, in ${what}`;
    return this.wrong(
      fault('BUNDLE_TRUNCATED', message, {
        details: { found },
        hint: `what sends the bundle ended early: look at what it said; ${this.#source.again}`,
      }),
    );
  }

  async #exactly(length: number, what: string): Promise<Buffer> {
    const bytes = await this.#source.read(length);
    if (bytes.length < length) throw this.truncated(what);
    return bytes;
  }

  async #zeros(length: number, what: string): Promise<void> {
    const at = this.#source.position;
    const bytes = await this.#exactly(length, what);
    const bad = bytes.findIndex((b) => b !== 0);
    if (bad >= 0) throw this.notCanonical(at + bad, `${what} is not zero`);
  }

  /** Reads over what is left of the entry, and its padding. */
  async #endEntry(): Promise<void> {
    while ((await this.piece()) !== undefined);
    await this.#zeros(this.#padding, 'padding');
    this.#padding = 0;
  }

  /** The next pieces of the content of the entry that was begun; undefined at its end. Bytes are not verified. */
  async piece(): Promise<Buffer | undefined> {
    if (this.#left === 0) return undefined;
    const bytes = await this.#source.next(this.#left);
    if (bytes === undefined) throw this.truncated('the content of an entry');
    this.#left -= bytes.length;
    return bytes;
  }

  /** What is left of the content, in one buffer: who asks has limited its size. Bytes are not verified. */
  async whole(): Promise<Buffer> {
    const bytes = await this.#exactly(this.#left, 'the content of an entry');
    this.#left = 0;
    return bytes;
  }

  #begin(entry: { readonly name: string; readonly size: number }): FoundEntry {
    this.#left = entry.size;
    this.#padding = tarPadding(entry.size);
    this.#count += 1;
    if (this.#count > LIMITS.bundleEntries) {
      throw new SealiftError('CONTENT_TOO_LARGE', `${this.what}: more than ${LIMITS.bundleEntries} entries`, {
        side: 'source',
      });
    }
    return { name: entry.name, size: entry.size, offset: this.#source.position };
  }

  /** The next entry, whichever it is; undefined at the end of the archive, whose first block then is read. */
  async next(): Promise<FoundEntry | undefined> {
    await this.#endEntry();
    const at = this.#source.position;
    const first = await this.#exactly(TAR_BLOCK, 'a header');
    if (first.every((b) => b === 0)) return undefined;
    const isPax = first[156] === 0x78;
    const bytes = isPax ? Buffer.concat([first, await this.#exactly(2 * TAR_BLOCK, 'a header')]) : first;
    const found = readTarHeader(bytes);
    if (found === undefined) throw this.notCanonical(at, 'not a canonical header');
    if (!isBundleName(found.name)) throw this.notCanonical(at, `unknown entry "${found.name}"`);
    return this.#begin(found);
  }

  /** Begins exactly this entry. */
  async expect(name: string, size: number): Promise<FoundEntry> {
    await this.#endEntry();
    const at = this.#source.position;
    const expected = tarHeader(name, size);
    const bytes = await this.#exactly(expected.length, `the header of ${name}`);
    if (bytes.equals(expected)) return this.#begin({ name, size });
    const found = readTarHeader(bytes);
    const instead = found === undefined ? '' : `, found ${found.name} (${found.size} bytes)`;
    throw this.notCanonical(at, `expected ${name} (${size} bytes)${instead}`);
  }

  /** The second of the two zero blocks, and nothing behind it. */
  async end(): Promise<void> {
    await this.#zeros(TAR_END - TAR_BLOCK, 'the end of the archive');
    const more = await this.#source.next(1);
    if (more !== undefined) throw this.notCanonical(this.#source.position - 1, 'more bytes behind the end');
  }
}
