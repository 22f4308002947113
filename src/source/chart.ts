import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readChartArchive } from '../helm/archive.ts';
import { chartArtifact, selectChartLayers } from '../helm/artifact.ts';
import type { ChartContent } from '../helm/content.ts';
import {
  findChart,
  parseRepositoryIndex,
  type RepositoryIndex,
  resolveChartUrl,
} from '../helm/index-file.ts';
import { provenanceState } from '../helm/provenance.ts';
import { withoutQuery } from '../io/redirect.ts';
import { collect, digestOf } from '../io/verify.ts';
import type { ChartIntegrity, ChartLock } from '../lock/schema.ts';
import { parseManifest } from '../oci/manifest.ts';
import { type ChartAccess, ociReference, packFolder } from './chart-archive.ts';
import { downloadUrl } from './download.ts';

/** A chart that the manifest asks for, or that another chart depends on. */
export type WantedChart =
  | {
      readonly kind: 'repo';
      readonly name: string;
      readonly version: string;
      readonly repo: string;
      readonly allowIndexMismatch?: string;
    }
  /** `oci` is `oci://host/path/name`, without a tag. */
  | { readonly kind: 'oci'; readonly name: string; readonly version: string; readonly oci: string }
  | { readonly kind: 'path'; readonly path: string };

/** What the source says today; `dependencies`, `values`, `dir` and `usedBy` are the business of the lock. */
export type ChartFacts = Omit<ChartLock, 'dependencies' | 'values' | 'dir' | 'usedBy'>;

export interface ResolvedChart {
  readonly facts: ChartFacts;
  readonly content: ChartContent;
  readonly warnings: readonly Fault[];
}

/** Repository indexes that were read in this run. */
export type IndexCache = Map<string, Promise<RepositoryIndex>>;

/** A repository's index, once per run. @throws CHART_INDEX_INVALID, CONTENT_NOT_FOUND, NETWORK_FAILED */
export function readIndex(repo: string, access: ChartAccess, cache: IndexCache): Promise<RepositoryIndex> {
  const known = cache.get(repo);
  if (known !== undefined) return known;
  const url = resolveChartUrl(repo, 'index.yaml');
  const what = withoutQuery(url);
  const bytes = downloadUrl(url, { ...access, repository: repo });
  const index = collect(bytes, { limit: LIMITS.repositoryIndex, what }).then((text) =>
    parseRepositoryIndex(text, what),
  );
  cache.set(repo, index);
  return index;
}

function refuseLarge(size: number, what: string): void {
  if (size <= LIMITS.chartArchive) return;
  throw new SealiftError('CHART_ARCHIVE_BOMB', `${what}: more than ${LIMITS.chartArchive} bytes`);
}

/** Reads an archive once: its content, and digest and size of its bytes. */
async function measureArchive(
  bytes: AsyncIterable<Uint8Array>,
  what: string,
): Promise<{ readonly content: ChartContent; readonly digest: Digest; readonly size: number }> {
  const sha = createHash('sha256');
  let size = 0;
  const passing = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of bytes) {
      size += chunk.length;
      refuseLarge(size, what);
      sha.update(chunk);
      yield chunk;
    }
  };
  const content = await readChartArchive(passing(), { what });
  return { content, digest: `sha256:${sha.digest('hex')}`, size };
}

/** What the archive itself is called must be what was asked for. */
function checkNames(
  content: ChartContent,
  wanted: { readonly name: string; readonly version: string },
  what: string,
): void {
  const { name, version } = content.chart;
  if (name === wanted.name && version === wanted.version) return;
  throw new SealiftError(
    'CHART_INVALID',
    `${what}: expected ${wanted.name} ${wanted.version}, its Chart.yaml says ${name} ${version}`,
    { hint: 'the repository lists the archive wrongly; tell its owner' },
  );
}

function mismatch(url: string, index: Digest, found: Digest): SealiftError {
  return new SealiftError(
    'CHART_INDEX_MISMATCH',
    `${url}: the repository index says ${index}, the archive has ${found}`,
    {
      hint: 'ask the publisher which is right; to accept these bytes write allowIndexMismatch: "reason" in sealift.yaml',
      details: { index, found },
    },
  );
}

async function fetchProvenance(
  url: string,
  archive: { readonly fileName: string; readonly digest: Digest; readonly repository: string },
  access: ChartAccess,
): Promise<Pick<ChartIntegrity, 'provenance' | 'provenanceDigest' | 'provenanceSize'>> {
  const what = withoutQuery(url);
  const { repository } = archive;
  let bytes: Buffer;
  try {
    bytes = await collect(downloadUrl(url, { ...access, repository }), { limit: LIMITS.provenance, what });
  } catch (error) {
    // Object stores answer 403 for what is not there. Any other failure says nothing about whether it is.
    if (error instanceof SealiftError && (error.code === 'CONTENT_NOT_FOUND' || error.code === 'AUTH_DENIED'))
      return { provenance: 'absent' };
    throw error;
  }
  // Some servers answer every path with a page: only a clear-signed text is a provenance file.
  if (!bytes.includes('-----BEGIN PGP SIGNED MESSAGE-----')) return { provenance: 'absent' };
  const state = provenanceState(bytes.toString('utf8'), archive);
  if (state !== 'unverified') {
    throw new SealiftError(
      'CHART_INDEX_MISMATCH',
      `${what}: the provenance file does not speak of ${archive.fileName} with ${archive.digest}`,
      {
        hint: 'the archive was changed after it was signed; ask the publisher',
      },
    );
  }
  return { provenance: 'unverified', provenanceDigest: digestOf(bytes), provenanceSize: bytes.length };
}

/** The last part of an address, decoded; as it is where its % codes are not valid. */
function fileNameOf({ pathname }: URL): string {
  const name = pathname.slice(pathname.lastIndexOf('/') + 1);
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** An address with a login inside would end in the lock, which is committed. */
function refuseUserInfo(address: string): void {
  const { username, password } = new URL(address);
  if (username === '' && password === '') return;
  throw new SealiftError(
    'CHART_INDEX_INVALID',
    `${withoutQuery(address)}: the repository index has an address with a user name or a password inside`,
    {
      hint: 'tell the owner of the repository; give the login with `helm repo add NAME URL --username USER`',
    },
  );
}

async function resolveFromRepository(
  wanted: WantedChart & { readonly kind: 'repo' },
  access: ChartAccess,
  cache: IndexCache,
): Promise<ResolvedChart> {
  const entry = findChart(await readIndex(wanted.repo, access, cache), wanted);
  const url = resolveChartUrl(wanted.repo, entry.url);
  refuseUserInfo(url);
  const what = withoutQuery(url);
  const bytes = downloadUrl(url, { ...access, repository: wanted.repo });
  const { content, digest, size } = await measureArchive(bytes, what);
  checkNames(content, wanted, what);
  if (entry.digest !== undefined && entry.digest !== digest && wanted.allowIndexMismatch === undefined) {
    throw mismatch(what, entry.digest, digest);
  }
  const provUrl = new URL(url);
  const fileName = fileNameOf(provUrl);
  provUrl.pathname += '.prov';
  const provenance = await fetchProvenance(
    provUrl.href,
    { fileName, digest, repository: wanted.repo },
    access,
  );
  const { provenanceDigest, provenanceSize } = provenance;
  const artifact = chartArtifact(content.chart, {
    archive: { digest, size },
    ...(provenanceDigest === undefined || provenanceSize === undefined
      ? {}
      : { provenance: { digest: provenanceDigest, size: provenanceSize } }),
  });
  return {
    content,
    warnings: content.warnings,
    facts: {
      name: wanted.name,
      version: wanted.version,
      appVersion: content.chart.appVersion ?? null,
      source: { type: 'http', repo: wanted.repo, url },
      integrity: { archive: digest, upstream: entry.digest ?? null, tree: content.tree, ...provenance },
      ...(wanted.allowIndexMismatch === undefined ? {} : { allowIndexMismatch: wanted.allowIndexMismatch }),
      size,
      manifest: artifact.descriptor,
      config: artifact.configDescriptor,
    },
  };
}

async function resolveFromRegistry(
  wanted: WantedChart & { readonly kind: 'oci' },
  access: ChartAccess,
): Promise<ResolvedChart> {
  const ref = `${wanted.oci}:${wanted.version.replaceAll('+', '_')}`;
  const reference = ociReference(ref);
  const published = await access.registries.getManifest(reference, reference.tag ?? 'latest');
  const parsed = parseManifest(published.bytes, published.descriptor);
  const { config, archive, provenance } = selectChartLayers(parsed, ref);
  refuseLarge(archive.size, ref);
  const bytes = access.registries.read(reference, archive);
  const { content } = await measureArchive(bytes, ref);
  checkNames(content, wanted, ref);
  return {
    content,
    warnings: content.warnings,
    facts: {
      name: wanted.name,
      version: wanted.version,
      appVersion: content.chart.appVersion ?? null,
      source: { type: 'oci', ref },
      integrity: {
        archive: archive.digest,
        upstream: published.descriptor.digest,
        tree: content.tree,
        ...(provenance === undefined
          ? { provenance: 'absent' }
          : {
              provenance: 'unverified',
              provenanceDigest: provenance.digest,
              provenanceSize: provenance.size,
            }),
      },
      size: archive.size,
      manifest: published.descriptor,
      config: { mediaType: config.mediaType, digest: config.digest, size: config.size },
    },
  };
}

/** A folder: `upstream` is the hash of what is in it, `tree` and `archive` are of what is packed from it. */
async function resolveFromPath(path: string, access: ChartAccess): Promise<ResolvedChart> {
  const { packed } = await packFolder(join(access.root, path), []);
  return pathFacts(path, packed, packed.tree);
}

/** The facts of a packed folder; `sourceTree` is its hash before fetched dependencies were put into it. */
export function pathFacts(
  path: string,
  packed: ChartContent & { readonly digest: Digest; readonly size: number },
  sourceTree: Digest,
): ResolvedChart {
  const artifact = chartArtifact(packed.chart, { archive: { digest: packed.digest, size: packed.size } });
  return {
    content: packed,
    warnings: packed.warnings,
    facts: {
      name: packed.chart.name,
      version: packed.chart.version,
      appVersion: packed.chart.appVersion ?? null,
      source: { type: 'path', path },
      integrity: { archive: packed.digest, upstream: sourceTree, tree: packed.tree, provenance: 'absent' },
      size: packed.size,
      manifest: artifact.descriptor,
      config: artifact.configDescriptor,
    },
  };
}

/**
 * Resolves one chart: fetches its archive, reads it by Helm's rules, and states every hash.
 * @throws CHART_VERSION_NOT_FOUND, CHART_INDEX_MISMATCH, CHART_INVALID, CHART_ARCHIVE_…, CONTENT_NOT_FOUND …
 */
export function resolveChart(
  wanted: WantedChart,
  access: ChartAccess,
  cache: IndexCache,
): Promise<ResolvedChart> {
  if (wanted.kind === 'repo') return resolveFromRepository(wanted, access, cache);
  if (wanted.kind === 'oci') return resolveFromRegistry(wanted, access);
  return resolveFromPath(wanted.path, access);
}

/**
 * Whether a locked chart is still what its source publishes.
 * @returns a fault with both hashes when it was republished
 */
export async function checkPublished(
  chart: ChartLock,
  access: ChartAccess,
  cache: IndexCache,
): Promise<Fault | undefined> {
  const { source, integrity, name, version } = chart;
  if (source.type === 'path') return undefined;
  const allow = { allowIndexMismatch: 'only the bytes are compared here' };
  const wanted: WantedChart =
    source.type === 'http'
      ? { kind: 'repo', name, version, repo: source.repo, ...allow }
      : { kind: 'oci', name, version, oci: source.ref.slice(0, source.ref.lastIndexOf(':')) };
  const { facts } = await resolveChart(wanted, access, cache);
  const same = facts.integrity.archive === integrity.archive;
  if (same && (source.type === 'http' || facts.manifest.digest === chart.manifest.digest)) return undefined;
  const [locked, now] = same
    ? [chart.manifest.digest, facts.manifest.digest]
    : [integrity.archive, facts.integrity.archive];
  return fault(
    'CHART_REPUBLISHED',
    `${name} ${version} was republished upstream: locked ${locked}, now ${now}`,
    {
      hint: `look at what changed, then take it with \`sealift lock --update ${name}\``,
      details: { name, version, locked, now },
    },
  );
}
