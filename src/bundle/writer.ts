import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { MIB } from '../core/limits.ts';
import { diskError } from '../io/files.ts';
import { throwIfAborted } from '../io/pool.ts';
import { blake3Of, Verifier } from '../io/verify.ts';
import { type Journal, type JournalState, openJournal } from './journal.ts';
import {
  checkSpace,
  holdPath,
  type Paths,
  pathsOf,
  removePartial,
  settledPool,
  settlePartial,
} from './partial.ts';
import { B3SUMS, type BundlePlan, b3sumsText, type PlannedEntry } from './plan.ts';
import type { BlobPool } from './pool.ts';
import { folderSink, type Sink, tarSink } from './sink.ts';

/** How often the beginning of a blob is noted, in bytes: what a kill can cost for each running blob. */
const PART_EVERY = 4 * MIB;

/** How far a bundle has come. Bytes and blobs. */
export interface WriterStats {
  /** Found complete in the interrupted file; bytes with the beginnings that were continued. */
  resumed: { blobs: number; bytes: number };
  /** Copied from an older bundle or an interrupted one. */
  reused: { blobs: number; bytes: number };
  /** Received from sources. */
  fetched: { blobs: number; bytes: number };
}

/** Streams a blob from a byte on. */
export type BlobStream = (offset: number) => AsyncIterable<Uint8Array>;

export interface BundleWriter {
  readonly stats: WriterStats;
  /** Blobs that are not there yet, in tar order. */
  missing(): PlannedEntry[];
  /**
   * Fills one blob's slot. `source(offset)` streams it from a byte on (0, or where an interrupted run stopped). Size,
   * SHA-256 and BLAKE3 are computed in one pass; wrong content never counts as done.
   */
  fill(entry: PlannedEntry, source: BlobStream): Promise<void>;
  /** Streams a blob that is complete. */
  read(digest: Digest): AsyncIterable<Buffer>;
  /** Writes documents and checksums and puts the bundle in place. */
  finish(): Promise<void>;
  /** Keeps what was received for a later run. */
  close(): Promise<void>;
}

export interface WriterOptions {
  readonly plan: BundlePlan;
  readonly kind: 'tar' | 'folder';
  readonly context: Context;
  /** Where blobs may be found without a network; closed by the writer, also when it cannot be opened. */
  readonly pools: readonly BlobPool[];
}

/**
 * Opens a bundle for writing at `out`: takes up an interrupted run of the same plan, and copies what an older bundle or
 * another interrupted run beside it has. Free space is checked before the first byte.
 * @throws PACK_BUSY, DISK_FULL, FILE_UNREADABLE
 */
export async function openWriter(out: string, options: WriterOptions): Promise<BundleWriter> {
  const paths = pathsOf(out);
  const held: Held = { pools: [...options.pools], sink: undefined, journal: undefined, release: undefined };
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
}

async function letGo(held: Held): Promise<void> {
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
  await checkSpace(paths, plan);
  const sink = kind === 'tar' ? await tarSink(paths, plan) : await folderSink(paths);
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
  readonly stats: WriterStats = {
    resumed: { blobs: 0, bytes: 0 },
    reused: { blobs: 0, bytes: 0 },
    fetched: { blobs: 0, bytes: 0 },
  };
  readonly #p: WriterParts;
  /** BLAKE3 of complete blobs. */
  readonly #done = new Map<Digest, string>();
  /** Bytes that were begun and not finished, of this run and the one before. */
  readonly #begun = new Map<Digest, number>();
  #closed = false;

  constructor(parts: WriterParts) {
    this.#p = parts;
    for (const [digest, { bytes }] of parts.state?.parts ?? []) this.#begun.set(digest, bytes);
  }

  missing(): PlannedEntry[] {
    return [...this.#p.plan.blobs.values()].filter(
      (e) => e.digest !== undefined && !this.#done.has(e.digest),
    );
  }

  /** Counts what is already there: first the interrupted file's own blobs, then those of the pools. */
  async takeUp(): Promise<void> {
    const { context, held, state } = this.#p;
    const { pools } = held;
    if (state !== undefined)
      context.emit({ type: 'phase', name: 'take up', detail: 'what an interrupted pack left' });
    for (const [digest, entry] of this.#p.plan.blobs) {
      throwIfAborted(this.#p.context.signal);
      const b3 = this.#maybeWhole(entry) ? await this.#hashIfWhole(entry) : undefined;
      if (b3 === undefined) continue;
      this.#done.set(digest, b3);
      this.stats.resumed.blobs += 1;
      this.stats.resumed.bytes += entry.size;
      if (!this.#p.state?.done.has(digest)) await this.#p.journal.done(digest, entry);
    }
    if (pools.length > 0)
      context.emit({ type: 'phase', name: 'reuse', detail: pools.map((p) => p.what).join(', ') });
    for (const entry of this.missing()) {
      throwIfAborted(context.signal);
      if (await this.#fromPools(entry)) {
        this.stats.reused.blobs += 1;
        this.stats.reused.bytes += entry.size;
      }
    }
  }

  /** A kill may come between a blob's last byte and its line: one that lacks little more than a note's distance may be whole. */
  #maybeWhole(entry: PlannedEntry): boolean {
    const { state } = this.#p;
    if (entry.digest === undefined || state === undefined) return false;
    if (state.done.get(entry.digest)?.size === entry.size) return true;
    const begun = this.#begun.get(entry.digest);
    return begun !== undefined && entry.size - begun < 2 * PART_EVERY;
  }

  /** The BLAKE3 of a slot whose SHA-256 is right. */
  async #hashIfWhole(entry: PlannedEntry): Promise<string | undefined> {
    const slot = await this.#p.sink.slot(entry);
    try {
      const verifier = new Verifier(this.#expected(entry), { blake3: true });
      for await (const chunk of slot.read(entry.size)) {
        throwIfAborted(this.#p.context.signal);
        verifier.update(chunk);
      }
      return verifier.finish();
    } catch (error) {
      if (isWrongContent(error)) return undefined;
      throw error;
    } finally {
      await slot.close();
    }
  }

  async #fromPools(entry: PlannedEntry): Promise<boolean> {
    for (const pool of this.#p.held.pools) {
      const bytes = entry.digest === undefined ? undefined : pool.open(entry.digest);
      if (bytes === undefined) continue;
      try {
        await this.#receive(entry, () => bytes, 0);
        return true;
      } catch (error) {
        throwIfAborted(this.#p.context.signal);
        if (!isWrongContent(error)) throw error;
        this.#p.context.emit({
          type: 'note',
          message: `${pool.what}: ${entry.name} is damaged there and is fetched again`,
        });
      }
    }
    return false;
  }

  #expected(entry: PlannedEntry): { digest: Digest; size: number; what: string } {
    if (entry.digest === undefined) throw new SealiftError('INTERNAL', `${entry.name} is not a blob`);
    return { digest: entry.digest, size: entry.size, what: entry.name };
  }

  async fill(entry: PlannedEntry, source: BlobStream): Promise<void> {
    const noted = entry.digest === undefined ? undefined : this.#begun.get(entry.digest);
    const begun = noted !== undefined && noted < entry.size ? noted : 0;
    let received: number;
    try {
      received = await this.#receive(entry, source, begun);
      this.stats.resumed.bytes += entry.size - received;
    } catch (error) {
      // A beginning from before a crash may be wrong although it was noted, and so may what a mirror gave, which is not
      // asked again: once more from the start.
      const code = error instanceof SealiftError ? error.code : undefined;
      if (code !== 'CONTENT_DIGEST_MISMATCH' && code !== 'CONTENT_SIZE_MISMATCH') throw error;
      received = await this.#receive(entry, source, 0);
    }
    this.stats.fetched.blobs += 1;
    this.stats.fetched.bytes += received;
  }

  /** Writes a blob behind its first `begun` bytes, which are there. Returns how many bytes came. */
  async #receive(entry: PlannedEntry, source: BlobStream, begun: number): Promise<number> {
    const { journal, context, sink } = this.#p;
    const expected = this.#expected(entry);
    const { digest } = expected;
    const { offset } = entry;
    const slot = await sink.slot(entry);
    const verifier = new Verifier(expected, { blake3: true });
    let noted = begun;
    let written = 0;
    let start = 0;
    try {
      if (begun > 0) for await (const chunk of slot.read(begun)) verifier.update(chunk);
      start = verifier.received;
      written = start;
      await journal.part(digest, { offset, bytes: written });
      for await (const chunk of source(start)) {
        throwIfAborted(context.signal);
        verifier.update(chunk);
        slot.write(chunk, written);
        written += chunk.length;
        context.emit({ type: 'progress', id: entry.name, bytes: chunk.length });
        if (written - noted < PART_EVERY) continue;
        noted = written;
        await journal.part(digest, { offset, bytes: noted });
      }
      const b3 = verifier.finish();
      await journal.done(digest, entry);
      this.#done.set(digest, b3);
      return written - start;
    } catch (error) {
      const bytes = isWrongContent(error) ? 0 : written;
      this.#begun.set(digest, bytes);
      // A journal that cannot be written costs bytes in the next run; what is told is the first failure.
      await journal.part(digest, { offset, bytes }).catch(() => {});
      context.emit({ type: 'progress', id: entry.name, bytes: start - written });
      throw error;
    } finally {
      await slot.close();
    }
  }

  async *read(digest: Digest): AsyncGenerator<Buffer> {
    const entry = this.#p.plan.blobs.get(digest);
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
    const lacking = this.missing();
    if (lacking.length > 0) throw new SealiftError('INTERNAL', `${lacking.length} blobs were never filled`);
    const hashes = new Map<string, string>();
    const put = async (entry: PlannedEntry, bytes: Buffer): Promise<void> => {
      const slot = await sink.slot(entry);
      slot.write(bytes, 0);
      await slot.close();
    };
    for (const entry of plan.entries) {
      if (entry.digest !== undefined) hashes.set(entry.name, this.#done.get(entry.digest) ?? '');
      else if (entry.bytes !== undefined) {
        await put(entry, entry.bytes);
        hashes.set(entry.name, blake3Of(entry.bytes));
      }
    }
    const sums = plan.entries.find((e) => e.name === B3SUMS);
    if (sums !== undefined) await put(sums, b3sumsText(plan, hashes));
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

function isWrongContent(error: unknown): boolean {
  return error instanceof SealiftError && error.code.startsWith('CONTENT_');
}
