import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { diskError, freeSpace, kindOf, syncFolder } from '../io/files.ts';
import { eachBounded, throwIfAborted } from '../io/pool.ts';
import type { Receiver } from '../io/receiver.ts';
import { type Receivers, startReceiving } from '../io/receivers.ts';
import { WRONG_CONTENT } from '../io/resume.ts';
import { isWrongContent } from '../io/verify.ts';
import type { BundleArtifact, Chunk } from './chunks.ts';
import { startHashing } from './hash.ts';
import { type Journal, type JournalState, openJournal, readJournal } from './journal.ts';
import { refuseTooLittle } from './partial.ts';
import { PART_EVERY } from './take-up.ts';

/** Chunks received at once. */
const CHUNKS_PARALLEL = 4;

/** Streams a chunk from byte `offset` of it, into a receiver that stands there. */
export type ReadChunk = (chunk: Chunk, offset: number, into: Receiver) => AsyncIterable<Uint8Array>;

/** A file that a pull makes, and what it is until it is whole. */
interface Made {
  readonly path: string;
  readonly partial: string;
  /** Bytes. */
  readonly size: number;
  readonly chunks: readonly Chunk[];
  /** Where the file begins in the bundle. */
  readonly offset: number;
}

export interface ReceiveStats {
  /** Bytes that were there from an interrupted pull. */
  readonly resumed: number;
  readonly fetched: number;
}

interface Pull {
  readonly files: readonly Made[];
  readonly journalPath: string;
  readonly context: Context;
  readonly read: ReadChunk;
}

/** `out` as one file, or below a folder each chunk as a volume. */
function filesOf({ chunks, size }: BundleArtifact, out: string, kind: 'file' | 'volumes'): Made[] {
  const partialOf = (path: string): string => `${path}.pull`;
  if (kind === 'file') return [{ path: out, partial: partialOf(out), size, chunks, offset: 0 }];
  return chunks.map((chunk) => {
    const path = join(out, chunk.title);
    return { path, partial: partialOf(path), size: chunk.size, chunks: [chunk], offset: chunk.offset };
  });
}

/**
 * Receives the chunks of a bundle at their final places, checks each one's SHA-256 and puts the files at their names when
 * all are whole. What an interrupted run left is hashed again and used.
 * @param options.journal what the chunks belong to: a journal of something else is not used
 * @returns undefined when all of it was there already
 * @throws TARGET_CONFLICT where something else is at one of the names; DISK_FULL; what `read` throws;
 *   CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH
 */
export async function receiveChunks(
  artifact: BundleArtifact,
  options: {
    readonly out: string;
    readonly kind: 'file' | 'volumes';
    readonly journal: string;
    readonly context: Context;
    readonly read: ReadChunk;
  },
): Promise<ReceiveStats | undefined> {
  const { out, kind, context, read } = options;
  const files = filesOf(artifact, out, kind);
  const missing = await missingFiles(files, context);
  if (missing.length === 0) return undefined;
  await checkSpace(missing);
  const journalPath =
    kind === 'file' ? `${out}.pull.journal` : join(out, `${artifact.label.name}.pull.journal`);
  const before = await readJournal(journalPath);
  const state = before?.plan === options.journal ? before : undefined;
  const journal = await openJournal(journalPath, {
    plan: options.journal,
    kind: 'tar',
    fresh: state === undefined,
  });
  try {
    const stats = await receiveFiles({ files: missing, journalPath, context, read }, { state, journal });
    await rm(journalPath, { force: true });
    return stats;
  } finally {
    await journal.close();
  }
}

/** Files that are not there yet. @throws TARGET_CONFLICT for those that hold something else */
async function missingFiles(files: readonly Made[], context: Context): Promise<Made[]> {
  const missing: Made[] = [];
  for (const file of files) {
    const kind = await kindOf(file.path);
    if (kind === undefined) missing.push(file);
    else if (kind !== 'file' || !(await isWhole(file, context))) throw taken(file.path);
  }
  return missing;
}

function taken(path: string): SealiftError {
  return new SealiftError('TARGET_CONFLICT', `${path} is there and holds something else`, {
    hint: 'nothing is overwritten: move it away, or choose another path with -o',
  });
}

async function isWhole({ path, size, chunks, offset }: Made, context: Context): Promise<boolean> {
  if ((await stat(path)).size !== size) return false;
  context.emit({ type: 'phase', name: 'compare', detail: path });
  const hashing = startHashing(size);
  let isSame = true;
  try {
    const limits = { limit: CHUNKS_PARALLEL, signal: context.signal };
    await eachBounded(chunks, limits, async (chunk) => {
      const range = { file: path, position: chunk.offset - offset, length: chunk.size, what: path };
      const job = { ...range, sha256: true, blake3: false };
      const { sha256 } = await hashing.run(job, { signal: context.signal, note: () => {} });
      isSame &&= `sha256:${sha256}` === chunk.digest;
    });
  } finally {
    await hashing.close();
  }
  return isSame;
}

/** @throws DISK_FULL where what lacks does not fit */
async function checkSpace(files: readonly Made[]): Promise<void> {
  const folder = dirname(files[0]?.path ?? '.');
  let need = 0;
  for (const { partial, size } of files) {
    const blocks = (await kindOf(partial)) === undefined ? 0 : (await stat(partial)).blocks;
    need += Math.max(0, size - blocks * 512);
  }
  refuseTooLittle(folder, { need, free: await freeSpace(folder) });
}

async function receiveFiles(
  pull: Pull,
  { state, journal }: { readonly state: JournalState | undefined; readonly journal: Journal },
): Promise<ReceiveStats> {
  const { files, context } = pull;
  const bytes = files.reduce((sum, f) => sum + f.size, 0);
  const works = files.flatMap((file) => file.chunks.map((chunk) => ({ file, chunk })));
  context.emit({ type: 'total', bytes, items: works.length });
  const stats = { resumed: 0, fetched: 0 };
  const receivers = startReceiving(bytes, context);
  try {
    const limits = { limit: CHUNKS_PARALLEL, signal: context.signal };
    await eachBounded(works, limits, async ({ file, chunk }) => {
      const kept = await withPartial(file.partial, ({ fd }) => {
        const place = { file: fd, path: file.partial, position: chunk.offset - file.offset };
        return receiveChunk(chunk, { place, begun: begunOf(chunk, state), receivers, journal, pull });
      });
      stats.resumed += kept;
      stats.fetched += chunk.size - kept;
    });
  } finally {
    await receivers.close();
  }
  for (const { size, partial } of files) {
    await withPartial(partial, async (handle) => {
      // Something else may have left a longer file there.
      await handle.truncate(size).catch(orDiskError(partial));
      await handle.sync().catch(orDiskError(partial));
    });
  }
  throwIfAborted(context.signal);
  for (const { partial, path } of files) {
    // Hours may have passed since it was looked for.
    if ((await kindOf(path)) !== undefined) throw taken(path);
    await rename(partial, path).catch(orDiskError(path));
  }
  await syncFolder(dirname(files[0]?.path ?? '.'));
  return stats;
}

function orDiskError(path: string): (error: unknown) => never {
  return (error) => {
    throw diskError(error, path, { side: 'destination' });
  };
}

/**
 * Opens an unfinished file for as long as `work` takes: a bundle has up to 4096 volumes, more than may be open at once. A
 * link there is not followed. @throws DISK_FULL, FILE_UNREADABLE and what `work` throws
 */
async function withPartial<T>(path: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  const handle = await open(path, flags, 0o644).catch(orDiskError(path));
  try {
    return await work(handle);
  } finally {
    await handle.close();
  }
}

/** Bytes of a chunk that an interrupted run surely wrote. */
function begunOf({ digest, offset, size }: Chunk, state: JournalState | undefined): number {
  const done = state?.done.get(digest);
  const part = state?.parts.get(digest);
  if (done?.offset === offset && done.size === size) return size;
  return part?.offset === offset && part.bytes <= size ? part.bytes : 0;
}

interface Work {
  readonly place: { readonly file: number; readonly path: string; readonly position: number };
  readonly begun: number;
  readonly receivers: Receivers;
  readonly journal: Journal;
  readonly pull: Pull;
}

/** @returns bytes that were there already */
async function receiveChunk(chunk: Chunk, work: Work): Promise<number> {
  const { context } = work.pull;
  const { digest, size, title, offset } = chunk;
  const id = `${title} ${digest}`;
  context.emit({ type: 'start', id, label: title, size });
  for (let { begun } = work; ; begun = 0) {
    try {
      const kept = await receiveFrom(chunk, begun, work);
      context.emit({ type: 'end', id, outcome: kept === size ? 'present' : 'done' });
      return kept;
    } catch (error) {
      // What was there before may be what is wrong: once more without it.
      if (begun > 0 && isWrongContent(error)) continue;
      context.emit({ type: 'end', id, outcome: 'failed' });
      if (isWrongContent(error)) noteQuietly(work.journal, digest, { offset, bytes: 0 });
      throw error;
    }
  }
}

/** A journal that cannot be written costs bytes in the next run; what is told is the first failure. */
function noteQuietly(journal: Journal, digest: Digest, at: { offset: number; bytes: number }): void {
  try {
    journal.part(digest, at);
  } catch {}
}

async function receiveFrom(chunk: Chunk, begun: number, work: Work): Promise<number> {
  const { place, receivers, journal, pull } = work;
  const { context } = pull;
  const { digest, size, offset, title } = chunk;
  const id = `${title} ${digest}`;
  const expected = { digest, size, what: title, hint: WRONG_CONTENT };
  const into = await receivers.open({ ...place, begun, expected });
  let shown = 0;
  const show = (): void => {
    context.emit({ type: 'progress', id, bytes: into.received - shown });
    shown = into.received;
  };
  try {
    const start = into.received;
    let noted = start;
    show();
    journal.part(digest, { offset, bytes: start });
    for await (const piece of pull.read(chunk, start, into)) {
      throwIfAborted(context.signal);
      if (piece.length > 0) await into.write(piece);
      show();
      if (into.received - noted < PART_EVERY) continue;
      noted = into.received;
      journal.part(digest, { offset, bytes: noted });
    }
    await into.finish();
    journal.done(digest, { offset, size });
    return start;
  } catch (error) {
    if (isWrongContent(error)) context.emit({ type: 'progress', id, bytes: -shown });
    else noteQuietly(journal, digest, { offset, bytes: into.received });
    throw error;
  } finally {
    into.close();
  }
}
