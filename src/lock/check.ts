import type { Digest } from '../core/digest.ts';
import { type Fault, fault, type Position } from '../core/errors.ts';
import type { Sequence } from '../core/packed-list.ts';
import { type Platform, parsePlatform, platformMatches } from '../core/platform.ts';
import { INCLUDES, type Include } from '../core/referrer.ts';
import { pythonDifferences, type WantedPython } from './check-python.ts';
import {
  type ChartLock,
  type ChartSource,
  chartName,
  type FileLock,
  type ImageLock,
  type Lock,
} from './schema.ts';

/** An image that the manifest asks for. */
export interface WantedImage {
  /** `imageName()` of the reference. */
  readonly name: string;
  /** `imageName()` of where its bytes are pulled from instead. */
  readonly replacedBy?: string;
  /** Where the manifest pins it. */
  readonly digest?: Digest;
  /** `os/architecture[/variant]`, or every platform. */
  readonly platforms: readonly string[] | 'all';
  /** What shall travel with it; default everything. */
  readonly include?: readonly Include[];
  /** Whether foreign layers are carried; where the manifest does not say, the lock decides. */
  readonly foreignLayers?: boolean;
  /** What `usedBy` must say. */
  readonly origins: readonly string[];
  readonly position?: Position;
}

/** A chart that the manifest asks for. Of a `path` chart the caller takes name and version from its Chart.yaml. */
export interface WantedChart {
  readonly name: string;
  readonly version: string;
  /** What the manifest says: the repository's address, the `oci://` address without tag, or the folder. */
  readonly source:
    | { readonly type: 'http'; readonly repo: string }
    | { readonly type: 'oci'; readonly ref: string }
    | { readonly type: 'path'; readonly path: string };
  /** Values files as they are now, in the manifest's order. */
  readonly values: readonly { readonly path: string; readonly sha256: Digest }[];
  readonly allowIndexMismatch?: string;
  /** Of a `path` chart: the tree hash of the folder as it is now, before dependencies are put into it. */
  readonly treeNow?: Digest;
  readonly position?: Position;
}

/** A file that the manifest asks for; of a folder, one entry for each file that it becomes in the lock. */
export interface WantedFile {
  readonly name: string;
  readonly source: { readonly url: string } | { readonly path: string };
  /** Where the manifest pins it. */
  readonly sha256?: Digest;
  /** Of a `path` file: its hash as it is now. */
  readonly contentNow?: Digest;
  /** Permission bits, for example 0o755. */
  readonly mode: number;
  readonly position?: Position;
}

/** What a manifest wants, in the words of the lock. */
export interface Wanted {
  readonly name: string;
  readonly version: string;
  /** Perhaps made when they are asked for: there may be very many. */
  readonly images: Sequence<WantedImage>;
  readonly charts: readonly WantedChart[];
  readonly files: readonly WantedFile[];
  readonly python?: WantedPython;
}

/** Names of locked entries whose pin holds. */
export interface Satisfied {
  /** Image names. */
  readonly images: ReadonlySet<string>;
  /** `<name>-<version>`; also the dependency charts that were fetched for them. */
  readonly charts: ReadonlySet<string>;
  /** File names. */
  readonly files: ReadonlySet<string>;
  /** The Python packages, all of them: they are resolved together. */
  readonly python: boolean;
}

export interface CheckResult {
  /** LOCK_STALE each: what is missing, stale or extra. Empty when the lock is in step. */
  readonly faults: readonly Fault[];
  /**
   * Entries whose content (digests, sizes, dependencies) can stay as locked. What the manifest says beside the content
   * (`usedBy`, values files, `allowIndexMismatch`, mode) may differ all the same and is always taken anew from it.
   */
  readonly satisfied: Satisfied;
  /**
   * Images whose locked digest still holds: those of `satisfied`, and those that only want other platforms. `lock` asks
   * for these by digest, so that a new platform does not move the tag.
   */
  readonly pinned: ReadonlySet<string>;
}

const HINT = 'run `sealift lock` to update it, or `sealift lock --diff` to see what would change';

/** Differences of one entry: those that break the pin, and those beside the content. */
interface Difference {
  readonly content: readonly string[];
  readonly beside: readonly string[];
}

function stale(message: string, position?: Position): Fault {
  return fault('LOCK_STALE', message, { hint: HINT, ...(position === undefined ? {} : { position }) });
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  const set = new Set(a);
  return set.size === new Set(b).size && b.every((x) => set.has(x));
}

const LOCKED_PLATFORM = /^([^/(]+)(?:\(([^)]*)\))?\/([^/]+)(?:\/([^/]+))?$/;

/** A platform as `formatPlatform` wrote it, OS version included. */
function lockedPlatform(text: string): Platform {
  const [, os = text, osVersion, architecture = '', variant] = LOCKED_PLATFORM.exec(text) ?? [];
  return {
    os,
    architecture,
    ...(variant === undefined ? {} : { variant }),
    ...(osVersion === undefined ? {} : { osVersion }),
  };
}

function platformDifference(wanted: WantedImage, locked: ImageLock): string[] {
  const names = Object.keys(locked.platforms);
  const there = locked.allPlatforms ? 'all platforms' : names.join(', ');
  if (wanted.platforms === 'all') {
    return locked.allPlatforms ? [] : [`asks for all platforms, the lock has ${there || 'none'}`];
  }
  const asked = wanted.platforms.map(parsePlatform);
  const have = names.map(lockedPlatform);
  // An artifact that has no platform serves every wish.
  const same =
    !locked.allPlatforms &&
    (have.length === 0 ||
      (asked.every((w) => have.some((h) => platformMatches(w, h))) &&
        have.every((h) => asked.some((w) => platformMatches(w, h)))));
  return same ? [] : [`asks for ${wanted.platforms.join(', ')}, the lock has ${there}`];
}

function digestDifference(wanted: WantedImage, locked: ImageLock): string[] {
  if (wanted.digest === undefined || wanted.digest === locked.digest) return [];
  return [`asks for ${wanted.digest}, the lock has ${locked.digest}`];
}

function placeDifference(wanted: WantedImage, locked: ImageLock): string[] {
  if (wanted.replacedBy === locked.replacedBy) return [];
  const then = locked.replacedBy ?? 'its own registry';
  return [`is pulled from ${wanted.replacedBy ?? 'its own registry'}, the lock has it from ${then}`];
}

function includeDifference(wanted: WantedImage, locked: ImageLock): string[] {
  const [now, then] = [wanted.include ?? INCLUDES, locked.include ?? INCLUDES];
  if (sameSet(now, then)) return [];
  const list = (kinds: readonly Include[]): string => kinds.join(', ') || 'nothing';
  return [`asks to include ${list(now)}, the lock has ${list(then)}`];
}

function foreignDifference(wanted: WantedImage, locked: ImageLock): string[] {
  if (wanted.foreignLayers === undefined || wanted.foreignLayers === (locked.foreignLayers === true))
    return [];
  return [wanted.foreignLayers ? 'asks for its foreign layers' : 'no longer asks for its foreign layers'];
}

function usedByDifference(wanted: readonly string[], locked: readonly string[]): string[] {
  if (sameSet(wanted, locked)) return [];
  return [`is used by ${wanted.join(', ')}, the lock says ${locked.join(', ')}`];
}

/** The address that decides. The lock may add the tag or digest that was found there. */
function sourceText(source: WantedChart['source'] | ChartSource): string {
  if (source.type === 'path') return source.path;
  if (source.type === 'http') return source.repo;
  const [named = ''] = source.ref.split('@');
  const colon = named.lastIndexOf(':');
  return colon > named.lastIndexOf('/') ? named.slice(0, colon) : named;
}

function valuesText(values: WantedChart['values']): string {
  return JSON.stringify(values.map(({ path, sha256 }) => [path, sha256]));
}

/** What was right to accept once: the archive is not what the index says. */
function isMismatch(locked: ChartLock): boolean {
  const { archive, upstream } = locked.integrity;
  return locked.source.type === 'http' && upstream !== null && upstream !== archive;
}

function chartDifference(wanted: WantedChart, locked: ChartLock, names: ReadonlySet<string>): Difference {
  const content: string[] = [];
  const beside: string[] = [];
  const [now, then] = [sourceText(wanted.source), sourceText(locked.source)];
  if (wanted.source.type !== locked.source.type || now !== then) {
    content.push(`comes from ${now}, the lock has ${then}`);
  } else if (wanted.treeNow !== undefined && wanted.treeNow !== locked.integrity.upstream) {
    content.push(
      `has changed in its folder: its tree is ${wanted.treeNow}, the lock has ${locked.integrity.upstream ?? 'none'}`,
    );
  }
  if (wanted.allowIndexMismatch === undefined && isMismatch(locked)) {
    content.push('is not what its repository index says, and the manifest no longer allows it');
  } else if (wanted.allowIndexMismatch !== locked.allowIndexMismatch) {
    beside.push('has another allowIndexMismatch');
  }
  if (valuesText(wanted.values) !== valuesText(locked.values)) {
    const list = (values: WantedChart['values']): string =>
      values.length === 0 ? 'none' : values.map((v) => `${v.path} ${v.sha256.slice(7, 19)}`).join(', ');
    beside.push(`has values files ${list(wanted.values)}, the lock has ${list(locked.values)}`);
  }
  if (locked.usedBy.every((user) => names.has(user))) {
    beside.push('is in the lock only as a dependency of another chart');
  }
  return { content, beside };
}

function fileDifference(wanted: WantedFile, locked: FileLock): Difference {
  const place = (source: FileLock['source']): string => ('url' in source ? source.url : source.path);
  const content: string[] = [];
  const [now, then] = [place(wanted.source), place(locked.source)];
  if (now !== then || 'url' in wanted.source !== 'url' in locked.source) {
    content.push(`comes from ${now}, the lock has ${then}`);
  }
  if (wanted.sha256 !== undefined && wanted.sha256 !== locked.sha256) {
    content.push(`asks for ${wanted.sha256}, the lock has ${locked.sha256}`);
  }
  if (wanted.contentNow !== undefined && wanted.contentNow !== locked.sha256) {
    content.push(`has changed: it is ${wanted.contentNow}, the lock has ${locked.sha256}`);
  }
  const mode = wanted.mode.toString(8).padStart(4, '0');
  const beside = mode === locked.mode ? [] : [`has mode ${mode}, the lock has ${locked.mode}`];
  return { content, beside };
}

const EXTRA = 'is in the lock, but nothing asks for it';

interface Compared {
  readonly faults: Fault[];
  readonly kept: Set<string>;
}

interface Comparison<W, L> {
  readonly kind: string;
  readonly wanted: Sequence<W>;
  readonly locked: Sequence<L>;
  readonly nameOfWanted: (item: W) => string;
  readonly nameOfLocked: (item: L) => string;
  readonly differ: (wanted: W, locked: L) => Difference;
  /** What is wrong with a locked entry that the manifest does not name; undefined when it may be there. */
  readonly leftOver?: (item: L, kept: Set<string>) => string | undefined;
}

function compare<W extends { readonly position?: Position }, L>(options: Comparison<W, L>): Compared {
  const { kind, nameOfLocked, nameOfWanted } = options;
  const faults: Fault[] = [];
  const kept = new Set<string>();
  const locked = new Map(Array.from(options.locked, (item, at) => [nameOfLocked(item), at]));
  const wanted = new Set<string>();
  for (const item of options.wanted) {
    const name = nameOfWanted(item);
    wanted.add(name);
    const there = options.locked.at(locked.get(name) ?? options.locked.length);
    if (there === undefined) {
      faults.push(stale(`${kind} ${name} is missing in the lock`, item.position));
      continue;
    }
    const { content, beside } = options.differ(item, there);
    if (content.length === 0) kept.add(name);
    faults.push(...[...content, ...beside].map((text) => stale(`${kind} ${name} ${text}`, item.position)));
  }
  const leftOver = options.leftOver ?? (() => EXTRA);
  for (const [name, at] of locked) {
    const item = wanted.has(name) ? undefined : options.locked.at(at);
    const text = item === undefined ? undefined : leftOver(item, kept);
    if (text !== undefined) faults.push(stale(`${kind} ${name} ${text}`));
  }
  return { faults, kept };
}

function compareCharts(lock: Lock, wanted: Wanted): Compared {
  const names = new Set(lock.charts.map(chartName));
  const direct = new Set(wanted.charts.map(chartName));
  const byName = new Map(lock.charts.map((chart) => [chartName(chart), chart]));
  const serves = (chart: ChartLock, kept: ReadonlySet<string>, seen: Set<string>): boolean =>
    chart.usedBy.some((user) => {
      const parent = byName.get(user);
      if (parent === undefined || seen.has(user)) return false;
      return direct.has(user) ? kept.has(user) : serves(parent, kept, seen.add(user));
    });
  return compare({
    kind: 'chart',
    wanted: wanted.charts,
    locked: lock.charts,
    nameOfWanted: chartName,
    nameOfLocked: chartName,
    differ: (w, l) => chartDifference(w, l, names),
    leftOver: (chart, kept) => {
      if (!serves(chart, kept, new Set())) return EXTRA;
      kept.add(chartName(chart));
      const isDirect = chart.usedBy.some((user) => !names.has(user));
      return isDirect ? 'is only a dependency now, the manifest no longer asks for it' : undefined;
    },
  });
}

function comparePython({ python: locked }: Lock, { python: wanted }: Wanted): Fault[] {
  if (wanted === undefined) {
    return locked === undefined ? [] : [stale('Python packages are in the lock, but nothing asks for them')];
  }
  if (locked === undefined) return [stale('Python packages are missing in the lock', wanted.position)];
  return pythonDifferences(wanted, locked).map((text) => stale(`Python packages ${text}`, wanted.position));
}

/**
 * Compares a lock with what the manifest wants now. Pure: what is on disk is told by the caller (`treeNow`,
 * `contentNow`, values), the network is not asked.
 */
export function checkLock(lock: Lock, wanted: Wanted): CheckResult {
  const pinned = new Set<string>();
  const images = compare<WantedImage, ImageLock>({
    kind: 'image',
    wanted: wanted.images,
    locked: lock.images,
    nameOfWanted: (w) => w.name,
    nameOfLocked: (l) => l.ref,
    differ: (w, l) => {
      const digest = [...placeDifference(w, l), ...digestDifference(w, l)];
      if (digest.length === 0) pinned.add(l.ref);
      return {
        content: [
          ...digest,
          ...platformDifference(w, l),
          ...includeDifference(w, l),
          ...foreignDifference(w, l),
        ],
        beside: usedByDifference(w.origins, l.usedBy),
      };
    },
  });
  const charts = compareCharts(lock, wanted);
  const files = compare<WantedFile, FileLock>({
    kind: 'file',
    wanted: wanted.files,
    locked: lock.files,
    nameOfWanted: (w) => w.name,
    nameOfLocked: (l) => l.name,
    differ: fileDifference,
  });
  const python = comparePython(lock, wanted);
  const bundle = (['name', 'version'] as const)
    .filter((key) => lock[key] !== wanted[key])
    .map((key) => stale(`the bundle's ${key} is ${wanted[key]}, the lock has ${lock[key]}`));
  return {
    faults: [...bundle, ...images.faults, ...charts.faults, ...files.faults, ...python],
    satisfied: { images: images.kept, charts: charts.kept, files: files.kept, python: python.length === 0 },
    pinned,
  };
}
