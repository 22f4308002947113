import { resolve } from 'node:path';
import { archiveOf, referrerName } from '../bundle/artifacts.ts';
import { readDocument } from '../bundle/compare.ts';
import type { Medium } from '../bundle/medium.ts';
import type { Artifact } from '../bundle/plan.ts';
import { openBundle } from '../bundle/reader.ts';
import type { Digest } from '../core/digest.ts';
import { type Fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { parseReference } from '../core/reference.ts';
import { digestOf } from '../io/verify.ts';
import { chartName, type Lock } from '../lock/schema.ts';
import type { ContentReader } from '../oci/content.ts';
import { isSparse } from '../oci/graph.ts';
import { GraphStore } from '../oci/graph-store.ts';
import type { Item } from '../target/target.ts';
import { archiveWarnings, checkArchives, type Format, itemsOfArchives } from './archive-items.ts';
import { type CheckedBundle, checkOpened } from './check-bundle.ts';
import { type ImageArchives, openImageArchives } from './image-archives.ts';

/** What was loaded, as the receipt names it. */
export interface LoadedSource {
  readonly format: Format;
  readonly name: string;
  /** Null, as the lock, of what another tool made. */
  readonly version: string | null;
  readonly lock: Digest | null;
}

interface Opened {
  readonly bundle: string;
  readonly name?: string;
}

/** What of the bundle is loaded. */
function itemsOf(lock: Lock, byKey: ReadonlyMap<string, Artifact>): Item[] {
  const of = (key: string): Artifact => {
    const artifact = byKey.get(key);
    if (artifact === undefined) throw new SealiftError('INTERNAL', `${key} is not in the bundle`);
    return artifact;
  };
  const images = Array.from(lock.images, (image): Item => {
    const { root, graph } = of(`image ${image.ref}`);
    const { ref, platforms } = image;
    const referrers = (image.referrers ?? []).map(({ digest, subject, tag }) => {
      const own = of(`referrer ${referrerName(image, digest)}`);
      return { root: own.root, graph: own.graph, subject, ...(tag === undefined ? {} : { tag }) };
    });
    const { replacedBy, recompressed } = image;
    return {
      kind: 'image',
      name: ref,
      root,
      graph,
      reference: parseReference(ref),
      platforms,
      sparse: isSparse(graph),
      referrers,
      ...(replacedBy === undefined ? {} : { replacedBy }),
      ...(recompressed === undefined ? {} : { recompressed }),
    };
  });
  const charts = lock.charts.map((chart): Item => {
    const name = chartName(chart);
    const { root, graph } = of(`chart ${name}`);
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
    const { root, graph } = of(`file ${file.name}`);
    const content = { mediaType: 'application/octet-stream', digest: file.sha256, size: file.size };
    return { kind: 'file', name: file.name, root, graph, content, mode: Number.parseInt(file.mode, 8) };
  });
  return [...images, ...charts, ...files];
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
  close(): Promise<void>;
}

/** A bundle as a load needs it: what was only needed to open it is let go, there may be very many images. */
async function openItems(
  path: string,
  context: Context,
): Promise<{ readonly bundle: CheckedBundle; readonly items: Item[]; readonly about: LoadedSource }> {
  const byKey = new Map<string, Artifact>();
  const graphs = new GraphStore();
  const tell = (artifact: Artifact): unknown =>
    byKey.set(`${artifact.kind} ${artifact.name}`, { ...artifact, graph: graphs.keep(artifact.graph) });
  const bundle = await openBundle(path, { signal: context.signal, tell });
  const { plan: _, lock, lockDigest, ...rest } = bundle;
  const { name, version, charts } = lock;
  return {
    bundle: { ...rest, lock: { charts } },
    items: itemsOf(lock, byKey),
    about: { format: 'bundle', name, version, lock: lockDigest },
  };
}

async function bundleSource(path: string, context: Context): Promise<Source> {
  const { bundle, items, about } = await openItems(path, context);
  return {
    path: bundle.medium.path,
    about,
    items,
    lock: { bundle: about.name, read: () => readLock(bundle.medium, about) },
    open: (descriptor, options) => bundle.open(descriptor, options),
    check: () => checkOpened(bundle, { deep: true, context }),
    close: () => bundle.close(),
  };
}

/** The lock's bytes once more, which were checked when the bundle was opened. */
async function readLock(medium: Medium, { lock }: LoadedSource): Promise<Buffer> {
  const bytes = await readDocument(medium, 'versions.lock');
  if (digestOf(bytes) === lock) return bytes;
  const message = `${medium.path}: versions.lock changed while it was loaded`;
  throw new SealiftError('BUNDLE_CHECKSUM_MISMATCH', message, { side: 'source' });
}

async function archivesSource(archives: ImageArchives, options: Opened, context: Context): Promise<Source> {
  try {
    for (const warning of archiveWarnings(archives)) context.emit({ type: 'warning', fault: warning });
    const items = itemsOfArchives(archives, { name: options.name, context });
    const [format = 'oci-layout'] = archives.kinds;
    return {
      path: archives.path,
      about: { format, name: archives.name, version: null, lock: null },
      items,
      lock: undefined,
      open: (descriptor, more) => archives.open(descriptor, more),
      check: () => checkArchives(archives, context),
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
  const path = resolve(options.bundle);
  const archives = await openImageArchives(path, context);
  if (archives !== undefined) return archivesSource(archives, options, context);
  if (options.name !== undefined) {
    throw new SealiftError('USAGE', '--name: the names of a bundle are those of its lock', {
      hint: 'leave --name out; it is for archives of one image that other tools made',
    });
  }
  return bundleSource(path, context);
}
