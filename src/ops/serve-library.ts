import { archiveOf } from '../bundle/artifacts.ts';
import type { Artifact } from '../bundle/contents.ts';
import type { Medium } from '../bundle/medium.ts';
import { type Bundle, openBundle } from '../bundle/reader.ts';
import { type Digest, hexOf } from '../core/digest.ts';
import { parseDistribution } from '../core/distribution.ts';
import { errorOf, type Fault, fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { chartPlace, filePlace } from '../core/naming.ts';
import { parseReference } from '../core/reference.ts';
import { onDisk } from '../io/files.ts';
import { stampOf } from '../io/open-file.ts';
import { type ChartLock, chartName, type FileLock, type PackageLock } from '../lock/schema.ts';
import { type ChartEntry, createShelf, type Elsewhere, type Shelf } from '../serve/charts.ts';
import { type Origin, ShelvedRegistry } from '../serve/shelved.ts';
import { createSimpleIndex, type IndexedFile } from '../serve/simple-index.ts';
import { Stock, type StockedBundle } from '../serve/stock.ts';
import type { Trust, TrustPolicy } from '../trust/policy.ts';
import { isSuperseded, openGivenBundles } from './serve-order.ts';
import type { ServedFacts } from './serve-snippets.ts';
import { judgeGiven, refuseUntrusted } from './trust.ts';

/** Bundles that are open to be served. */
export interface OpenLibrary {
  readonly bundles: readonly { readonly path: string; readonly name: string; readonly version: string }[];
  readonly images: number;
  readonly charts: number;
  readonly files: number;
  readonly packages: number;
  readonly registry: ShelvedRegistry;
  readonly shelf: Shelf;
  readonly simple: ReturnType<typeof createSimpleIndex> | undefined;
  readonly examples: Pick<ServedFacts, 'hosts' | 'chart' | 'project' | 'file'>;
  /** What is not shown, or not as somebody may expect. */
  readonly warnings: readonly Fault[];
  close(): Promise<void>;
}

/** What has one name among all bundles, and where it comes from. */
interface Known {
  readonly digest: Digest;
  readonly path: string;
}

/** Everything that is being gathered from the bundles. */
interface Gathering {
  readonly stock: Stock;
  readonly registry: ShelvedRegistry;
  readonly shelf: Shelf;
  readonly images: Set<string>;
  readonly charts: Map<string, Known>;
  readonly files: Map<string, Known & { readonly size: number }>;
  /** Files of packages by their names. */
  readonly packages: Map<string, Known & { readonly lock: PackageLock }>;
  readonly faults: Fault[];
  readonly warnings: Fault[];
  chart: ServedFacts['chart'];
}

/** Adds the manifests and blobs of one artifact to the registry. */
function addArtifact(to: Gathering, artifact: Artifact, from: Origin): void {
  const { kind, name, graph } = artifact;
  if (kind === 'image') {
    const reference = parseReference(name);
    to.images.add(name);
    to.registry.addImage(reference, graph, { tag: reference.tag, ...from });
  }
  if (kind === 'referrer') {
    const [image = name] = name.split(' ');
    to.registry.addImage(parseReference(image), graph, { tag: undefined, ...from });
  }
}

/** Puts a chart or a file where `load` would put it; a name that no registry takes leaves it to the tree of files. */
function addPlaced(
  to: Gathering,
  artifact: Artifact,
  from: Origin & { readonly place: () => { repository: string; tag: string } },
): void {
  const { path, isSuperseded } = from;
  try {
    to.registry.addArtifact(from.place(), artifact.graph, { path, isSuperseded });
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code !== 'REFERENCE_INVALID') throw error;
    to.warnings.push(fault(error.code, `${artifact.name} is not in the registry: ${error.message}`));
  }
}

/** Whether a name is new; a fault where another bundle has other bytes for it. */
function isNew(
  to: Gathering,
  known: ReadonlyMap<string, Known>,
  item: Origin & { readonly name: string; readonly digest: Digest },
): boolean {
  const { name, digest, path, isSuperseded } = item;
  const other = known.get(name);
  if (other === undefined) return true;
  if (other.digest !== digest && !isSuperseded) {
    const message = `${name} is ${other.digest} in ${other.path} and ${digest} in ${path}`;
    const hint = 'serve the two bundles separately, each with its own --listen address';
    to.faults.push(fault('TARGET_NAME_COLLISION', message, { hint }));
  }
  return false;
}

/** Content as the shelf has it, once all bundles are in stock; what none of them carries says so. */
function elsewhere({ stock }: Gathering, digest: Digest): Elsewhere {
  const content = stock.content(digest);
  if (content !== undefined) return { ...content, etag: digest };
  return { absent: `${digest} is in none of the served bundles: serve the base of the delta too` };
}

/** What Chart.yaml says, as the chart's config has it; name and version are the lock's. */
async function entryOf(stock: Stock, chart: ChartLock): Promise<ChartEntry> {
  const { name, version } = chart;
  const plain = { apiVersion: 'v2', name, version };
  if (stock.content(chart.config.digest) === undefined) return plain;
  const bytes = await stock.read(chart.config.digest);
  try {
    const said: unknown = JSON.parse(bytes.toString('utf8'));
    if (typeof said !== 'object' || said === null || Array.isArray(said)) return plain;
    return { ...plain, ...said, name, version };
  } catch {
    return plain;
  }
}

async function shelveChart(to: Gathering, chart: ChartLock, from: Origin): Promise<void> {
  const { path } = from;
  const { name, version, integrity } = chart;
  const archive = archiveOf(chart).digest;
  if (!isNew(to, to.charts, { name: chartName(chart), digest: archive, ...from })) return;
  to.charts.set(chartName(chart), { digest: archive, path });
  to.chart ??= { name, version };
  const fileName = `${chartName(chart)}.tgz`;
  to.shelf.listChart({ fileName, entry: await entryOf(to.stock, chart), digest: hexOf(archive) });
  to.shelf.put(`/charts/${fileName}`, elsewhere(to, archive));
  const { provenanceDigest } = integrity;
  if (provenanceDigest !== undefined) {
    to.shelf.put(`/charts/${fileName}.prov`, elsewhere(to, provenanceDigest));
  }
}

function shelveFile(to: Gathering, { name, sha256, size }: FileLock, from: Origin): void {
  if (!isNew(to, to.files, { name, digest: sha256, ...from })) return;
  to.files.set(name, { digest: sha256, path: from.path, size });
  to.shelf.put(`/files/${name}`, elsewhere(to, sha256));
}

function shelvePackage(to: Gathering, lock: PackageLock, from: Origin): void {
  const { file, sha256 } = lock;
  if (!isNew(to, to.packages, { name: file, digest: sha256, ...from })) return;
  to.packages.set(file, { digest: sha256, path: from.path, lock });
  to.shelf.put(`/packages/${file}`, elsewhere(to, sha256));
}

/** Keeps the last piece until its source has ended well. */
async function* heldBack(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let last: Uint8Array | undefined;
  for await (const piece of source) {
    if (last !== undefined) yield last;
    last = piece;
  }
  if (last !== undefined) yield last;
}

/**
 * A bundle as it is served. Of one that nobody signed itself, and for which another one with the same lock vouches, only
 * SHA-256 is believed: its own list of BLAKE3 may be anybody's.
 */
function stocked(bundle: Bundle, isVouchedFor: boolean): StockedBundle {
  const { medium } = bundle;
  return {
    path: medium.path,
    open: (descriptor, options) => {
      const { signal, offset = 0 } = options;
      if (!isVouchedFor || offset > 0) return bundle.open(descriptor, options);
      return heldBack(bundle.open(descriptor, { signal }));
    },
    sizeOf: (digest) => (bundle.has(digest) ? medium.entries.findBlob(digest)?.size : undefined),
    stampOf: (digest) => {
      const entry = medium.entries.findBlob(digest);
      return entry === undefined ? '' : onDisk(() => stampOf(medium.range(entry).file), medium.path);
    },
  };
}

/** Reads one bundle; what its manifests say is gathered as they are read. */
async function readOne(
  medium: Medium,
  to: Gathering,
  how: {
    readonly context: Context;
    readonly trust: Trust;
    readonly from: Origin;
  },
): Promise<Bundle> {
  const { from, trust } = how;
  const { path } = from;
  const placed: Artifact[] = [];
  const tell = (artifact: Artifact): void => {
    if (artifact.kind === 'chart' || artifact.kind === 'file') placed.push(artifact);
    else addArtifact(to, artifact, from);
  };
  const bundle = await openBundle(path, { signal: how.context.signal, tell, medium });
  const { lock } = bundle;
  if (trust.state === 'trusted' && trust.lock !== bundle.lockDigest) {
    throw new SealiftError('BUNDLE_CHECKSUM_MISMATCH', `${path}: changed while it was opened`);
  }
  const charts = new Map(lock.charts.map((chart) => [chartName(chart), chart]));
  const files = new Map(lock.files.map((file) => [file.name, file]));
  for (const artifact of placed) {
    const chart = artifact.kind === 'chart' ? charts.get(artifact.name) : undefined;
    const file = artifact.kind === 'file' ? files.get(artifact.name) : undefined;
    if (chart !== undefined) addPlaced(to, artifact, { ...from, place: () => chartPlace(chart, '') });
    if (file === undefined) continue;
    const { name, sha256 } = file;
    addPlaced(to, artifact, { ...from, place: () => filePlace({ name, sha256: hexOf(sha256) }, '') });
  }
  for (const image of lock.images) {
    for (const { tag, digest } of image.referrers ?? []) {
      if (tag !== undefined) to.registry.addAttached(parseReference(image.ref), { tag, digest, ...from });
    }
  }
  return bundle;
}

/** The packages, and the wheels and source archives among the files; one of two with the same file name. */
function indexedOf(to: Gathering): IndexedFile[] {
  const found = new Map<string, IndexedFile>();
  const byName = <T>([a]: readonly [string, T], [b]: readonly [string, T]): number => (a < b ? -1 : 1);
  for (const [file, { lock }] of [...to.packages].sort(byName)) {
    const { name: project, version, sha256: digest, size, requiresPython, yanked } = lock;
    found.set(file, { path: `packages/${file}`, project, version, digest, size, requiresPython, yanked });
  }
  for (const [name, { digest, size }] of [...to.files].sort(byName)) {
    const fileName = name.split('/').at(-1) ?? name;
    const distribution = parseDistribution(fileName);
    if (distribution === undefined) continue;
    const { project, version } = distribution;
    const other = found.get(fileName);
    if (other === undefined) found.set(fileName, { path: `files/${name}`, digest, size, project, version });
    else if (other.digest !== digest) {
      const message = `the Python index has ${other.path}, not files/${name}: the two have one file name and different bytes`;
      to.warnings.push(fault('TARGET_NAME_COLLISION', message));
    }
  }
  return [...found.values()];
}

function libraryOf(to: Gathering, bundles: readonly Bundle[]): OpenLibrary {
  const { registry, shelf, images, charts, files, packages } = to;
  const indexed = indexedOf(to);
  const [file] = files.keys();
  return {
    bundles: bundles.map(({ medium, lock: { name, version } }) => ({ path: medium.path, name, version })),
    images: images.size,
    charts: charts.size,
    files: files.size,
    packages: packages.size,
    registry,
    shelf,
    simple: indexed.length === 0 ? undefined : createSimpleIndex(indexed),
    examples: { hosts: registry.hosts(), chart: to.chart, project: indexed[0]?.project, file },
    warnings: [...registry.warnings, ...to.warnings],
    close: async () => {
      for (const bundle of bundles) await bundle.close();
    },
  };
}

/**
 * Opens bundles to serve the union of what they have.
 * @param words as for `openGivenBundles`; a delta counts before what it builds on, where the two have other bytes for a name
 * @param options.policy each bundle is judged by it, a repair without a signature by that of one with the same lock
 * @param options.signal ends all reading of content
 * @param options.onDamage is told of every blob that could not be read, or whose bytes are wrong
 * @throws every fault of a bundle's structure or signature; TARGET_NAME_COLLISION for names that mean different bytes in two
 */
export async function openLibrary(
  words: readonly string[],
  options: {
    readonly context: Context;
    readonly policy: TrustPolicy | undefined;
    readonly signal: AbortSignal;
    readonly onDamage: (error: unknown) => void;
  },
): Promise<OpenLibrary> {
  const stock = new Stock(options);
  const to: Gathering = {
    stock,
    registry: new ShelvedRegistry(stock),
    shelf: createShelf({ generated: new Date(options.context.now()).toISOString() }),
    images: new Set(),
    charts: new Map(),
    files: new Map(),
    packages: new Map(),
    faults: [],
    warnings: [],
    chart: undefined,
  };
  const given = await openGivenBundles(words);
  try {
    const read: { readonly bundle: Bundle; readonly from: Origin }[] = [];
    for (const one of given) {
      const from = { path: one.medium.path, isSuperseded: isSuperseded(given, one) };
      const suppliers = given.filter((other) => other !== one);
      const { trust, isOwn } = await judgeGiven({ ...one, suppliers }, options.policy);
      refuseUntrusted(trust, one.medium.path);
      const bundle = await readOne(one.medium, to, { ...options, trust, from });
      read.push({ bundle, from });
      stock.add(stocked(bundle, !isOwn));
    }
    const bundles = read.map(({ bundle }) => bundle);
    // What a delta leaves out is in a bundle that comes behind it.
    for (const { bundle, from } of read) {
      for (const chart of bundle.lock.charts) await shelveChart(to, chart, from);
      for (const file of bundle.lock.files) shelveFile(to, file, from);
      for (const file of bundle.lock.python?.files ?? []) shelvePackage(to, file, from);
    }
    to.registry.finish();
    const faults = [...to.registry.faults, ...to.faults];
    if (faults.length > 0)
      throw errorOf(faults, `${faults.length} names mean different bytes in these bundles`);
    return libraryOf(to, bundles);
  } catch (error) {
    for (const { medium } of given) await medium.close();
    throw error;
  }
}
