import { LIMITS } from '../core/limits.ts';
import { Adaptive, type Outcome } from './adaptive.ts';
import type { HttpBody } from './bulk.ts';
import { HostPauses } from './host-pauses.ts';
import { isNetworkError } from './network-errors.ts';

/** One request under way; `leave` gives its place back, and only the first call counts. */
export interface Place {
  leave(outcome: Outcome): void;
}

/** Longer waits than before by less than this are the same wait, told by another answer. */
const SAME_MS = 1_000;

/** Who may ask which host now: pauses hold everybody back, and no more requests run at once than a host bears. */
export class HostGates {
  readonly #pauses = new HostPauses();
  readonly #adaptive = new Map<string, Adaptive>();
  readonly #now: () => number;

  /** @param now milliseconds since the epoch */
  constructor(now: () => number) {
    this.#now = now;
  }

  #of(url: URL): Adaptive {
    const known = this.#adaptive.get(url.origin);
    if (known !== undefined) return known;
    const most = LIMITS.connectionsPerHost;
    const made = new Adaptive({
      start: LIMITS.requestsAtFirst,
      most,
      now: this.#now,
      patienceMs: LIMITS.patienceMs,
    });
    this.#adaptive.set(url.origin, made);
    return made;
  }

  /** Requests to this server that may run at once now. */
  limit(url: URL): number {
    return this.#of(url).limit;
  }

  /** Waits until the server may be asked. @throws ABORTED */
  async enter(url: URL, signal: AbortSignal): Promise<Place> {
    for (;;) {
      await this.#pauses.wait(url.host, signal);
      const leave = await this.#of(url).acquire(signal);
      // A pause that came while we stood in the queue holds for us too.
      if (!this.#pauses.has(url.host)) return { leave };
      leave('none');
    }
  }

  /** Waits for the pause of a host. @throws ABORTED */
  wait(host: string, signal: AbortSignal): Promise<void> {
    return this.#pauses.wait(host, signal);
  }

  /** Holds everybody back until then, in milliseconds since the epoch. @returns whether that is news */
  pause(host: string, until: number): boolean {
    const before = this.#pauses.until(host) ?? 0;
    return this.#pauses.extend(host, { until, now: this.#now() }) && until - before >= SAME_MS;
  }

  /** Ends all pauses. */
  close(): void {
    this.#pauses.close();
  }
}

/** What an answer says about how many requests its server bears. */
function outcomeOf(status: number): Outcome {
  return status === 429 || status === 503 ? 'busy' : 'good';
}

/** A body that gives its request's place back when it has ended, however it ends. */
export function leavingBody(
  body: HttpBody,
  about: { readonly place: Place; readonly status: number; readonly isEmpty: boolean },
): HttpBody {
  const { place } = about;
  const outcome = outcomeOf(about.status);
  // Nobody needs to read a body that is not there.
  if (about.isEmpty) place.leave(outcome);
  const fail = (error: unknown): never => {
    place.leave(isNetworkError(error) ? 'busy' : 'none');
    throw error;
  };
  const watched = <T>(source: AsyncIterable<T>): AsyncIterator<T> => {
    const parts = source[Symbol.asyncIterator]();
    return {
      next: async () => {
        const next = await parts.next().catch(fail);
        if (next.done === true) place.leave(outcome);
        return next;
      },
      return: async () => {
        place.leave('none');
        return (await parts.return?.()) ?? { done: true, value: undefined };
      },
    };
  };
  const { pour } = body;
  return {
    [Symbol.asyncIterator]: () => watched(body),
    ...(pour === undefined
      ? {}
      : { pour: (first: number) => ({ [Symbol.asyncIterator]: () => watched(pour(first)) }) }),
    destroy: (error) => {
      place.leave('none');
      return body.destroy(error);
    },
    dump: async () => {
      try {
        return await body.dump();
      } finally {
        place.leave(outcome);
      }
    },
  };
}
