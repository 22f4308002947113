import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { MIB } from '../core/limits.ts';
import { freeSpace, kindOf, readRange } from '../io/files.ts';
import { throwIfAborted } from '../io/pool.ts';
import { blake3Of, Verifier } from '../io/verify.ts';
import { type Journal, type JournalState, openJournal, readJournal } from './journal.ts';
import { openMedium } from './medium.ts';
import { B3SUMS, type BundlePlan, b3sumsText, blobName, type PlannedEntry } from './plan.ts';
import { folderSink, type Sink, tarSink } from './sink.ts';

/** How often the beginning of a blob is noted, in bytes: what a kill can cost for each running blob. */
const PART_EVERY = 4 * MIB;

/** Blobs that are on this disk already: an older bundle, or an interrupted pack of another lock. Bytes are unverified. */
export interface BlobPool {
  readonly what: string;
  open(digest: Digest): AsyncIterable<Buffer> | undefined;
  close(): Promise<void>;
}

/** How far a bundle has come. Bytes and blobs. */
export interface WriterStats {
  /** Found complete in the interrupted file. */
  resumed: { blobs: number; bytes: number };
  /** Copied from an older bundle or an interrupted one. */
  reused: { blobs: number; bytes: number };
  /** Received from sources. */
  fetched: { blobs: number; bytes: number };
}

export interface BundleWriter {
  readonly stats: WriterStats;
  /** Blobs that are not there yet, in tar order. */
  missing(): PlannedEntry[];
  /**
   * Fills one blob's slot. `source(offset)` streams it from a byte on (0, or where an interrupted run stopped). Size,
   * SHA-256 and BLAKE3 are computed in one pass; wrong content never counts as done.
   */
  fill(entry: PlannedEntry, source: (offset: number) => AsyncIterable<Uint8Array>): Promise<void>;
  /** Streams a blob that is complete. */
  read(digest: Digest): AsyncIterable<Buffer>;
  /** Writes documents and checksums and puts the bundle in place. */
  finish(): Promise<void>;
  /** Keeps what was received for a later run. */
  close(): Promise<void>;
}

interface Paths {
  readonly out: string;
  readonly partial: string;
  readonly journal: string;
  readonly oldPartial: string;
  readonly oldJournal: string;
}

function pathsOf(out: string): Paths {
  return {
    out,
    partial: `${out}.partial`,
    journal: `${out}.partial.journal`,
    oldPartial: `${out}.partial-old`,
    oldJournal: `${out}.partial-old.journal`,
  };
}

async function removeAll(...paths: string[]): Promise<void> {
  for (const path of paths) await rm(path, { recursive: true, force: true });
}

/** Removes what an interrupted pack left beside a bundle that turned out to be finished. */
export async function removePartial(out: string): Promise<void> {
  const p = pathsOf(out);
  await removeAll(p.partial, p.journal, p.oldPartial, p.oldJournal);
}

/** The older bundle at `path` as a pool, if there is one that can be read. */
export async function bundlePool(path: string): Promise<BlobPool | undefined> {
  if ((await kindOf(path)) === undefined) return undefined;
  const medium = await openMedium(path);
  const byName = new Map(medium.entries.map((e) => [e.name, e]));
  return {
    what: path,
    open: (digest) => {
      const entry = byName.get(blobName(digest));
      return entry === undefined ? undefined : medium.read(entry);
    },
    close: () => medium.close(),
  };
}

/** What an interrupted pack of another plan had complete, as a pool. */
async function journalPool(path: string, state: JournalState): Promise<BlobPool> {
  if (state.kind === 'folder') {
    return {
      what: path,
      open: (digest) => (state.done.has(digest) ? fileBytes(join(path, blobName(digest))) : undefined),
      close: async () => {},
    };
  }
  const handle = await open(path, 'r');
  return {
    what: path,
    open: (digest) => {
      const at = state.done.get(digest);
      return at === undefined ? undefined : readRange(handle, { position: at.offset, length: at.size });
    },
    close: () => handle.close(),
  };
}

async function* fileBytes(path: string): AsyncGenerator<Buffer> {
  const handle = await open(path, 'r');
  try {
    yield* readRange(handle, { position: 0, length: (await handle.stat()).size });
  } finally {
    await handle.close();
  }
}

/** Sets an interrupted pack of another plan aside so that its blobs can be used, and returns what was interrupted of this one. */
async function settleOld(
  paths: Paths,
  plan: BundlePlan,
  kind: 'tar' | 'folder',
): Promise<JournalState | undefined> {
  const state = await readJournal(paths.journal);
  const there = (await kindOf(paths.partial)) !== undefined;
  if (there && state !== undefined && state.plan === plan.id && state.kind === kind) return state;
  if (there && state !== undefined && state.done.size > 0) {
    await removeAll(paths.oldPartial, paths.oldJournal);
    await rename(paths.journal, paths.oldJournal);
    await rename(paths.partial, paths.oldPartial);
  } else await removeAll(paths.partial, paths.journal);
  return undefined;
}

async function checkSpace(paths: Paths, plan: BundlePlan, have: number): Promise<void> {
  const free = await freeSpace(dirname(paths.out));
  const need = plan.size - have;
  if (need > free) {
    throw new SealiftError(
      'DISK_FULL',
      `${dirname(paths.out)}: ${need} bytes are needed, ${free} are free: ${need - free} too few`,
      { hint: 'free some space or write the bundle to another disk with -o', details: { need, free } },
    );
  }
}

/**
 * Opens a bundle for writing at `out`: takes up an interrupted run of the same plan, and copies what an older bundle or
 * another interrupted run beside it has. Free space is checked before the first byte.
 * @throws DISK_FULL, FILE_UNREADABLE
 */
export async function openWriter(
  out: string,
  options: {
    readonly plan: BundlePlan;
    readonly kind: 'tar' | 'folder';
    readonly context: Context;
    /** Where blobs may be found without a network; closed by the writer. */
    readonly pools: readonly BlobPool[];
  },
): Promise<BundleWriter> {
  const { plan, kind, context } = options;
  const paths = pathsOf(out);
  await mkdir(dirname(out), { recursive: true });
  const state = await settleOld(paths, plan, kind);
  const oldState = await readJournal(paths.oldJournal);
  const pools = [...options.pools];
  if (oldState !== undefined && (await kindOf(paths.oldPartial)) !== undefined) {
    pools.push(await journalPool(paths.oldPartial, oldState));
  }
  const have = [...(state?.done.values() ?? [])].reduce((sum, d) => sum + d.size, 0);
  await checkSpace(paths, plan, have);
  const fresh = state === undefined;
  const sink =
    kind === 'tar' ? await tarSink(paths.partial, out, plan) : await folderSink(paths.partial, out);
  const journal = await openJournal(paths.journal, { plan: plan.id, kind, fresh });
  const writer = new Writer({ plan, sink, journal, context, paths, pools, state });
  await writer.takeUp();
  return writer;
}

interface WriterParts {
  readonly plan: BundlePlan;
  readonly sink: Sink;
  readonly journal: Journal;
  readonly context: Context;
  readonly paths: Paths;
  readonly pools: readonly BlobPool[];
  readonly state: JournalState | undefined;
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
  #closed = false;

  constructor(parts: WriterParts) {
    this.#p = parts;
  }

  missing(): PlannedEntry[] {
    return [...this.#p.plan.blobs.values()].filter(
      (e) => e.digest !== undefined && !this.#done.has(e.digest),
    );
  }

  /** Counts what is already there: first the interrupted file's own blobs, then those of the pools. */
  async takeUp(): Promise<void> {
    for (const [digest, at] of this.#p.state?.done ?? []) {
      const entry = this.#p.plan.blobs.get(digest);
      if (entry === undefined || entry.size !== at.size) continue;
      if ((await this.#isThere(entry, at.b3)) === true) {
        this.#done.set(digest, at.b3);
        this.stats.resumed.blobs += 1;
        this.stats.resumed.bytes += entry.size;
      }
    }
    for (const entry of this.missing()) {
      throwIfAborted(this.#p.context.signal);
      if (await this.#fromPools(entry)) {
        this.stats.reused.blobs += 1;
        this.stats.reused.bytes += entry.size;
      }
    }
  }

  async #isThere(entry: PlannedEntry, b3: string): Promise<boolean> {
    const slot = await this.#p.sink.slot(entry);
    try {
      const verifier = new Verifier(this.#expected(entry), { blake3: true });
      for await (const chunk of slot.read(entry.size)) verifier.update(chunk);
      return verifier.finish() === b3;
    } catch (error) {
      if (error instanceof SealiftError && error.code.startsWith('CONTENT_')) return false;
      throw error;
    } finally {
      await slot.close();
    }
  }

  async #fromPools(entry: PlannedEntry): Promise<boolean> {
    for (const pool of this.#p.pools) {
      const bytes = entry.digest === undefined ? undefined : pool.open(entry.digest);
      if (bytes === undefined) continue;
      try {
        await this.#receive(entry, () => bytes, 0);
        return true;
      } catch (error) {
        throwIfAborted(this.#p.context.signal);
        if (!(error instanceof SealiftError) || !error.code.startsWith('CONTENT_')) throw error;
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

  async fill(entry: PlannedEntry, source: (offset: number) => AsyncIterable<Uint8Array>): Promise<void> {
    const part = entry.digest === undefined ? undefined : this.#p.state?.parts.get(entry.digest);
    const begun = part !== undefined && part.bytes > 0 && part.bytes < entry.size ? part.bytes : 0;
    let received: number;
    try {
      received = await this.#receive(entry, source, begun);
    } catch (error) {
      // A beginning from before a crash may be wrong although it was noted: once more from the start.
      if (begun === 0 || !(error instanceof SealiftError) || error.code !== 'CONTENT_DIGEST_MISMATCH')
        throw error;
      received = await this.#receive(entry, source, 0);
    }
    this.stats.fetched.blobs += 1;
    this.stats.fetched.bytes += received;
  }

  async #receive(
    entry: PlannedEntry,
    source: (offset: number) => AsyncIterable<Uint8Array>,
    begun: number,
  ): Promise<number> {
    const { journal, context, sink } = this.#p;
    const expected = this.#expected(entry);
    const { digest } = expected;
    const slot = await sink.slot(entry);
    const verifier = new Verifier(expected, { blake3: true });
    let noted = begun;
    let shown = 0;
    try {
      if (begun > 0) {
        for await (const chunk of slot.read(begun)) verifier.update(chunk);
        this.stats.resumed.bytes += begun;
      }
      for await (const chunk of source(verifier.received)) {
        throwIfAborted(context.signal);
        const position = verifier.received;
        verifier.update(chunk);
        slot.write(chunk, position);
        shown += chunk.length;
        context.emit({ type: 'progress', id: entry.name, bytes: chunk.length });
        if (verifier.received - noted >= PART_EVERY) {
          noted = verifier.received;
          await journal.part(digest, { offset: entry.offset, bytes: noted });
        }
      }
      const b3 = verifier.finish();
      await journal.done(digest, { offset: entry.offset, size: entry.size, b3 });
      this.#done.set(digest, b3);
      return shown;
    } catch (error) {
      if (verifier.received > noted && !isWrongContent(error)) {
        await journal.part(digest, { offset: entry.offset, bytes: verifier.received });
      }
      if (isWrongContent(error)) await journal.part(digest, { offset: entry.offset, bytes: 0 });
      context.emit({ type: 'progress', id: entry.name, bytes: -shown });
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
    const { plan, sink, paths } = this.#p;
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
    await this.#closePools();
    await sink.finish();
    await this.#p.journal.close();
    this.#closed = true;
    await removeAll(paths.journal, paths.oldPartial, paths.oldJournal);
  }

  async #closePools(): Promise<void> {
    for (const pool of this.#p.pools) await pool.close();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#closePools();
    await this.#p.sink.close();
    await this.#p.journal.close();
  }
}

function isWrongContent(error: unknown): boolean {
  return error instanceof SealiftError && error.code.startsWith('CONTENT_');
}
