/** Types of registry-rules.mjs, which is plain JavaScript so that `npm run rules` needs no build. */

export interface Rule {
  /** `A1-order`, `1.3-redirect`: stable, what a test's title names. */
  readonly id: string;
  /** The point of the list of facts that it comes from: `1.1 A1`, `1.3 12`. */
  readonly point: string;
  readonly rule: string;
  /** Why there is no test yet. */
  readonly open?: string;
}

/** Test files, relative to the root, that name an id. */
export type Named = ReadonlyMap<string, readonly string[]>;

export function readRules(root: string): Rule[];
export function idsOf(text: string): string[];
export function namedIds(root: string): Map<string, string[]>;
export function faultsOf(rules: readonly Rule[], named: Named): string[];
export function renderRules(rules: readonly Rule[], named: Named): string;
export function rulesList(root: string): { readonly path: string; readonly text: string };
