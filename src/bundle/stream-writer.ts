import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { KIB, MIB } from '../core/limits.ts';
import { createBlake3 } from '../io/blake3.ts';
import type { ByteSink } from '../io/byte-sink.ts';
import { InlineReceiver } from '../io/inline-receiver.ts';
import { TAR_END, tarHeader, tarPadding } from '../io/tar.ts';
import { type Expected, isWrongContent, Verifier } from '../io/verify.ts';
import type { NextStream } from '../oci/content.ts';
import { HashList } from './entries.ts';
import { B3SUMS } from './names.ts';
import { type BundlePlan, b3sumsText, type PlannedEntry } from './plan.ts';
import { emptyStats, type WriterStats } from './writer-stats.ts';

/** Blobs up to this are fetched whole before their turn; larger ones pass through when it is theirs. */
const AHEAD_SIZE = 8 * MIB;
/** Bytes that wait for their turn, and how many blobs are fetched at once. */
const AHEAD_BYTES = 32 * MIB;
const AHEAD_BLOBS = 6;
/** A blob in memory is handed on in pieces of this. */
const PIECE = 256 * KIB;

/** A blob in memory, or the streams of it. */
export type StreamedSource = Uint8Array | NextStream;

export interface StreamOptions {
  readonly sink: ByteSink;
  readonly context: Context;
  /** Where a planned blob comes from. */
  readonly sourceOf: (entry: PlannedEntry) => Promise<StreamedSource>;
  /** What a blob is called on the screen. */
  readonly labelOf: (entry: PlannedEntry) => string;
  /** The entry behind B3SUMS, whose text it is given; default none: the bundle is unsigned. */
  readonly sign?: (b3sums: Iterable<Buffer>) => Promise<{ readonly name: string; readonly bytes: Buffer }>;
}

function expectedOf({ digest, size, name }: PlannedEntry): Expected & { readonly size: number } {
  if (digest === undefined) throw new SealiftError('INTERNAL', `${name} is not a blob`);
  return { digest, size, what: name };
}

/** A blob that was fetched whole, and its BLAKE3. */
interface Whole {
  readonly bytes: Uint8Array;
  readonly blake3: string;
}

/**
 * Writes a bundle from its first byte to its last, the same bytes as a file has. Small blobs are fetched ahead into memory,
 * where wrong content is fetched again; a large one passes through, goes on at the byte where it broke from whoever has it,
 * and ends the stream where it turns out to be wrong: it is out already. What was written then has no end, so nothing takes
 * it for a bundle.
 * @throws what a source throws in the end, CONTENT_DIGEST_MISMATCH, OUTPUT_CLOSED, DISK_FULL, ABORTED
 */
export async function writeStream(plan: BundlePlan, options: StreamOptions): Promise<WriterStats> {
  const stream = new OutgoingStream(plan, options);
  try {
    await stream.run();
    return stream.stats;
  } finally {
    await stream.close();
  }
}

class OutgoingStream {
  readonly stats = emptyStats();
  readonly #plan: BundlePlan;
  readonly #options: StreamOptions;
  readonly #hashes: HashList;
  /** Blobs that are fetched or were, before their turn, by index. */
  readonly #ahead = new Map<number, Promise<Whole>>();
  /** Bytes of these, and the first entry that was not looked at yet. */
  #held = 0;
  #running = 0;
  #next = 0;
  /** Ends what is fetched ahead, when the stream has ended early. */
  readonly #end = new AbortController();
  readonly #signal: AbortSignal;

  constructor(plan: BundlePlan, options: StreamOptions) {
    this.#plan = plan;
    this.#options = options;
    this.#signal = AbortSignal.any([options.context.signal, this.#end.signal]);
    this.#hashes = new HashList(plan.entries.length);
  }

  async run(): Promise<void> {
    const { sink, sign } = this.#options;
    for (const entry of this.#plan.entries) {
      this.#fetchAhead();
      if (entry.text !== undefined) await this.#writeText(entry, entry.text.pieces());
      else if (entry.name === B3SUMS) await this.#writeText(entry, b3sumsText(this.#plan, this.#hashes));
      else await this.#writeBlob(entry);
    }
    if (sign !== undefined) {
      const { name, bytes } = await sign(b3sumsText(this.#plan, this.#hashes));
      await sink.write(tarHeader(name, bytes.length));
      await sink.write(bytes);
      await sink.write(Buffer.alloc(tarPadding(bytes.length)));
    }
    await sink.write(Buffer.alloc(TAR_END));
    await sink.flush();
  }

  /** What is still under way has nowhere to go. */
  async close(): Promise<void> {
    this.#end.abort();
    await Promise.allSettled(this.#ahead.values());
  }

  async #writeText(entry: PlannedEntry, pieces: Iterable<Buffer>): Promise<void> {
    const { sink } = this.#options;
    const hasher = createBlake3();
    await sink.write(tarHeader(entry.name, entry.size));
    for (const piece of pieces) {
      hasher.update(piece);
      await sink.write(piece);
    }
    await sink.write(Buffer.alloc(tarPadding(entry.size)));
    this.#hashes.set(entry.index, hasher.digest('hex'));
  }

  async #writeBlob(entry: PlannedEntry): Promise<void> {
    const { context, sink, labelOf } = this.#options;
    const { name, size } = entry;
    context.emit({ type: 'start', id: name, label: labelOf(entry), size });
    try {
      const ahead = this.#ahead.get(entry.index);
      const blake3 =
        ahead === undefined ? await this.#passThrough(entry) : await this.#writeWhole(entry, await ahead);
      await sink.write(Buffer.alloc(tarPadding(size)));
      this.#hashes.set(entry.index, blake3);
    } catch (error) {
      context.emit({ type: 'end', id: name, outcome: 'failed' });
      throw error;
    }
    this.stats.fetched.blobs += 1;
    this.stats.fetched.bytes += size;
    context.emit({ type: 'end', id: name, outcome: 'done' });
  }

  async #writeWhole(entry: PlannedEntry, { bytes, blake3 }: Whole): Promise<string> {
    const { sink, context } = this.#options;
    await sink.write(tarHeader(entry.name, entry.size));
    for (let at = 0; at < bytes.length; at += PIECE) {
      const piece = bytes.subarray(at, at + PIECE);
      await sink.write(piece);
      context.emit({ type: 'progress', id: entry.name, bytes: piece.length });
    }
    this.#ahead.delete(entry.index);
    this.#held -= entry.size;
    return blake3;
  }

  /** Starts what fits: it never waits for its turn half-way, so no server finds us slow. */
  #fetchAhead(): void {
    const { entries } = this.#plan;
    while (this.#next < entries.length && this.#running < AHEAD_BLOBS && !this.#signal.aborted) {
      const size = entries.sizeAt(this.#next);
      const entry = size > AHEAD_SIZE ? undefined : entries.at(this.#next);
      if (entry?.digest !== undefined) {
        if (this.#held + size > AHEAD_BYTES) return;
        this.#start(entry);
      }
      this.#next += 1;
    }
  }

  #start(entry: PlannedEntry): void {
    this.#held += entry.size;
    this.#running += 1;
    const whole = this.#fetchWhole(entry).finally(() => {
      this.#running -= 1;
      this.#fetchAhead();
    });
    // It is waited for when its turn comes.
    whole.catch(() => {});
    this.#ahead.set(entry.index, whole);
  }

  async #fetchWhole(entry: PlannedEntry): Promise<Whole> {
    const { sourceOf } = this.#options;
    const expected = expectedOf(entry);
    const source = await sourceOf(entry);
    if (typeof source !== 'function') {
      const verifier = new Verifier(expected, { blake3: true });
      verifier.update(source);
      return { bytes: source, blake3: verifier.finish() };
    }
    const bytes = Buffer.allocUnsafeSlow(expected.size);
    const take = (chunk: Uint8Array, at: number): void => bytes.set(chunk, at);
    const open = (): InlineReceiver => new InlineReceiver(expected, { take, signal: this.#signal });
    let into = open();
    for (let stream = source(); ; ) {
      try {
        for await (const chunk of stream(into.received, into)) if (chunk.length > 0) await into.write(chunk);
        return { bytes, blake3: await into.finish() };
      } catch (error) {
        if (isWrongContent(error)) into = open();
        stream = source(error);
      }
    }
  }

  /** A blob on its way from a source to the output; the header goes out with its first byte. */
  async #passThrough(entry: PlannedEntry): Promise<string> {
    const { context, sink, sourceOf } = this.#options;
    const expected = expectedOf(entry);
    const source = await sourceOf(entry);
    await sink.write(tarHeader(entry.name, entry.size));
    const take = async (chunk: Uint8Array): Promise<void> => {
      await sink.write(chunk);
      context.emit({ type: 'progress', id: entry.name, bytes: chunk.length });
    };
    const into = new InlineReceiver(expected, { take, signal: context.signal });
    if (typeof source !== 'function') {
      for (let at = 0; at < source.length; at += PIECE) await into.write(source.subarray(at, at + PIECE));
      return into.finish();
    }
    for (let stream = source(); ; ) {
      const start = into.received;
      try {
        for await (const chunk of stream(start, into)) if (chunk.length > 0) await into.write(chunk);
        return await into.finish();
      } catch (error) {
        if (isWrongContent(error) && into.received > start) throw outAlready(error);
        stream = source(error);
      }
    }
  }
}

/** Wrong content of which bytes were handed on cannot be taken back. */
function outAlready(error: unknown): unknown {
  if (!(error instanceof SealiftError)) return error;
  return new SealiftError(
    error.code,
    `${error.message}; the stream ends here, because it cannot be taken back`,
    {
      cause: error,
      hint: 'remove what was written, which is no whole bundle, and run the same commands again; packed into a file (-o NAME) such content is fetched again',
      ...(error.details === undefined ? {} : { details: error.details }),
    },
  );
}
