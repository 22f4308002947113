import type { Fault } from './errors.ts';

/** What an operation tells while it runs. Verbs never print: the CLI renders these. */
export type Event =
  | { readonly type: 'phase'; readonly name: string; readonly detail?: string }
  /** A run of work is known: its whole size in bytes and number of items; starts the overall bar. */
  | { readonly type: 'total'; readonly bytes: number; readonly items: number }
  /** One blob or artifact begins; `size` in bytes. */
  | { readonly type: 'start'; readonly id: string; readonly label: string; readonly size: number }
  /** `bytes` more of it have passed (negative when a broken transfer starts over). */
  | { readonly type: 'progress'; readonly id: string; readonly bytes: number }
  | { readonly type: 'end'; readonly id: string; readonly outcome: 'done' | 'present' | 'failed' }
  | { readonly type: 'retry'; readonly what: string; readonly reason: string; readonly waitMs: number }
  /** Everybody waits for a host; `until` in milliseconds since the epoch. */
  | { readonly type: 'pause'; readonly host: string; readonly reason: string; readonly until: number }
  | { readonly type: 'warning'; readonly fault: Fault }
  | { readonly type: 'note'; readonly message: string };

export type Emit = (event: Event) => void;

/** What every operation gets from outside: the only way to the clock, to randomness, to the screen and to being stopped. */
export interface Context {
  readonly signal: AbortSignal;
  readonly emit: Emit;
  /** Environment variables: they say where the files with credentials are. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** 0 ≤ x < 1; only for jitter. */
  readonly random: () => number;
}
