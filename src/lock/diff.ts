import {
  type BlobLock,
  type ChartDependency,
  type ChartLock,
  chartName,
  type FileLock,
  type ImageLock,
  type Lock,
  type PackageLock,
  type PythonLock,
  type ReferrerLock,
} from './schema.ts';
import { compareBytes } from './write.ts';

export type DiffKind = 'bundle' | 'image' | 'chart' | 'file' | 'python' | 'package';

/** The facts of an entry that a person compares, each as one word: `digest`, `version`, `platforms`, `size` (bytes)… */
export type Facts = Readonly<Record<string, string>>;

/** An entry that only one of two locks has. */
export interface DiffEntry {
  readonly kind: DiffKind;
  /** Image name, `<chart>-<version>`, file name, `<project>==<version>`; of what is asked of Python packages `requirements`. */
  readonly name: string;
  readonly facts: Facts;
}

/** One fact that differs; null on the side that does not have it. */
export interface FactChange {
  readonly fact: string;
  readonly from: string | null;
  readonly to: string | null;
}

/** An entry that both locks have with other facts. */
export interface DiffChange {
  readonly kind: DiffKind;
  /** As the second lock names it. */
  readonly name: string;
  readonly changes: readonly FactChange[];
}

/** What leads from the first lock to the second. Kinds in the order image, chart, file, python, package, and by name within one. */
export interface LockDiff {
  readonly added: readonly DiffEntry[];
  readonly removed: readonly DiffEntry[];
  readonly changed: readonly DiffChange[];
}

/** Facts are made each time that they are asked for: of most entries nobody asks. */
interface Item {
  readonly kind: DiffKind;
  readonly name: string;
  /** What two versions of one thing have in common: the repository of an image, the name of a chart or project. */
  readonly family: string;
  readonly facts: Facts;
}

/** A text of a list: in quotes where it could be mistaken for several. */
function plain(text: string): string {
  return /^[^\s,"]+$/.test(text) ? text : JSON.stringify(text);
}

/** A path: in quotes where it could be mistaken for an address. */
function pathText(path: string): string {
  return /^[a-z]+:\/\/|"/.test(path) ? JSON.stringify(path) : path;
}

function dependencyText(d: ChartDependency): string {
  const alias = d.alias === undefined ? '' : ` as ${plain(d.alias)}`;
  const archive = d.archive === undefined ? '' : ` ${d.archive}`;
  return `${plain(d.name)} ${plain(d.version)}${alias} ${d.from} from ${plain(d.repository)}${archive}`;
}

function referrerText(r: ReferrerLock): string {
  const what = r.tag ?? `about ${r.subject}`;
  return `${r.digest} ${what}${r.artifactType === undefined ? '' : ` ${plain(r.artifactType)}`}`;
}

/** The facts of an image. */
function imageFacts(image: ImageLock, tag: string | undefined): Facts {
  const { platforms } = image;
  return {
    ...(tag === undefined ? {} : { tag }),
    ...(image.replacedBy === undefined ? {} : { replacedBy: image.replacedBy }),
    digest: image.digest,
    mediaType: image.mediaType,
    platforms: image.allPlatforms ? 'all' : Object.keys(platforms).join(', '),
    manifests: [...Object.entries(platforms).map(([p, d]) => `${p} ${d}`), ...image.others].join(', '),
    ...(image.recompressed === undefined ? {} : { recompressed: image.recompressed }),
    ...(image.include === undefined ? {} : { include: image.include.join(', ') || 'nothing' }),
    ...(image.referrers === undefined ? {} : { referrers: image.referrers.map(referrerText).join(', ') }),
    ...(image.foreignLayers === undefined ? {} : { foreignLayers: 'carried' }),
    size: String(image.size),
    usedBy: image.usedBy.map(plain).join(', '),
  };
}

/** An image of a lock; the image itself is made only for its facts. */
class ImageItem implements Item {
  readonly kind = 'image';
  readonly name: string;
  readonly #of: Lock['images'];
  readonly #index: number;

  constructor(of: Lock['images'], at: { readonly name: string; readonly index: number }) {
    this.#of = of;
    this.name = at.name;
    this.#index = at.index;
  }

  /** Its name without a digest, and where its tag begins there; -1 where there is none. */
  get #named(): readonly [name: string, colon: number] {
    const [name = ''] = this.name.split('@', 1);
    const colon = name.lastIndexOf(':');
    return [name, colon > name.lastIndexOf('/') ? colon : -1];
  }

  get family(): string {
    const [name, colon] = this.#named;
    return colon < 0 ? name : name.slice(0, colon);
  }

  get facts(): Facts {
    const image = this.#of.at(this.#index);
    const [name, colon] = this.#named;
    return image === undefined ? {} : imageFacts(image, colon < 0 ? undefined : name.slice(colon + 1));
  }
}

function blobFacts(name: string, blob: BlobLock): Facts {
  return { [name]: blob.digest, [`${name}Type`]: blob.mediaType, [`${name}Size`]: String(blob.size) };
}

function chartItem(chart: ChartLock): Item {
  const { archive, upstream, tree, provenance, provenanceDigest, provenanceSize } = chart.integrity;
  const { source } = chart;
  return {
    kind: 'chart',
    name: chartName(chart),
    family: chart.name,
    facts: {
      version: chart.version,
      ...(chart.appVersion === null ? {} : { appVersion: chart.appVersion }),
      source:
        source.type === 'http' ? source.url : source.type === 'oci' ? source.ref : pathText(source.path),
      ...(source.type === 'http' ? { repo: source.repo } : {}),
      archive,
      ...(upstream === null ? {} : { upstream }),
      tree,
      provenance: provenanceDigest === undefined ? provenance : `${provenance} ${provenanceDigest}`,
      ...(provenanceSize === undefined ? {} : { provenanceSize: String(provenanceSize) }),
      ...(chart.allowIndexMismatch === undefined ? {} : { allowIndexMismatch: chart.allowIndexMismatch }),
      size: String(chart.size),
      ...blobFacts('manifest', chart.manifest),
      ...blobFacts('config', chart.config),
      dependencies: chart.dependencies.map(dependencyText).join(', '),
      values: chart.values.map((v) => `${plain(v.path)} ${v.sha256}`).join(', '),
      usedBy: chart.usedBy.map(plain).join(', '),
    },
  };
}

function fileItem(file: FileLock): Item {
  return {
    kind: 'file',
    name: file.name,
    family: file.name,
    facts: {
      source: 'url' in file.source ? file.source.url : pathText(file.source.path),
      sha256: file.sha256,
      size: String(file.size),
      mode: file.mode,
    },
  };
}

/** One text where all files say the same; else each with its file. */
function saidBy(files: readonly PackageLock[], of: (file: PackageLock) => string | undefined): string {
  const [first] = files;
  if (first !== undefined && files.every((file) => of(file) === of(first))) return of(first) ?? '';
  return files
    .flatMap((file) => (of(file) === undefined ? [] : `${file.file} ${plain(of(file) ?? '')}`))
    .join(', ');
}

/** A project in one version: where it is wanted, and its files. */
function packageItem(
  { name, version }: { readonly name: string; readonly version: string },
  of: { readonly markers: readonly (string | undefined)[]; readonly files: readonly PackageLock[] },
): Item {
  const { files } = of;
  const markers = of.markers.map((marker) => marker ?? 'everywhere').join(' or ');
  const requires = saidBy(files, (file) => file.requiresPython);
  const yanked = saidBy(files, (file) => (file.yanked === '' ? 'no reason given' : file.yanked));
  return {
    kind: 'package',
    name: `${name}==${version}`,
    family: name,
    facts: {
      version,
      wanted: markers,
      files: files.map((file) => `${file.file} ${file.sha256}`).join(', '),
      size: String(files.reduce((sum, file) => sum + file.size, 0)),
      ...(requires === '' ? {} : { requiresPython: requires }),
      ...(yanked === '' ? {} : { yanked }),
      source: files.map(({ source }) => ('url' in source ? source.url : pathText(source.path))).join(', '),
    },
  };
}

/** What is asked of Python packages as one item, and each project in each version. */
function pythonItems(python: PythonLock): Item[] {
  const texts = (list: PythonLock['requirements']): string =>
    list.map((text) => `${plain(text.path)} ${text.sha256}`).join(', ');
  const asked: Item = {
    kind: 'python',
    name: 'requirements',
    family: 'requirements',
    facts: {
      pythons: python.pythons.join(', '),
      platforms: python.platforms.join(', '),
      requirements: texts(python.requirements),
      constraints: texts(python.constraints),
      packages: python.packages.map(plain).join(', '),
      indexes: python.indexes.join(', '),
    },
  };
  const items = new Map<
    string,
    { pin: PythonLock['pins'][number]; markers: (string | undefined)[]; files: PackageLock[] }
  >();
  const at = (pin: PythonLock['pins'][number]) => {
    const key = `${pin.name} ${pin.version}`;
    const item = items.get(key) ?? { pin, markers: [], files: [] };
    items.set(key, item);
    return item;
  };
  for (const pin of python.pins) at(pin).markers.push(pin.marker);
  for (const file of python.files) at(file).files.push(file);
  return [asked, ...Array.from(items.values(), ({ pin, ...of }) => packageItem(pin, of))];
}

function imageItems(images: Lock['images']): Item[] {
  return Array.from(images, ({ ref }, index) => new ImageItem(images, { name: ref, index }));
}

function itemsOf(lock: Lock): Item[] {
  return [
    ...imageItems(lock.images),
    ...lock.charts.map(chartItem),
    ...lock.files.map(fileItem),
    ...(lock.python === undefined ? [] : pythonItems(lock.python)),
  ];
}

function factChanges(from: Facts, to: Facts): FactChange[] {
  return [...new Set([...Object.keys(from), ...Object.keys(to)])]
    .map((fact) => ({ fact, from: from[fact] ?? null, to: to[fact] ?? null }))
    .filter((c) => c.from !== c.to);
}

function groupBy(items: readonly Item[]): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const key = `${item.kind} ${item.family}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

const KINDS: readonly DiffKind[] = ['bundle', 'image', 'chart', 'file', 'python', 'package'];

function inOrder<T extends { readonly kind: DiffKind; readonly name: string }>(items: readonly T[]): T[] {
  return items.toSorted(
    (a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) || compareBytes(a.name, b.name),
  );
}

/** Pairs what is gone with what is new where exactly one of each family is left: a tag or a version that moved on. */
function pairFamilies(gone: readonly Item[], fresh: readonly Item[]): [Item, Item][] {
  const news = groupBy(fresh);
  return [...groupBy(gone)].flatMap(([family, olds]): [Item, Item][] => {
    const [before, after] = [olds[0], news.get(family)?.[0]];
    if (before === undefined || after === undefined) return [];
    return olds.length === 1 && news.get(family)?.length === 1 ? [[before, after]] : [];
  });
}

function entryOf(item: Item): DiffEntry {
  const { kind, name } = item;
  return {
    kind,
    name,
    get facts() {
      return item.facts;
    },
  };
}

/**
 * What leads from lock `a` to lock `b`. Pure. An image whose tag, or a chart whose version, moved on shows as one change
 * when it is the only one of its repository or name that moved; else as removed and added.
 */
export function diffLocks(a: Lock, b: Lock): LockDiff {
  if (a === b) return { added: [], removed: [], changed: [] };
  const [before, after] = [itemsOf(a), itemsOf(b)];
  // No name of an image has a space: so many need no text of their own.
  const keyOf = ({ kind, name }: Item): string => (kind === 'image' ? name : `${kind} ${name}`);
  const old = new Map(before.map((item) => [keyOf(item), item]));
  const now = new Set(after.map(keyOf));
  const gone = before.filter((item) => !now.has(keyOf(item)));
  const fresh = after.filter((item) => !old.has(keyOf(item)));
  const moved = pairFamilies(gone, fresh);
  const paired = new Set(moved.flat());
  const changed: DiffChange[] = [];
  const compare = (x: Item, y: Item): void => {
    const changes = factChanges(x.facts, y.facts);
    if (changes.length > 0) changed.push({ kind: y.kind, name: y.name, changes });
  };
  for (const item of after) {
    const other = old.get(keyOf(item));
    if (other !== undefined) compare(other, item);
  }
  for (const [x, y] of moved) compare(x, y);
  const bundle = factChanges({ name: a.name, version: a.version }, { name: b.name, version: b.version });
  if (bundle.length > 0) changed.push({ kind: 'bundle', name: b.name, changes: bundle });
  return {
    added: inOrder(fresh.filter((item) => !paired.has(item)).map(entryOf)),
    removed: inOrder(gone.filter((item) => !paired.has(item)).map(entryOf)),
    changed: inOrder(changed),
  };
}
