import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Pair,
  Parser,
  Scalar,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml';
import { type ErrorCode, type Fault, fault, type Position } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { type ListWords, takeWords, type WordsByList } from './yaml-words.ts';

/** Keys and list indexes from the root of a YAML text to one of its nodes. */
export type YamlPath = readonly (string | number)[];

/** A YAML text that was read, with the place of every node. */
export interface YamlText {
  /** Maps as objects, lists as arrays, `true` and `false` as booleans, empty and `null` as null, all else as text. */
  readonly value: unknown;
  /**
   * Where the node at `path` starts, or its key with `part: 'key'`. A path that goes further than the text gives
   * the deepest node that is there, so a missing key has the place of the map that lacks it.
   */
  positionOf(path: YamlPath, part?: 'key' | 'value'): Position;
}

/** What `parseYaml` found: the text, or why it cannot be read. Exactly one of the two says something. */
export interface YamlResult {
  readonly yaml: YamlText | undefined;
  readonly faults: readonly Fault[];
}

interface YamlOptions {
  /** The name of the file in positions. */
  readonly file: string;
  /** The code of the faults. */
  readonly code: ErrorCode;
}

interface Reading extends YamlOptions {
  readonly lines: LineCounter;
  readonly faults: Fault[];
  /** The node that each alias stands for. */
  readonly targets: Map<unknown, unknown>;
  readonly anchors: Map<string, unknown>;
  /** Nodes that are being read; an alias to one of them would never end. */
  readonly open: Set<unknown>;
  readonly pairs: WeakMap<YAMLMap, ReadonlyMap<string, Pair>>;
  /** What was taken out of lists before they became nodes. */
  readonly words: WordsByList;
  nodes: number;
  aliasDepth: number;
  /** The limit on nodes or depth was passed: nothing more is read. */
  full: boolean;
}

function place(reading: Reading, offset: number): Position {
  const { line, col } = reading.lines.linePos(offset);
  return { file: reading.file, line: Math.max(line, 1), column: Math.max(col, 1) };
}

function startOf(node: unknown): number | undefined {
  if (isMap(node) || isSeq(node) || isScalar(node) || isAlias(node)) return node.range?.[0];
  return undefined;
}

function report(reading: Reading, offset: number, message: string, hint?: string): void {
  // What an alias repeats was reported where it is written.
  if (reading.aliasDepth > 0) return;
  reading.faults.push(
    fault(reading.code, message, {
      position: place(reading, offset),
      ...(hint === undefined ? {} : { hint }),
    }),
  );
}

/**
 * The documents of a text. Depth and size are checked while tokens are made, because the library walks what it
 * has read by recursion and a deep text would end the process.
 */
function compose(text: string, reading: Reading): Document.Parsed[] {
  const parser = new Parser(reading.lines.addNewLine);
  const tokens = [];
  let count = 0;
  reading.lines.addNewLine(0);
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) tokens.push(token);
    takeWords(parser.stack.at(-1), reading.words, isText);
    count += 1;
    if (count > LIMITS.yamlNodes || parser.stack.length > LIMITS.yamlDepth) {
      const what =
        count > LIMITS.yamlNodes
          ? `more than ${LIMITS.yamlNodes} tokens`
          : `more than ${LIMITS.yamlDepth} levels`;
      report(reading, parser.offset, `the YAML text has ${what}`);
      return [];
    }
  }
  for (const token of parser.end()) tokens.push(token);
  const composer = new Composer({
    // Every scalar stays text, so that 1.10 is not 1.1.
    schema: 'failsafe',
    uniqueKeys: false,
    merge: false,
    prettyErrors: false,
  });
  return [...composer.compose(tokens, true, text.length)];
}

const NULLS: ReadonlySet<string> = new Set(['', '~', 'null', 'Null', 'NULL']);
const TRUES: ReadonlySet<string> = new Set(['true', 'True', 'TRUE']);
const FALSES: ReadonlySet<string> = new Set(['false', 'False', 'FALSE']);
/** Whether a plain word means its text. */
function isText(word: string): boolean {
  return !NULLS.has(word) && !TRUES.has(word) && !FALSES.has(word);
}

const TAGS: ReadonlySet<string | undefined> = new Set([
  undefined,
  'tag:yaml.org,2002:str',
  'tag:yaml.org,2002:map',
  'tag:yaml.org,2002:seq',
]);

function scalarValue(node: Scalar): string | boolean | null {
  const text = String(node.value ?? '');
  if (node.type !== Scalar.PLAIN || node.tag !== undefined) return text;
  if (NULLS.has(text)) return null;
  if (TRUES.has(text)) return true;
  return FALSES.has(text) ? false : text;
}

/** The text of a key, or undefined (and a fault) when it cannot be one. */
function keyOf(pair: Pair, map: YAMLMap, reading: Reading): string | undefined {
  const at = startOf(pair.key) ?? map.range?.[0] ?? 0;
  if (!isScalar(pair.key)) {
    report(reading, at, 'a key must be plain text', 'write `key: value`');
    return undefined;
  }
  const key = String(pair.key.value ?? '');
  if (key === '__proto__') {
    report(reading, at, 'the key "__proto__" is not allowed');
    return undefined;
  }
  return key;
}

function mapValue(map: YAMLMap, reading: Reading): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  const places = new Map<string, number>();
  for (const pair of map.items) {
    const key = keyOf(pair, map, reading);
    const value = read(pair.value, reading);
    if (key === undefined) continue;
    const before = places.get(key);
    const at = startOf(pair.key) ?? 0;
    if (before !== undefined) {
      const first = place(reading, before);
      report(
        reading,
        at,
        `the key "${key}" is written twice; first at line ${first.line}`,
        'remove one of them',
      );
      continue;
    }
    places.set(key, at);
    result[key] = value;
  }
  return result;
}

function aliasValue(node: unknown, source: string, reading: Reading): unknown {
  const target = reading.targets.get(node) ?? reading.anchors.get(source);
  const at = startOf(node) ?? 0;
  if (target === undefined) {
    report(reading, at, `the alias *${source} has no anchor before it`);
    return null;
  }
  if (reading.open.has(target)) {
    report(reading, at, `the alias *${source} stands inside what it repeats`);
    return null;
  }
  reading.targets.set(node, target);
  reading.aliasDepth += 1;
  const value = read(target, reading);
  reading.aliasDepth -= 1;
  return value;
}

function listValue(list: YAMLSeq, reading: Reading): unknown[] {
  const { texts } = wordsOf(list, reading);
  reading.nodes += texts.length;
  return [...texts, ...list.items.map((item) => read(item, reading))];
}

const NO_WORDS: ListWords = { texts: [], offsets: [] };

/** The words that stood before the other items of a list. */
function wordsOf(list: YAMLSeq, { words }: Reading): ListWords {
  return words.get(list.range?.[0] ?? -1) ?? NO_WORDS;
}

/** The value of a node. Recursion is bounded by `yamlDepth`, work by `yamlNodes`, also through aliases. */
function read(node: unknown, reading: Reading): unknown {
  reading.nodes += 1;
  if (reading.full) return null;
  if (reading.nodes > LIMITS.yamlNodes || reading.open.size > LIMITS.yamlDepth) {
    reading.full = true;
    reading.aliasDepth = 0;
    report(
      reading,
      startOf(node) ?? 0,
      `aliases make the YAML text larger than ${LIMITS.yamlNodes} nodes or deeper than ${LIMITS.yamlDepth} levels`,
    );
    return null;
  }
  if (isAlias(node)) return aliasValue(node, node.source, reading);
  if (!isMap(node) && !isSeq(node) && !isScalar(node)) return null;
  if (node.anchor !== undefined && reading.aliasDepth === 0) reading.anchors.set(node.anchor, node);
  if (!TAGS.has(node.tag)) {
    report(
      reading,
      startOf(node) ?? 0,
      `the tag ${String(node.tag)} is not supported`,
      'write the value without a tag',
    );
  }
  if (isScalar(node)) return scalarValue(node);
  reading.open.add(node);
  const value = isMap(node) ? mapValue(node, reading) : listValue(node, reading);
  reading.open.delete(node);
  return value;
}

/** The pairs of a map by key; kept, because a text with many faults asks for many places. */
function pairsOf(map: YAMLMap, reading: Reading): ReadonlyMap<string, Pair> {
  const known = reading.pairs.get(map);
  if (known !== undefined) return known;
  const pairs = new Map<string, Pair>();
  for (const pair of map.items) if (isScalar(pair.key)) pairs.set(String(pair.key.value ?? ''), pair);
  reading.pairs.set(map, pairs);
  return pairs;
}

/** The child of a node at a key or an index, and the node of its key. */
function step(
  node: unknown,
  part: string | number,
  reading: Reading,
): { readonly key: unknown; readonly value: unknown; readonly offset?: number | undefined } {
  if (isSeq(node) && typeof part === 'number') {
    const { offsets } = wordsOf(node, reading);
    return { key: undefined, value: node.items[part - offsets.length], offset: offsets[part] };
  }
  const pair = isMap(node) ? pairsOf(node, reading).get(String(part)) : undefined;
  return { key: pair?.key, value: pair?.value };
}

function isEmptyScalar(node: unknown): boolean {
  return isScalar(node) && node.range?.[0] === node.range?.[1];
}

function locate(root: unknown, path: YamlPath, part: 'key' | 'value', reading: Reading): Position {
  let at = startOf(root) ?? 0;
  let node = root;
  for (const [i, name] of path.entries()) {
    const next = step(reading.targets.get(node) ?? node, name, reading);
    const last = i === path.length - 1;
    const useKey = next.key !== undefined && ((last && part === 'key') || isEmptyScalar(next.value));
    const offset = next.offset ?? (useKey ? startOf(next.key) : (startOf(next.value) ?? startOf(next.key)));
    if (offset === undefined) break;
    at = offset;
    node = next.value;
  }
  return place(reading, at);
}

/**
 * Reads one YAML 1.2 document and keeps the place of every node. Numbers stay text as written (`1.10` is "1.10"),
 * because what the text means is for the schema to say. Refused, all with position: wrong syntax, a second
 * document, a key that is written twice, tags, `__proto__`, aliases that repeat themselves or too much, and texts
 * over `LIMITS.yamlNodes` or `LIMITS.yamlDepth`. A leading byte order mark is skipped.
 */
export function parseYaml(text: string, options: YamlOptions): YamlResult {
  const reading: Reading = {
    ...options,
    lines: new LineCounter(),
    faults: [],
    targets: new Map(),
    anchors: new Map(),
    open: new Set(),
    pairs: new WeakMap(),
    words: new Map(),
    nodes: 0,
    aliasDepth: 0,
    full: false,
  };
  const documents = compose(text.startsWith('\uFEFF') ? text.slice(1) : text, reading);
  for (const error of documents.flatMap((d) => d.errors)) {
    report(reading, error.pos[0], `not valid YAML: ${error.message}`);
  }
  const [first, second] = documents;
  if (second !== undefined) {
    report(reading, second.range[0], 'a second YAML document starts here', 'keep one document in the file');
  }
  if (reading.faults.length > 0 || first === undefined) return { yaml: undefined, faults: reading.faults };
  const root: unknown = first.contents;
  const value = read(root, reading);
  if (reading.faults.length > 0) return { yaml: undefined, faults: reading.faults };
  const positionOf = (path: YamlPath, part: 'key' | 'value' = 'value'): Position =>
    locate(root, path, part, reading);
  return { yaml: { value, positionOf }, faults: [] };
}
