/** Changes of a JSON document that leave it JSON, mostly. */
import { type Chance, NAMES, NUMBERS } from './chance.ts';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Texts that no value makes: they are put in when the document is written. */
const RAW: readonly string[] = [
  '1e999',
  '-0',
  '1.0',
  '00000000000000000000000000000000001',
  `${'['.repeat(50_000)}${']'.repeat(50_000)}`,
  `${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`,
  `[${'0,'.repeat(20_000)}0]`,
  '{"digest":"a","digest":"b"}',
  '{"__proto__":{"size":1}}',
  '"\\ud800"',
  'NaN',
  'undefined',
  '',
];
const MARK = /"@raw(\d+)@"/g;

/** A value that has no business where it is put. */
export function hostileValue(chance: Chance): Json {
  const zero = `sha256:${'0'.repeat(64)}`;
  const makers: (() => Json)[] = [
    () => null,
    () => true,
    () => chance.of(NUMBERS),
    () => String(chance.of(NUMBERS)),
    () => chance.of(NAMES),
    () => [],
    () => ({}),
    () => [[[[]]]],
    () => zero,
    () => 'sha512:abc',
    () => `@raw${chance.below(RAW.length)}@`,
    () => Array.from({ length: 5000 }, () => zero),
    () => Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`k${i}`, i])),
  ];
  return chance.of(makers)();
}

interface Place {
  readonly parent: Json[] | { [key: string]: Json };
  readonly key: string;
}

function placesOf(value: Json): Place[] {
  const places: Place[] = [];
  const walk = (parent: Json): void => {
    if (typeof parent !== 'object' || parent === null) return;
    for (const [key, child] of Object.entries(parent)) {
      places.push({ parent, key });
      walk(child);
    }
  };
  walk(value);
  return places;
}

function get({ parent, key }: Place): Json {
  return (parent as { [key: string]: Json })[key] ?? null;
}

function set({ parent, key }: Place, value: Json): void {
  Object.defineProperty(parent, key, { value, writable: true, enumerable: true, configurable: true });
}

function remove({ parent, key }: Place): void {
  if (Array.isArray(parent)) parent.splice(Number(key), 1);
  else delete parent[key];
}

function changeText(text: string, chance: Chance): string {
  const at = chance.below(text.length + 1);
  const put = chance.of(['', '/', '..', ':', '@', '\0', '\n', ' ', 'A', '\u00e9', text]);
  return text.slice(0, at) + put + text.slice(at + chance.below(3));
}

type Change = (at: Place, root: Json, chance: Chance) => void;

const swap: Change = (at, root, chance) => {
  const other = chance.of(placesOf(root));
  const [a, b] = [structuredClone(get(at)), structuredClone(get(other))];
  set(at, b);
  set(other, a);
};

const count: Change = (at, _, chance) => {
  const value = get(at);
  set(at, typeof value === 'number' ? value + chance.of([-1, 1, 0.5, 512]) : chance.of(NUMBERS));
};

const reword: Change = (at, _, chance) => {
  const value = get(at);
  set(at, typeof value === 'string' ? changeText(value, chance) : JSON.stringify(value));
};

const repeat: Change = ({ parent, key }, _, chance) => {
  if (!Array.isArray(parent)) return;
  for (let n = chance.of([1, 3, 200]); n > 0; n -= 1) parent.push(structuredClone(get({ parent, key })));
};

const CHANGES: readonly Change[] = [
  (at, _, chance) => set(at, hostileValue(chance)),
  (at, _, chance) => set(at, hostileValue(chance)),
  (at) => remove(at),
  (at, root, chance) => set(at, structuredClone(chance.once(9) ? root : get(chance.of(placesOf(root))))),
  swap,
  count,
  reword,
  repeat,
  ({ parent, key }, _, chance) =>
    set(
      { parent, key: Array.isArray(parent) ? key : chance.of(NAMES) },
      structuredClone(get({ parent, key })),
    ),
];

/** A changed copy of a value, one to three changes. */
export function changeJson(value: Json, chance: Chance): Json {
  const made = structuredClone(value);
  for (let left = 1 + chance.below(3); left > 0; left -= 1) {
    const places = placesOf(made);
    if (places.length === 0) return hostileValue(chance);
    chance.of(CHANGES)(chance.of(places), made, chance);
  }
  return made;
}

/** The document of a value, with what only a text can say. */
export function writeJson(value: Json): Buffer {
  const text = JSON.stringify(value).replace(MARK, (_, at: string) => RAW[Number(at)] ?? '');
  return Buffer.from(`${text}\n`);
}

/** A changed document; bytes that are no JSON are left as they are. */
export function changeDocument(bytes: Buffer, chance: Chance): Buffer {
  try {
    return writeJson(changeJson(JSON.parse(bytes.toString()), chance));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) return bytes;
    throw error;
  }
}
