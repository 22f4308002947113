import { setMaxListeners } from 'node:events';
import { EXIT } from '../core/errors.ts';
import type { Context, Emit } from '../core/events.ts';

/** The context of one run, and how to end it. */
export interface Session {
  readonly context: Context;
  /** Gives the signals back. */
  close(): void;
}

/**
 * Makes the context: the only place of the program that takes clock, randomness, environment and signals from the
 * machine. The first SIGINT or SIGTERM stops the work, the second ends the process.
 * @param options.onStop is told of the first
 * @param options.onEnd runs before the process ends at the second
 */
export function createSession(options: {
  readonly emit: Emit;
  readonly onStop: () => void;
  readonly onEnd: () => void;
}): Session {
  // Dozens of requests wait on one signal; Node would call that a leak in the middle of the screen.
  setMaxListeners(0);
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) {
      options.onEnd();
      process.exit(EXIT.interrupted);
    }
    options.onStop();
    stop.abort();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    context: {
      signal: stop.signal,
      emit: options.emit,
      env: process.env,
      now: clock,
      random: Math.random,
    },
    close() {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}

/** Milliseconds since the epoch. */
export const clock = Date.now;
