import { join } from 'node:path';
import { errorOf, type Fault, fault, SealiftError } from '../core/errors.ts';
import { PackedList, type Sequence } from '../core/packed-list.ts';
import { imageName } from '../core/reference.ts';
import { eachBounded, mapBounded } from '../io/pool.ts';
import type { CheckResult, WantedChart } from '../lock/check.ts';
import {
  type ChartDependency,
  type ChartLock,
  chartDir,
  chartName,
  type FileLock,
  type ImageLock,
  type Lock,
} from '../lock/schema.ts';
import {
  type IndexCache,
  pathFacts,
  type ResolvedChart,
  resolveChart,
  type WantedChart as SourceChart,
} from '../source/chart.ts';
import { type ChartAccess, packFolder, vendorOf } from '../source/chart-archive.ts';
import { resolveDependencies, vendoredDependencies } from '../source/dependencies.ts';
import { resolveFile } from '../source/file.ts';
import { type ImageWish, resolveImage } from '../source/image.ts';
import { attempt, faultsIn, sortAttempts } from './session.ts';
import { imageFault, neededBy, sourceFault } from './unreachable.ts';
import type { WantedState } from './wanted.ts';

/** Images, charts and files asked at once. */
const PARALLEL = 6;

export interface ResolveTools {
  readonly access: ChartAccess;
  readonly state: WantedState;
  /** The lock before, and what of it still holds. */
  readonly before: Lock | undefined;
  readonly check: CheckResult;
  /** Carry foreign layers where there are any and the manifest does not say (`--foreign-layers`). */
  readonly foreignLayers?: boolean;
  /** True for entries whose pin shall move (`--update`). */
  readonly moves: (kind: 'image' | 'chart' | 'file' | 'package', name: string) => boolean;
}

interface Resolved<T> {
  readonly entries: T[];
  readonly faults: Fault[];
  readonly warnings: Fault[];
}

/** Runs the work on one entry between its `start` and its `end`, so that a screen can show it. */
async function told<T>(
  entry: { readonly name: string; readonly access: ChartAccess },
  work: () => Promise<T>,
): Promise<T> {
  const { name, access } = entry;
  const { emit } = access.context;
  emit({ type: 'start', id: name, label: name, size: 0 });
  try {
    const value = await work();
    emit({ type: 'end', id: name, outcome: 'done' });
    return value;
  } catch (error) {
    emit({ type: 'end', id: name, outcome: 'failed' });
    throw error;
  }
}

/** Every image of the manifest: pins that hold are kept, the others are asked for. */
export async function resolveImages(
  tools: ResolveTools,
): Promise<Omit<Resolved<ImageLock>, 'entries'> & { readonly entries: Sequence<ImageLock> }> {
  const { access, state, before, check, moves } = tools;
  const { signal } = access.context;
  const locked = new Map(Array.from(before?.images ?? [], (i, at) => [i.ref, at]));
  const warnings: Fault[] = [];
  const entries = new PackedList<ImageLock>();
  const faults: Fault[] = [];
  await eachBounded(state.manifest.images, { limit: PARALLEL, signal }, async (image, at) => {
    const done = await attempt(async (): Promise<ImageLock> => {
      const ref = imageName(image.ref);
      const place = locked.get(ref);
      const old = place === undefined ? undefined : before?.images.at(place);
      const usedBy = [...image.origins].sort();
      const keep = old !== undefined && !moves('image', ref);
      const { include, platforms, position } = image;
      const foreignLayers = foreignWish(image.foreignLayers, tools.foreignLayers, old);
      const asked = foreignLayers === 'found' && old?.foreignLayers !== true;
      if (keep && check.satisfied.images.has(ref) && !asked) return { ...old, usedBy };
      const pinned = keep && check.pinned.has(ref);
      const by = pinned ? { ...image.source, digest: old.digest } : image.source;
      const { replacedBy } = image;
      const wish = { ref: by, platforms, include, foreignLayers, signal };
      const found = await told({ name: ref, access }, () => resolveImage(access.registries, wish));
      warnings.push(...found.warnings.map((w) => ({ ...w, position })));
      return { ref, ...(replacedBy === undefined ? {} : { replacedBy }), ...found.image, usedBy };
    }, image.position);
    if ('fault' in done) faults[at] = imageFault(done.fault, image);
    else entries.push(done.value);
  });
  // In the order of the manifest, without the gaps of those that were found.
  return { entries, faults: faults.filter(() => true), warnings };
}

/** What the manifest says decides; where it says nothing, the flag; and without it what the lock has stays. */
function foreignWish(
  stated: boolean | undefined,
  flag: boolean | undefined,
  old: ImageLock | undefined,
): ImageWish['foreignLayers'] {
  return stated ?? (flag === true || old?.foreignLayers === true ? 'found' : false);
}

/** Every file of the manifest. */
export async function resolveFiles(tools: ResolveTools): Promise<Resolved<FileLock>> {
  const { access, state, before, check, moves } = tools;
  const locked = new Map(before?.files.map((f) => [f.name, f]));
  const limits = { limit: PARALLEL, signal: access.context.signal };
  const done = await mapBounded(state.wanted.files, limits, (file) =>
    attempt(async (): Promise<FileLock> => {
      const mode = file.mode.toString(8).padStart(4, '0');
      const old = locked.get(file.name);
      if (old !== undefined && check.satisfied.files.has(file.name) && !moves('file', file.name)) {
        return { ...old, mode };
      }
      const pin = file.sha256 === undefined ? {} : { expected: file.sha256 };
      const { name } = file;
      const found = await told({ name, access }, () => resolveFile(file.source, { ...access, ...pin }));
      const { digest, size } = found;
      return { name, source: file.source, size, sha256: digest, mode };
    }, file.position).then((one) =>
      'fault' in one ? { fault: sourceFault(one.fault, `file ${file.name}`) } : one,
    ),
  );
  const { values, faults } = sortAttempts(done);
  const seen = new Set<string>();
  for (const { name } of values) {
    if (seen.has(name)) faults.push(fault('MANIFEST_CONFLICT', `two files are called ${name}`));
    seen.add(name);
  }
  return { entries: values, faults, warnings: [] };
}

/** How the manifest's chart is asked of its source. */
function sourceOf(chart: WantedChart): SourceChart {
  const { name, version, source } = chart;
  if (source.type === 'path') return { kind: 'path', path: source.path };
  if (source.type === 'oci') return { kind: 'oci', name, version, oci: source.ref };
  const allow = chart.allowIndexMismatch;
  return {
    kind: 'repo',
    name,
    version,
    repo: source.repo,
    ...(allow === undefined ? {} : { allowIndexMismatch: allow }),
  };
}

/** Where a locked chart comes from, for a message. */
function whereOf({ source }: ChartLock): string {
  return source.type === 'http' ? source.url : source.type === 'oci' ? source.ref : source.path;
}

function twoCharts(a: ChartLock, b: ChartLock): SealiftError {
  const [from, to] = [whereOf(a), whereOf(b)];
  const what = `${chartName(a)} is two different charts`;
  const hashes = `${a.integrity.archive} from ${from}, ${b.integrity.archive} from ${to}`;
  return new SealiftError('MANIFEST_CONFLICT', `${what}: ${hashes}`, {
    hint:
      from === to
        ? `it was republished; take the new one everywhere with \`sealift lock --update ${a.name}\``
        : 'a bundle holds one chart of each name and version: take both from one source',
  });
}

/** Gathers charts and the charts that they depend on; each name and version once. */
class ChartSet {
  readonly charts = new Map<string, ChartLock>();
  readonly warnings: Fault[] = [];
  readonly #access: ChartAccess;
  readonly #cache: IndexCache = new Map();
  /** By what was asked: a chart that many depend on is fetched once. */
  readonly #resolved = new Map<string, ChartLock>();

  /** How charts that the manifest itself asks for say so in `usedBy`. */
  readonly #manifestName: string;

  constructor(access: ChartAccess, manifestName: string) {
    this.#access = access;
    this.#manifestName = manifestName;
  }

  /** Puts a chart in, or adds a user to one that is there. @throws MANIFEST_CONFLICT when that is another chart */
  put(chart: ChartLock): ChartLock {
    const known = this.charts.get(chartName(chart));
    if (known !== undefined && known.integrity.archive !== chart.integrity.archive)
      throw twoCharts(known, chart);
    const merged =
      known === undefined
        ? chart
        : {
            // The manifest's own entry says where it comes from, whoever else needs the same bytes.
            ...(known.usedBy.includes(this.#manifestName) ? known : chart),
            usedBy: [...new Set([...known.usedBy, ...chart.usedBy])].sort(),
          };
    this.charts.set(chartName(chart), merged);
    return merged;
  }

  async resolve(
    wanted: SourceChart,
    use: { readonly by: string; readonly values: ChartLock['values']; readonly depth: number },
  ): Promise<ChartLock> {
    const key = JSON.stringify(wanted);
    const chart = this.#resolved.get(key) ?? (await this.#fetch(wanted, use.depth));
    this.#resolved.set(key, chart);
    return this.put({ ...chart, values: use.values, usedBy: [use.by] });
  }

  /** A chart with all that it depends on, which is put in; the chart itself is not yet. */
  async #fetch(wanted: SourceChart, depth: number): Promise<ChartLock> {
    const access = this.#access;
    const found = await resolveChart(wanted, access, this.#cache);
    this.warnings.push(...found.warnings);
    const name = chartName(found.facts);
    const parent = {
      name,
      content: found.content,
      depth,
      ...(wanted.kind === 'path' ? { path: wanted.path } : {}),
    };
    const { fetched, warnings, failed } = await resolveDependencies(parent, { access, cache: this.#cache });
    this.warnings.push(...warnings);
    const faults = failed.map((f) => neededBy(f.fault, { parent: name, dependency: f.name }));
    const dependencies: ChartDependency[] = vendoredDependencies(found.content);
    for (const { declared, wanted: dependency } of fetched) {
      const use = { by: name, values: [], depth: depth + 1 };
      const chart = await this.resolve(dependency, use).catch((error: unknown) => {
        faults.push(...faultsIn(error).map((f) => neededBy(f, { parent: name, dependency: declared.name })));
      });
      if (chart === undefined) continue;
      dependencies.push({
        name: chart.name,
        version: chart.version,
        ...(declared.alias === undefined ? {} : { alias: declared.alias }),
        repository: declared.repository,
        from: 'fetched',
        archive: chart.integrity.archive,
      });
    }
    if (faults.length > 0) throw errorOf(faults, `${name}: ${faults.length} dependencies lack`);
    if (fetched.length > 0 && wanted.kind !== 'path') {
      const names = fetched.map((f) => f.declared.name).join(', ');
      this.warnings.push(
        fault('CHART_INVALID', `${name}: its archive lacks ${names}; carried as charts of their own`, {
          hint: `at the site put them into charts/ of ${name} before installing it`,
        }),
      );
    }
    const facts =
      wanted.kind === 'path' && fetched.length > 0
        ? await this.#repack(wanted.path, found, dependencies)
        : found.facts;
    return { ...facts, dir: chartDir(facts), dependencies, values: [], usedBy: [] };
  }

  /** A chart folder with its fetched dependencies put into charts/, so that it can be installed as it arrives. */
  async #repack(
    path: string,
    found: ResolvedChart,
    dependencies: readonly ChartDependency[],
  ): Promise<ResolvedChart['facts']> {
    const access = this.#access;
    const all = [...this.charts.values()];
    const shell: ChartLock = { ...found.facts, dir: '', dependencies, values: [], usedBy: [] };
    const { packed } = await packFolder(join(access.root, path), await vendorOf(shell, access, all));
    return pathFacts(path, packed, found.content.tree).facts;
  }
}

/** What a kept chart brings along: the charts that were fetched for it, once for each chart that uses them. */
function keptDependencies(top: ChartLock, before: Lock): ChartLock[] {
  const locked = new Map(before.charts.map((c) => [chartName(c), c]));
  const kept: ChartLock[] = [];
  // A set gives what is added while it is gone through, and each chart once: a lock in a circle ends.
  const users = new Set([top]);
  for (const user of users) {
    for (const dependency of user.dependencies) {
      const chart = dependency.from === 'fetched' ? locked.get(chartName(dependency)) : undefined;
      if (chart === undefined) continue;
      kept.push({ ...chart, usedBy: [chartName(user)] });
      users.add(chart);
    }
  }
  return kept;
}

/** Every chart of the manifest and what they depend on. One after the other: they share repository indexes. */
export async function resolveCharts(
  tools: ResolveTools & { readonly manifestName: string; readonly changedPaths: ReadonlySet<string> },
): Promise<Resolved<ChartLock>> {
  const { access, state, before, check, moves, changedPaths } = tools;
  const set = new ChartSet(access, tools.manifestName);
  const locked = new Map(before?.charts.map((c) => [chartName(c), c]));
  const faults: Fault[] = [];
  for (const chart of state.wanted.charts) {
    const name = chartName(chart);
    const old = locked.get(name);
    const deps = old === undefined || before === undefined ? [] : keptDependencies(old, before);
    const holds = [name, ...deps.map(chartName)].every(
      (n) => check.satisfied.charts.has(n) && !changedPaths.has(n) && !moves('chart', n),
    );
    try {
      if (old !== undefined && holds) {
        const { allowIndexMismatch: _, ...rest } = old;
        const allow = chart.allowIndexMismatch;
        const kept = { ...rest, ...(allow === undefined ? {} : { allowIndexMismatch: allow }) };
        set.put({ ...kept, values: chart.values, usedBy: [tools.manifestName] });
        for (const dependency of deps) set.put(dependency);
        continue;
      }
      const use = { by: tools.manifestName, values: chart.values, depth: 0 };
      await told({ name, access }, () => set.resolve(sourceOf(chart), use));
    } catch (error) {
      const { position } = chart;
      const failed = faultsIn(error).map((f) => (position === undefined ? f : { ...f, position }));
      faults.push(...failed.map((f) => sourceFault(f, `chart ${name}`)));
    }
  }
  return { entries: [...set.charts.values()], faults, warnings: set.warnings };
}
