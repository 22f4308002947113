import type { Fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';

/** What a verb's result looks like to a person and to a program. The lines are harmless already. */
export interface Outcome {
  /** The `--json` document, without `schemaVersion` and `error`. */
  readonly document: Readonly<Record<string, unknown>>;
  /** Lines for stdout when there is no `--json`. */
  readonly data?: readonly string[];
  /** What changed: lines for stderr. */
  readonly summary: readonly string[];
  readonly warnings?: readonly Fault[];
  /** A check that says no, or work of which a part failed. Its code is the exit code. */
  readonly failure?: SealiftError;
  /** Where there is no failure; default 0. */
  readonly exitCode?: number;
  /** The next command to run, and why when that is not plain. */
  readonly next?: string;
}

/** Runs one verb with everything around it: context, progress, output, exit code. */
export type RunVerb = (
  flags: { readonly json?: boolean },
  verb: (context: Context) => Promise<Outcome>,
) => Promise<void>;
