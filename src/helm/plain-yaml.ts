import { parseDocument } from 'yaml';
import { type ErrorCode, SealiftError } from '../core/errors.ts';

/** A map read from outside; its keys are data, so look them up with `fieldOf`. */
export type PlainMap = Readonly<Record<string, unknown>>;

/** Aliases that one document may resolve: enough for people, too few for a bomb. */
const MAX_ALIASES = 100;

/** @throws `options.code` when there are too many bytes or they are no UTF-8 */
export function decodeText(
  bytes: Uint8Array,
  options: { readonly what: string; readonly code: ErrorCode; readonly limit: number },
): string {
  const { what, code, limit } = options;
  if (bytes.length > limit) {
    throw new SealiftError(code, `${what}: ${bytes.length} bytes, the limit is ${limit} bytes`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new SealiftError(code, `${what}: not UTF-8 text`, { cause });
  }
}

/**
 * Reads YAML (or JSON, which is tried first when it looks like it) with every scalar as its source text, so that an
 * unquoted `1.10` stays "1.10"; only an empty scalar, `null` and `~` are null. The first document counts, as in Helm.
 * @param options.code of the error when the text cannot be read
 * @throws `options.code`, with line and column
 */
export function parsePlainText(
  text: string,
  options: { readonly what: string; readonly code: ErrorCode },
): unknown {
  const json = parseJson(text);
  return json === undefined ? parseYaml(text, options) : json;
}

/** `parsePlainText` of bytes; at most `options.limit` of them. */
export function parsePlainYaml(
  bytes: Uint8Array,
  options: { readonly what: string; readonly code: ErrorCode; readonly limit: number },
): unknown {
  return parsePlainText(decodeText(bytes, options), options);
}

function parseJson(text: string): unknown {
  if (!/^\s*\{/.test(text.slice(0, 1024))) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function parseYaml(text: string, options: { readonly what: string; readonly code: ErrorCode }): unknown {
  const { what, code } = options;
  try {
    const document = parseDocument(text, {
      schema: 'failsafe',
      customTags: ['null', 'merge'],
      // The check for equal keys is quadratic; the last one wins, as in Go.
      uniqueKeys: false,
      logLevel: 'silent',
    });
    const error = document.errors.find((e) => e.code !== 'MULTIPLE_DOCS');
    if (error !== undefined) {
      const at = error.linePos?.[0];
      const position = at === undefined ? {} : { position: { file: what, line: at.line, column: at.col } };
      const message = `${what}${at === undefined ? '' : `:${at.line}:${at.col}`}: ${error.message.split('\n')[0]}`;
      throw new SealiftError(code, message, { cause: error, faults: [{ code, message, ...position }] });
    }
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (cause) {
    if (cause instanceof SealiftError) throw cause;
    // Too many aliases, or nested so deep that the parser ran out of stack.
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new SealiftError(code, `${what}: not readable as YAML: ${why}`, { cause });
  }
}

export function asMap(value: unknown): PlainMap | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as PlainMap) // proven: a non-null object that is no array
    : undefined;
}

export function asList(value: unknown): readonly unknown[] | undefined {
  return Array.isArray(value) ? value : undefined;
}

/** The text of a scalar; undefined for null, nothing, a map or a list. */
export function asText(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
}

/** The value of a map's own key. */
export function fieldOf(map: PlainMap, key: string): unknown {
  return Object.hasOwn(map, key) ? map[key] : undefined;
}
