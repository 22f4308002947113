/** Words and numbers as a person reads them, and text from outside made fit for a terminal. */
import { isAddress } from '../bundle/names.ts';
import { withoutQuery } from '../io/redirect.ts';
import type { Counts } from '../lock/counts.ts';

const UNITS = ['kB', 'MB', 'GB', 'TB', 'PB'] as const;

/** Bytes with three digits and a decimal unit: `999 bytes`, `1.23 GB`. */
export function bytesText(bytes: number): string {
  if (Math.abs(bytes) < 1000) return `${bytes} bytes`;
  let value = bytes / 1000;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Bytes exactly and as a person says it: `1234567 bytes (1.23 MB)`. */
export function exactBytes(bytes: number): string {
  return bytes < 1000 ? bytesText(bytes) : `${bytes} bytes (${bytesText(bytes)})`;
}

/** A time span in its two largest units: `0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`. */
export function durationText(ms: number): string {
  if (ms < 950) return `${(Math.max(ms, 0) / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** `1 image`, `2 images`. @param noun in the singular; one that ends in `y` after a consonant becomes `ies` */
export function count(n: number, noun: string): string {
  return `${n} ${n === 1 ? noun : `${noun}s`.replace(/([^aeiou])ys$/, '$1ies')}`;
}

/** `3 images, 1 chart, 2 files, 12 Python packages`; kinds that are not there are left out, `nothing` when none is. */
export function contentText(of: Counts): string {
  const parts = [
    ...(of.images > 0 ? [count(of.images, 'image')] : []),
    ...(of.charts > 0 ? [count(of.charts, 'chart')] : []),
    ...(of.files > 0 ? [count(of.files, 'file')] : []),
    ...(of.packages > 0 ? [count(of.packages, 'Python package')] : []),
  ];
  return parts.length === 0 ? 'nothing' : parts.join(', ');
}

/** How a bundle that another one builds on is called. */
export function baseText(base: {
  readonly name: string | null;
  readonly version: string | null;
  readonly lock: string;
}): string {
  const called = [base.name, base.version].filter((t) => t !== null).join(' ');
  return harmless(called === '' ? `the bundle with lock ${base.lock.slice(0, 19)}` : called);
}

/** A digest as short as people compare it: `sha256:` and 12 digits. Other text stays. */
export function shortDigests(text: string): string {
  return text.replace(/\bsha256:([0-9a-f]{12})[0-9a-f]{52}\b/g, 'sha256:$1');
}

/**
 * What a terminal would obey or what hides or turns text: C0 and C1 controls, bidirectional overrides, line and
 * paragraph separators, zero-width characters, tags, lone surrogates.
 */
const DANGEROUS =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\u{e0000}-\u{e007f}]/gu;

/** Text from outside as one line that a terminal only shows: everything else is written as an escape, `\x1b`, `\u202e`. */
export function harmless(text: string): string {
  return text.replace(DANGEROUS, (c) => {
    const code = c.codePointAt(0) ?? 0;
    if (code === 0x0a) return '\\n';
    if (code === 0x09) return '\\t';
    const hex = code.toString(16);
    if (code <= 0xff) return `\\x${hex.padStart(2, '0')}`;
    return code <= 0xffff ? `\\u${hex.padStart(4, '0')}` : `\\u{${hex}}`;
  });
}

/** A JSON text whose strings hold nothing that a terminal obeys; it reads back as the same value. */
export function jsonText(value: unknown, indent?: number): string {
  const text = JSON.stringify(value, (_, v: unknown) => (typeof v === 'bigint' ? String(v) : v), indent);
  return text.replace(DANGEROUS, (c) =>
    c === '\n'
      ? c
      : [...Array(c.length).keys()]
          .map((i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, '0')}`)
          .join(''),
  );
}

/** One word of a command line for a POSIX shell, quoted only where it must be. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A word that was given, as it may be shown: of an address without its query, which may hold a signature. */
export function shownWord(text: string): string {
  if (!isAddress(text)) return shellWord(text);
  const shown = withoutQuery(text);
  return shellWord(text.includes('?') ? `${shown}?…` : shown);
}

const ZERO_WIDTH = /^[\p{Mn}\p{Me}\p{Cf}\u1160-\u11ff\ud7b0-\ud7ff]$/u;
const WIDE =
  /^[\u1100-\u115f\u231a\u231b\u2329\u232a\u23e9-\u23ec\u25fd\u25fe\u2614\u2615\u2648-\u2653\u26a1\u2705\u274c\u2753-\u2757\u2795-\u2797\u27b0\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{16fe0}-\u{18aff}\u{1b000}-\u{1b2ff}\u{1f004}\u{1f0cf}\u{1f18e}\u{1f191}-\u{1f19a}\u{1f200}-\u{1f320}\u{1f32d}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f7e0}-\u{1f7eb}\u{1f90c}-\u{1faff}\u{20000}-\u{3fffd}]$/u;

function widthOfChar(char: string): number {
  if (char >= ' ' && char <= '~') return 1;
  if (ZERO_WIDTH.test(char)) return 0;
  return WIDE.test(char) ? 2 : 1;
}

/** Columns that a text takes on a terminal: Hangul and other wide letters take two (Unicode UAX #11). */
export function widthOf(text: string): number {
  let width = 0;
  for (const char of text) width += widthOfChar(char);
  return width;
}

/** Cuts a text to `width` columns; what is cut away from the middle shows as `..`, because names differ at both ends. */
export function shorten(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  if (width < 5) return takeColumns([...text], width);
  const tail = Math.floor((width - 2) / 2);
  const chars = [...text];
  const end = takeColumns(chars.toReversed(), tail);
  return `${takeColumns(chars, width - 2 - tail)}..${[...end].toReversed().join('')}`;
}

function takeColumns(chars: readonly string[], width: number): string {
  let taken = '';
  let used = 0;
  for (const char of chars) {
    used += widthOfChar(char);
    if (used > width) break;
    taken += char;
  }
  return taken;
}

/** Fills up with spaces to `width` columns. */
export function pad(text: string, width: number, side: 'left' | 'right' = 'left'): string {
  const space = ' '.repeat(Math.max(0, width - widthOf(text)));
  return side === 'left' ? text + space : space + text;
}

/** Rows as aligned columns, two spaces between; `right` names the columns (from 0) that are numbers. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, widthOf(cell));
  }
  return rows.map((row) =>
    row
      .map((cell, i) => pad(cell, widths[i] ?? 0, right.includes(i) ? 'right' : 'left'))
      .join('  ')
      .trimEnd(),
  );
}

/** At most `limit` lines, and how many more there are. */
export function firstLines(lines: readonly string[], limit: number): string[] {
  if (lines.length <= limit) return [...lines];
  return [...lines.slice(0, limit), `  and ${lines.length - limit} more`];
}
