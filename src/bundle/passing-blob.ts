import type { Descriptor } from '../core/descriptor.ts';
import { SealiftError } from '../core/errors.ts';
import { KIB, MIB } from '../core/limits.ts';
import { untilAborted } from '../io/pool.ts';
import type { PassingContent, ReadOptions } from '../oci/content.ts';

/** What of a blob is held at once, for those who are slower and for those who begin again. Bytes. */
const WINDOW = 16 * MIB;
/** How far back one may begin again, whoever is ahead. */
const AGAIN = 8 * MIB;

/** Where a blob comes from: its bytes in order, verified before the last of them is given. */
export interface PassingSource {
  next(): Promise<Buffer | undefined>;
}

/** Pieces below this are gathered: each that is held by itself costs more than a few bytes. */
const SMALL = 16 * KIB;
const GATHERED = 256 * KIB;

/** Part of the blob that is held: where it begins, its bytes, and room for more behind them. */
interface Held {
  readonly at: number;
  readonly buffer: Buffer;
  length: number;
}

function passedError(
  { digest }: Descriptor,
  about: { readonly wanted: number; readonly held: number },
): SealiftError {
  return new SealiftError(
    'TARGET_FAILED',
    `${digest}: is needed again from byte ${about.wanted}, but the stream has passed it (held from byte ${about.held})`,
    {
      hint: 'send the bundle once more: what is on the targets already is not sent there again',
      side: 'destination',
    },
  );
}

/**
 * One large blob for several who take it at their own pace. Whoever is ahead pulls the stream on, but only as far as the
 * window lets the slowest one stay behind. A taker counts until it settles, also before it opens and between two times:
 * so nobody misses a beginning by being slow. There is no cycle in who waits for whom: one who is ahead waits for those
 * behind, who wait for nobody but their own target.
 */
export class PassingBlob {
  readonly #descriptor: Descriptor;
  readonly #source: PassingSource;
  readonly #held: Held[] = [];
  readonly #views = new Set<View>();
  /** The first byte that is held, and where the next that comes begins. */
  #from = 0;
  #to = 0;
  #pulling: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #wake: (() => void)[] = [];

  constructor(descriptor: Descriptor, source: PassingSource) {
    this.#descriptor = descriptor;
    this.#source = source;
  }

  /** The blob as one taker sees it. Close it when the taker has settled. */
  view(): View {
    const view = new View(this);
    this.#views.add(view);
    return view;
  }

  get size(): number {
    return this.#descriptor.size;
  }

  has(offset: number): boolean {
    return offset >= this.#from && this.#failure === undefined;
  }

  leave(view: View): void {
    this.#views.delete(view);
    this.stirred();
  }

  /** Somebody has moved or gone: those who wait for the slowest look again. */
  stirred(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const wake of waiting) wake();
  }

  /** The bytes that are held from `at` on, of one piece; undefined when they are still to come. */
  at(at: number): Buffer | undefined {
    if (at < this.#from) throw passedError(this.#descriptor, { wanted: at, held: this.#from });
    const piece = this.#held.findLast((h) => h.at <= at);
    const bytes = piece?.buffer.subarray(at - piece.at, piece.length);
    return bytes === undefined || bytes.length === 0 ? undefined : bytes;
  }

  /**
   * Waits until nobody reads the source any more, when all have settled: one who left may have left a read behind, which
   * must not meet the next one. @throws what the stream failed with
   */
  async end(): Promise<void> {
    await this.#pulling?.catch(() => {});
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Settles when there may be more. @throws what the stream failed with */
  async more(signal: AbortSignal): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#to - this.#lowest() >= WINDOW && this.#pulling === undefined) {
      const stirred = new Promise<void>((resolve) => this.#wake.push(resolve));
      return untilAborted(stirred, signal);
    }
    this.#pulling ??= this.#pull().finally(() => {
      this.#pulling = undefined;
    });
    return untilAborted(this.#pulling, signal);
  }

  /** The first byte that somebody may still need. */
  #lowest(): number {
    let lowest = this.#to;
    for (const { low } of this.#views) lowest = Math.min(lowest, low);
    return lowest;
  }

  #hold(bytes: Buffer): void {
    const last = this.#held.at(-1);
    if (bytes.length >= SMALL) this.#held.push({ at: this.#to, buffer: bytes, length: bytes.length });
    else if (last !== undefined && last.length + bytes.length <= last.buffer.length) {
      // Who was given what lies there sees no more of it.
      last.length += bytes.copy(last.buffer, last.length);
    } else {
      const buffer = Buffer.allocUnsafeSlow(Math.min(GATHERED, this.#descriptor.size - this.#to));
      this.#held.push({ at: this.#to, buffer, length: bytes.copy(buffer) });
    }
    this.#to += bytes.length;
  }

  async #pull(): Promise<void> {
    try {
      const bytes = await this.#source.next();
      if (bytes === undefined) throw new SealiftError('INTERNAL', `${this.#descriptor.digest}: ended early`);
      this.#hold(bytes);
    } catch (error) {
      this.#failure = { error };
      this.stirred();
      throw error;
    }
    const lowest = this.#lowest();
    for (let [first] = this.#held; first !== undefined; [first] = this.#held) {
      const next = first.at + first.length;
      if (this.#to - this.#from <= WINDOW || next > lowest) return;
      this.#held.shift();
      this.#from = next;
    }
  }
}

/** What one taker sees of a blob. */
class View implements PassingContent {
  readonly #blob: PassingBlob;
  /** The first byte that it may still need: where it may begin again. */
  low = 0;

  constructor(blob: PassingBlob) {
    this.#blob = blob;
  }

  has(offset: number): boolean {
    return this.#blob.has(offset);
  }

  async *open(_: Descriptor, { signal, offset = 0 }: ReadOptions): AsyncGenerator<Uint8Array> {
    const blob = this.#blob;
    for (let at = offset; at < blob.size; ) {
      const bytes = blob.at(at);
      this.#move(at);
      if (bytes === undefined) await blob.more(signal);
      else {
        yield bytes;
        at += bytes.length;
      }
    }
    this.#move(blob.size);
  }

  /** Only who has moved wakes others: two that wait for a third would keep each other awake. */
  #move(at: number): void {
    const low = Math.max(0, at - AGAIN);
    if (this.low === low) return;
    this.low = low;
    this.#blob.stirred();
  }

  close(): void {
    this.#blob.leave(this);
  }
}

/** A blob in memory, verified: it can be opened whenever it is wanted. */
export function heldBlob(bytes: Buffer): PassingContent {
  return {
    has: () => true,
    async *open(_, { offset = 0 }) {
      if (offset < bytes.length) yield bytes.subarray(offset);
    },
  };
}
