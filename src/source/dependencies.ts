import { posix } from 'node:path';
import { type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { isLockInStep } from '../helm/chart-lock.ts';
import { type ChartContent, missingDependencies, vendoredAs } from '../helm/content.ts';
import { highestMatch, resolveConstraint } from '../helm/index-file.ts';
import { parseConstraint } from '../helm/versions.ts';
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
      const candidates = vendoredAs(content, d.name);
      const fits = parseConstraint(d.version);
      const inside =
        candidates.find((v) => v.version === d.version) ??
        candidates.find((v) => fits?.(v.version) === true) ??
        candidates[0];
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

/** Whether Chart.lock was made from Chart.yaml. The hash of Helm 2 cannot be told; there each version is checked alone. */
function isLockUsable({ chart, lock }: ChartContent): boolean {
  if (lock === undefined) return false;
  return chart.apiVersion === 'v1' || isLockInStep(chart.dependencies, lock);
}

/** The version that Chart.lock decided, if it did; else the highest that satisfies the range. */
async function versionOf(
  d: Declared,
  content: ChartContent,
  choose: (constraint: string) => Promise<string>,
): Promise<string> {
  const locked = isLockUsable(content) ? (content.lock?.dependencies ?? []) : [];
  const matches = parseConstraint(d.version);
  const decides = (l: (typeof locked)[number] | undefined): boolean =>
    l?.name === d.name && l.repository === d.repository && matches?.(l.version) === true;
  // Helm keeps the order of Chart.yaml: the place tells two aliases of one chart apart.
  const samePlace = locked[content.chart.dependencies.indexOf(d)];
  const decided = decides(samePlace) ? samePlace : locked.find(decides);
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
 * @returns with a warning when Chart.lock is out of step with Chart.yaml: then the ranges decide; and with what
 * cannot be resolved
 * @param parent.path of a `path` chart, for `file://` repositories
 * @throws CHART_INVALID when they are nested too deeply
 */
export async function resolveDependencies(
  parent: {
    readonly name: string;
    readonly content: ChartContent;
    readonly path?: string;
    readonly depth: number;
  },
  tools: { readonly access: ChartAccess; readonly cache: IndexCache },
): Promise<{
  readonly fetched: FetchedDependency[];
  readonly warnings: Fault[];
  readonly failed: { readonly name: string; readonly fault: Fault }[];
}> {
  const { content } = parent;
  const missing = missingDependencies(content);
  if (missing.length > 0 && parent.depth >= LIMITS.chartDepth) {
    throw new SealiftError('CHART_INVALID', `${parent.name}: dependencies are nested too deeply`);
  }
  const warnings: Fault[] = [];
  if (missing.length > 0 && content.lock !== undefined && !isLockUsable(content)) {
    const message = `${parent.name}: its Chart.lock was not made from its Chart.yaml and is not used`;
    warnings.push(
      fault('CHART_INVALID', message, { hint: 'run `helm dependency update` in the chart to renew it' }),
    );
  }
  const fetched: FetchedDependency[] = [];
  const failed: { readonly name: string; readonly fault: Fault }[] = [];
  for (const declared of missing) {
    try {
      fetched.push({ declared, wanted: await wantedOf(declared, parent, tools) });
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError)) throw error;
      failed.push({ name: declared.name, fault: faultOf(error) });
    }
  }
  return { fetched, warnings, failed };
}
