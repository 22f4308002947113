import { posix } from 'node:path';
import type { z } from 'zod';
import { digestOfHex } from '../core/digest.ts';
import { type Fault, fault, type Position } from '../core/errors.ts';
import { type Platform, parsePlatform } from '../core/platform.ts';
import { parseReference } from '../core/reference.ts';
import { type Include, sortIncludes } from '../core/referrer.ts';
import type { YamlText } from '../io/yaml.ts';
import { describe, faultAt, faultsOfIssues } from './faults.ts';
import type { ListPattern } from './lists.ts';
import type { AskedImage, ManifestChart, ManifestFile } from './merge.ts';
import {
  imageObject,
  includeList,
  ociChart,
  pathChart,
  pathFile,
  platformList,
  registryEntry,
  registryHost,
  repoChart,
  urlFile,
} from './schema.ts';
import { isListPattern, isReferenceText } from './words.ts';

/** How to talk to one registry host; what is absent has the default of the registry client. */
export interface RegistrySettings {
  readonly plainHttp?: boolean;
  readonly insecure?: boolean;
  /** PEM files, absolute or relative to the manifest; of the last two both or none. */
  readonly caFile?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  /** As core/mirror reads them, asked in this order; paths absolute or relative to the manifest. */
  readonly mirrors: readonly string[];
}

/** A manifest whose entries are being read; every entry with a fault is reported and left out. */
export interface Reading {
  readonly yaml: YamlText;
  readonly root: Readonly<Record<string, unknown>>;
  readonly faults: Fault[];
}

export function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function listOf(reading: Reading, section: string): readonly unknown[] {
  const list = reading.root[section];
  return Array.isArray(list) ? list : [];
}

function positionOf(reading: Reading, section: string, index: number): Position {
  return reading.yaml.positionOf([section, index]);
}

/** The value as the schema sees it, or undefined and its faults. */
function checked<T>(
  schema: z.ZodType<T>,
  value: unknown,
  at: { readonly reading: Reading; readonly path: readonly (string | number)[] },
): T | undefined {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  at.reading.faults.push(...faultsOfIssues(parsed.error.issues, { yaml: at.reading.yaml, path: at.path }));
  return undefined;
}

/** Platforms of a manifest or an entry; undefined where none (or none that are right) are written. */
export function platformsOf(value: unknown): readonly Platform[] | 'all' | undefined {
  const parsed = platformList.safeParse(value);
  if (!parsed.success) return undefined;
  return parsed.data === 'all' ? 'all' : parsed.data.map(parsePlatform);
}

/** What travels along, of a manifest or an entry; undefined where nothing (or nothing right) is written. */
export function includeOf(value: unknown): readonly Include[] | undefined {
  const parsed = includeList.safeParse(value);
  return parsed.success ? sortIncludes(parsed.data) : undefined;
}

function askedImage(text: string, more: Omit<AskedImage, 'ref' | 'text'>): AskedImage {
  return { ref: parseReference(text), text, ...more };
}

/** The entries of `images`; `origin` is the name of the manifest's file. */
export function readImages(reading: Reading, origin: string): AskedImage[] {
  return listOf(reading, 'images').flatMap((entry, i) => {
    const path = ['images', i];
    const position = positionOf(reading, 'images', i);
    if (typeof entry === 'string') {
      const wrong = isReferenceText(entry);
      if (wrong === undefined) {
        return [askedImage(entry, { platforms: undefined, origin, position })];
      }
      const at = { yaml: reading.yaml, path };
      reading.faults.push(faultAt(at, `images[${i}]: ${wrong.message}`, { hint: wrong.hint }));
      return [];
    }
    if (!isMap(entry)) {
      const message = `images[${i}]: expected an image reference, or {ref, replace, platforms, include, foreignLayers}, found ${describe(entry)}`;
      reading.faults.push(faultAt({ yaml: reading.yaml, path }, message));
      return [];
    }
    const image = checked(imageObject, entry, { reading, path });
    if (image === undefined) return [];
    const include = includeOf(image.include);
    const { foreignLayers, replace } = image;
    return [
      askedImage(image.ref, {
        platforms: platformsOf(image.platforms),
        ...(replace === undefined ? {} : { replace: parseReference(replace) }),
        ...(include === undefined ? {} : { include }),
        ...(foreignLayers === undefined ? {} : { foreignLayers }),
        origin,
        position,
      }),
    ];
  });
}

/** The patterns of `imageLists`. */
export function readListPatterns(reading: Reading): ListPattern[] {
  return listOf(reading, 'imageLists').flatMap((pattern, i) =>
    typeof pattern === 'string' && isListPattern(pattern) === undefined
      ? [{ pattern, position: positionOf(reading, 'imageLists', i) }]
      : [],
  );
}

/** Which of the keys that say where an entry comes from is there; a fault unless it is exactly one. */
function sourceKey<K extends string>(
  reading: Reading,
  entry: unknown,
  options: { readonly path: readonly [string, number]; readonly keys: readonly K[] },
): K | undefined {
  const [section, index] = options.path;
  const at = { yaml: reading.yaml, path: options.path };
  const where = `${section}[${index}]`;
  const names = options.keys.join(', ');
  if (!isMap(entry)) {
    reading.faults.push(
      faultAt(at, `${where}: expected a map with one of ${names}, found ${describe(entry)}`),
    );
    return undefined;
  }
  const there = options.keys.filter((key) => Object.hasOwn(entry, key));
  if (there.length === 1) return there[0];
  const found = there.length === 0 ? 'none of them' : there.join(' and ');
  reading.faults.push(
    faultAt(at, `${where}: expected one of ${names}, found ${found}`, {
      hint: `say where it comes from with exactly one of ${names}`,
    }),
  );
  return undefined;
}

function localPath(path: string): string {
  return posix.normalize(path).replace(/(?<=.)\/$/, '');
}

/** The entries of `charts`. */
export function readCharts(reading: Reading): ManifestChart[] {
  return listOf(reading, 'charts').flatMap((entry, i): ManifestChart[] => {
    const path = ['charts', i] as const;
    const at = { reading, path };
    const position = positionOf(reading, 'charts', i);
    const key = sourceKey(reading, entry, { path, keys: ['repo', 'oci', 'path'] });
    if (key === 'repo') {
      const chart = checked(repoChart, entry, at);
      if (chart === undefined) return [];
      const { name, version, allowIndexMismatch } = chart;
      const reason = allowIndexMismatch === undefined ? {} : { allowIndexMismatch };
      const values = (chart.values ?? []).map(localPath);
      return [
        { kind: 'repo', name, version, repo: chart.repo.replace(/\/+$/, ''), values, position, ...reason },
      ];
    }
    if (key === 'oci') {
      const chart = checked(ociChart, entry, at);
      if (chart === undefined) return [];
      const { name, version, oci } = chart;
      const ref = parseReference(`${oci.slice('oci://'.length)}:${version.replaceAll('+', '_')}`);
      return [
        { kind: 'oci', name, version, oci, ref, values: (chart.values ?? []).map(localPath), position },
      ];
    }
    if (key === 'path') {
      const chart = checked(pathChart, entry, at);
      if (chart === undefined) return [];
      const values = (chart.values ?? []).map(localPath);
      return [{ kind: 'path', path: localPath(chart.path), values, position }];
    }
    return [];
  });
}

const DEFAULT_MODE = 0o644;

/** The entries of `files`. */
export function readFiles(reading: Reading): ManifestFile[] {
  return listOf(reading, 'files').flatMap((entry, i): ManifestFile[] => {
    const path = ['files', i] as const;
    const key = sourceKey(reading, entry, { path, keys: ['url', 'path'] });
    if (key === undefined) return [];
    const at = { reading, path };
    const file = key === 'url' ? checked(urlFile, entry, at) : checked(pathFile, entry, at);
    if (file === undefined) return [];
    return [
      {
        name: file.name,
        ...('url' in file ? { url: file.url } : { path: localPath(file.path) }),
        ...(file.sha256 === undefined ? {} : { sha256: digestOfHex(file.sha256.replace(/^sha256:/, '')) }),
        mode: file.mode === undefined ? DEFAULT_MODE : Number.parseInt(file.mode, 8),
        position: positionOf(reading, 'files', i),
      },
    ];
  });
}

const HUB: ReadonlySet<string> = new Set(['index.docker.io', 'registry-1.docker.io']);

/** The entries of `registries`; the names of Docker Hub become `docker.io`, as in references. */
export function readRegistries(reading: Reading): Record<string, RegistrySettings> {
  const result: Record<string, RegistrySettings> = {};
  const { registries } = reading.root;
  for (const [key, value] of Object.entries(isMap(registries) ? registries : {})) {
    const entry = registryEntry.safeParse(value);
    if (!entry.success || !registryHost.safeParse(key).success) continue;
    const host = HUB.has(key) ? 'docker.io' : key;
    if (Object.hasOwn(result, host)) {
      reading.faults.push(
        fault('MANIFEST_CONFLICT', `registries: "${key}" and another entry are both ${host}`, {
          position: reading.yaml.positionOf(['registries', key], 'key'),
          hint: 'keep one of them',
        }),
      );
      continue;
    }
    const { plainHttp, insecure, caFile, clientCert, clientKey, mirrors } = entry.data;
    result[host] = {
      ...(plainHttp === undefined ? {} : { plainHttp }),
      ...(insecure === undefined ? {} : { insecure }),
      ...(caFile === undefined ? {} : { caFile }),
      ...(clientCert === undefined ? {} : { clientCert }),
      ...(clientKey === undefined ? {} : { clientKey }),
      mirrors: mirrors ?? [],
    };
  }
  return result;
}
