import { SealiftError } from '../core/errors.ts';

/** How a request ended, as far as it says something about how many there may be: `none` when it says nothing. */
export type Outcome = 'good' | 'busy' | 'none';

export interface AdaptiveOptions {
  /** Requests at once at the start. */
  readonly start: number;
  readonly most: number;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** After so many milliseconds in which nothing ended the oldest who waits may go, whatever the limit says. */
  readonly patienceMs: number;
}

/** Good ends for one more at a time, and the milliseconds between two halvings: one bad moment breaks many requests. */
const GROW_AFTER = 10;
const HALVE_EVERY_MS = 1_000;

interface Waiter {
  readonly go: () => void;
}

/**
 * How many requests to one host may run at once: one more after ten good ones, half after a refusal or a break (additive
 * increase, multiplicative decrease). An answer that nobody reads would hold its place for ever, and two that wait for
 * each other would hang: so after a while without an end the oldest goes on all the same.
 */
export class Adaptive {
  readonly #options: AdaptiveOptions;
  readonly #queue = new Set<Waiter>();
  #limit: number;
  #running = 0;
  #good = 0;
  #halvedAt = Number.NEGATIVE_INFINITY;
  #patience: NodeJS.Timeout | undefined;

  constructor(options: AdaptiveOptions) {
    this.#options = options;
    this.#limit = Math.max(1, Math.min(options.start, options.most));
  }

  get limit(): number {
    return this.#limit;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#queue.size;
  }

  /** Waits for a place, in the order of asking. @returns gives the place back; only the first call counts. @throws ABORTED */
  async acquire(signal: AbortSignal): Promise<(outcome: Outcome) => void> {
    if (this.#running >= this.#limit || this.#queue.size > 0) await this.#wait(signal);
    else this.#running += 1;
    let held = true;
    return (outcome) => {
      if (!held) return;
      held = false;
      this.#running -= 1;
      this.#learn(outcome);
      this.#next();
    };
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#queue.delete(waiter);
        this.#watch();
        reject(new SealiftError('ABORTED', 'stopped'));
      };
      const waiter: Waiter = {
        go: () => {
          signal.removeEventListener('abort', onAbort);
          this.#running += 1;
          resolve();
        },
      };
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      this.#queue.add(waiter);
      if (this.#patience === undefined) this.#watch();
    });
  }

  #learn(outcome: Outcome): void {
    const { most, now } = this.#options;
    if (outcome === 'good') {
      this.#good += 1;
      if (this.#good < GROW_AFTER) return;
      this.#good = 0;
      this.#limit = Math.min(most, this.#limit + 1);
    } else if (outcome === 'busy' && now() - this.#halvedAt >= HALVE_EVERY_MS) {
      this.#halvedAt = now();
      this.#good = 0;
      this.#limit = Math.max(1, Math.floor(this.#limit / 2));
    }
  }

  #letGo(waiter: Waiter): void {
    this.#queue.delete(waiter);
    waiter.go();
  }

  #next(): void {
    for (const waiter of this.#queue) {
      if (this.#running >= this.#limit) break;
      this.#letGo(waiter);
    }
    this.#watch();
  }

  /** Starts to count the time without an end anew. */
  #watch(): void {
    clearTimeout(this.#patience);
    this.#patience = undefined;
    if (this.#queue.size === 0) return;
    this.#patience = setTimeout(() => {
      for (const oldest of this.#queue) {
        this.#letGo(oldest);
        break;
      }
      this.#watch();
    }, this.#options.patienceMs);
  }
}
