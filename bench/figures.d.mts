/** Types of figures.mjs, which is plain JavaScript like everything that runs the benchmark. */

/** What one run of a stage cost. */
export interface Figures {
  readonly seconds: number;
  readonly cpuSeconds?: number;
  /** Bytes of the largest resident set. */
  readonly memory?: number;
  /** Bytes. */
  readonly written?: number;
  readonly files?: number;
}

export type Field = keyof Figures;

/** Stage → contestant → number of the round → what it cost there. */
export type Results = ReadonlyMap<string, ReadonlyMap<string, ReadonlyMap<number, Figures>>>;

export interface Target {
  readonly what: string;
  /** The stage; absent where the target holds for all of them. */
  readonly stage?: string;
  /** Another contestant; `most` is a ratio then, and seconds otherwise. */
  readonly against?: string;
  /** Another figure than the time, over all stages; `most` is in its unit then. */
  readonly field?: Field;
  readonly most: number;
}

export interface Judged extends Target {
  /** Undefined where somebody that it needs did not run. */
  readonly value: number | undefined;
  readonly holds: boolean | undefined;
}

/** The middle of some numbers, the mean of the two middle ones where their count is even; undefined for none. */
export function median(numbers: Iterable<number>): number | undefined;

/**
 * The median of ours / theirs, each from one round: what burdens the machine for a while burdens both. Rounds that only
 * one of them has do not count.
 */
export function ratio(
  ours: ReadonlyMap<number, number>,
  theirs: ReadonlyMap<number, number>,
): number | undefined;

/** What Sealift is to reach. */
export const TARGETS: readonly Target[];

/** The median over the rounds; seconds unless `field` says otherwise. */
export function medianOf(
  results: Results,
  of: { readonly stage: string; readonly name: string; readonly field?: Field },
): number | undefined;

/** Sealift against another contestant, round by round. */
export function ratioOf(
  results: Results,
  of: { readonly stage: string; readonly against: string; readonly field?: Field },
): number | undefined;

/** Every target with what was measured. */
export function judge(results: Results, targets?: readonly Target[]): Judged[];

/** Rows of cells as text: the first row is the head, the first column is aligned left and all others right. */
export function table(rows: readonly (readonly string[])[]): string;

/** A figure for a cell: seconds or a ratio, bytes as MB, or a whole number; a dash where there is none. */
export function number(value: number | undefined, unit?: 'seconds' | 'bytes' | 'count'): string;
