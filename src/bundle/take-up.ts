import { availableParallelism } from 'node:os';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { MIB } from '../core/limits.ts';
import { eachBounded, throwIfAborted } from '../io/pool.ts';
import { type FileRange, type Hashing, startHashing } from './hash.ts';
import type { JournalState } from './journal.ts';
import type { BundlePlan, PlannedEntry } from './plan.ts';
import type { BlobPool } from './pool.ts';
import type { Sink, Slot } from './sink.ts';

/** How often the beginning of a blob is noted, in bytes; with NOTE_BYTES of io/receive what a kill can cost for each running blob. */
export const PART_EVERY = 2 * MIB;

/** What is there before anything is fetched, and where. */
export interface TakeUp {
  readonly plan: BundlePlan;
  readonly sink: Sink;
  /** Of the interrupted run that the sink goes on with. */
  readonly state: JournalState | undefined;
  readonly pools: readonly BlobPool[];
  readonly context: Context;
}

/** One blob that was there: its BLAKE3, and whether it was in place already or copied. */
export type Found = (
  entry: PlannedEntry,
  about: { readonly blake3: string; readonly how: 'resumed' | 'reused' },
) => void;

/**
 * Finds the blobs that need not be fetched: first the interrupted file's own, then those of the pools, which are copied.
 * Everything is hashed; nothing that a journal or an older bundle says is believed.
 * @throws DISK_FULL, FILE_UNREADABLE of the sink, ABORTED
 */
export async function takeUp(job: TakeUp, found: Found): Promise<void> {
  const { plan, state, pools, context } = job;
  const whole = new Set<number>();
  const note: Found = (entry, about) => {
    whole.add(entry.index);
    found(entry, about);
  };
  if (state !== undefined) {
    const maybe = blobsOf(plan, (e) => isMaybeWhole(e, state));
    context.emit({ type: 'phase', name: 'take up', detail: 'what an interrupted pack left' });
    await forAll(maybe, job, (entry, hashing) => ownBlob(entry, { job, hashing, found: note }));
  }
  if (pools.length > 0) {
    const isOffered = (e: PlannedEntry): boolean => pools.some((p) => rangeOf(p, e) !== undefined);
    const offered = blobsOf(plan, (e) => !whole.has(e.index) && isOffered(e));
    context.emit({ type: 'phase', name: 'reuse', detail: pools.map((p) => p.what).join(', ') });
    await forAll(offered, job, (entry, hashing) => fromPools(entry, { job, hashing, found: note }));
  }
}

/** Where an entry stands in the plan, and its bytes: there may be very many, so they themselves are made when they are looked at. */
type Spot = Pick<PlannedEntry, 'index' | 'size'>;

function blobsOf(plan: BundlePlan, is: (entry: PlannedEntry) => boolean): Spot[] {
  const found: Spot[] = [];
  for (const entry of plan.entries) {
    const { digest, index, size } = entry;
    if (digest !== undefined && is(entry)) found.push({ index, size });
  }
  return found;
}

type Work = { readonly job: TakeUp; readonly hashing: Hashing; readonly found: Found };

async function forAll(
  spots: readonly Spot[],
  { plan, context }: TakeUp,
  work: (entry: PlannedEntry, hashing: Hashing) => Promise<void>,
): Promise<void> {
  throwIfAborted(context.signal);
  const bytes = spots.reduce((sum, e) => sum + e.size, 0);
  context.emit({ type: 'total', bytes, items: spots.length });
  const hashing = startHashing(bytes);
  try {
    const largestFirst = spots.toSorted((a, b) => b.size - a.size);
    const limits = { limit: 2 * availableParallelism(), signal: context.signal };
    await eachBounded(largestFirst, limits, async ({ index }) => {
      const entry = plan.entries.at(index);
      context.emit({ type: 'start', id: entry.name, label: entry.name, size: entry.size });
      await work(entry, hashing);
      context.emit({ type: 'end', id: entry.name, outcome: 'present' });
    });
  } finally {
    await hashing.close();
  }
}

/** A kill may come between a blob's last byte and its line: one that lacks little more than a note's distance may be whole. */
function isMaybeWhole(entry: PlannedEntry, state: JournalState): boolean {
  if (entry.digest === undefined) return false;
  if (state.done.get(entry.digest)?.size === entry.size) return true;
  const begun = state.parts.get(entry.digest)?.bytes;
  return begun !== undefined && entry.size - begun < 2 * PART_EVERY;
}

/** Hashes a range that should hold an entry, and copies it. @returns its BLAKE3 when it does hold it */
async function hashed(
  entry: PlannedEntry,
  about: { readonly from: FileRange; readonly to?: Slot; readonly work: Work },
): Promise<string | undefined> {
  const { from, to } = about;
  const { hashing, job } = about.work;
  const { signal, emit } = job.context;
  let told = 0;
  const note = (bytes: number): void => {
    emit({ type: 'progress', id: entry.name, bytes: bytes - told });
    told = bytes;
  };
  const copyTo = to === undefined ? {} : { copyTo: { file: to.file, position: to.position, path: to.path } };
  const range = { ...from, length: entry.size, sha256: true, blake3: true, ...copyTo };
  const result = await hashing.run(range, { signal, note });
  const isRight = result.bytes === entry.size && `sha256:${result.sha256}` === entry.digest;
  return isRight ? result.blake3 : undefined;
}

async function ownBlob(entry: PlannedEntry, work: Work): Promise<void> {
  const slot = await work.job.sink.slot(entry);
  try {
    const from = { file: slot.file, position: slot.position, length: entry.size, what: slot.path };
    const blake3 = await hashed(entry, { from, work });
    if (blake3 !== undefined) work.found(entry, { blake3, how: 'resumed' });
  } finally {
    await slot.close();
  }
}

/** Where a pool has an entry's bytes, as it believes. */
function rangeOf(pool: BlobPool, entry: PlannedEntry): FileRange | undefined {
  return entry.digest === undefined ? undefined : pool.range(entry.digest);
}

async function fromPools(entry: PlannedEntry, work: Work): Promise<void> {
  const { pools, sink, context } = work.job;
  const damaged: string[] = [];
  for (const pool of pools) {
    const from = rangeOf(pool, entry);
    if (from === undefined) continue;
    const slot = await sink.slot(entry);
    try {
      const blake3 = await hashed(entry, { from, to: slot, work });
      if (blake3 !== undefined) return work.found(entry, { blake3, how: 'reused' });
    } catch (error) {
      // What a pool cannot read it does not have: the content is then fetched.
      const isPools = error instanceof SealiftError && error.side !== 'destination';
      if (!isPools || error.code !== 'FILE_UNREADABLE') throw error;
    } finally {
      await slot.close();
    }
    damaged.push(pool.what);
  }
  if (damaged.length === 0) return;
  const message = `${damaged.join(', ')}: ${entry.name} is damaged there and is fetched again`;
  context.emit({ type: 'note', message });
}
