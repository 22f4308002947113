import { errorOf, type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { asList, asMap, asText, type PlainMap, parsePlainYaml } from './plain-yaml.ts';
import { parseVersion } from './versions.ts';

/** One entry of `dependencies` in Chart.yaml. */
export interface ChartDependency {
  readonly name: string;
  /** A range; '' where nothing was written. */
  readonly version: string;
  /** `https://`, `oci://`, `file://`, `@alias`; '' when the chart is expected in charts/. */
  readonly repository: string;
  readonly condition?: string;
  readonly tags?: readonly string[];
  readonly enabled?: boolean;
  readonly importValues?: readonly unknown[];
  readonly alias?: string;
}

/** What Chart.yaml says, checked and cleaned as Helm does. */
export interface ChartMetadata {
  readonly name: string;
  /** As written: `v4.9.0` keeps its `v`. */
  readonly version: string;
  /** As written: an unquoted `1.10` is "1.10". */
  readonly appVersion?: string;
  readonly apiVersion: string;
  readonly type: 'application' | 'library';
  readonly dependencies: readonly ChartDependency[];
  readonly annotations: Readonly<Record<string, string>>;
  /** The fields that Helm knows, empty ones left out, as plain JSON: what an OCI config holds (helm.md 1.4). */
  readonly document: Readonly<Record<string, unknown>>;
}

const TEXT_FIELDS = [
  'name',
  'home',
  'version',
  'description',
  'icon',
  'apiVersion',
  'condition',
  'tags',
  'appVersion',
  'kubeVersion',
  'type',
] as const;
/** Helm leaves these as they are and cleans the others. */
const RAW_FIELDS: ReadonlySet<string> = new Set(['version', 'apiVersion', 'type']);
const TRUE = /^(?:true|yes|on|y)$/i;
const ALIAS = /^[a-zA-Z0-9_-]+$/;

/** Space for every kind of space, nothing for what cannot be printed (Helm: sanitizeString). */
function clean(text: string): string {
  return text.replace(/[\t-\r\u0085\p{Z}]/gu, ' ').replace(/[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu, '');
}

/** Reads fields of one map, gathers what is wrong. Keys match as in Go: any case, the last one wins. */
function reader(value: PlainMap, where: string, faults: Fault[]) {
  const fields = new Map<string, unknown>();
  for (const [key, item] of Object.entries(value)) fields.set(key.toLowerCase(), item);
  const bad = (key: string, why: string): undefined => {
    faults.push(fault('CHART_INVALID', `${where}: ${key} ${why}`));
    return undefined;
  };
  const get = (key: string): unknown => fields.get(key.toLowerCase()) ?? undefined;
  return {
    text(key: string): string {
      const item = get(key);
      if (item === undefined) return '';
      const text = asText(item) ?? bad(key, 'is not text') ?? '';
      return RAW_FIELDS.has(key) ? text : clean(text);
    },
    texts(key: string): string[] {
      const item = get(key);
      if (item === undefined) return [];
      const list = asList(item) ?? bad(key, 'is not a list') ?? [];
      return list.map((t) =>
        clean(t === null ? '' : (asText(t) ?? bad(key, 'holds something else than text') ?? '')),
      );
    },
    flag(key: string): boolean {
      const text = asText(get(key));
      return text !== undefined && TRUE.test(text);
    },
    list(key: string): readonly unknown[] {
      const item = get(key);
      return item === undefined ? [] : (asList(item) ?? bad(key, 'is not a list') ?? []);
    },
    map(key: string): PlainMap {
      const item = get(key);
      return item === undefined ? {} : (asMap(item) ?? bad(key, 'is not a map') ?? {});
    },
    bad,
  };
}

function readDependency(value: unknown, where: string, faults: Fault[]): ChartDependency | undefined {
  const map = asMap(value);
  if (map === undefined) {
    faults.push(fault('CHART_INVALID', `${where}: dependencies must not contain empty entries`));
    return undefined;
  }
  const read = reader(map, `${where}: dependency`, faults);
  const [name, condition, alias] = [read.text('name'), read.text('condition'), read.text('alias')];
  const tags = read.texts('tags');
  const importValues = read.list('import-values');
  if (alias !== '' && !ALIAS.test(alias)) {
    faults.push(
      fault('CHART_INVALID', `${where}: dependency "${name}" has disallowed characters in its alias`),
    );
  }
  return {
    name,
    version: clean(read.text('version')),
    repository: read.text('repository'),
    ...(condition === '' ? {} : { condition }),
    ...(tags.length === 0 ? {} : { tags }),
    ...(read.flag('enabled') ? { enabled: true } : {}),
    ...(importValues.length === 0 ? {} : { importValues }),
    ...(alias === '' ? {} : { alias }),
  };
}

function readDependencies(list: readonly unknown[], where: string, faults: Fault[]): ChartDependency[] {
  const dependencies: ChartDependency[] = [];
  const seen = new Set<string>();
  for (const item of list) {
    const dependency = readDependency(item, where, faults);
    if (dependency === undefined) continue;
    const key = dependency.alias ?? dependency.name;
    if (seen.has(key)) {
      faults.push(
        fault('CHART_INVALID', `${where}: more than one dependency with name or alias "${key}"`, {
          hint: 'give the dependencies different aliases',
        }),
      );
    }
    seen.add(key);
    dependencies.push(dependency);
  }
  return dependencies;
}

/** A dependency as Helm writes it as JSON: this key order, `name` and `repository` always there. */
export function dependencyDocument(dependency: ChartDependency): Readonly<Record<string, unknown>> {
  const { name, version, repository, condition, tags, enabled, importValues, alias } = dependency;
  return {
    name,
    ...(version === '' ? {} : { version }),
    repository,
    ...(condition === undefined ? {} : { condition }),
    ...(tags === undefined ? {} : { tags }),
    ...(enabled === undefined ? {} : { enabled }),
    ...(importValues === undefined ? {} : { 'import-values': importValues }),
    ...(alias === undefined ? {} : { alias }),
  };
}

function readMaintainers(list: readonly unknown[], where: string, faults: Fault[]): Record<string, string>[] {
  return list.map((item) => {
    const map = asMap(item);
    if (map === undefined) {
      faults.push(fault('CHART_INVALID', `${where}: maintainers must not contain empty entries`));
    }
    const read = reader(map ?? {}, `${where}: maintainer`, faults);
    const fields = ['name', 'email', 'url'].map((key) => [key, read.text(key)] as const);
    return Object.fromEntries(fields.filter(([, text]) => text !== ''));
  });
}

function checkFields(text: (key: string) => string, bad: (key: string, why: string) => unknown): void {
  const [name, version, type] = [text('name'), text('version'), text('type')];
  if (name === '') bad('name', 'is required');
  else if (name === '.' || name === '..' || /[/\\]/.test(name))
    bad('name', `"${name.slice(0, 100)}" is not a name`);
  if (version === '') bad('version', 'is required');
  else if (parseVersion(version) === undefined) {
    bad('version', `"${version.slice(0, 100)}" is not a semantic version such as 1.2.3`);
  }
  if (type !== '' && type !== 'application' && type !== 'library') {
    bad('type', `"${type.slice(0, 40)}" must be application or library`);
  }
}

/** The chart that Chart.yaml describes, or everything that is wrong with it. */
export function checkChartYaml(
  bytes: Uint8Array,
  options: { readonly what: string; readonly requirements?: Uint8Array },
): { readonly chart: ChartMetadata | undefined; readonly faults: readonly Fault[] } {
  const { what } = options;
  const parse = (b: Uint8Array, name: string): PlainMap =>
    asMap(parsePlainYaml(b, { what: name, code: 'CHART_INVALID', limit: LIMITS.chartYaml }) ?? {}) ??
    ((): never => {
      throw new SealiftError('CHART_INVALID', `${name}: not a map`);
    })();
  const faults: Fault[] = [];
  const read = reader(parse(bytes, what), what, faults);
  const texts = new Map<string, string>(TEXT_FIELDS.map((key) => [key, read.text(key)]));
  // Charts of Helm 2 do not say their apiVersion.
  if (texts.get('apiVersion') === '') texts.set('apiVersion', 'v1');
  const text = (key: string): string => texts.get(key) ?? '';
  checkFields(text, read.bad);
  const required =
    options.requirements === undefined
      ? undefined
      : reader(parse(options.requirements, `${what} (requirements.yaml)`), what, faults).list('dependencies');
  const dependencies = readDependencies(required ?? read.list('dependencies'), what, faults);
  const annotations = readAnnotations(read.map('annotations'), read.bad);
  const lists = {
    sources: read.texts('sources'),
    keywords: read.texts('keywords'),
    maintainers: readMaintainers(read.list('maintainers'), what, faults),
    dependencies: dependencies.map(dependencyDocument),
  };
  const document = {
    ...Object.fromEntries([...texts].filter(([, value]) => value !== '')),
    ...Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0)),
    ...(read.flag('deprecated') ? { deprecated: true } : {}),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
  };
  if (faults.length > 0) return { chart: undefined, faults };
  const chart: ChartMetadata = {
    name: text('name'),
    version: text('version'),
    ...(text('appVersion') === '' ? {} : { appVersion: text('appVersion') }),
    apiVersion: text('apiVersion'),
    type: text('type') === 'library' ? 'library' : 'application',
    dependencies,
    annotations,
    document,
  };
  return { chart, faults };
}

function readAnnotations(
  map: PlainMap,
  bad: (key: string, why: string) => unknown,
): Readonly<Record<string, string>> {
  const pairs: [string, string][] = [];
  for (const [key, value] of Object.entries(map)) {
    const text = value === null ? '' : asText(value);
    if (text === undefined) bad('annotations', `holds something else than text under "${key.slice(0, 100)}"`);
    else pairs.push([key, text]);
  }
  return Object.fromEntries(pairs);
}

/**
 * Reads Chart.yaml by Helm's rules (helm.md 1.2 point 8, `Metadata.Validate`).
 * @param options.requirements requirements.yaml of a chart of apiVersion v1: its dependencies count
 * @throws CHART_INVALID with every fault
 */
export function parseChartYaml(
  bytes: Uint8Array,
  options: { readonly what: string; readonly requirements?: Uint8Array },
): ChartMetadata {
  const { chart, faults } = checkChartYaml(bytes, options);
  if (chart === undefined) throw errorOf(faults, `${options.what}: ${faults.length} faults`);
  return chart;
}
