import { artifactJobs, fileArtifactOf, type ReadManifest, referrerName } from '../bundle/artifacts.ts';
import type { Artifact } from '../bundle/plan.ts';
import type { Bundle } from '../bundle/reader.ts';
import type { BlobStream } from '../bundle/writer.ts';
import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, EMPTY_DIGEST, EMPTY_JSON_DIGEST, isDigest } from '../core/digest.ts';
import { errorOf, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { mapBounded } from '../io/pool.ts';
import { collect } from '../io/verify.ts';
import { type ChartLock, chartName, type FileLock, imageSource, type Lock } from '../lock/schema.ts';
import { EMPTY_CONFIG_BYTES } from '../oci/artifact.ts';
import type { ContentReader } from '../oci/content.ts';
import { embeddedBytes } from '../oci/manifest.ts';
import { type ChartAccess, ociReference, openArchive } from '../source/chart-archive.ts';
import { downloadUrl } from '../source/download.ts';
import { openFile } from '../source/file.ts';
import { foreignReader } from '../source/foreign.ts';
import { announcePulls, pullsOfPack } from './pulls.ts';
import { attempt, countOf, sortAttempts } from './session.ts';

/** Manifests asked for at once. */
const MANIFESTS_PARALLEL = 8;

/** What a pack works with. */
export interface PackTools {
  readonly context: Context;
  readonly access: ChartAccess;
  readonly lock: Lock;
  /** Manifests that were read for the plan, until they are written: each is asked for once, because registries count. */
  readonly manifests: Map<Digest, Uint8Array>;
}

/** Manifests first, many at a time: from the older bundle where it has them, else from the registries. */
export async function readArtifacts(tools: PackTools, there: Bundle | undefined): Promise<Artifact[]> {
  const { context, access, lock } = tools;
  context.emit({ type: 'phase', name: 'manifests', detail: countOf(lock.images.length, 'image') });
  const ask: ReadManifest = async (descriptor, { image, chart }) => {
    const embedded = embeddedBytes(descriptor);
    if (embedded !== undefined) return embedded;
    if (there?.has(descriptor.digest) === true) {
      try {
        const bytes = there.open(descriptor, { signal: context.signal });
        return await collect(bytes, { limit: LIMITS.manifest, what: descriptor.digest });
      } catch (error) {
        if (!(error instanceof SealiftError) || error.code === 'ABORTED') throw error;
      }
    }
    const source =
      chart?.source.type === 'oci' ? ociReference(chart.source.ref) : imageSource(image ?? { ref: '' });
    const content = await access.registries.getManifest(source, descriptor.digest);
    if (content.bytes.length !== descriptor.size) {
      throw new SealiftError(
        'CONTENT_SIZE_MISMATCH',
        `${descriptor.digest}: expected ${descriptor.size} bytes, found ${content.bytes.length}`,
      );
    }
    return content.bytes;
  };
  const read: ReadManifest = async (descriptor, of) => {
    const bytes = tools.manifests.get(descriptor.digest) ?? (await ask(descriptor, of));
    tools.manifests.set(descriptor.digest, bytes);
    return bytes;
  };
  const isHere = (digest: string): boolean =>
    isDigest(digest) && (tools.manifests.has(digest) || there?.has(digest) === true);
  await announcePulls(pullsOfPack(lock, isHere), access);
  const limits = { limit: MANIFESTS_PARALLEL, signal: context.signal };
  const done = await mapBounded(artifactJobs(lock, read), limits, (job) => attempt(job.read));
  const { values, faults } = sortAttempts(done);
  if (faults.length > 0) throw errorOf(faults, `${faults.length} manifests cannot be fetched`);
  return values;
}

/** Bytes in memory as a source. */
export async function* bytesOf(bytes: Uint8Array, offset: number): AsyncGenerator<Uint8Array> {
  yield bytes.subarray(offset);
}

/** What is asked for a second time was wrong the first time: then the reader verifies too, and names who sent it. */
function fromReader(reader: ContentReader, descriptor: Descriptor, context: Context): BlobStream {
  const embedded = embeddedBytes(descriptor);
  if (embedded !== undefined) return (offset) => bytesOf(embedded, offset);
  let asked = 0;
  return (offset, into) => {
    const first = ++asked === 1 && into !== undefined;
    return reader.open(descriptor, { signal: context.signal, offset, ...(first ? { into } : {}) });
  };
}

/** A manifest that was read for the plan; it is forgotten once written. */
function fromMemory(tools: PackTools, descriptor: Descriptor): BlobStream {
  return async function* (offset) {
    const bytes = tools.manifests.get(descriptor.digest);
    if (bytes === undefined) throw new SealiftError('INTERNAL', `manifest ${descriptor.digest} was not kept`);
    yield* bytesOf(bytes, offset);
  };
}

/** A source for every blob of the plan but the manifests and configs that are made from chart archives. */
export function blobSources(artifacts: readonly Artifact[], tools: PackTools): Map<Digest, BlobStream> {
  const { lock, access, context } = tools;
  const sources = new Map<Digest, BlobStream>();
  const graphs = new Map(artifacts.map((a) => [`${a.kind} ${a.name}`, a.graph]));
  const addGraph = (key: string, reader: ContentReader): void => {
    for (const { descriptor, kind } of graphs.get(key)?.nodes.values() ?? []) {
      if (sources.has(descriptor.digest)) continue;
      const isManifest = kind === 'index' || kind === 'manifest';
      const source = isManifest ? fromMemory(tools, descriptor) : fromReader(reader, descriptor, context);
      sources.set(descriptor.digest, source);
    }
  };
  for (const image of lock.images) {
    const own = access.registries.reader(imageSource(image));
    const named = access.registries.hosts;
    const reader = image.foreignLayers === true ? foreignReader(own, { ...access, named }) : own;
    addGraph(`image ${image.ref}`, reader);
    for (const { digest } of image.referrers ?? []) {
      addGraph(`referrer ${referrerName(image, digest)}`, reader);
    }
  }
  for (const chart of lock.charts) {
    if (chart.source.type === 'oci') {
      addGraph(`chart ${chartName(chart)}`, access.registries.reader(ociReference(chart.source.ref)));
    } else addChart(sources, chart, tools);
  }
  for (const file of lock.files) addFile(sources, file, tools);
  sources.set(EMPTY_JSON_DIGEST, (offset) => bytesOf(EMPTY_CONFIG_BYTES, offset));
  sources.set(EMPTY_DIGEST, (offset) => bytesOf(Buffer.alloc(0), offset));
  return sources;
}

function addChart(sources: Map<Digest, BlobStream>, chart: ChartLock, tools: PackTools): void {
  const { access, lock } = tools;
  const { archive, provenanceDigest } = chart.integrity;
  sources.set(archive, (offset) => openArchive(chart, { access, all: lock.charts, offset }));
  if (provenanceDigest === undefined || chart.source.type !== 'http') return;
  const url = new URL(chart.source.url);
  url.pathname += '.prov';
  const { repo: repository } = chart.source;
  sources.set(provenanceDigest, (offset) => downloadUrl(url.href, { ...access, repository, offset }));
}

function addFile(sources: Map<Digest, BlobStream>, file: FileLock, tools: PackTools): void {
  const { artifact, manifest } = fileArtifactOf(file);
  sources.set(artifact.root.digest, (offset) => bytesOf(manifest, offset));
  sources.set(file.sha256, (offset) => openFile(file.source, { ...tools.access, offset, size: file.size }));
}
