import {
  type ArtifactJob,
  ArtifactJobs,
  fileArtifactOf,
  type LoneFile,
  packageArtifactOf,
  type ReadManifest,
} from '../bundle/artifacts.ts';
import { type Artifact, type Base, Contents } from '../bundle/contents.ts';
import type { Bundle } from '../bundle/reader.ts';
import { countOf } from '../core/count.ts';
import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, EMPTY_DIGEST, EMPTY_JSON_DIGEST } from '../core/digest.ts';
import { errorOf, type Fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { NumberList } from '../core/number-list.ts';
import { TextTable } from '../core/text-table.ts';
import { createTurns, eachBounded } from '../io/pool.ts';
import { collect } from '../io/verify.ts';
import { type ChartLock, type FileLock, imageSource, type Lock, type PackageLock } from '../lock/schema.ts';
import { EMPTY_CONFIG_BYTES } from '../oci/artifact.ts';
import type { BlobStream, NextStream } from '../oci/content.ts';
import { foreignWarning } from '../oci/foreign.ts';
import { foreignLayers } from '../oci/graph.ts';
import { embeddedBytes } from '../oci/manifest.ts';
import { type ChartAccess, ociReference, openArchive } from '../source/chart-archive.ts';
import { downloadUrl, type HostAccess } from '../source/download.ts';
import { openFile } from '../source/file.ts';
import { askForeign } from '../source/foreign.ts';
import { askInTurn } from '../source/in-turn.ts';
import { PythonLogins } from '../source/python-index.ts';
import type { ManifestSpool } from './manifest-spool.ts';
import { announcePulls, pullsOfPack } from './pulls.ts';
import { attempt } from './session.ts';

/** Manifests asked for at once. */
const MANIFESTS_PARALLEL = 8;

/** What a pack works with. */
export interface PackTools {
  readonly context: Context;
  readonly access: ChartAccess;
  readonly lock: Lock;
  /** Manifests that were read for the plan. */
  readonly manifests: ManifestSpool;
}

/** Reads a manifest from the older bundle where it has it, else from its registry; keeps it until it is written. */
function manifestReader(tools: PackTools, there: Bundle | undefined): ReadManifest {
  const { context, access } = tools;
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
  const turns = createTurns();
  return async (descriptor, of) => {
    const { digest } = descriptor;
    // Several images may have it: who comes later finds what the first one got, or asks where his own image is.
    return turns(digest, async () => {
      const known = await tools.manifests.read(digest);
      if (known !== undefined) return known;
      const bytes = await ask(descriptor, of);
      await tools.manifests.put(digest, bytes);
      return bytes;
    });
  };
}

/** What a pack learns from the manifests: the shape of the bundle, and where its blobs come from. */
export interface Gathered {
  readonly contents: Contents;
  readonly sources: Sources;
}

/**
 * Manifests first, many at a time. What each says is noted; the artifacts themselves are not kept.
 * @param from.there the bundle at the place of the new one
 * @param from.base what the new one builds on
 */
export async function gatherContents(
  tools: PackTools,
  from: { readonly there?: Bundle | undefined; readonly base?: Base | undefined },
): Promise<Gathered> {
  const { context, access, lock } = tools;
  const { there, base } = from;
  for (const [digest, bytes] of base?.manifests ?? []) await tools.manifests.put(digest, bytes);
  context.emit({ type: 'phase', name: 'manifests', detail: countOf(lock.images.length, 'image') });
  const isHere = (digest: Digest): boolean => tools.manifests.has(digest) || there?.has(digest) === true;
  await announcePulls(pullsOfPack(lock, isHere), access);
  const jobs = new ArtifactJobs(lock, manifestReader(tools, there));
  const contents = new Contents();
  const supplies = new Supplies(jobs, contents);
  const warnings: Fault[] = [];
  const limits = { limit: MANIFESTS_PARALLEL, signal: context.signal };
  const faults: Fault[] = [];
  await eachBounded(jobs, limits, async (job, at) => {
    const done = await attempt(async () => {
      const artifact = await job.read();
      contents.add(artifact);
      supplies.add(artifact, at);
      const foreign = foreignLayers(artifact.graph);
      if (foreign.length > 0) warnings[at] = foreignWarning(artifact.name, foreign);
    });
    if ('fault' in done) faults[at] = done.fault;
  });
  // In the order of the lock, whatever came first.
  const failed = faults.filter(() => true);
  if (failed.length > 0) throw errorOf(failed, `${failed.length} manifests cannot be fetched`);
  for (const fault of warnings) if (fault !== undefined) context.emit({ type: 'warning', fault });
  return { contents, sources: blobSources(supplies, tools) };
}

/** A blob in memory, or the streams of it. */
export type BlobSource = Uint8Array | NextStream;

/** Where blobs come from. */
export interface Sources {
  /** The source of a planned blob; undefined for what is made from chart archives. */
  of(digest: Digest): Promise<BlobSource | undefined>;
  /** What a blob is called on the screen: the artifact that wants it first, and the start of its digest. */
  label(digest: Digest): string | undefined;
}

type Ask = (descriptor: Descriptor) => NextStream;

/** How the blobs of an artifact are asked for; undefined where none comes from a registry. */
function askOf({ image, chart }: ArtifactJob, { access }: PackTools): Ask | undefined {
  const { registries } = access;
  if (image === undefined) {
    if (chart?.source.type !== 'oci') return undefined;
    const of = ociReference(chart.source.ref);
    return (descriptor) => registries.ask(of, descriptor);
  }
  const of = imageSource(image);
  if (image.foreignLayers !== true) return (descriptor) => registries.ask(of, descriptor);
  const tools = { ...access, named: registries.hosts };
  return (descriptor) => askForeign(descriptor, { registry: registries.supplies(of, descriptor), tools });
}

/** Who supplies each blob. There may be very many: of each it keeps a few numbers. */
class Supplies {
  readonly #jobs: ArtifactJobs;
  readonly #contents: Contents;
  /** By the number of the blob in the contents: one more than the job that supplies it, the first of those that can. */
  readonly #from = new NumberList('int32');
  /** By the same number: which media type that one says. */
  readonly #types = new NumberList('int32');
  readonly #mediaTypes = new TextTable();
  /** Descriptors that say more than digest, size and media type: other places, or the content itself. */
  readonly #special = new Map<Digest, Descriptor>();

  constructor(jobs: ArtifactJobs, contents: Contents) {
    this.#jobs = jobs;
    this.#contents = contents;
  }

  /** Notes what an artifact whose contents are known supplies. */
  add({ graph }: Artifact, job: number): void {
    for (const { descriptor } of graph.nodes.values()) {
      const id = this.#contents.digests.indexOf(descriptor.digest);
      const known = this.#from.at(id) - 1;
      const isAsked = (one: number): boolean => this.#jobs.isAsked(one);
      if (known >= 0 && (known < job || !isAsked(job)) && isAsked(known)) continue;
      this.#from.set(id, job + 1);
      this.#types.set(id, this.#mediaTypes.add(descriptor.mediaType));
      if (descriptor.urls === undefined && descriptor.data === undefined)
        this.#special.delete(descriptor.digest);
      else this.#special.set(descriptor.digest, descriptor);
    }
  }

  /** The blob as its supplier describes it, and who that is. */
  find(digest: Digest): { readonly descriptor: Descriptor; readonly job: ArtifactJob } | undefined {
    const id = this.#contents.digests.indexOf(digest);
    const from = this.#from.at(id) - 1;
    const job = from < 0 ? undefined : this.#jobs.at(from);
    if (job === undefined) return undefined;
    const size = this.#contents.sizeOf(id);
    const mediaType = this.#mediaTypes.at(this.#types.at(id)) ?? '';
    return { descriptor: this.#special.get(digest) ?? { mediaType, digest, size }, job };
  }
}

/** A source for every blob of the plan but the manifests and configs that are made from chart archives. */
function blobSources(supplies: Supplies, tools: PackTools): Sources {
  const others = otherSources(tools);
  return {
    of: async (digest) => {
      const own = others.get(digest) ?? (await tools.manifests.read(digest));
      if (own !== undefined) return own;
      const { descriptor, job } = supplies.find(digest) ?? {};
      if (descriptor === undefined || job === undefined) return undefined;
      return embeddedBytes(descriptor) ?? askOf(job, tools)?.(descriptor);
    },
    label: (digest) => {
      const job = supplies.find(digest)?.job;
      return job === undefined ? undefined : `${shortName(job.name)} ${digest.slice(7, 19)}`;
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
  const { access, context, lock } = tools;
  for (const file of lock.files) addFile(sources, file, { ...fileArtifactOf(file), access });
  const ofIndexes = { ...access, registries: new PythonLogins(access.registries, { env: context.env }) };
  for (const file of lock.python?.files ?? []) {
    addFile(sources, file, { ...packageArtifactOf(file), access: ofIndexes });
  }
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

/** How files are reached: each kind with the logins that are its own. */
type FileAccess = Omit<ChartAccess, 'registries'> & { readonly registries: HostAccess };

function addFile(
  sources: Map<Digest, BlobSource>,
  file: FileLock | PackageLock,
  { artifact, manifest, access }: LoneFile & { readonly access: FileAccess },
): void {
  sources.set(artifact.root.digest, manifest);
  const open: BlobStream = (offset) => openFile(file.source, { ...access, offset, size: file.size });
  sources.set(file.sha256, askInTurn([{ open }], access.context));
}
