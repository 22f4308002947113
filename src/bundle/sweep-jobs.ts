import type { Hash } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import type { Blake3Hasher } from '@napi-rs/blake-hash';
import { KIB, MIB } from '../core/limits.ts';
import { createBlake3 } from '../io/blake3.ts';
import { closeOpened, type OpenFile, readSome } from '../io/open-file.ts';

// What a thread of a sweep runs. It imports little: until the thread has read it, its core hashes nothing.

/**
 * What the threads share instead of sending messages: the next job is one atomic step away, so that nobody waits for a
 * thread that is busy, and 35 000 entries need no object each. Buffers are shared, the rest is copied.
 */
export interface SharedSweep {
  /** What is open in this process, or the path of each range's own. */
  readonly file: OpenFile | readonly string[];
  /** Position, length (or SKIPPED) and padding of each range. */
  readonly ranges: Float64Array;
  /** First range and number of ranges of each job. */
  readonly jobs: Int32Array;
  /** Next job, whether to stop, hashed KiB. */
  readonly state: Int32Array;
  /** Of each range: how it went, then BLAKE3 and SHA-256. */
  readonly found: Uint8Array;
  readonly sha256: boolean;
  readonly blake3: boolean;
}

const NEXT = 0;
export const STOP = 1;
export const HASHED = 2;
export const DONE = 1;
export const DIRTY = 2;
/** The length of a range that is not read. */
export const SKIPPED = -1;
/** Bytes of a hash. */
export const HASH = 32;

/** Bytes of what is found about one range; SHA-256 comes last. */
export function recordSize({ sha256 }: { readonly sha256: boolean }): number {
  return 1 + HASH + (sha256 ? HASH : 0);
}

/** Stays in the processor's cache between the read and the hash. */
const BUFFER = 256 * KIB;
/** How much the own thread does before it lets others speak. */
const BREATH = 16 * MIB;
/** What one thread has at hand: its buffer, and which bytes of the file are in it. */
interface Hand {
  readonly buffer: Buffer;
  /** One for all ranges: each holds 2 KB that the collector of garbage does not see. */
  readonly blake3: Blake3Hasher | undefined;
  readonly sha256: (() => Hash) | undefined;
  from: number;
  to: number;
  /** Bytes since the last breath. */
  since: number;
}

type Breathe = (() => Promise<void>) | undefined;

/** Bytes of the file, out of the buffer when they are in it. Fewer only at the end of the file. */
function bytesAt(
  file: OpenFile,
  hand: Hand,
  at: { position: number; length: number; ahead: number },
): Buffer {
  const { position, length, ahead } = at;
  if (position < hand.from || position + length > hand.to) {
    const want = Math.min(BUFFER, Math.max(length, ahead));
    hand.from = position;
    hand.to = position + readSome(file, hand.buffer, { position, from: 0, length: want });
  }
  return hand.buffer.subarray(position - hand.from, Math.min(hand.to, position + length) - hand.from);
}

/** Hashes one range and notes the result. @param end where the job ends, so that what follows is read ahead */
async function hashOne(
  shared: SharedSweep,
  hand: Hand,
  at: { readonly index: number; readonly file: OpenFile; readonly end: number; readonly breathe: Breathe },
): Promise<void> {
  const { index, file, end, breathe } = at;
  const [position = 0, length = 0, padding = 0] = shared.ranges.subarray(3 * index, 3 * index + 3);
  if (length === SKIPPED) return;
  const sha = hand.sha256?.();
  const b3 = hand.blake3;
  b3?.reset();
  let isDirty = false;
  for (let done = 0; done < length + padding; ) {
    const want = Math.min(BUFFER, length + padding - done);
    const now = position + done;
    const bytes = bytesAt(file, hand, { position: now, length: want, ahead: end - now });
    if (bytes.length === 0) return;
    const content = bytes.subarray(0, Math.max(0, length - done));
    sha?.update(content);
    b3?.update(content);
    if (content.length < bytes.length && bytes.subarray(content.length).some((b) => b !== 0)) isDirty = true;
    done += bytes.length;
    hand.since += bytes.length;
    if (hand.since < BREATH) continue;
    Atomics.add(shared.state, HASHED, Math.floor(hand.since / KIB));
    hand.since %= KIB;
    if (breathe !== undefined) await breathe();
    if (Atomics.load(shared.state, STOP) !== 0) return;
  }
  const width = recordSize(shared);
  const record = Buffer.from(shared.found.buffer, index * width, width);
  if (b3 !== undefined) record.write(b3.digest('hex'), 1, 'hex');
  if (sha !== undefined) record.write(sha.digest('hex'), 1 + HASH, 'hex');
  record[0] = isDirty ? DONE | DIRTY : DONE;
}

const isPaths = (file: SharedSweep['file']): file is readonly string[] => Array.isArray(file);

/** One job; a range that cannot be read stays without a result. */
async function runJob(shared: SharedSweep, hand: Hand, job: number, breathe: Breathe): Promise<void> {
  const [first = 0, count = 0] = shared.jobs.subarray(2 * job, 2 * job + 2);
  const { file, ranges } = shared;
  const last = 3 * (first + count - 1);
  const end = (ranges[last] ?? 0) + (ranges[last + 1] ?? 0) + (ranges[last + 2] ?? 0);
  for (let index = first; index < first + count; index++) {
    if (Atomics.load(shared.state, STOP) !== 0) return;
    let own: number | undefined;
    try {
      if (isPaths(file)) {
        own = openSync(file[index] ?? '', 'r');
        hand.to = hand.from;
        await hashOne(shared, hand, { index, file: own, end: 0, breathe });
      } else await hashOne(shared, hand, { index, file, end, breathe });
    } catch {
      hand.to = hand.from;
    } finally {
      if (own !== undefined) closeSync(own);
    }
  }
}

function sha256Maker(): () => Hash {
  const { createHash } = process.getBuiltinModule('node:crypto');
  return () => createHash('sha256');
}

/** Takes one job after the other until none is left. Without `breathe` it never lets go of its thread. */
export async function sweepJobs(shared: SharedSweep, breathe?: () => Promise<void>): Promise<void> {
  const blake3 = shared.blake3 ? createBlake3() : undefined;
  const sha256 = shared.sha256 ? sha256Maker() : undefined;
  const hand: Hand = { buffer: Buffer.allocUnsafeSlow(BUFFER), blake3, sha256, from: 0, to: 0, since: 0 };
  for (;;) {
    const job = Atomics.add(shared.state, NEXT, 1);
    if (2 * job >= shared.jobs.length || Atomics.load(shared.state, STOP) !== 0) break;
    await runJob(shared, hand, job, breathe);
  }
  if (!isPaths(shared.file)) closeOpened(shared.file);
}
