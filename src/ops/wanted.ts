import { dirname, join, resolve } from 'node:path';
import { errorOf, type Fault, faultOf, isAbort } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { parseMirror } from '../core/mirror.ts';
import { mapSequence } from '../core/packed-list.ts';
import { formatPlatform } from '../core/platform.ts';
import { imageName } from '../core/reference.ts';
import { packChartDirectory } from '../helm/pack-dir.ts';
import { readFileLimited } from '../io/files.ts';
import type { HttpClient } from '../io/http.ts';
import { digestOf } from '../io/verify.ts';
import type { Wanted, WantedChart, WantedFile, WantedImage } from '../lock/check.ts';
import type { Lock } from '../lock/schema.ts';
import { loadManifest, type Manifest } from '../manifest/load.ts';
import type { ManifestImage } from '../manifest/merge.ts';
import type { RequirementFiles } from '../python/requirement-files.ts';
import { listFiles, resolveFile } from '../source/file.ts';
import type { RegistriesConfig } from '../source/registries.ts';
import { readWantedPython } from './wanted-python.ts';

/** A manifest with everything on this disk that it points to, in the words of the lock. */
export interface WantedState {
  readonly manifest: Manifest;
  /** Folder of the manifest: every path in it is relative to it. */
  readonly root: string;
  readonly wanted: Wanted;
  /** What the requirements files say; there with `wanted.python`. */
  readonly requirementFiles?: RequirementFiles;
  readonly warnings: readonly Fault[];
}

type Tools = { readonly http: HttpClient; readonly context: Context };

async function valuesOf(root: string, paths: readonly string[]): Promise<WantedChart['values']> {
  const values: { path: string; sha256: ReturnType<typeof digestOf> }[] = [];
  for (const path of paths) {
    const bytes = await readFileLimited(join(root, path), {
      limit: LIMITS.manifestText,
      missing: 'FILE_NOT_FOUND',
      hint: 'values files are relative to the folder of sealift.yaml',
    });
    values.push({ path, sha256: digestOf(bytes) });
  }
  return values;
}

async function wantedChart(chart: Manifest['charts'][number], root: string): Promise<WantedChart> {
  const values = await valuesOf(root, chart.values);
  const { position } = chart;
  if (chart.kind === 'path') {
    const packed = await packChartDirectory(join(root, chart.path));
    const { name, version } = packed.chart;
    const source = { type: 'path', path: chart.path } as const;
    return { name, version, source, values, position, treeNow: packed.tree };
  }
  const { name, version } = chart;
  if (chart.kind === 'oci') {
    return { name, version, source: { type: 'oci', ref: chart.oci }, values, position };
  }
  const allow = chart.allowIndexMismatch;
  return {
    name,
    version,
    source: { type: 'http', repo: chart.repo },
    values,
    position,
    ...(allow === undefined ? {} : { allowIndexMismatch: allow }),
  };
}

/** A folder becomes one file for each file in it. */
async function wantedFiles(
  file: Manifest['files'][number],
  root: string,
  tools: Tools,
): Promise<WantedFile[]> {
  const pin = file.sha256 === undefined ? {} : { sha256: file.sha256 };
  const { mode, position } = file;
  if (file.url !== undefined) return [{ name: file.name, source: { url: file.url }, mode, position, ...pin }];
  const found: WantedFile[] = [];
  for (const { below, path } of await listFiles(root, file.path ?? '')) {
    const { digest } = await resolveFile({ path }, { root, ...tools });
    const name = below === '' ? file.name : `${file.name}/${below}`;
    found.push({ name, source: { path }, contentNow: digest, mode, position, ...pin });
  }
  return found;
}

function wantedImage(image: ManifestImage): WantedImage {
  const { ref, source, replacedBy, platforms, include, foreignLayers, origins, position } = image;
  return {
    name: imageName(ref),
    platforms: platforms === 'all' ? 'all' : platforms.map(formatPlatform),
    origins,
    position,
    include,
    ...(foreignLayers === undefined ? {} : { foreignLayers }),
    ...(replacedBy === undefined ? {} : { replacedBy }),
    ...(source.digest === undefined ? {} : { digest: source.digest }),
  };
}

/**
 * Reads the manifest and everything on this disk that it names (values files, chart folders, files). No network.
 * @throws MANIFEST_INVALID, or all faults of what it names at once
 */
export async function readWanted(manifestPath: string, tools: Tools): Promise<WantedState> {
  const { manifest, warnings } = await loadManifest(manifestPath);
  const root = dirname(resolve(manifestPath));
  const faults: Fault[] = [];
  const attempt = async <T>(work: () => Promise<T>, position: Fault['position']): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      if (isAbort(error)) throw error;
      faults.push({ ...faultOf(error), ...(position === undefined ? {} : { position }) });
      return undefined;
    }
  };
  const charts: WantedChart[] = [];
  for (const chart of manifest.charts) {
    const found = await attempt(() => wantedChart(chart, root), chart.position);
    if (found !== undefined) charts.push(found);
  }
  const files: WantedFile[] = [];
  for (const file of manifest.files) {
    const found = await attempt(() => wantedFiles(file, root, tools), file.position);
    // One by one: a folder may have more files than a call takes arguments.
    for (const one of found ?? []) files.push(one);
  }
  const asked = manifest.python;
  const python =
    asked === undefined ? undefined : await attempt(() => readWantedPython(asked, root), asked.position);
  faults.push(...(python?.files.faults ?? []));
  if (faults.length > 0) throw errorOf(faults, `${manifestPath}: ${faults.length} faults in what it names`);
  return {
    manifest,
    root,
    warnings,
    ...(python === undefined ? {} : { requirementFiles: python.files }),
    wanted: {
      name: manifest.name,
      version: manifest.version,
      images: mapSequence(manifest.images, wantedImage),
      charts,
      files,
      ...(python === undefined ? {} : { python: python.wanted }),
    },
  };
}

/** Chart folders that are in the lock only as dependencies (`file://`): those that changed since. */
export async function changedPathDependencies(lock: Lock, state: WantedState): Promise<Set<string>> {
  const direct = new Set(state.wanted.charts.map((c) => `${c.name}-${c.version}`));
  const changed = new Set<string>();
  for (const chart of lock.charts) {
    const name = `${chart.name}-${chart.version}`;
    if (chart.source.type !== 'path' || direct.has(name)) continue;
    try {
      const { tree } = await packChartDirectory(join(state.root, chart.source.path));
      if (tree !== chart.integrity.upstream) changed.add(name);
    } catch {
      changed.add(name);
    }
  }
  return changed;
}

function absoluteMirror(text: string, root: string): string {
  const mirror = parseMirror(text);
  return mirror?.kind === 'archive' ? `${mirror.scheme}:${resolve(root, mirror.path)}` : text;
}

/** The manifest's registries with the paths of certificates and mirrors made absolute: they are relative to the manifest. */
export function registriesConfig(registries: RegistriesConfig, root: string): RegistriesConfig {
  return Object.fromEntries(
    Object.entries(registries).map(([host, config]) => {
      const files = (['caFile', 'clientCert', 'clientKey'] as const).flatMap((name) => {
        const path = config[name];
        return path === undefined ? [] : [[name, resolve(root, path)]];
      });
      const mirrors = config.mirrors?.map((m) => absoluteMirror(m, root));
      return [
        host,
        { ...config, ...Object.fromEntries(files), ...(mirrors === undefined ? {} : { mirrors }) },
      ];
    }),
  );
}
