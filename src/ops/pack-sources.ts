import { artifactJobs, fileArtifactOf, type ReadManifest, referrerName } from '../bundle/artifacts.ts';
import type { Artifact } from '../bundle/plan.ts';
import type { Bundle } from '../bundle/reader.ts';
import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, EMPTY_DIGEST, EMPTY_JSON_DIGEST, isDigest } from '../core/digest.ts';
import { errorOf, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { mapBounded } from '../io/pool.ts';
import { collect } from '../io/verify.ts';
import { type ChartLock, chartName, type FileLock, imageSource, type Lock } from '../lock/schema.ts';
import { EMPTY_CONFIG_BYTES } from '../oci/artifact.ts';
import type { BlobStream, NextStream } from '../oci/content.ts';
import { embeddedBytes } from '../oci/manifest.ts';
import { type ChartAccess, ociReference, openArchive } from '../source/chart-archive.ts';
import { downloadUrl } from '../source/download.ts';
import { openFile } from '../source/file.ts';
import { askForeign } from '../source/foreign.ts';
import { askInTurn } from '../source/in-turn.ts';
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

/** A blob in memory, or the streams of it. */
export type BlobSource = Uint8Array | NextStream;

/** Where blobs come from. */
export interface Sources {
  /** The source of a planned blob; undefined for what is made from chart archives. */
  of(digest: Digest): BlobSource | undefined;
  /** What a blob is called on the screen: the artifact that wants it first, and the start of its digest. */
  label(digest: Digest): string | undefined;
}

type Ask = (descriptor: Descriptor) => NextStream;

/** Where the blobs of one artifact come from, and what it is called on the screen. */
interface Supplier {
  readonly label: string;
  /** Absent where every blob has a source of its own. */
  readonly ask?: Ask;
}

/** How the blobs of artifacts are asked for that come from a registry, by kind and name. */
function asksOf({ lock, access }: PackTools): Map<string, Ask> {
  const asks = new Map<string, Ask>();
  const { registries } = access;
  const tools = { ...access, named: registries.hosts };
  for (const image of lock.images) {
    const of = imageSource(image);
    const own: Ask = (descriptor) => registries.ask(of, descriptor);
    const foreign: Ask = (descriptor) =>
      askForeign(descriptor, { registry: registries.supplies(of, descriptor), tools });
    const ask = image.foreignLayers === true ? foreign : own;
    asks.set(`image ${image.ref}`, ask);
    for (const { digest } of image.referrers ?? []) asks.set(`referrer ${referrerName(image, digest)}`, ask);
  }
  for (const chart of lock.charts) {
    if (chart.source.type !== 'oci') continue;
    const of = ociReference(chart.source.ref);
    asks.set(`chart ${chartName(chart)}`, (descriptor) => registries.ask(of, descriptor));
  }
  return asks;
}

/**
 * A source for every blob of the plan but the manifests and configs that are made from chart archives. There may be very
 * many: of each it keeps its descriptor and who supplies it, and makes the source when it is asked for.
 */
export function blobSources(artifacts: readonly Artifact[], tools: PackTools): Sources {
  const asks = asksOf(tools);
  const content = new Map<Digest, { readonly descriptor: Descriptor; readonly from: Supplier }>();
  for (const { kind, name, graph } of artifacts) {
    const ask = asks.get(`${kind} ${name}`);
    const from = { label: shortName(name), ...(ask === undefined ? {} : { ask }) };
    for (const { descriptor } of graph.nodes.values()) {
      const known = content.get(descriptor.digest);
      if (known?.from.ask === undefined) content.set(descriptor.digest, { descriptor, from });
    }
  }
  const others = otherSources(tools);
  return {
    of: (digest) => {
      const own = others.get(digest) ?? tools.manifests.get(digest);
      if (own !== undefined) return own;
      const { descriptor, from } = content.get(digest) ?? {};
      if (descriptor === undefined || from?.ask === undefined) return undefined;
      return embeddedBytes(descriptor) ?? from.ask(descriptor);
    },
    label: (digest) => {
      const from = content.get(digest)?.from;
      return from === undefined ? undefined : `${from.label} ${digest.slice(7, 19)}`;
    },
  };
}

function shortName(artifact: string): string {
  return artifact.replace(/@.*$/, '').split('/').at(-1) ?? artifact;
}

/** The blobs that come from elsewhere than a registry. */
function otherSources(tools: PackTools): Map<Digest, BlobSource> {
  const sources = new Map<Digest, BlobSource>([
    [EMPTY_JSON_DIGEST, EMPTY_CONFIG_BYTES],
    [EMPTY_DIGEST, Buffer.alloc(0)],
  ]);
  for (const chart of tools.lock.charts) {
    if (chart.source.type !== 'oci') addChart(sources, chart, tools);
  }
  for (const file of tools.lock.files) addFile(sources, file, tools);
  return sources;
}

function addChart(sources: Map<Digest, BlobSource>, chart: ChartLock, tools: PackTools): void {
  const { access, lock } = tools;
  const { archive, provenanceDigest } = chart.integrity;
  const open: BlobStream = (offset) => openArchive(chart, { access, all: lock.charts, offset });
  sources.set(archive, askInTurn([{ open }], access.context));
  if (provenanceDigest === undefined || chart.source.type !== 'http') return;
  const url = new URL(chart.source.url);
  url.pathname += '.prov';
  const { repo: repository } = chart.source;
  const provenance: BlobStream = (offset) => downloadUrl(url.href, { ...access, repository, offset });
  sources.set(provenanceDigest, askInTurn([{ open: provenance }], access.context));
}

function addFile(sources: Map<Digest, BlobSource>, file: FileLock, tools: PackTools): void {
  const { artifact, manifest } = fileArtifactOf(file);
  sources.set(artifact.root.digest, manifest);
  const open: BlobStream = (offset) => openFile(file.source, { ...tools.access, offset, size: file.size });
  sources.set(file.sha256, askInTurn([{ open }], tools.context));
}
