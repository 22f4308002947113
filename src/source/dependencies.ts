import { posix } from 'node:path';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { type ChartContent, missingDependencies } from '../helm/content.ts';
import { highestMatch, resolveConstraint } from '../helm/index-file.ts';
import type { ChartDependency } from '../lock/schema.ts';
import { type IndexCache, readIndex, type WantedChart } from './chart.ts';
import type { ChartAccess } from './chart-archive.ts';
import { ociReference } from './chart-archive.ts';

type Declared = ChartContent['chart']['dependencies'][number];

/** A dependency that is not in the archive, and where it comes from. */
export interface FetchedDependency {
  readonly declared: Declared;
  readonly wanted: WantedChart;
}

/** The dependencies whose charts are inside the archive. */
export function vendoredDependencies(content: ChartContent): ChartDependency[] {
  const missing = new Set(missingDependencies(content));
  return content.chart.dependencies
    .filter((d) => !missing.has(d))
    .map((d) => {
      const candidates = content.vendored.filter((v) => v.path.split('/').length === 2 && v.name === d.name);
      const inside = candidates.find((v) => v.version === d.version) ?? candidates[0];
      return {
        name: d.name,
        version: inside?.version ?? d.version,
        ...(d.alias === undefined ? {} : { alias: d.alias }),
        repository: d.repository,
        from: 'vendored',
        ...(inside?.archive === undefined ? {} : { archive: inside.archive }),
      };
    });
}

function unresolvable(chart: string, d: Declared): Fault {
  const where = d.repository === '' ? 'no repository' : `repository "${d.repository}"`;
  return fault('CHART_INVALID', `${chart}: dependency ${d.name} has ${where} and is not in charts/`, {
    hint: 'run `helm dependency update` in the chart, so that the dependency is in its charts/ folder',
  });
}

/** The version that Chart.lock decided, if it did; else the highest that satisfies the range. */
async function versionOf(
  d: Declared,
  content: ChartContent,
  choose: (constraint: string) => Promise<string>,
): Promise<string> {
  const decided = content.lock?.dependencies.find((l) => l.name === d.name);
  return decided?.version ?? choose(d.version);
}

async function wantedOf(
  d: Declared,
  parent: { readonly name: string; readonly content: ChartContent; readonly path?: string },
  tools: { readonly access: ChartAccess; readonly cache: IndexCache },
): Promise<WantedChart> {
  const { access, cache } = tools;
  if (/^https?:\/\//.test(d.repository)) {
    const repo = d.repository.replace(/\/+$/, '');
    const version = await versionOf(d, parent.content, async (constraint) => {
      const index = await readIndex(repo, access, cache);
      return resolveConstraint(index, { name: d.name, constraint }).version;
    });
    return { kind: 'repo', name: d.name, version, repo };
  }
  if (d.repository.startsWith('oci://')) {
    const oci = `${d.repository.replace(/\/+$/, '')}/${d.name}`;
    const version = await versionOf(d, parent.content, async (constraint) => {
      const tags = await access.registries.listTags(ociReference(oci));
      return highestMatch(
        tags.map((t) => t.replaceAll('_', '+')),
        { constraint, what: oci },
      );
    });
    return { kind: 'oci', name: d.name, version, oci };
  }
  if (d.repository.startsWith('file://') && parent.path !== undefined) {
    const path = posix.normalize(posix.join(parent.path, d.repository.slice('file://'.length)));
    if (!posix.isAbsolute(path)) return { kind: 'path', path: path.replace(/\/$/, '') };
  }
  const f = unresolvable(parent.name, d);
  throw new SealiftError(f.code, f.message, f.hint === undefined ? {} : { hint: f.hint });
}

/**
 * The dependencies that a chart declares and does not contain, each with what it resolves to: by Chart.lock where there
 * is one, else as `helm dependency update` would.
 * @param parent.path of a `path` chart, for `file://` repositories
 * @throws CHART_INVALID, CHART_VERSION_NOT_FOUND, CONTENT_NOT_FOUND …
 */
export async function resolveDependencies(
  parent: {
    readonly name: string;
    readonly content: ChartContent;
    readonly path?: string;
    readonly depth: number;
  },
  tools: { readonly access: ChartAccess; readonly cache: IndexCache },
): Promise<FetchedDependency[]> {
  const missing = missingDependencies(parent.content);
  if (missing.length > 0 && parent.depth >= LIMITS.chartDepth) {
    throw new SealiftError('CHART_INVALID', `${parent.name}: dependencies are nested too deeply`);
  }
  const found: FetchedDependency[] = [];
  for (const declared of missing) found.push({ declared, wanted: await wantedOf(declared, parent, tools) });
  return found;
}
