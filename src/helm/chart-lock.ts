import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { digestOf } from '../io/verify.ts';
import { type ChartDependency, dependencyDocument } from './chartfile.ts';
import { asList, asMap, asText, fieldOf, parsePlainYaml } from './plain-yaml.ts';

/** Chart.lock or requirements.lock. `digest` is no content hash: see `isLockInStep`. */
export interface ChartLockFile {
  readonly digest: string;
  readonly dependencies: readonly {
    readonly name: string;
    readonly version: string;
    readonly repository: string;
  }[];
}

/** @throws CHART_INVALID */
export function parseChartLock(bytes: Uint8Array, what: string): ChartLockFile {
  const options = { what, code: 'CHART_INVALID', limit: LIMITS.chartYaml } as const;
  const map = asMap(parsePlainYaml(bytes, options));
  const list = map === undefined ? undefined : (fieldOf(map, 'dependencies') ?? []);
  const items = asList(list);
  if (map === undefined || items === undefined) {
    throw new SealiftError('CHART_INVALID', `${what}: not a lock of dependencies`);
  }
  const dependencies = items.map((item) => {
    const fields = asMap(item) ?? {};
    const text = (key: string): string => asText(fieldOf(fields, key)) ?? '';
    return { name: text('name'), version: text('version'), repository: text('repository') };
  });
  return { digest: asText(fieldOf(map, 'digest')) ?? '', dependencies };
}

/** JSON as Go's encoder writes it. */
function goJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/**
 * Whether a Chart.lock was made from these dependencies, so that its versions may be used (helm.md 1.3: the digest is
 * the SHA-256 of both lists as JSON). False for the hash that Helm 2 wrote.
 */
export function isLockInStep(dependencies: readonly ChartDependency[], lock: ChartLockFile): boolean {
  const locked = lock.dependencies.map(dependencyDocument);
  return lock.digest === digestOf(goJson([dependencies.map(dependencyDocument), locked]));
}
