import type { Descriptor } from '../../core/descriptor.ts';
import { isAbort, SealiftError } from '../../core/errors.ts';
import type { Context } from '../../core/events.ts';
import { KIB } from '../../core/limits.ts';
import { sleep } from '../../io/pool.ts';
import type { ContainerdClient } from '../../oci/containerd/client.ts';
import { statusOf } from '../../oci/containerd/failure.ts';
import { STATUS } from '../../oci/containerd/grpc.ts';
import type { Labels } from '../../oci/containerd/wire.ts';
import type { ContentReader } from '../../oci/content.ts';

/** Bytes of one WRITE message: each is answered before the next. This many stay in the processor's cache on both sides. */
const CHUNK = 256 * KIB;
/** Tries of one blob that another client is writing, or while containerd restarts. */
const TRIES = 12;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

/**
 * How content came to be in the namespace: its bytes were sent (perhaps only the rest of an earlier try), containerd
 * had all of them already (from another namespace, or an earlier try), or somebody committed it before us.
 */
export type Outcome = 'sent' | 'shared' | 'exists';

export interface WriteJob {
  readonly descriptor: Descriptor;
  /** The ingest's name; by containerd's convention it tells what is written, so that two clients meet (registry.md 3.2). */
  readonly ref: string;
  /** Set when it is committed; not when it exists already. */
  readonly labels: Labels;
  /** `bytes` more are there, sent or not; negative when a try starts over. */
  readonly onProgress: (bytes: number) => void;
  /** `bytes` more were really sent. */
  readonly onSent: (bytes: number) => void;
}

interface WriteOptions {
  readonly context: Context;
  readonly source: ContentReader;
  readonly signal: AbortSignal;
}

/** Whether an error is the target's own: everything else (a bad bundle, being stopped) ends the whole run. */
export function isTargetError(error: unknown): error is SealiftError {
  return error instanceof SealiftError && error.side === 'destination';
}

/**
 * Writes one blob into the namespace, going on where an earlier try stopped (registry.md 3.2 point 4). A leftover that turns
 * out to be other bytes is dropped and written once more from the start; only then the bundle's own check decides.
 * @throws the source's error when the bundle's bytes are bad, after the ingest was dropped; ABORTED, and the ingest stays
 * @throws TARGET_FAILED, TARGET_UNREACHABLE, AUTH_DENIED with side `destination`
 */
export async function writeContent(
  client: ContainerdClient,
  job: WriteJob,
  options: WriteOptions,
): Promise<Outcome> {
  const progress = progressOf(job);
  let startedOver = false;
  for (let tries = 1; ; tries++) {
    let failure: SealiftError | undefined;
    try {
      const outcome = await writeOnce(client, job, { ...options, progress });
      if (outcome !== 'other-bytes') return outcome;
    } catch (error) {
      if (statusOf(error) === STATUS.ALREADY_EXISTS) {
        progress.at(job.descriptor.size);
        return 'exists';
      }
      if (!isTargetError(error)) {
        if (!isAbort(error) && !options.signal.aborted) await drop(client, job.ref);
        throw error;
      }
      failure = error;
    }
    const code = statusOf(failure);
    if (failure === undefined || code === STATUS.FAILED_PRECONDITION) {
      await drop(client, job.ref);
      if (startedOver || !progress.resumed) {
        // What was passed on was not checked by its digest: that decides whose fault it is.
        for await (const _ of options.source.open(job.descriptor, { signal: options.signal }));
        throw otherBytes(job, failure);
      }
      startedOver = true;
    } else if (code === STATUS.UNAVAILABLE || code === STATUS.OUT_OF_RANGE) {
      await backOff(client, { tries, failure, what: job.ref, options });
    } else {
      throw failure;
    }
  }
}

/** Tells how far the bytes are, also when a try begins before the place where the last one stopped. */
interface Progress {
  readonly at: (offset: number) => void;
  /** Whether the last try began with bytes of an earlier one. */
  resumed: boolean;
}

function progressOf(job: WriteJob): Progress {
  let told = 0;
  return {
    resumed: false,
    at: (offset) => {
      if (offset !== told) job.onProgress(offset - told);
      told = offset;
    },
  };
}

async function writeOnce(
  client: ContainerdClient,
  job: WriteJob,
  options: WriteOptions & { readonly progress: Progress },
): Promise<Outcome | 'other-bytes'> {
  const { descriptor, ref, labels } = job;
  const { progress, signal, source } = options;
  const total = descriptor.size;
  const expected = descriptor.digest;
  const stream = client.openWrite(signal);
  try {
    const { offset: start } = await stream.send({ action: 'stat', ref, total, expected });
    progress.resumed = start > 0;
    if (start > total) return 'other-bytes';
    progress.at(start);
    const end = { total, expected, labels };
    let offset = start;
    if (start < total) {
      const bytes = source.open(descriptor, { signal, offset: start, passOn: CHUNK });
      for await (const data of inChunks(bytes, Math.min(CHUNK, total - start))) {
        const next = offset + data.length;
        if (next > total) return 'other-bytes';
        // The last bytes and the commit are one message.
        const step =
          next === total ? ({ action: 'commit', ...end } as const) : ({ action: 'write' } as const);
        const answer = await stream.send({ ...step, offset, data });
        if (answer.offset !== next) throw lostBytes(ref, { expected: next, found: answer.offset });
        offset = next;
        job.onSent(data.length);
        progress.at(offset);
        if (offset === total) return 'sent';
      }
      // Read from an offset the source cannot check itself; read from the start it has, and then this cannot be.
      return 'other-bytes';
    }
    await stream.send({ action: 'commit', offset, ...end });
    return total > 0 ? 'shared' : 'sent';
  } finally {
    await stream.finish();
  }
}

/** Drops an ingest, also while the run is being stopped. That it does not work is no second failure: it expires. */
async function drop(client: ContainerdClient, ref: string): Promise<void> {
  try {
    await client.abort(ref, new AbortController().signal);
  } catch {
    // The lease or its own 24 hours end it.
  }
}

/**
 * Waits before another try. UNAVAILABLE is what containerd says while another client holds the ingest, and what
 * the channel says while there is no connection; which of both only shows when the server is asked for something else.
 */
async function backOff(
  client: ContainerdClient,
  about: {
    readonly tries: number;
    readonly failure: SealiftError;
    readonly what: string;
    readonly options: WriteOptions;
  },
): Promise<void> {
  const { context, signal } = about.options;
  if (about.tries >= TRIES) {
    await client.version(signal);
    throw new SealiftError('TARGET_FAILED', about.failure.message, {
      hint: 'another client (kubelet, ctr) writes this blob and does not finish: wait for it or stop it, then run the same command again',
      cause: about.failure.cause,
      side: 'destination',
    });
  }
  const waitMs = Math.round(context.random() * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** about.tries));
  context.emit({ type: 'retry', what: about.what, reason: about.failure.message, waitMs });
  await sleep(waitMs, signal);
}

function otherBytes(job: WriteJob, cause: unknown): SealiftError {
  return new SealiftError(
    'TARGET_FAILED',
    `${job.ref}: containerd refused the bytes (expected ${job.descriptor.digest}), though the bundle's check passed`,
    {
      hint: 'check the memory and the disk of this machine (dmesg), then run the same command again',
      side: 'destination',
      cause,
    },
  );
}

function lostBytes(ref: string, at: { readonly expected: number; readonly found: number }): SealiftError {
  return new SealiftError(
    'TARGET_FAILED',
    `${ref}: containerd is at byte ${at.found}, expected ${at.expected}`,
    {
      hint: 'run the same command again: it goes on where it stopped',
      side: 'destination',
    },
  );
}

/** Brings a stream into chunks of exactly `size` bytes, the last one shorter. Holds one chunk. */
export async function* inChunks(source: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
  let held = new Uint8Array(0);
  let filled = 0;
  for await (const part of source) {
    let rest = part;
    while (rest.length > 0) {
      if (filled === 0 && rest.length >= size) {
        yield rest.subarray(0, size);
        rest = rest.subarray(size);
        continue;
      }
      if (filled === 0) held = new Uint8Array(size);
      const take = Math.min(size - filled, rest.length);
      held.set(rest.subarray(0, take), filled);
      filled += take;
      rest = rest.subarray(take);
      if (filled === size) {
        yield held;
        filled = 0;
      }
    }
  }
  if (filled > 0) yield held.subarray(0, filled);
}
