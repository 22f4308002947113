import { resolve } from 'node:path';
import { archiveOf, contentOf, referrerName } from '../bundle/artifacts.ts';
import { readDocument } from '../bundle/compare.ts';
import { closeGiven, type Given, openGiven, openJoint } from '../bundle/joint.ts';
import type { Medium } from '../bundle/medium.ts';
import type { TellArtifact } from '../bundle/reader.ts';
import { type Place, placesOf } from '../bundle/volumes.ts';
import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { type Fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { parseReference, type Reference } from '../core/reference.ts';
import { digestOf } from '../io/verify.ts';
import { chartName, type ImageLock, type Lock } from '../lock/schema.ts';
import type { ContentReader } from '../oci/content.ts';
import { type Graph, isSparse } from '../oci/graph.ts';
import { GraphStore } from '../oci/graph-store.ts';
import type { ImageItem, Item, ReferrerItem } from '../target/target.ts';
import type { Trust, TrustPolicy } from '../trust/policy.ts';
import { addressIn } from './address.ts';
import { archiveWarnings, checkArchives, type Format, itemsOfArchives } from './archive-items.ts';
import { type CheckedBundle, checkOpened } from './check-bundle.ts';
import { type ImageArchives, openImageArchives } from './image-archives.ts';
import { checkLeftOut, missingBase } from './left-out.ts';
import { policyOf, refuseForeign, requireTrust, type TrustOptions } from './trust.ts';

/** What was loaded, as the receipt names it. */
export interface LoadedSource {
  readonly format: Format;
  readonly name: string;
  /** Null, as the lock, of what another tool made. */
  readonly version: string | null;
  readonly lock: Digest | null;
  /** The key id of the signature that was checked; null where none was. */
  readonly signedBy: string | null;
}

interface Opened extends TrustOptions {
  readonly bundle: string;
  readonly others?: readonly string[];
  readonly name?: string;
}

const NONE: readonly ReferrerItem[] = [];

/** An image of a lock. There may be very many: what is seldom asked for is made when it is. */
class LockedImage implements ImageItem {
  readonly kind = 'image';
  readonly name: string;
  readonly graph: Graph;
  readonly sparse: boolean;
  readonly referrers: readonly ReferrerItem[];
  readonly replacedBy: string | undefined;
  readonly recompressed: string | undefined;

  constructor(
    image: ImageLock,
    parts: {
      readonly graph: Graph;
      readonly referrers: readonly ReferrerItem[];
    },
  ) {
    this.name = image.ref;
    this.replacedBy = image.replacedBy;
    this.recompressed = image.recompressed;
    this.graph = parts.graph;
    this.sparse = isSparse(parts.graph);
    this.referrers = parts.referrers;
  }

  get root(): Descriptor {
    return this.graph.root;
  }

  get reference(): Reference {
    return parseReference(this.name);
  }
}

/** What of the bundle is loaded. @param byKey the graphs of its artifacts by kind and name */
function itemsOf(lock: Lock, byKey: ReadonlyMap<string, Graph>): Item[] {
  const of = (key: string): Graph => {
    const graph = byKey.get(key);
    if (graph === undefined) throw new SealiftError('INTERNAL', `${key} is not in the bundle`);
    return graph;
  };
  const images = Array.from(lock.images, (image): Item => {
    const referrers = image.referrers?.map(({ digest, subject, tag }) => {
      const graph = of(`referrer ${referrerName(image, digest)}`);
      return { root: graph.root, graph, subject, ...(tag === undefined ? {} : { tag }) };
    });
    const graph = of(`image ${image.ref}`);
    return new LockedImage(image, { graph, referrers: referrers ?? NONE });
  });
  const charts = lock.charts.map((chart): Item => {
    const name = chartName(chart);
    const graph = of(`chart ${name}`);
    const { root } = graph;
    const { version, integrity } = chart;
    const archive = archiveOf(chart);
    return {
      kind: 'chart',
      name,
      root,
      graph,
      chartName: chart.name,
      version,
      archive,
      tree: integrity.tree,
    };
  });
  const files = lock.files.map((file): Item => {
    const graph = of(`file ${file.name}`);
    const { root } = graph;
    const content = contentOf(file);
    return { kind: 'file', name: file.name, root, graph, content, mode: Number.parseInt(file.mode, 8) };
  });
  const packages = (lock.python?.files ?? []).map((found): Item => {
    const { file, name: project, version, requiresPython } = found;
    const graph = of(`package ${file}`);
    const content = contentOf(found);
    const item = { kind: 'package', name: file, root: graph.root, graph, project, version, content } as const;
    return requiresPython === undefined ? item : { ...item, requiresPython };
  });
  return [...images, ...charts, ...files, ...packages];
}

/** What a bundle leaves out. */
export interface LeftOut {
  /** Whether a blob is nowhere at hand. */
  isAbsent(digest: Digest): boolean;
  /** That blobs lack, and what would supply them. */
  missing(digests: readonly Digest[]): Fault;
}

/** What is loaded: a bundle, or what another tool made. */
export interface Source extends ContentReader {
  readonly path: string;
  readonly about: LoadedSource;
  readonly items: readonly Item[];
  /** What stands beside the charts of a tree; undefined where there are none. */
  readonly lock: { readonly bundle: string; read(): Promise<Buffer> } | undefined;
  /** Reads every byte. */
  check(): Promise<{ readonly faults: readonly Fault[] }>;
  /** Of a bundle that leaves something out. */
  readonly leftOut: LeftOut | undefined;
  /** Of one that comes in order: whether all of it has come and is right. */
  readonly isChecked?: boolean;
  close(): Promise<void>;
}

/** Keeps the graphs of a bundle's artifacts as they are told, and makes items of them. */
export function graphKeeper(): { readonly tell: TellArtifact; readonly items: (lock: Lock) => Item[] } {
  const byKey = new Map<string, Graph>();
  let graphs: GraphStore | undefined;
  return {
    tell: ({ kind, name, graph }, digests) => {
      graphs ??= new GraphStore(digests);
      byKey.set(`${kind} ${name}`, graphs.keep(graph));
    },
    items: (lock) => itemsOf(lock, byKey),
  };
}

/** A bundle as a load needs it: what was only needed to open it is let go, there may be very many images. */
async function openItems(
  places: readonly Place[],
  policy: TrustPolicy | undefined,
  context: Context,
): Promise<{ readonly bundle: CheckedBundle; readonly items: Item[]; readonly about: LoadedSource }> {
  const graphs = graphKeeper();
  const { given, trust } = await openTrusted(places, policy);
  const bundle = await openJoint(given, { signal: context.signal, tell: graphs.tell });
  const { plan: _, lock, lockDigest, ...rest } = bundle;
  const { name, version, charts } = lock;
  const signedBy = trust.state === 'trusted' ? trust.keyId : null;
  if (signedBy !== null && trust.lock !== lockDigest) {
    await bundle.close();
    throw new SealiftError('BUNDLE_CHECKSUM_MISMATCH', `${bundle.medium.path}: changed while it was opened`);
  }
  return {
    bundle: { ...rest, lock: { charts } },
    items: graphs.items(lock),
    about: { format: 'bundle', name, version, lock: lockDigest, signedBy },
  };
}

/** Bundles whose signature was judged, before anything else in them is believed. */
async function openTrusted(
  places: readonly Place[],
  policy: TrustPolicy | undefined,
): Promise<{ readonly given: Given; readonly trust: Trust }> {
  const given = await openGiven(places);
  try {
    return { given, trust: await requireTrust(given, policy) };
  } catch (error) {
    await closeGiven(given);
    throw error;
  }
}

async function bundleSource(
  places: readonly Place[],
  policy: TrustPolicy | undefined,
  context: Context,
): Promise<Source> {
  const { bundle, items, about } = await openItems(places, policy, context);
  return {
    path: bundle.medium.path,
    about,
    items,
    lock: { bundle: about.name, read: () => readLock(bundle.medium, about) },
    open: (descriptor, options) => bundle.open(descriptor, options),
    check: () => checkAll(bundle, context),
    leftOut:
      bundle.info.base === null
        ? undefined
        : {
            isAbsent: (digest) => !bundle.has(digest),
            missing: (digests) => missingBase(bundle, digests, 'the target'),
          },
    close: () => bundle.close(),
  };
}

/** Every byte of the bundle, and of what others supply. */
async function checkAll(
  bundle: CheckedBundle,
  context: Context,
): Promise<{ readonly faults: readonly Fault[] }> {
  const { faults } = await checkOpened(bundle, { deep: true, context });
  return { faults: [...faults, ...(await checkLeftOut(bundle, context)).faults] };
}

/** The lock's bytes once more, which were checked when the bundle was opened. */
async function readLock(medium: Medium, { lock }: LoadedSource): Promise<Buffer> {
  const bytes = await readDocument(medium, 'versions.lock');
  if (digestOf(bytes) === lock) return bytes;
  const message = `${medium.path}: versions.lock changed while it was loaded`;
  throw new SealiftError('BUNDLE_CHECKSUM_MISMATCH', message, { side: 'source' });
}

async function archivesSource(
  archives: ImageArchives,
  options: Opened & { readonly policy: TrustPolicy | undefined },
  context: Context,
): Promise<Source> {
  try {
    refuseForeign(options.policy, archives.path);
    for (const warning of archiveWarnings(archives)) context.emit({ type: 'warning', fault: warning });
    const items = itemsOfArchives(archives, { name: options.name, context });
    const [format = 'oci-layout'] = archives.kinds;
    return {
      path: archives.path,
      about: { format, name: archives.name, version: null, lock: null, signedBy: null },
      items,
      lock: undefined,
      open: (descriptor, more) => archives.open(descriptor, more),
      check: () => checkArchives(archives, context),
      leftOut: undefined,
      close: () => archives.close(),
    };
  } catch (error) {
    await archives.close();
    throw error;
  }
}

/**
 * Opens what is loaded.
 * @throws BUNDLE_NOT_FOUND and every fault of a bundle's structure, USAGE, and what `itemsOfArchives` throws
 */
export async function openSource(options: Opened, context: Context): Promise<Source> {
  const words = [options.bundle, ...(options.others ?? [])];
  const address = addressIn(words);
  if (address !== undefined) {
    refuseName(options);
    const { remoteSource } = await import('./load-remote.ts');
    return remoteSource(address, options, context);
  }
  const given = words.map((p) => resolve(p));
  const policy = await policyOf(options, context);
  const places = await placesOf(given);
  const [path = ''] = places;
  const isPlain = places.length === 1 && typeof path === 'string';
  const archives = isPlain ? await openImageArchives(path, context) : undefined;
  if (archives !== undefined) return archivesSource(archives, { ...options, policy }, context);
  refuseName(options);
  return bundleSource(places, policy, context);
}

/** @throws USAGE */
function refuseName({ name }: Opened): void {
  if (name === undefined) return;
  throw new SealiftError('USAGE', '--name: the names of a bundle are those of its lock', {
    hint: 'leave --name out; it is for archives of one image that other tools made',
  });
}
