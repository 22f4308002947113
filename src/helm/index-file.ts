import { distance } from 'fastest-levenshtein';
import { type Digest, isDigest } from '../core/digest.ts';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { splitIndex } from './index-split.ts';
import { asList, asMap, asText, decodeText, fieldOf, type PlainMap, parsePlainText } from './plain-yaml.ts';
import { compareVersionsDown, parseConstraint, parseVersion } from './versions.ts';

/** One version of one chart in a repository's index. */
export interface IndexEntry {
  readonly name: string;
  /** As written. */
  readonly version: string;
  readonly appVersion?: string;
  /** The first URL, which is the only one that Helm uses; absolute or relative to the repository. */
  readonly url: string;
  /** Of the archive, as the index states it; Helm never checks it (helm.md 1.1). */
  readonly digest?: Digest;
}

/** A repository's index.yaml. Charts are read when they are asked for. */
export interface RepositoryIndex {
  /** Where it came from, for messages. */
  readonly what: string;
  /** Names of all charts. */
  readonly names: readonly string[];
  /**
   * The versions of a chart, highest first; empty when there is none.
   * @throws CHART_INDEX_INVALID when its part of the index cannot be read
   */
  entriesOf(name: string): readonly IndexEntry[];
  /** Entries that were left out, as Helm does, of the charts that were asked for. */
  readonly warnings: readonly Fault[];
}

const MAX_WARNINGS = 50;
const NEAREST = 5;

/**
 * Reads index.yaml, YAML or JSON (helm.md 1.1). Entries that Helm would skip are skipped with a warning.
 * @param what the URL, for messages
 * @throws CHART_INDEX_INVALID when it is no index at all
 */
export function parseRepositoryIndex(bytes: Uint8Array, what: string): RepositoryIndex {
  const options = { what, code: 'CHART_INDEX_INVALID', limit: LIMITS.repositoryIndex } as const;
  const text = decodeText(bytes, options);
  const raw = splitCharts(text, what) ?? wholeCharts(text, what);
  const warnings: Fault[] = [];
  let skipped = 0;
  const warn = (message: string): void => {
    if (++skipped <= MAX_WARNINGS) warnings.push(fault('CHART_INDEX_INVALID', `${what}: ${message}`));
    else if (skipped === MAX_WARNINGS + 1) {
      warnings.push(fault('CHART_INDEX_INVALID', `${what}: there are more entries like these`));
    }
  };
  const read = new Map<string, readonly IndexEntry[]>();
  return {
    what,
    names: raw.names,
    warnings,
    entriesOf(name) {
      const before = read.get(name);
      if (before !== undefined) return before;
      const entries = (asList(raw.versions(name)) ?? [])
        .flatMap((v) => readEntry(v, name, warn) ?? [])
        .sort((a, b) => compareVersionsDown(a.version, b.version));
      read.set(name, entries);
      return entries;
    },
  };
}

interface RawCharts {
  readonly names: readonly string[];
  /** What the index says under a name. */
  versions(name: string): unknown;
}

function checkHead(value: unknown, what: string): PlainMap {
  const map = asMap(value);
  if (map === undefined || (asText(fieldOf(map, 'apiVersion')) ?? '') === '') {
    throw notAnIndex(what, 'no apiVersion');
  }
  return map;
}

function notAnIndex(what: string, why: string): SealiftError {
  return new SealiftError('CHART_INDEX_INVALID', `${what}: not a chart repository index (${why})`, {
    hint: 'the address of a chart repository is the one given to `helm repo add`',
  });
}

/** Every chart at once: JSON, flow style, anchors. */
function wholeCharts(text: string, what: string): RawCharts {
  const map = checkHead(parsePlainText(text, { what, code: 'CHART_INDEX_INVALID' }), what);
  const entries = asMap(fieldOf(map, 'entries') ?? {});
  if (entries === undefined) throw notAnIndex(what, 'entries is not a map');
  return { names: Object.keys(entries), versions: (name) => fieldOf(entries, name) };
}

/** Charts one by one, or undefined when the text cannot be cut. */
function splitCharts(text: string, what: string): RawCharts | undefined {
  const split = splitIndex(text);
  if (split === undefined) return undefined;
  const options = { what, code: 'CHART_INDEX_INVALID' } as const;
  let whole: RawCharts | undefined;
  try {
    checkHead(parsePlainText(split.head, options), what);
  } catch {
    return undefined;
  }
  return {
    names: [...split.charts.keys()],
    versions(name) {
      const part = split.charts.get(name);
      if (part === undefined) return undefined;
      try {
        if (whole === undefined) return fieldOf(asMap(parsePlainText(part, options)) ?? {}, name);
      } catch {
        // An alias to another chart, or a real fault: reading all of it tells, with the right line.
      }
      whole ??= wholeCharts(text, what);
      return whole.versions(name);
    },
  };
}

function readEntry(value: unknown, name: string, warn: (message: string) => void): IndexEntry | undefined {
  const map = asMap(value);
  if (map === undefined) {
    warn(`an empty version of ${name} is skipped`);
    return undefined;
  }
  const version = asText(fieldOf(map, 'version')) ?? '';
  const at = `${name} ${version.slice(0, 60)}`;
  if (parseVersion(version) === undefined || (asText(fieldOf(map, 'name')) ?? '') === '') {
    warn(`${at} is skipped: it needs a name and a semantic version`);
    return undefined;
  }
  const url = asText(asList(fieldOf(map, 'urls'))?.[0]) ?? '';
  if (url === '') {
    warn(`${at} is skipped: it has no URL`);
    return undefined;
  }
  const appVersion = asText(fieldOf(map, 'appVersion')) ?? '';
  const digest = readDigest(map, () => warn(`${at}: its digest is no SHA-256 and is not used`));
  return {
    name,
    version,
    ...(appVersion === '' ? {} : { appVersion }),
    url,
    ...(digest === undefined ? {} : { digest }),
  };
}

/** Bare hex is what the index should hold; `sha256:` before it is accepted as in Helm. */
function readDigest(map: PlainMap, warn: () => void): Digest | undefined {
  const text = (asText(fieldOf(map, 'digest')) ?? '').trim().toLowerCase();
  if (text === '') return undefined;
  const digest = text.startsWith('sha256:') ? text : `sha256:${text}`;
  if (isDigest(digest)) return digest;
  warn();
  return undefined;
}

function nearest(wanted: string, names: readonly string[]): string {
  const far = (n: string): number => distance(wanted.slice(0, 100), n.slice(0, 100));
  const ranked = names.map((n) => ({ n, d: far(n) })).sort((a, b) => a.d - b.d);
  return ranked
    .slice(0, NEAREST)
    .map((r) => r.n)
    .join(', ');
}

function versionsOf(index: RepositoryIndex, name: string): readonly IndexEntry[] {
  const entries = index.entriesOf(name);
  if (entries.length > 0) return entries;
  throw new SealiftError('CHART_VERSION_NOT_FOUND', `${index.what}: there is no chart "${name}"`, {
    hint:
      index.names.length === 0
        ? 'the repository holds no charts'
        : `nearest names: ${nearest(name, index.names)}`,
  });
}

/**
 * The entry with exactly this version text: `1.2` never means 1.2.7 here, and `v1.2.0` is not `1.2.0`.
 * @throws CHART_VERSION_NOT_FOUND, with the nearest versions in the hint
 */
export function findChart(
  index: RepositoryIndex,
  wanted: { readonly name: string; readonly version: string },
): IndexEntry {
  const { name, version } = wanted;
  const entries = versionsOf(index, name);
  const found = entries.find((e) => e.version === version);
  if (found !== undefined) return found;
  const near = nearest(version, [...new Set(entries.map((e) => e.version))]);
  throw new SealiftError(
    'CHART_VERSION_NOT_FOUND',
    `${index.what}: there is no ${name} with version "${version}"`,
    {
      hint: `versions are compared exactly; nearest: ${near}`,
      details: { name, version, latest: entries[0]?.version ?? null },
    },
  );
}

/**
 * The highest version that satisfies a dependency's range, as `helm dependency update` picks it (pre-releases only
 * when the range names one).
 * @throws CHART_VERSION_NOT_FOUND; CHART_INVALID when the range is none
 */
export function resolveConstraint(
  index: RepositoryIndex,
  wanted: { readonly name: string; readonly constraint: string },
): IndexEntry {
  const { name, constraint } = wanted;
  const entries = versionsOf(index, name);
  const version = highestMatch(
    entries.map((e) => e.version),
    { constraint, what: `${index.what}: ${name}` },
  );
  return findChart(index, { name, version });
}

/**
 * The highest of some versions (index entries, tags of a registry) that satisfies a range.
 * @throws CHART_VERSION_NOT_FOUND; CHART_INVALID when the range is none
 */
export function highestMatch(
  versions: readonly string[],
  options: { readonly constraint: string; readonly what: string },
): string {
  const { constraint, what } = options;
  const matches = parseConstraint(constraint);
  if (matches === undefined) {
    throw new SealiftError('CHART_INVALID', `${what}: "${constraint.slice(0, 100)}" is not a version range`);
  }
  const sorted = [...versions].sort(compareVersionsDown);
  const best = sorted.find(matches);
  // Of `1.2.3` and `v1.2.3`, which are equal, the one that was written.
  const written = versions.includes(constraint) ? parseVersion(constraint) : undefined;
  const same = best !== undefined && written !== undefined && parseVersion(best)?.compare(written) === 0;
  const found = same ? constraint : best;
  if (found !== undefined) return found;
  throw new SealiftError(
    'CHART_VERSION_NOT_FOUND',
    `${what}: no version satisfies "${constraint.slice(0, 100)}"`,
    {
      hint:
        sorted.length === 0
          ? 'there are no versions'
          : `the highest are ${sorted.slice(0, NEAREST).join(', ')}`,
    },
  );
}

/**
 * The address of a file of a chart repository (helm.md 1.1): an absolute reference as it is, a relative one below the
 * repository, with the repository's query (signed URLs).
 * @throws NETWORK_URL_REFUSED for anything but http and https
 */
export function resolveChartUrl(repoUrl: string, ref: string): string {
  const refuse = (url: string): SealiftError =>
    new SealiftError('NETWORK_URL_REFUSED', `"${url.slice(0, 300)}" is not an http or https address`, {
      hint: 'for a chart in a registry use `oci:` in sealift.yaml',
    });
  const absolute = /^[a-zA-Z][a-zA-Z0-9+.-]*:/.test(ref);
  const base = URL.canParse(repoUrl) ? new URL(repoUrl) : undefined;
  if (!absolute && base !== undefined && !base.pathname.endsWith('/')) base.pathname += '/';
  if (!URL.canParse(ref, absolute ? undefined : base?.href)) throw refuse(absolute ? ref : repoUrl);
  const url = new URL(ref, absolute ? undefined : base?.href);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw refuse(url.href);
  if (!absolute && base !== undefined && base.search !== '') url.search = base.search;
  return absolute ? ref : url.href;
}
