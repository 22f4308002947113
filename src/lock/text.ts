import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

/**
 * The text of versions.lock: a small part of YAML 1.2 in which every value has exactly one spelling. Block maps and
 * block lists, two spaces a level, one scalar a line; text in double quotes with JSON's escapes; `[]` and `{}` for
 * what is empty. Written by hand because its bytes are hashed, and read by hand because a general YAML reader needs
 * about a second for 5000 images.
 */

/** What to do about a lock that cannot be read. */
export const RESTORE_HINT =
  'the lock is written by `sealift lock` only: restore it from Git, or run `sealift lock` anew';

/** What the text can hold. */
export type Plain = string | number | boolean | null | readonly Plain[] | { readonly [key: string]: Plain };

const BARE_KEY = /^[A-Za-z][A-Za-z0-9]*$/;
/** JSON leaves these as they are, YAML does not allow or does not keep them. */
const UNPRINTABLE = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;

function quoted(text: string): string {
  return JSON.stringify(text).replace(
    UNPRINTABLE,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function isList(value: Plain): value is readonly Plain[] {
  return Array.isArray(value);
}

/** A value that fits on the line of its key, or undefined. */
function inline(value: Plain): string | undefined {
  if (typeof value === 'string') return quoted(value);
  if (value === null || typeof value !== 'object') return String(value);
  if (isList(value)) return value.length === 0 ? '[]' : undefined;
  return Object.keys(value).length === 0 ? '{}' : undefined;
}

function writeBlock(value: Plain, indent: string, out: string[]): void {
  if (value === null || typeof value !== 'object') return;
  if (isList(value)) {
    for (const item of value) {
      const short = inline(item);
      if (short !== undefined) {
        out.push(`${indent}- ${short}`);
        continue;
      }
      const first = out.length;
      writeBlock(item, `${indent}  `, out);
      out[first] = `${indent}- ${out[first]?.slice(indent.length + 2) ?? ''}`;
    }
    return;
  }
  for (const [key, item] of Object.entries(value)) {
    const word = BARE_KEY.test(key) ? key : quoted(key);
    const short = inline(item);
    out.push(short === undefined ? `${indent}${word}:` : `${indent}${word}: ${short}`);
    if (short === undefined) writeBlock(item, `${indent}  `, out);
  }
}

/**
 * The lines of a map, without their LF. Keys stand in the order of the object. A list of it may be any iterable: its items
 * are asked for, written and let go one by one.
 */
export function* plainLines(map: { readonly [key: string]: Plain | Iterable<Plain> }): Generator<string> {
  for (const [key, value] of Object.entries(map)) {
    const lines: string[] = [];
    if (typeof value !== 'object' || value === null || !(Symbol.iterator in value)) {
      writeBlock({ [key]: value }, '', lines);
      yield* lines;
      continue;
    }
    let isEmpty = true;
    for (const item of value) {
      if (isEmpty) yield `${key}:`;
      isEmpty = false;
      writeBlock([item], '  ', lines);
      yield* lines;
      lines.length = 0;
    }
    if (isEmpty) yield `${key}: []`;
  }
}

/** Lines of a text, each made when it is asked for: there may be a million. */
export interface Lines {
  readonly length: number;
  at(index: number): string | undefined;
}

/** The lines of a text, split at LF. */
export function linesOf(text: string): Lines {
  let starts = new Uint32Array(1024);
  let length = 1;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) {
    if (length === starts.length) {
      const more = new Uint32Array(2 * length);
      more.set(starts);
      starts = more;
    }
    starts[length++] = at + 1;
  }
  return {
    length,
    at: (index) =>
      index < length
        ? text.slice(starts[index], index + 1 < length ? (starts[index + 1] ?? 0) - 1 : undefined)
        : undefined,
  };
}

/** Where nodes of a text stand: the path as JSON → 1-based line and column. */
export type Marks = Map<string, { readonly line: number; readonly column: number }>;

interface Reading {
  readonly lines: Lines;
  /** What stands in the line to read next instead of its text: the rest of a list's line. */
  rest: string | undefined;
  /** Texts that were read lately: most locks say the same words over and over. */
  readonly words: Map<string, string>;
  readonly file: string;
  readonly marks: Marks | undefined;
  readonly path: (string | number)[];
  /** Index of the line to read next. */
  at: number;
}

const KEY_LINE = /^( *)([A-Za-z][A-Za-z0-9]*|"(?:[^"\\]|\\.)*"):(?: (.+))?$/;
const NUMBER = /^(?:0|[1-9][0-9]{0,15})$/;

/** The error of a text that is not of this form, at a 0-based line and column. */
function wrong(reading: Reading, message: string, column = 0): SealiftError {
  const line = reading.at + 1;
  const position = { file: reading.file, line, column: column + 1 };
  const hint = RESTORE_HINT;
  const found: Fault = fault('LOCK_INVALID', message, { position, hint });
  return new SealiftError('LOCK_INVALID', `${reading.file}:${line}: ${message}`, { hint, faults: [found] });
}

/** The line to read next; undefined behind the last. */
function lineNow(reading: Reading): string | undefined {
  return reading.rest ?? reading.lines.at(reading.at);
}

function nextLine(reading: Reading): void {
  reading.rest = undefined;
  reading.at += 1;
}

/** The texts that are remembered: short ones, so many. */
const WORD = 60;
const WORDS = 512;

function mark(reading: Reading, column: number): void {
  reading.marks?.set(JSON.stringify(reading.path), { line: reading.at + 1, column: column + 1 });
}

function readText(text: string, reading: Reading, column: number): string {
  try {
    const known = reading.words.get(text);
    if (known !== undefined) return known;
    const value: unknown = JSON.parse(text);
    if (typeof value === 'string') {
      if (reading.words.size === WORDS) reading.words.clear();
      if (value.length < WORD) reading.words.set(text, value);
      return value;
    }
  } catch {
    // Reported below: what is wrong inside the quotes does not matter.
  }
  throw wrong(reading, `${text.slice(0, 80)} is not quoted text`, column);
}

function readScalar(text: string, reading: Reading, column: number): Plain {
  if (text.startsWith('"')) return readText(text, reading, column);
  if (text === '[]') return [];
  if (text === '{}') return {};
  if (text === 'true' || text === 'false') return text === 'true';
  if (text === 'null') return null;
  if (NUMBER.test(text)) return Number(text);
  throw wrong(
    reading,
    `${JSON.stringify(text.slice(0, 80))} is not in the form that \`sealift lock\` writes`,
    column,
  );
}

function indentOf(line: string): number {
  let n = 0;
  while (line.charCodeAt(n) === 32) n += 1;
  return n;
}

function readList(reading: Reading, indent: number): Plain[] {
  const list: Plain[] = [];
  const lead = `${' '.repeat(indent)}- `;
  for (let line = lineNow(reading); line?.startsWith(lead); line = lineNow(reading)) {
    reading.path.push(list.length);
    mark(reading, indent + 2);
    const rest = line.slice(indent + 2);
    if (KEY_LINE.test(rest) && !rest.startsWith(' ')) {
      // From here on the line is the first line of a map that stands two columns further in.
      reading.rest = `${' '.repeat(indent + 2)}${rest}`;
      list.push(readMap(reading, indent + 2));
    } else {
      list.push(readScalar(rest, reading, indent + 2));
      nextLine(reading);
    }
    reading.path.pop();
  }
  return list;
}

function readBlock(reading: Reading, indent: number): Plain {
  const line = lineNow(reading) ?? '';
  if (indent > 2 * LIMITS.yamlDepth) throw wrong(reading, `nested deeper than ${LIMITS.yamlDepth} levels`);
  if (indentOf(line) !== indent) throw wrong(reading, `expected ${indent} spaces`, indentOf(line));
  return line.startsWith('- ', indent) ? readList(reading, indent) : readMap(reading, indent);
}

function readMap(reading: Reading, indent: number): { [key: string]: Plain } {
  const map: { [key: string]: Plain } = {};
  while (reading.at < reading.lines.length) {
    const line = lineNow(reading) ?? '';
    if (indentOf(line) < indent) break;
    const [, spaces, word, value] = KEY_LINE.exec(line) ?? [];
    if (word === undefined || spaces?.length !== indent) throw notKey(reading, indent);
    const key = word.startsWith('"') ? readText(word, reading, indent) : word;
    if (Object.hasOwn(map, key) || key === '__proto__') {
      throw wrong(reading, `the key ${JSON.stringify(key.slice(0, 80))} cannot stand here (again)`, indent);
    }
    reading.path.push(key);
    mark(reading, indent);
    if (value === undefined) {
      nextLine(reading);
      map[key] = readBlock(reading, indent + 2);
    } else {
      map[key] = readScalar(value, reading, line.length - value.length);
      nextLine(reading);
    }
    reading.path.pop();
  }
  return map;
}

function notKey(reading: Reading, indent: number): SealiftError {
  const line = lineNow(reading) ?? '';
  if (/^(?:<{7}|={7}|>{7}|\|{7})(?: |$)/.test(line)) {
    return wrong(reading, 'a merge conflict of Git is not resolved');
  }
  if (line.endsWith('\r')) return wrong(reading, 'the line ends with CR LF', line.length - 1);
  const shown = JSON.stringify(line.slice(0, 80));
  return wrong(
    reading,
    `${shown} is not in the form that \`sealift lock\` writes`,
    Math.min(indent, indentOf(line)),
  );
}

/**
 * Reads what `plainLines` wrote.
 * @param options.firstLine index of the first line to read; those before it (the header) only count
 * @param options.marks is filled with the place of every node; costs time, so it is asked for when there are faults
 * @throws LOCK_INVALID with the position of the first line that is not of this form
 */
export function readPlain(
  lines: Lines,
  options: { readonly file: string; readonly firstLine: number; readonly marks?: Marks },
): { readonly [key: string]: Plain } {
  const reading: Reading = {
    lines,
    rest: undefined,
    words: new Map(),
    file: options.file,
    marks: options.marks,
    path: [],
    at: options.firstLine,
  };
  for (let at = 0; at < lines.length; at += 1) {
    if ((lines.at(at)?.length ?? 0) <= LIMITS.lockLine) continue;
    reading.at = at;
    throw wrong(reading, `a line of more than ${LIMITS.lockLine} characters`);
  }
  const value = readMap(reading, 0);
  if (reading.at < reading.lines.length) throw notKey(reading, 0);
  return value;
}
