import { basename } from 'node:path';
import { errorOf, type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Sequence } from '../core/packed-list.ts';
import type { Platform } from '../core/platform.ts';
import { INCLUDES } from '../core/referrer.ts';
import { readFileLimited } from '../io/files.ts';
import { parseYaml, type YamlText } from '../io/yaml.ts';
import {
  includeOf,
  isMap,
  platformsOf,
  type Reading,
  type RegistrySettings,
  readCharts,
  readFiles,
  readImages,
  readListPatterns,
  readRegistries,
} from './entries.ts';
import { faultsOfIssues } from './faults.ts';
import { readImageLists } from './lists.ts';
import {
  type ManifestChart,
  type ManifestFile,
  type ManifestImage,
  mergeCharts,
  mergeFiles,
  mergeImages,
} from './merge.ts';
import { type ManifestPython, readPython } from './python.ts';
import { manifestSchema } from './schema.ts';

/** What sealift.yaml asks for, checked and with its image lists read in. */
export interface Manifest {
  readonly apiVersion: 'sealift/v1';
  readonly name: string;
  readonly version: string;
  /** The default for images that name none: every platform when the manifest does not say. */
  readonly platforms: readonly Platform[] | 'all';
  /** Made when they are asked for: there may be very many. */
  readonly images: Sequence<ManifestImage>;
  readonly charts: readonly ManifestChart[];
  readonly files: readonly ManifestFile[];
  readonly python?: ManifestPython;
  readonly registries: Readonly<Record<string, RegistrySettings>>;
}

const EXAMPLE =
  'apiVersion: sealift/v1, name, version and at least one entry under images, charts, files or python';

/** The YAML of a manifest. @throws MANIFEST_NOT_FOUND, MANIFEST_EMPTY, MANIFEST_INVALID */
async function readManifest(path: string): Promise<YamlText> {
  const bytes = await readFileLimited(path, {
    limit: LIMITS.manifestText,
    missing: 'MANIFEST_NOT_FOUND',
    hint: 'name the manifest with -f FILE, or run the command in its folder',
  });
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new SealiftError('MANIFEST_INVALID', `${path} is not UTF-8 text`, {
      cause,
      hint: 'save the file as UTF-8',
    });
  }
  const { yaml, faults } = parseYaml(text, { file: path, code: 'MANIFEST_INVALID' });
  if (yaml === undefined) throw errorOf(faults, headline(path, faults));
  if (yaml.value === null) {
    throw new SealiftError('MANIFEST_EMPTY', `${path} is empty`, { hint: `write ${EXAMPLE}` });
  }
  return yaml;
}

function headline(path: string, faults: readonly Fault[]): string {
  return `${path} has ${faults.length} faults`;
}

/** Faults of the manifest before those of its lists, each file from top to bottom. */
function sorted(faults: readonly Fault[], path: string): Fault[] {
  const rank = (f: Fault): string => (f.position?.file === path ? '' : (f.position?.file ?? ''));
  return faults.toSorted((a, b) => {
    if (rank(a) !== rank(b)) return rank(a) < rank(b) ? -1 : 1;
    const [p, q] = [a.position, b.position];
    return (p?.line ?? 0) - (q?.line ?? 0) || (p?.column ?? 0) - (q?.column ?? 0);
  });
}

/** Faults of the whole shape; what stands inside list entries is reported by the entries themselves. */
function shapeFaults(yaml: YamlText): Fault[] {
  const parsed = manifestSchema.safeParse(yaml.value);
  if (parsed.success) return [];
  const issues = parsed.error.issues.filter(
    ({ path }) => !(path.length > 1 && ['images', 'charts', 'files'].includes(String(path[0]))),
  );
  return faultsOfIssues(issues, { yaml, path: [] });
}

function floatingWarnings(images: Sequence<ManifestImage>): Fault[] {
  const warnings: Fault[] = [];
  for (const { source, text, replacedBy, position } of images) {
    if (source.digest !== undefined || source.tag !== 'latest') continue;
    const name = replacedBy ?? text;
    const what = name.endsWith(':latest') ? 'has the tag "latest"' : 'has no tag';
    warnings.push(
      fault('IMAGE_TAG_FLOATING', `image ${name} ${what}: it may be other content tomorrow`, {
        position,
        hint: 'write the tag of a release; until then versions.lock keeps what it found first',
      }),
    );
  }
  return warnings;
}

/**
 * Reads sealift.yaml and its image lists. Nothing else is touched: paths of charts, values and files are looked at by
 * `lock`. Positions hold `path` as given, origins only names relative to the manifest.
 * @throws one SealiftError with every fault in `faults`, each with its position: MANIFEST_INVALID, MANIFEST_CONFLICT,
 * MANIFEST_EMPTY; also MANIFEST_NOT_FOUND, CONTENT_TOO_LARGE, FILE_UNREADABLE
 * @returns warnings: images whose tag is `latest` or missing
 */
export async function loadManifest(
  path: string,
): Promise<{ readonly manifest: Manifest; readonly warnings: readonly Fault[] }> {
  const yaml = await readManifest(path);
  const faults: Fault[] = shapeFaults(yaml);
  const reading: Reading = { yaml, root: isMap(yaml.value) ? yaml.value : {}, faults };
  const lists = await readImageLists(path, readListPatterns(reading));
  // One by one: a call takes only so many arguments.
  for (const one of lists.faults) faults.push(one);
  const asked = readImages(reading, basename(path));
  for (const image of lists.images) asked.push({ ...image, platforms: undefined });
  const platforms = platformsOf(reading.root.platforms) ?? 'all';
  const include = includeOf(reading.root.include) ?? INCLUDES;
  const images = mergeImages(asked, { platforms, include });
  const charts = mergeCharts(readCharts(reading));
  const files = mergeFiles(readFiles(reading));
  const python = readPython(reading);
  const registries = readRegistries(reading);
  for (const merged of [images, charts, files]) for (const one of merged.faults) faults.push(one);
  if (faults.length > 0) {
    const code = faults.find((f) => f.code === 'MANIFEST_INVALID')?.code ?? 'MANIFEST_CONFLICT';
    throw errorOf(sorted(faults, path), headline(path, faults), faults.length === 1 ? undefined : code);
  }
  const entries = images.entries.length + charts.entries.length + files.entries.length;
  if (entries === 0 && python === undefined) {
    throw new SealiftError('MANIFEST_EMPTY', `${path} asks for nothing`, { hint: `write ${EXAMPLE}` });
  }
  const { apiVersion, name, version } = manifestSchema.parse(yaml.value);
  const manifest: Manifest = {
    apiVersion,
    name,
    version,
    platforms,
    images: images.entries,
    charts: charts.entries,
    files: files.entries,
    ...(python === undefined ? {} : { python }),
    registries,
  };
  return { manifest, warnings: floatingWarnings(images.entries) };
}
