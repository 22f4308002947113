import { isDeepStrictEqual } from 'node:util';

/** Changes single members of a JSON text and leaves every other byte as it is: numbers, order, indentation. */

/** One member of an object in a text: from its key's quote to the end of its value. */
interface Member {
  readonly key: string;
  readonly start: number;
  readonly valueStart: number;
  readonly end: number;
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g;

/** The members of the object that begins at or after `from`, and where its braces are. The text is valid JSON. */
function readObject(
  text: string,
  from: number,
): { readonly open: number; readonly close: number; readonly members: Member[] } {
  const open = text.indexOf('{', from);
  const members: Member[] = [];
  const tokens = new RegExp(TOKEN);
  tokens.lastIndex = open + 1;
  let depth = 0;
  let at = { start: -1, valueStart: -1, end: -1 };
  for (let found = tokens.exec(text); found !== null; found = tokens.exec(text)) {
    const [token] = found;
    const closes = depth === 0 && (token === '}' || token === ',');
    if (closes && at.start >= 0) {
      const key: unknown = JSON.parse((/"(?:[^"\\]|\\.)*"/y.exec(text.slice(at.start)) ?? ['""'])[0]);
      members.push({ ...at, key: String(key) });
      at = { start: -1, valueStart: -1, end: -1 };
    }
    if (closes && token === '}') return { open, close: found.index, members };
    if (closes || (depth === 0 && token === ':')) continue;
    if (at.start < 0) at = { ...at, start: found.index };
    else if (at.valueStart < 0) at = { ...at, valueStart: found.index };
    if (token === '{' || token === '[') depth++;
    if (token === '}' || token === ']') depth--;
    at = { ...at, end: tokens.lastIndex };
  }
  throw new SyntaxError('not a JSON object');
}

/** One step of indentation, as the text has it; docker writes tabs. */
function indentOf(text: string): string {
  return /^\s*\{\s*?\n([ \t]+)/.exec(text)?.[1] ?? '\t';
}

function write(value: unknown, about: { readonly unit: string; readonly depth: number }): string {
  return JSON.stringify(value, null, about.unit).replaceAll('\n', `\n${about.unit.repeat(about.depth)}`);
}

function splice(text: string, from: number, to: number, put: string): string {
  return text.slice(0, from) + put + text.slice(to);
}

/** Sets or removes one member of the object whose brace is at `from`. */
function changeMember(
  text: string,
  from: number,
  change: { readonly key: string; readonly value: unknown; readonly unit: string; readonly depth: number },
): string {
  const { key, value, unit, depth } = change;
  const { open, close, members } = readObject(text, from);
  const i = members.findLastIndex((m) => m.key === key);
  const [before, found, after, last] = [members[i - 1], members[i], members[i + 1], members.at(-1)];
  if (value === undefined) {
    if (found === undefined) return text;
    if (before !== undefined) return splice(text, before.end, found.end, '');
    if (after !== undefined) return splice(text, found.start, after.start, '');
    return splice(text, open + 1, close, '');
  }
  if (found !== undefined)
    return splice(text, found.valueStart, found.end, write(value, { unit, depth: depth + 1 }));
  const line = `\n${unit.repeat(depth + 1)}${JSON.stringify(key)}: ${write(value, { unit, depth: depth + 1 })}`;
  if (last !== undefined) return splice(text, last.end, last.end, `,${line}`);
  return splice(text, open + 1, close, `${line}\n${unit.repeat(depth)}`);
}

type JsonObject = Record<string, unknown>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function objectOf(value: unknown): JsonObject {
  if (!isObject(value)) throw new SyntaxError('not a JSON object');
  return value;
}

/** Sets a member as data, `__proto__` included. */
function withMember(of: JsonObject, key: string, value: unknown): JsonObject {
  const entries = Object.entries(of).filter(([k]) => k !== key);
  return Object.fromEntries(value === undefined ? entries : [...entries, [key, value]]);
}

/**
 * Sets `text[outer][key]`, or removes it when the value is undefined. Where there is no object `outer` one is made.
 * @throws SyntaxError when the text, or what is at `outer`, is not a JSON object
 */
export function setJsonMember(
  text: string,
  path: { readonly outer: string; readonly key: string },
  value: unknown,
): string {
  const before = objectOf(JSON.parse(text));
  const { outer, key } = path;
  const unit = indentOf(text);
  const inner = Object.hasOwn(before, outer) ? before[outer] : undefined;
  let after: string;
  if (inner === undefined || inner === null) {
    if (value === undefined) return text;
    after = changeMember(text, 0, { key: outer, value: { [key]: value }, unit, depth: 0 });
  } else {
    objectOf(inner);
    const at = readObject(text, 0).members.findLast((m) => m.key === outer);
    after = changeMember(text, at?.valueStart ?? 0, { key, value, unit, depth: 1 });
  }
  // The proof: read again it is what was there and the change, and nothing else.
  const wanted = withMember(objectOf(inner ?? {}), key, value);
  if (!isDeepStrictEqual(JSON.parse(after), withMember(before, outer, wanted))) {
    throw new SyntaxError('the JSON text has a member twice');
  }
  return after;
}
