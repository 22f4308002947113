import { setImmediate } from 'node:timers/promises';
import { SealiftError } from '../core/errors.ts';
import { KIB, MIB } from '../core/limits.ts';
import { BulkAgent, type HttpBody } from './bulk.ts';
import type { TlsOptions } from './certificates.ts';
import { onDisk } from './files.ts';
import { type OpenFile, readSome, writeSome } from './open-file.ts';
import { throwIfAborted } from './pool.ts';
import type { Handler, JobTools } from './threads.ts';
import { type Expected, Verifier } from './verify.ts';
import { Ways } from './ways.ts';

/** The place of one content in a file that is open in this process. Bytes. */
export interface Place {
  readonly file: OpenFile;
  /** For messages. */
  readonly path: string;
  readonly position: number;
  /** How much of it is there and is only hashed. */
  readonly begun: number;
  readonly expected: Expected & { readonly size: number };
}

/** What a thread does for one receiver (`id`), in the order in which it is told. Plain data. */
export type ReceiveJob = { readonly id: number } & (
  | { readonly do: 'open'; readonly place: Place }
  | {
      readonly do: 'get';
      readonly url: string;
      readonly headers: Readonly<Record<string, string>>;
      readonly tls: TlsOptions;
    }
  | { readonly do: 'pour'; readonly first: number }
  | { readonly do: 'write'; readonly chunk: Uint8Array }
  | { readonly do: 'next' | 'dump' | 'destroy' | 'finish' | 'close' }
);

export interface ReceiveResult {
  /** Of `open`, `write` and `pour`: bytes that are written and hashed. */
  readonly received?: number;
  /** Of `get`; absent when the general client must ask. */
  readonly head?: { readonly status: number; readonly headers: Readonly<Record<string, string>> };
  /** Of `next`; absent at the end. */
  readonly chunk?: Uint8Array;
  /** Of `finish`. */
  readonly blake3?: string;
}

/** How often it is told how far a body is: bytes, or milliseconds when it is slow. */
const NOTE_BYTES = MIB / 2;
const NOTE_MS = 200;
/** Bytes of one read of what is there, and how much is read before others have their turn. */
const READ = 256 * KIB;
const BREATH = 16 * MIB;

/** One content that is being received. */
class Intake {
  readonly #place: Place;
  readonly #verifier: Verifier;
  /** Bytes that are in the file: what is told of, never more. */
  received = 0;
  /** The answer that is being read, and what ends it. */
  body: HttpBody | undefined;
  stop = new AbortController();

  constructor(place: Place) {
    this.#place = place;
    this.#verifier = new Verifier(place.expected, { blake3: true });
  }

  /** Hashes the beginning that is there; it may turn out to be shorter than it was thought. */
  async takeUp(signal: AbortSignal): Promise<void> {
    const { file, path, position, begun } = this.#place;
    const buffer = begun > 0 ? Buffer.allocUnsafeSlow(Math.min(READ, begun)) : Buffer.alloc(0);
    for (let breath = BREATH; this.received < begun; ) {
      const want = Math.min(buffer.length, begun - this.received);
      const got = onDisk(
        () => readSome(file, buffer, { position: position + this.received, from: 0, length: want }),
        path,
      );
      if (got === 0) return;
      this.#verifier.update(buffer.subarray(0, got));
      this.received += got;
      if (this.received < breath) continue;
      breath = this.received + BREATH;
      await setImmediate();
      throwIfAborted(signal);
    }
  }

  take(chunk: Uint8Array): void {
    const { file, path, position } = this.#place;
    const side = 'destination';
    this.#verifier.update(chunk);
    for (let done = 0; done < chunk.length; ) {
      const range = { position: position + this.received, from: done, length: chunk.length - done };
      const took = onDisk(() => writeSome(file, chunk, range), path, { side });
      done += took;
      this.received += took;
    }
  }

  finish(): string {
    return this.#verifier.finish();
  }

  async pour(first: number, note: (received: number) => void): Promise<void> {
    let skip = this.received - first;
    if (skip < 0) throw new SealiftError('INTERNAL', `${this.#place.expected.what}: a gap of ${-skip} bytes`);
    let noted = this.received;
    let since = performance.now();
    try {
      for await (const chunk of this.body ?? []) {
        const fresh = skip === 0 ? chunk : chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - fresh.length;
        if (fresh.length > 0) this.take(fresh);
        const now = performance.now();
        if (this.received - noted < NOTE_BYTES && now - since < NOTE_MS) continue;
        noted = this.received;
        since = now;
        note(noted);
      }
    } finally {
      note(this.received);
    }
  }
}

/** The receivers of one thread and their connections. */
export interface Receiving {
  readonly handler: Handler<ReceiveJob, ReceiveResult>;
  /** Ends all connections. */
  close(): Promise<void>;
}

/** What is done for one content, one job after the other; asking and pouring end when `intake.stop` does. */
async function doJob(
  intake: Intake,
  job: ReceiveJob,
  tools: JobTools & { readonly agent: BulkAgent; readonly ways: Ways },
): Promise<ReceiveResult> {
  switch (job.do) {
    case 'open':
      await intake.takeUp(tools.signal);
      return { received: intake.received };
    case 'get': {
      const url = new URL(job.url);
      const tls = await tools.ways.wayTo(url, job.tls);
      const { signal } = intake.stop;
      const answer = await tools.agent.get({ url, headers: job.headers, tls, signal });
      intake.body = answer?.body;
      return answer === undefined ? {} : { head: { status: answer.status, headers: answer.headers } };
    }
    case 'pour':
      await intake.pour(job.first, tools.note);
      return { received: intake.received };
    case 'write':
      intake.take(job.chunk);
      return { received: intake.received };
    case 'next': {
      const next = await intake.body?.[Symbol.asyncIterator]().next();
      // Its bytes are in a buffer of the connection.
      return next === undefined || next.done === true ? {} : { chunk: Uint8Array.from(next.value) };
    }
    case 'dump':
      await intake.body?.dump();
      return {};
    case 'finish':
      return { blake3: intake.finish() };
    default:
      return {};
  }
}

/** Receives on this thread. @param env where proxies and certificates are found */
export function receiving(env: Readonly<Record<string, string | undefined>>): Receiving {
  const agent = new BulkAgent();
  const ways = new Ways(env);
  const intakes = new Map<number, Intake>();
  return {
    handler: async (job, tools) => {
      const intake = job.do === 'open' ? new Intake(job.place) : intakes.get(job.id);
      if (intake === undefined) throw new SealiftError('INTERNAL', `no receiver ${job.id}`);
      if (job.do === 'open') intakes.set(job.id, intake);
      if (job.do === 'get') intake.stop = new AbortController();
      if (job.do === 'destroy' || job.do === 'close') intake.body?.destroy();
      if (job.do === 'close') intakes.delete(job.id);
      const { stop } = intake;
      const onAbort = (): void => stop.abort();
      if (tools.signal.aborted) onAbort();
      tools.signal.addEventListener('abort', onAbort, { once: true });
      try {
        return await doJob(intake, job, { ...tools, agent, ways });
      } finally {
        tools.signal.removeEventListener('abort', onAbort);
      }
    },
    close: async () => {
      agent.close();
      await ways.close();
    },
  };
}
