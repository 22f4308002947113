import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { createBlake3 } from '../io/blake3.ts';
import { diskError } from '../io/files.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { Receiver } from '../io/receiver.ts';
import { type Receivers, startReceiving } from '../io/receivers.ts';
import { isWrongContent, Verifier } from '../io/verify.ts';
import type { BlobStream, NextStream } from '../oci/content.ts';
import { HashList } from './entries.ts';
import { type Journal, type JournalState, openJournal } from './journal.ts';
import { B3SUMS } from './names.ts';
import {
  checkSpace,
  holdPath,
  type Paths,
  pathsOf,
  removePartial,
  settledPool,
  settlePartial,
} from './partial.ts';
import { type BundlePlan, b3sumsText, type PlannedEntry } from './plan.ts';
import type { BlobPool } from './pool.ts';
import type { Sink } from './sink.ts';
import { PART_EVERY, takeUp } from './take-up.ts';
import { openSink } from './volume-sink.ts';
import type { Form } from './volumes.ts';
import { emptyStats, type WriterStats } from './writer-stats.ts';

export interface BundleWriter {
  readonly stats: WriterStats;
  /** Blobs that are not there yet, in tar order. */
  missing(): Iterable<PlannedEntry>;
  /** One of them; undefined when the blob is there already or is not in the plan. */
  missingBlob(digest: Digest): PlannedEntry | undefined;
  /**
   * Fills one blob's slot from the streams that `next` gives, from a byte on (0, or where an interrupted run stopped). Size,
   * SHA-256 and BLAKE3 are computed in one pass; wrong content never counts as done.
   * @throws what `next` throws in the end
   */
  fill(entry: PlannedEntry, next: NextStream): Promise<void>;
  /** Fills one blob's slot with bytes in memory. @throws CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH, DISK_FULL */
  put(entry: PlannedEntry, bytes: Uint8Array): Promise<void>;
  /** Streams a blob that is complete. */
  read(digest: Digest): AsyncIterable<Buffer>;
  /** Writes documents and checksums and puts the bundle in place. */
  finish(): Promise<void>;
  /** Keeps what was received for a later run. */
  close(): Promise<void>;
}

export interface WriterOptions {
  readonly plan: BundlePlan;
  readonly kind: Form;
  readonly context: Context;
  /** Where blobs may be found without a network; closed by the writer, also when it cannot be opened. */
  readonly pools: readonly BlobPool[];
  /** Bytes that will be written beside the bundle when it is there: they need room too. */
  readonly beside?: number;
}

/**
 * Opens a bundle for writing at `out`: takes up an interrupted run of the same plan, and copies what an older bundle or
 * another interrupted run beside it has. Free space is checked before the first byte.
 * @throws PACK_BUSY, DISK_FULL, FILE_UNREADABLE
 */
export async function openWriter(out: string, options: WriterOptions): Promise<BundleWriter> {
  const paths = pathsOf(out);
  const held: Held = {
    pools: [...options.pools],
    sink: undefined,
    journal: undefined,
    release: undefined,
    receivers: undefined,
  };
  try {
    await mkdir(dirname(out), { recursive: true }).catch((error: unknown) => {
      throw diskError(error, dirname(out));
    });
    held.release = await holdPath(out);
    const writer = await takeOver(paths, held, options);
    await writer.takeUp();
    return writer;
  } catch (error) {
    await letGo(held);
    throw error;
  }
}

/** What a writer must give back at its end. */
interface Held {
  readonly pools: BlobPool[];
  sink: Sink | undefined;
  journal: Journal | undefined;
  release: (() => Promise<void>) | undefined;
  receivers: Receivers | undefined;
}

async function letGo(held: Held): Promise<void> {
  await held.receivers?.close();
  for (const pool of held.pools) await pool.close();
  await held.sink?.close();
  await held.journal?.close();
  await held.release?.();
}

async function takeOver(paths: Paths, held: Held, options: WriterOptions): Promise<Writer> {
  const { plan, kind, context } = options;
  const state = await settlePartial(paths, plan, kind);
  const old = await settledPool(paths);
  if (old !== undefined) held.pools.push(old);
  await checkSpace(paths, { plan, kind, beside: options.beside ?? 0 });
  const sink = await openSink(paths, { plan, kind });
  held.sink = sink;
  const journal = await openJournal(paths.journal, { plan: plan.id, kind, fresh: state === undefined });
  held.journal = journal;
  return new Writer({ plan, sink, journal, context, state, held, out: paths.out });
}

interface WriterParts {
  readonly plan: BundlePlan;
  readonly sink: Sink;
  readonly journal: Journal;
  readonly context: Context;
  readonly state: JournalState | undefined;
  readonly held: Held;
  readonly out: string;
}

class Writer implements BundleWriter {
  readonly stats = emptyStats();
  readonly #p: WriterParts;
  /** BLAKE3 of complete entries. */
  readonly #done: HashList;
  /** Bytes that were begun and not finished, of this run and the one before. */
  readonly #begun = new Map<Digest, number>();
  #closed = false;

  constructor(parts: WriterParts) {
    this.#p = parts;
    this.#done = new HashList(parts.plan.entries.length);
    for (const [digest, { bytes }] of parts.state?.parts ?? []) this.#begun.set(digest, bytes);
  }

  *missing(): Generator<PlannedEntry> {
    for (const entry of this.#p.plan.entries) {
      if (entry.digest !== undefined && !this.#done.has(entry.index)) yield entry;
    }
  }

  missingBlob(digest: Digest): PlannedEntry | undefined {
    const entry = this.#p.plan.entries.findBlob(digest);
    return entry === undefined || this.#done.has(entry.index) ? undefined : entry;
  }

  #missingBytes(): number {
    let sum = 0;
    for (const { size } of this.missing()) sum += size;
    return sum;
  }

  /** Counts what is already there (`takeUp`). */
  async takeUp(): Promise<void> {
    const { plan, sink, state, context, held, journal } = this.#p;
    await takeUp({ plan, sink, state, pools: held.pools, context }, (entry, { blake3, how }) => {
      const { digest, size } = this.#expected(entry);
      this.#done.set(entry.index, blake3);
      this.stats[how].blobs += 1;
      this.stats[how].bytes += size;
      if (how === 'reused') sink.wrote(size);
      if (how === 'reused' || state?.done.has(digest) !== true) journal.done(digest, entry);
    });
  }

  #expected(entry: PlannedEntry): { digest: Digest; size: number; what: string } {
    if (entry.digest === undefined) throw new SealiftError('INTERNAL', `${entry.name} is not a blob`);
    return { digest: entry.digest, size: entry.size, what: entry.name };
  }

  async fill(entry: PlannedEntry, next: NextStream): Promise<void> {
    const { digest, size } = this.#expected(entry);
    // Of an earlier run; it may turn out to be wrong, or shorter than it was noted.
    let kept = size;
    let shown = 0;
    const show = (bytes: number): void => {
      shown += bytes;
      this.#p.context.emit({ type: 'progress', id: entry.name, bytes });
    };
    for (let source = next(); ; ) {
      const noted = this.#begun.get(digest) ?? 0;
      const begun = noted < size ? noted : 0;
      kept = Math.min(kept, begun);
      try {
        const received = await this.#receive(entry, source, { begun, show });
        kept = Math.min(kept, size - received);
        this.stats.resumed.bytes += kept;
        this.stats.fetched.blobs += 1;
        this.stats.fetched.bytes += size - kept;
        return;
      } catch (error) {
        if (this.#begun.get(digest) === 0) show(-shown);
        source = next(error);
      }
    }
  }

  async put(entry: PlannedEntry, bytes: Uint8Array): Promise<void> {
    const expected = this.#expected(entry);
    const verifier = new Verifier(expected, { blake3: true });
    verifier.update(bytes);
    const b3 = verifier.finish();
    await this.#write(entry, bytes);
    this.#p.journal.done(expected.digest, entry);
    this.#done.set(entry.index, b3);
    this.#p.sink.wrote(bytes.length);
    this.#p.context.emit({ type: 'progress', id: entry.name, bytes: bytes.length });
    this.stats.fetched.blobs += 1;
    this.stats.fetched.bytes += bytes.length;
  }

  async #write(entry: PlannedEntry, bytes: Uint8Array): Promise<void> {
    const slot = await this.#p.sink.slot(entry);
    try {
      slot.write(bytes, 0);
    } finally {
      await slot.close();
    }
  }

  async #writeText(entry: PlannedEntry, pieces: Iterable<Buffer>): Promise<void> {
    const slot = await this.#p.sink.slot(entry);
    const hasher = createBlake3();
    try {
      let at = 0;
      for (const piece of pieces) {
        slot.write(piece, at);
        hasher.update(piece);
        at += piece.length;
      }
      this.#done.set(entry.index, hasher.digest('hex'));
    } finally {
      await slot.close();
    }
  }

  /** The receivers; they are started when the first blob comes, for as many threads as what lacks is worth. */
  #receivers(): Receivers {
    const { held, context } = this.#p;
    held.receivers ??= startReceiving(this.#missingBytes(), context);
    return held.receivers;
  }

  /** Writes a blob behind its first `begun` bytes, which are there. Returns how many bytes came. */
  async #receive(
    entry: PlannedEntry,
    source: BlobStream,
    { begun, show }: { readonly begun: number; readonly show: (bytes: number) => void },
  ): Promise<number> {
    const { journal, context, sink } = this.#p;
    const expected = this.#expected(entry);
    const { digest } = expected;
    const { offset } = entry;
    const slot = await sink.slot(entry);
    const { file, path, position } = slot;
    let into: Receiver | undefined;
    let failed = false;
    let [start, told, noted] = [0, 0, begun];
    try {
      into = await this.#receivers().open({ file, path, position, begun, expected });
      start = told = into.received;
      journal.part(digest, { offset, bytes: start });
      for await (const chunk of source(start, into)) {
        throwIfAborted(context.signal);
        if (chunk.length > 0) await into.write(chunk);
        show(into.received - told);
        sink.wrote(into.received - told);
        told = into.received;
        if (told - noted < PART_EVERY) continue;
        noted = told;
        journal.part(digest, { offset, bytes: noted });
      }
      const b3 = await into.finish();
      journal.done(digest, entry);
      this.#done.set(entry.index, b3);
      return into.received - start;
    } catch (error) {
      failed = true;
      // Wrong content may be the fault of what was there before; not where nothing of this source came behind it.
      const isMixed = isWrongContent(error) && into !== undefined && into.received > start;
      const bytes = isMixed ? 0 : (into?.received ?? begun);
      this.#begun.set(digest, bytes);
      // A journal that cannot be written costs bytes in the next run; what is told is the first failure.
      try {
        journal.part(digest, { offset, bytes });
      } catch {}
      throw error;
    } finally {
      into?.close();
      // What went wrong first is what is told.
      await slot.close().catch((error: unknown) => {
        if (!failed) throw error;
      });
    }
  }

  async *read(digest: Digest): AsyncGenerator<Buffer> {
    const entry = this.#p.plan.entries.findBlob(digest);
    if (entry === undefined) throw new SealiftError('INTERNAL', `${digest} is not in the plan`);
    const slot = await this.#p.sink.slot(entry);
    try {
      yield* slot.read(entry.size);
    } finally {
      await slot.close();
    }
  }

  async finish(): Promise<void> {
    const { plan, sink, out } = this.#p;
    const lacking = [...this.missing()].length;
    if (lacking > 0) throw new SealiftError('INTERNAL', `${lacking} blobs were never filled`);
    for (const entry of plan.entries) {
      if (entry.text !== undefined) await this.#writeText(entry, entry.text.pieces());
    }
    const sums = plan.entries.find(B3SUMS);
    if (sums !== undefined) await this.#writeText(sums, b3sumsText(plan, this.#done));
    await sink.finish();
    await this.close();
    await removePartial(out);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await letGo(this.#p.held);
  }
}
