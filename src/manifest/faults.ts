import { distance } from 'fastest-levenshtein';
import type { z } from 'zod';
import { type ErrorCode, type Fault, fault } from '../core/errors.ts';
import type { YamlText } from '../io/yaml.ts';
import { allowedKeys } from './schema.ts';

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/** The words for what stands in a manifest: "a list", "true", "\"abc\"". */
export function describe(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map';
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 100)) : String(value);
}

/** `charts[0].values[1]`, `registries."10.1.2.3:5000".mirrors`. */
export function pathText(path: Path): string {
  return path
    .map((part, i) => {
      if (typeof part === 'number') return `[${part}]`;
      const word = String(part);
      const shown = /^[A-Za-z][A-Za-z0-9]*$/.test(word) ? word : JSON.stringify(word);
      return i === 0 ? shown : `.${shown}`;
    })
    .join('');
}

function valueAt(at: At): unknown {
  let value: unknown = at.yaml.value;
  for (const part of at.path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Object.hasOwn(value, part) ? Reflect.get(value, part) : undefined;
  }
  return value;
}

/** The allowed word that is meant, where one is near enough. */
export function closest(word: string, allowed: readonly string[]): string | undefined {
  const wanted = word.toLowerCase();
  const ranked = allowed
    .map((key) => ({ key, far: distance(wanted, key.toLowerCase()) }))
    .sort((a, b) => a.far - b.far);
  const best = ranked[0];
  return best !== undefined && best.far <= Math.max(1, Math.floor(best.key.length / 3))
    ? best.key
    : undefined;
}

const KINDS: Readonly<Record<string, string>> = {
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  object: 'a map',
  record: 'a map',
};

function where(path: Path): string {
  return path.length === 0 ? '' : `${pathText(path)}: `;
}

/** What differs between the kinds of documents whose faults are told. */
export interface DocumentKind {
  readonly code: ErrorCode;
  /** The keys that may stand in the map at `path`; `value` is that map. */
  keysAt(path: Path, value: unknown): readonly string[];
}

const MANIFEST: DocumentKind = { code: 'MANIFEST_INVALID', keysAt: allowedKeys };

/** A place in a document that was read. */
export interface At {
  readonly yaml: YamlText;
  readonly path: Path;
  /** Default: a manifest. */
  readonly kind?: DocumentKind;
}

interface More {
  readonly hint?: string | undefined;
  /** `key` points at the key instead of the value. */
  readonly part?: 'key';
}

/** A fault of the document's code with the position of the node at `at`. */
export function faultAt(at: At, message: string, more: More = {}): Fault {
  const path = at.path.map((part) => (typeof part === 'number' ? part : String(part)));
  return fault((at.kind ?? MANIFEST).code, message, {
    position: at.yaml.positionOf(path, more.part ?? 'value'),
    ...(more.hint === undefined ? {} : { hint: more.hint }),
  });
}

/** Faults with positions from the issues that zod found in the value at `base`. */
export function faultsOfIssues(issues: readonly Issue[], base: At): Fault[] {
  return issues.flatMap((issue) => one(issue, { ...base, path: [...base.path, ...issue.path] }));
}

function one(issue: Issue, at: At): Fault[] {
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => unknownKey(key, at));
    case 'invalid_type':
      return [wrongType(issue.expected, at)];
    case 'invalid_value':
      return [wrongValue(issue.values, at)];
    case 'invalid_union':
      return union(issue, at);
    case 'invalid_key':
      return issue.issues.map((inner) =>
        faultAt(at, `${where(at.path.slice(0, -1))}${inner.message}`, { ...hintOf(inner), part: 'key' }),
      );
    case 'too_small':
      if (issue.origin !== 'array') break;
      return [
        faultAt(at, `${where(at.path)}expected at least ${issue.minimum} entry, found an empty list`, {
          hint: 'fill the list or remove its key',
        }),
      ];
  }
  return [faultAt(at, `${where(at.path)}${issue.message}`, hintOf(issue))];
}

/** Of a union, the branch whose kind of value was written; without one, what the union says of itself. */
function union(issue: Extract<Issue, { code: 'invalid_union' }>, at: At): Fault[] {
  const isOtherKind = (i: Issue): boolean =>
    i.path.length === 0 && (i.code === 'invalid_type' || i.code === 'invalid_value');
  const fits = issue.errors.find((branch) => !branch.some(isOtherKind));
  if (fits !== undefined) return faultsOfIssues(fits, at);
  return [faultAt(at, `${where(at.path)}${issue.message}, found ${describe(valueAt(at))}`)];
}

function unknownKey(key: string, at: At): Fault {
  const allowed = (at.kind ?? MANIFEST).keysAt(at.path, valueAt(at));
  const near = closest(key, allowed);
  const did = near === undefined ? '' : `; did you mean "${near}"?`;
  return faultAt(
    { ...at, path: [...at.path, key] },
    `${where(at.path)}unknown key ${JSON.stringify(key.slice(0, 100))}${did}`,
    { part: 'key', hint: `allowed keys: ${allowed.join(', ')}` },
  );
}

function missing(at: At, hint?: string): Fault {
  const key = String(at.path.at(-1));
  return faultAt(at, `${where(at.path.slice(0, -1))}"${key}" is missing`, {
    hint: hint ?? `add \`${key}: …\``,
  });
}

function wrongValue(values: readonly unknown[], at: At): Fault {
  const found = valueAt(at);
  const allowed = values.map((v) => JSON.stringify(v)).join(' or ');
  if (found === undefined) return missing(at, `write ${String(at.path.at(-1))}: ${values.join(' or ')}`);
  return faultAt(at, `${where(at.path)}expected ${allowed}, found ${describe(found)}`);
}

function wrongType(expected: string, at: At): Fault {
  const found = valueAt(at);
  if (found === undefined) return missing(at);
  const quote = expected === 'string' && (typeof found === 'boolean' || found === null);
  const hint = quote
    ? 'put the text in quotes'
    : expected === 'boolean'
      ? 'write true or false, without quotes'
      : undefined;
  return faultAt(at, `${where(at.path)}expected ${KINDS[expected] ?? expected}, found ${describe(found)}`, {
    hint,
  });
}

function hintOf(issue: Issue): { readonly hint?: string } {
  if (issue.code !== 'custom') return {};
  const hint: unknown = issue.params?.hint;
  return typeof hint === 'string' ? { hint } : {};
}
