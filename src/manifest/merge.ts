import type { Digest } from '../core/digest.ts';
import { type Fault, fault, type Position } from '../core/errors.ts';
import { PackedList, type Sequence } from '../core/packed-list.ts';
import { formatPlatform, type Platform } from '../core/platform.ts';
import { formatReference, imageName, type Reference } from '../core/reference.ts';
import type { Include } from '../core/referrer.ts';

/** One image of a manifest, all entries that name it united. */
export interface ManifestImage {
  /** With a digest when one of the entries has one. */
  readonly ref: Reference;
  /** As first written. */
  readonly text: string;
  /** What is asked of a registry for it: `ref`, or what `replace` says, with the digest of either. */
  readonly source: Reference;
  /** `imageName()` of what `replace` says. */
  readonly replacedBy?: string;
  readonly platforms: readonly Platform[] | 'all';
  /** What travels with it, in the fixed order. */
  readonly include: readonly Include[];
  /** Whether foreign layers are carried; undefined where the manifest does not say. */
  readonly foreignLayers?: boolean;
  /** The files that ask for it: `sealift.yaml`, `imagelists/x.txt`; sorted. */
  readonly origins: readonly string[];
  readonly position: Position;
}

interface ChartBase {
  /** Values files, relative to the manifest. */
  readonly values: readonly string[];
  readonly position: Position;
}

/** A chart of a manifest, by where it comes from. */
export type ManifestChart =
  | (ChartBase & {
      readonly kind: 'repo';
      readonly name: string;
      readonly version: string;
      /** Address of the folder that holds index.yaml, without a slash at its end. */
      readonly repo: string;
      readonly allowIndexMismatch?: string;
    })
  | (ChartBase & {
      readonly kind: 'oci';
      readonly name: string;
      readonly version: string;
      /** As written: `oci://host/path/name`. */
      readonly oci: string;
      /** The same with the version as tag (`+` is `_`, helm.md 1.4). */
      readonly ref: Reference;
    })
  | (ChartBase & {
      readonly kind: 'path';
      /** Folder, relative to the manifest, with `/`. */
      readonly path: string;
    });

/** A file of a manifest. Exactly one of `url` and `path` is there. */
export interface ManifestFile {
  readonly name: string;
  readonly url?: string;
  /** File or folder, relative to the manifest, with `/`. */
  readonly path?: string;
  readonly sha256?: Digest;
  /** Permission bits, for example 0o755. */
  readonly mode: number;
  readonly position: Position;
}

/** An entry that asks for an image, before entries of one name are united. */
export interface AskedImage {
  readonly ref: Reference;
  readonly text: string;
  readonly replace?: Reference;
  /** Undefined where the entry leaves it to the manifest's default. */
  readonly platforms: readonly Platform[] | 'all' | undefined;
  readonly include?: readonly Include[];
  readonly foreignLayers?: boolean;
  readonly origin: string;
  readonly position: Position;
}

interface Merged<T> {
  readonly entries: readonly T[];
  readonly faults: readonly Fault[];
}

function placeText(position: Position): string {
  return `${position.file}:${position.line}:${position.column}`;
}

function conflict(here: Position, first: Position, message: string): Fault {
  return fault('MANIFEST_CONFLICT', `${message} (the other is at ${placeText(first)})`, {
    position: here,
    hint: 'keep one of the two entries, or make them equal',
    details: { first },
  });
}

/** Platforms as one comparable word. */
function platformsText(platforms: readonly Platform[] | 'all'): string {
  return platforms === 'all' ? 'all' : [...new Set(platforms.map(formatPlatform))].sort().join(', ');
}

/** What an entry may say about an image beside its name, each as one comparable word. */
const WISHES: readonly (readonly [string, (entry: AskedImage) => string | undefined])[] = [
  ['replace', (e) => (e.replace === undefined ? undefined : formatReference(e.replace))],
  ['platforms', (e) => (e.platforms === undefined ? undefined : platformsText(e.platforms))],
  ['include', (e) => (e.include === undefined ? undefined : e.include.join(', ') || 'nothing')],
  ['foreignLayers', (e) => (e.foreignLayers === undefined ? undefined : String(e.foreignLayers))],
];

function imageConflicts(first: AskedImage, next: AskedImage): Fault[] {
  const name = imageName(first.ref);
  const faults: Fault[] = [];
  const [a, b] = [first.ref.digest, next.ref.digest];
  if (a !== undefined && b !== undefined && a !== b) {
    faults.push(
      conflict(next.position, first.position, `image ${name} is pinned to ${b} here and to ${a} elsewhere`),
    );
  }
  for (const [what, textOf] of WISHES) {
    const [here, there] = [textOf(next), textOf(first)];
    if (here === undefined || there === undefined || here === there) continue;
    const message = `image ${name} is asked for with ${what} ${here} here and ${there} elsewhere`;
    faults.push(conflict(next.position, first.position, message));
  }
  return faults;
}

/** What is wrong with where an image shall come from instead: itself, a place that is replaced too, another digest. */
function replaceFaults(
  { ref, replace, position }: AskedImage,
  groups: ReadonlyMap<string, { readonly first: AskedImage }>,
): Fault[] {
  if (replace === undefined) return [];
  const [name, by] = [imageName(ref), imageName(replace)];
  if (by === name) {
    const hint = 'name another place that has its bytes, or leave replace out; a digest is written in ref';
    return [fault('MANIFEST_INVALID', `image ${name} is replaced by itself`, { position, hint })];
  }
  const next = groups.get(by)?.first;
  if (next?.replace !== undefined) {
    const last = formatReference(next.replace);
    const message = `image ${name} is replaced by ${by}, which is replaced by ${last}`;
    return [{ ...conflict(position, next.position, message), hint: 'name the place that has the bytes' }];
  }
  if (ref.digest === undefined || replace.digest === undefined || ref.digest === replace.digest) return [];
  const message = `image ${name} is pinned to ${ref.digest}, and what replaces it to ${replace.digest}`;
  return [fault('MANIFEST_CONFLICT', message, { position, hint: 'keep one of the two digests' })];
}

/** Where the bytes of an image are asked for. */
function placeOf({ ref, replace }: AskedImage): Pick<ManifestImage, 'source' | 'replacedBy'> {
  if (replace === undefined) return { source: ref };
  const digest = ref.digest ?? replace.digest;
  const source = { ...replace, ...(digest === undefined ? {} : { digest }) };
  return { source, replacedBy: imageName(replace) };
}

/** Unites entries that name the same image; two that contradict are MANIFEST_CONFLICT with both places. */
export function mergeImages(
  asked: Iterable<AskedImage>,
  defaults: { readonly platforms: readonly Platform[] | 'all'; readonly include: readonly Include[] },
): { readonly entries: Sequence<ManifestImage>; readonly faults: readonly Fault[] } {
  const faults: Fault[] = [];
  const groups = new Map<string, { first: AskedImage; readonly origins: string[] }>();
  for (const entry of asked) {
    const group = groups.get(imageName(entry.ref));
    if (group === undefined) {
      groups.set(imageName(entry.ref), { first: entry, origins: [entry.origin] });
      continue;
    }
    faults.push(...imageConflicts(group.first, entry));
    if (!group.origins.includes(entry.origin)) group.origins.push(entry.origin);
    const digest = group.first.ref.digest ?? entry.ref.digest;
    group.first = {
      ...entry,
      ...group.first,
      ref: { ...group.first.ref, ...(digest === undefined ? {} : { digest }) },
      platforms: group.first.platforms ?? entry.platforms,
    };
  }
  for (const { first } of groups.values()) faults.push(...replaceFaults(first, groups));
  const entries = new PackedList<ManifestImage>();
  for (const { first, origins } of groups.values()) {
    entries.push({
      ref: first.ref,
      text: first.text,
      ...placeOf(first),
      platforms: first.platforms ?? defaults.platforms,
      include: first.include ?? defaults.include,
      ...(first.foreignLayers === undefined ? {} : { foreignLayers: first.foreignLayers }),
      origins: origins.toSorted(),
      position: first.position,
    });
  }
  return { entries, faults };
}

function union(a: readonly string[], b: readonly string[]): readonly string[] {
  return [...new Set([...a, ...b])];
}

function chartKey(chart: ManifestChart): string {
  return chart.kind === 'path' ? `path ${chart.path}` : `${chart.name} ${chart.version}`;
}

function chartSource(chart: ManifestChart): string {
  return chart.kind === 'repo' ? chart.repo : chart.kind === 'oci' ? chart.oci : chart.path;
}

/** Unites charts of one name, version and source (their values files too); another source is MANIFEST_CONFLICT. */
export function mergeCharts(charts: readonly ManifestChart[]): Merged<ManifestChart> {
  const faults: Fault[] = [];
  const merged = new Map<string, ManifestChart>();
  for (const chart of charts) {
    const key = chartKey(chart);
    const first = merged.get(key);
    if (first === undefined) {
      merged.set(key, chart);
      continue;
    }
    if (chartSource(first) !== chartSource(chart)) {
      const message = `chart ${key} comes from ${chartSource(chart)} here and from ${chartSource(first)} elsewhere`;
      faults.push(conflict(chart.position, first.position, message));
      continue;
    }
    const reason = 'allowIndexMismatch' in first ? first : chart;
    merged.set(key, { ...reason, position: first.position, values: union(first.values, chart.values) });
  }
  return { entries: [...merged.values()], faults };
}

function fileDifference(first: ManifestFile, next: ManifestFile): string | undefined {
  const [a, b] = [first.url ?? first.path, next.url ?? next.path];
  if (a !== b) return `comes from ${b} here and from ${a} elsewhere`;
  if (first.sha256 !== undefined && next.sha256 !== undefined && first.sha256 !== next.sha256) {
    return `has ${next.sha256} here and ${first.sha256} elsewhere`;
  }
  if (first.mode !== next.mode) {
    return `has mode ${next.mode.toString(8)} here and ${first.mode.toString(8)} elsewhere`;
  }
  return undefined;
}

/** A downloaded file whose name is a folder of this one's name. (What `path` names may be a folder.) */
function parentFile(file: ManifestFile, all: ReadonlyMap<string, ManifestFile>): ManifestFile | undefined {
  const parts = file.name.split('/');
  for (let n = parts.length - 1; n > 0; n -= 1) {
    const parent = all.get(parts.slice(0, n).join('/'));
    if (parent?.url !== undefined) return parent;
  }
  return undefined;
}

/** Unites files of one name; another source, SHA-256 or mode is MANIFEST_CONFLICT. */
export function mergeFiles(files: readonly ManifestFile[]): Merged<ManifestFile> {
  const faults: Fault[] = [];
  const merged = new Map<string, ManifestFile>();
  for (const file of files) {
    const first = merged.get(file.name);
    const difference = first === undefined ? undefined : fileDifference(first, file);
    if (first !== undefined && difference !== undefined) {
      faults.push(conflict(file.position, first.position, `file ${file.name} ${difference}`));
      continue;
    }
    merged.set(file.name, { ...file, ...first });
  }
  for (const file of merged.values()) {
    const parent = parentFile(file, merged);
    if (parent === undefined) continue;
    const message = `file ${file.name} lies below ${parent.name}, which is a file itself`;
    faults.push(conflict(file.position, parent.position, message));
  }
  return { entries: [...merged.values()], faults };
}
