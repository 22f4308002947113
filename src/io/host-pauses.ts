import { untilAborted } from './pool.ts';

interface Pause {
  readonly until: number;
  readonly timer: NodeJS.Timeout;
  readonly over: Promise<void>;
  readonly end: () => void;
}

/**
 * Hosts that asked everybody to wait. Who waits already also waits for what is added meanwhile. After the start only
 * timers count, so a clock that is set does no harm.
 */
export class HostPauses {
  readonly #pauses = new Map<string, Pause>();

  /**
   * Lets everybody wait for a host.
   * @param time.until and `time.now` in milliseconds since the epoch
   * @returns whether that is longer than before
   */
  extend(host: string, time: { readonly until: number; readonly now: number }): boolean {
    const { until, now } = time;
    const before = this.#pauses.get(host);
    if (until <= now || (before !== undefined && before.until >= until)) return false;
    let end = (): void => {};
    const over = new Promise<void>((resolve) => {
      end = resolve;
    });
    const timer = setTimeout(() => {
      this.#pauses.delete(host);
      end();
    }, until - now);
    this.#pauses.set(host, { until, timer, over, end });
    if (before !== undefined) {
      clearTimeout(before.timer);
      before.end();
    }
    return true;
  }

  /** Whether somebody would have to wait now. */
  has(host: string): boolean {
    return this.#pauses.has(host);
  }

  /** Until when, in milliseconds since the epoch. */
  until(host: string): number | undefined {
    return this.#pauses.get(host)?.until;
  }

  /** Waits until a host may be asked. @throws ABORTED */
  async wait(host: string, signal: AbortSignal): Promise<void> {
    for (let pause = this.#pauses.get(host); pause !== undefined; pause = this.#pauses.get(host)) {
      await untilAborted(pause.over, signal);
    }
  }

  /** Ends all pauses. */
  close(): void {
    for (const { timer, end } of this.#pauses.values()) {
      clearTimeout(timer);
      end();
    }
    this.#pauses.clear();
  }
}
