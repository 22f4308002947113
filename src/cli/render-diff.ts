import type { DiffChange, DiffEntry, LockDiff } from '../lock/diff.ts';
import { bytesText, harmless, shortDigests } from './words.ts';

/** Facts that only repeat, in other words, that the digest changed. */
const FOLLOWING: ReadonlySet<string> = new Set(['manifests', 'manifest', 'mediaType']);
/** Facts that name an entry well enough when it is new or gone. */
const NAMING = ['digest', 'archive', 'sha256'] as const;

function factText(fact: string, value: string | null): string {
  if (value === null) return 'none';
  if (fact === 'size' && /^\d+$/.test(value)) return bytesText(Number(value));
  return value === '' ? 'none' : shortDigests(value);
}

function entryLine(mark: '+' | '-', { kind, name, facts }: DiffEntry): string {
  const fact = NAMING.find((f) => facts[f] !== undefined);
  const what = fact === undefined ? '' : `  ${shortDigests(facts[fact] ?? '')}`;
  return `${mark} ${kind} ${harmless(name + what)}`;
}

/** An entry that changed: its name, then one line for each fact, old → new. */
function changeLines({ kind, name, changes }: DiffChange): string[] {
  const telling = changes.filter((c) => !FOLLOWING.has(c.fact));
  const shown = telling.length > 0 ? telling : changes;
  return [
    `~ ${kind} ${harmless(name)}`,
    ...shown.map(
      (c) => `    ${c.fact}  ${harmless(`${factText(c.fact, c.from)} → ${factText(c.fact, c.to)}`)}`,
    ),
  ];
}

/** What leads from one lock to the other, `+` new, `-` gone, `~` changed. */
export function diffLines(diff: LockDiff): string[] {
  return [
    ...diff.changed.flatMap(changeLines),
    ...diff.added.map((e) => entryLine('+', e)),
    ...diff.removed.map((e) => entryLine('-', e)),
  ];
}

/** The same for a summary: everything that changed or went, but only the first of what is new. */
export function diffSummary(diff: LockDiff, limit: number): string[] {
  const { added } = diff;
  const lines = diffLines({ ...diff, added: added.slice(0, limit) }).map((line) => `  ${line}`);
  return added.length > limit ? [...lines, `  and ${added.length - limit} more that are new`] : lines;
}

export function isEmptyDiff(diff: LockDiff): boolean {
  return diff.added.length + diff.removed.length + diff.changed.length === 0;
}
