/**
 * Nexus's own description of its administration, which is no part of the repository (../shared/nexus): bodies are checked
 * against it where it is there.
 */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

export const OPENAPI_PATH = fileURLToPath(
  new URL('../../../shared/nexus/openapi-3.94.yaml', import.meta.url),
);

export const hasOpenApi = existsSync(OPENAPI_PATH);

type Json = Readonly<Record<string, unknown>>;

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function at(value: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>((inner, key) => (isJson(inner) ? inner[key] : undefined), value);
}

/** Whether a value has the type that a schema names. */
function hasType(value: unknown, type: string): boolean {
  if (type === 'object') return isJson(value);
  if (type === 'array') return Array.isArray(value);
  if (type === 'integer') return Number.isInteger(value);
  return typeof value === type;
}

export interface OpenApi {
  /** Whether there is such a call. */
  has(method: string, path: string): boolean;
  /**
   * What is wrong with an answer by the description; empty when nothing is, and when it says nothing of the body. Nexus
   * writes null for what is not set, so null counts as absent.
   */
  faults(call: {
    readonly method: string;
    readonly path: string;
    readonly status: number;
    readonly body: unknown;
  }): string[];
  /** What is wrong with the body of a request. */
  requestFaults(call: { readonly method: string; readonly path: string; readonly body: unknown }): string[];
}

class Description implements OpenApi {
  readonly #document: unknown;
  readonly #paths: readonly { readonly pattern: RegExp; readonly fixed: number; readonly item: Json }[];

  constructor(document: unknown) {
    this.#document = document;
    const paths = at(document, 'paths');
    this.#paths = Object.entries(isJson(paths) ? paths : {}).flatMap(([path, item]) => {
      if (!isJson(item)) return [];
      const parts = path.split('/');
      const pattern = parts.map((p) => (p.startsWith('{') ? '[^/]+' : p.replace(/\./g, '\\.'))).join('/');
      return [
        { pattern: new RegExp(`^${pattern}$`), fixed: parts.filter((p) => !p.startsWith('{')).length, item },
      ];
    });
  }

  #operation(method: string, path: string): unknown {
    const found = this.#paths.filter(({ pattern }) => pattern.test(path)).sort((a, b) => b.fixed - a.fixed);
    return found.map(({ item }) => item[method.toLowerCase()]).find((o) => o !== undefined);
  }

  has(method: string, path: string): boolean {
    return this.#operation(method, path) !== undefined;
  }

  faults(call: Parameters<OpenApi['faults']>[0]): string[] {
    const { method, path, status, body } = call;
    const responses = at(this.#operation(method, path), 'responses');
    if (!isJson(responses)) return [`${method} ${path} is not described`];
    const described = responses[`${status}`] ?? responses.default;
    const isOrdinary = status < 400 && !Object.keys(responses).some((key) => /^(?:2|default)/.test(key));
    if (described === undefined)
      return isOrdinary ? [] : [`${method} ${path}: status ${status} is not described`];
    const schema = at(described, 'content', 'application/json', 'schema');
    return schema === undefined ? [] : this.#check(body, schema, `${method} ${path}`);
  }

  requestFaults({ method, path, body }: Parameters<OpenApi['requestFaults']>[0]): string[] {
    const operation = this.#operation(method, path);
    if (operation === undefined) return [`${method} ${path} is not described`];
    const schema = at(operation, 'requestBody', 'content', 'application/json', 'schema');
    return schema === undefined ? [] : this.#check(body, schema, `${method} ${path}`);
  }

  #check(value: unknown, schema: unknown, where: string): string[] {
    if (!isJson(schema)) return [];
    if (typeof schema.$ref === 'string') {
      return this.#check(value, at(this.#document, ...schema.$ref.split('/').slice(1)), where);
    }
    const { type, properties, required, items, pattern, minLength } = schema;
    if (typeof type === 'string' && !hasType(value, type)) return [`${where}: is no ${type}`];
    const faults: string[] = [];
    if (typeof value === 'string') {
      if (typeof pattern === 'string' && !new RegExp(pattern).test(value))
        faults.push(`${where}: ${pattern}`);
      if (typeof minLength === 'number' && value.length < minLength) faults.push(`${where}: is too short`);
      if (Array.isArray(schema.enum) && !schema.enum.includes(value))
        faults.push(`${where}: is not in its list`);
    }
    if (Array.isArray(value)) {
      for (const [i, item] of value.entries()) faults.push(...this.#check(item, items, `${where}[${i}]`));
    }
    if (isJson(value)) {
      for (const name of Array.isArray(required) ? required : []) {
        if ((value[name] ?? null) === null) faults.push(`${where}: lacks ${name}`);
      }
      for (const [name, inner] of Object.entries(isJson(properties) ? properties : {})) {
        if ((value[name] ?? null) !== null)
          faults.push(...this.#check(value[name], inner, `${where}.${name}`));
      }
    }
    return faults;
  }
}

let known: OpenApi | undefined;

/** The description. @throws where it is not there: ask `hasOpenApi` first */
export function nexusOpenApi(): OpenApi {
  known ??= new Description(parse(readFileSync(OPENAPI_PATH, 'utf8')));
  return known;
}
