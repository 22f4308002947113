import { createHash } from 'node:crypto';
import { type Digest, hexOf } from '../core/digest.ts';
import { errorOf, type Fault, fault, faultOf, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { digestOf } from '../io/verify.ts';
import { type ChartLockFile, parseChartLock } from './chart-lock.ts';
import { type ChartMetadata, checkChartYaml } from './chartfile.ts';
import { compareBytes } from './paths.ts';
import { parseConstraint } from './versions.ts';

/** A chart inside a chart. */
export interface VendoredChart {
  readonly name: string;
  readonly version: string;
  /** Below the outer chart: `charts/x`, `charts/x-1.0.tgz`, `charts/x-1.0.tgz/charts/y`. */
  readonly path: string;
  /** Of the nested archive's bytes; absent for a folder. */
  readonly archive?: Digest;
}

/** Everything that reading a chart once tells. */
export interface ChartContent {
  readonly chart: ChartMetadata;
  readonly chartYaml: Buffer;
  /** Chart.lock, or requirements.lock of an old chart. */
  readonly lock?: ChartLockFile;
  /** Hash of the unpacked tree (helm.md section 6): files without their UTF-8 BOM, as Helm unpacks them. */
  readonly tree: Digest;
  /** Path below the chart's folder → SHA-256 of the file, in byte order. */
  readonly entries: ReadonlyMap<string, Digest>;
  readonly files: number;
  /** Bytes of all files as they are in the archive. */
  readonly unpackedSize: number;
  /** Charts at any depth, by path. */
  readonly vendored: readonly VendoredChart[];
  readonly warnings: readonly Fault[];
}

/** A nested archive that was read. */
export interface NestedChart {
  readonly path: string;
  readonly content: ChartContent;
}

const SUBCHART = '(?:charts/[^_./][^/]*/)*';
const META = new RegExp(`^(${SUBCHART})(Chart\\.yaml|Chart\\.lock|requirements\\.yaml|requirements\\.lock)$`);
const NESTED = new RegExp(`^(${SUBCHART})charts/[^_./][^/]*\\.tgz$`);
const BELOW_CHARTS = new RegExp(`^(${SUBCHART}charts/[^_./][^/]*)(/|$)`);

/** Whether a file is a chart archive that Helm loads as a dependency. */
export function isNestedArchive(path: string): boolean {
  return NESTED.test(path);
}

/** How many charts a path is inside of. */
export function chartDepthOf(path: string): number {
  return [...(META.exec(path)?.[1] ?? NESTED.exec(path)?.[0] ?? '').matchAll(/charts\//g)].length;
}

/** The tree hash: SHA-256 of the lines `<sha256>  <path>\n`, in byte order of the paths. */
export function treeDigest(entries: ReadonlyMap<string, Digest>): Digest {
  const sha = createHash('sha256');
  for (const path of [...entries.keys()].sort(compareBytes)) {
    const digest = entries.get(path);
    if (digest !== undefined) sha.update(`${hexOf(digest)}  ${path}\n`);
  }
  return `sha256:${sha.digest('hex')}`;
}

export interface ContentCollector {
  add(path: string, data: Buffer): void;
  /** @throws CHART_INVALID with the faults of every Chart.yaml */
  finish(more: {
    readonly nested: readonly NestedChart[];
    readonly unpackedSize: number;
    readonly warnings: readonly Fault[];
  }): ChartContent;
}

/** Gathers the files of one chart, one after the other; keeps only hashes and the few files that describe charts. */
export function contentCollector(what: string): ContentCollector {
  const digests = new Map<string, Digest>();
  const meta = new Map<string, Buffer>();
  const warnings: Fault[] = [];
  const dependencyFolders = new Set<string>();
  return {
    add(path, data) {
      digests.set(path, digestOf(data));
      if (META.test(path)) meta.set(path, data);
      const folder = BELOW_CHARTS.exec(path)?.[1];
      if (folder !== undefined && !/\.(?:tgz|prov)$/.test(folder)) dependencyFolders.add(folder);
      if (data.length > LIMITS.chartFileWarn) {
        const message = `${what}: ${path} has ${data.length} bytes; Helm 3.17.3 to 3.19 load no file over ${LIMITS.chartFileWarn} bytes`;
        warnings.push(fault('CHART_INVALID', message));
      }
    },
    finish({ nested, unpackedSize, warnings: more }) {
      const charts = readCharts(meta, what);
      const main = charts.get('');
      const chartYaml = meta.get('Chart.yaml');
      if (main === undefined || chartYaml === undefined) {
        throw new SealiftError('CHART_INVALID', `${what}: there is no Chart.yaml in the chart's folder`);
      }
      for (const folder of dependencyFolders) {
        if (charts.has(`${folder}/`)) continue;
        const message = `${what}: ${folder} is not a chart (no Chart.yaml); Helm will not load this chart`;
        warnings.push(
          fault('CHART_INVALID', message, { hint: 'names that start with _ or . are ignored there' }),
        );
      }
      const entries = new Map([...digests].sort((a, b) => compareBytes(a[0], b[0])));
      const lock = readLock(meta, what, warnings);
      return {
        chart: main,
        chartYaml,
        ...(lock === undefined ? {} : { lock }),
        tree: treeDigest(entries),
        entries,
        files: entries.size,
        unpackedSize,
        vendored: vendoredOf(charts, nested, entries),
        warnings: [...more, ...warnings, ...nested.flatMap((n) => n.content.warnings)],
      };
    },
  };
}

/** Every Chart.yaml, by the folder that holds it ('' is the chart itself, others end in `/`). */
function readCharts(meta: ReadonlyMap<string, Buffer>, what: string): Map<string, ChartMetadata> {
  const charts = new Map<string, ChartMetadata>();
  const faults: Fault[] = [];
  for (const [path, data] of meta) {
    const folder = META.exec(path)?.[1] ?? '';
    if (path !== `${folder}Chart.yaml`) continue;
    const requirements = meta.get(`${folder}requirements.yaml`);
    try {
      const options = { what: `${what}: ${path}`, ...(requirements === undefined ? {} : { requirements }) };
      const checked = checkChartYaml(data, options);
      faults.push(...checked.faults);
      if (checked.chart !== undefined) charts.set(folder, checked.chart);
    } catch (error) {
      faults.push(faultOf(error));
    }
  }
  if (faults.length > 0) throw errorOf(faults, `${what}: ${faults.length} faults in its Chart.yaml files`);
  return charts;
}

function readLock(
  meta: ReadonlyMap<string, Buffer>,
  what: string,
  warnings: Fault[],
): ChartLockFile | undefined {
  for (const name of ['Chart.lock', 'requirements.lock']) {
    const data = meta.get(name);
    if (data === undefined) continue;
    try {
      return parseChartLock(data, `${what}: ${name}`);
    } catch (error) {
      warnings.push(faultOf(error));
    }
  }
  return undefined;
}

function vendoredOf(
  charts: ReadonlyMap<string, ChartMetadata>,
  nested: readonly NestedChart[],
  entries: ReadonlyMap<string, Digest>,
): VendoredChart[] {
  const vendored: VendoredChart[] = [];
  for (const [folder, { name, version }] of charts) {
    if (folder !== '') vendored.push({ name, version, path: folder.slice(0, -1) });
  }
  for (const { path, content } of nested) {
    const archive = entries.get(path);
    const { name, version } = content.chart;
    vendored.push({ name, version, path, ...(archive === undefined ? {} : { archive }) });
    for (const inner of content.vendored) vendored.push({ ...inner, path: `${path}/${inner.path}` });
  }
  return vendored.sort((a, b) => compareBytes(a.path, b.path));
}

/**
 * The dependencies of the chart itself that are not in its charts/: they have to be fetched. Like Helm, only names count,
 * but where one name is declared several times each declaration needs a version that fits it.
 */
export function missingDependencies(content: ChartContent): ChartMetadata['dependencies'] {
  const { dependencies } = content.chart;
  return dependencies.filter((d) => {
    const there = vendoredAs(content, d.name);
    const matches = parseConstraint(d.version);
    const isOnly = dependencies.filter((other) => other.name === d.name).length === 1;
    if (there.length === 0 || isOnly || matches === undefined) return there.length === 0;
    return !there.some((v) => matches(v.version));
  });
}

/** The charts of a name that lie in charts/ of the chart itself. */
export function vendoredAs(content: ChartContent, name: string): VendoredChart[] {
  return content.vendored.filter((v) => v.path.split('/').length === 2 && v.name === name);
}
