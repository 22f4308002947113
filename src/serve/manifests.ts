import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { isForeignLayer, isIndexType, isManifestType, MEDIA } from '../core/media.ts';
import { isTag } from '../core/reference.ts';
import { collect, digestOf } from '../io/verify.ts';
import { manifestMediaType, type ParsedManifest, parseManifest } from '../oci/manifest.ts';
import {
  type Answer,
  bodyOf,
  contentAnswer,
  type Exchange,
  jsonAnswer,
  pageOf,
  refusal,
  streamOf,
} from './answer.ts';
import {
  isPopulated,
  linkedBlobSize,
  listReferrers,
  listTags,
  type ManifestRecord,
  putManifest,
  type Repository,
  readManifest,
  readRecord,
  readTag,
  removeManifest,
  removeTag,
  writeTag,
} from './repository.ts';

/** Manifest, tag and referrer endpoints of the distribution-spec. */

export interface ManifestOptions {
  /** A tag or a digest, as it stands in the path. */
  readonly reference: string;
  /** Whether an index may name manifests that the repository does not hold. */
  readonly acceptSparse: boolean;
  /** Whether the referrers API is there. */
  readonly referrers: boolean;
}

function unknown(reference: string): Answer {
  return refusal('MANIFEST_UNKNOWN', 'manifest unknown', {
    details: [{ reference: reference.slice(0, 140) }],
  });
}

/** The digest that a tag or a digest means here. */
async function resolve(repository: Repository, reference: string): Promise<Digest | undefined> {
  if (isDigest(reference)) return reference;
  return isTag(reference) ? await readTag(repository, reference) : undefined;
}

/** GET, HEAD, PUT and DELETE of one manifest or tag. */
export async function handleManifest(
  exchange: Exchange,
  repository: Repository,
  options: ManifestOptions,
): Promise<Answer> {
  const { reference } = options;
  if (reference.includes(':') && !isDigest(reference)) {
    return refusal('DIGEST_INVALID', `"${reference.slice(0, 90)}" is not a sha256 digest`);
  }
  if (exchange.method === 'PUT') return await put(exchange, repository, options);
  const digest = await resolve(repository, reference);
  const record = digest === undefined ? undefined : await readRecord(repository, digest);
  if (digest === undefined || record === undefined) return unknown(reference);
  if (exchange.method === 'DELETE') {
    if (isDigest(reference)) await removeManifest(repository, digest);
    else await removeTag(repository, reference);
    return { status: 202 };
  }
  return await contentAnswer(exchange, {
    size: record.size,
    etag: digest,
    headers: { 'content-type': record.mediaType, 'docker-content-digest': digest },
    open: async (span) => streamOf(await readManifest(repository, { digest, size: record.size }), span),
  });
}

interface Pushed {
  readonly bytes: Buffer;
  readonly record: ManifestRecord;
  readonly parsed: ParsedManifest;
}

function recordOf(parsed: ParsedManifest, size: number): ManifestRecord {
  // distribution-spec, "Listing Referrers": without an artifactType an image manifest is listed by its config's type.
  const configType = parsed.kind === 'manifest' ? parsed.config?.mediaType : undefined;
  const artifactType = parsed.artifactType ?? configType;
  return {
    mediaType: parsed.mediaType,
    size,
    ...(parsed.subject === undefined ? {} : { subject: parsed.subject.digest }),
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(Object.keys(parsed.annotations).length === 0 ? {} : { annotations: parsed.annotations }),
  };
}

/** Receives and reads a pushed manifest. The bytes are kept as they are. */
async function receive(exchange: Exchange, reference: string): Promise<Pushed | Answer> {
  const bytes = await collect(bodyOf(exchange), { limit: LIMITS.manifest, what: 'manifest' });
  const digest = digestOf(bytes);
  if (isDigest(reference) && digest !== reference) {
    return refusal('DIGEST_INVALID', `the body's digest is ${digest}, not ${reference}`, {
      details: [{ digest }],
    });
  }
  try {
    const mediaType = manifestMediaType(bytes, exchange.request.headers['content-type'], 'manifest');
    const parsed = parseManifest(bytes, { mediaType, digest });
    return { bytes, record: recordOf(parsed, bytes.length), parsed };
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    return refusal('MANIFEST_INVALID', error.message);
  }
}

/** What a manifest names and the repository does not have. */
async function missing(
  repository: Repository,
  parsed: ParsedManifest,
  options: { readonly acceptSparse: boolean },
): Promise<Descriptor[]> {
  const absent: Descriptor[] = [];
  if (parsed.kind === 'manifest') {
    const wanted = [...(parsed.config === undefined ? [] : [parsed.config]), ...parsed.layers];
    for (const blob of wanted) {
      if (isForeignLayer(blob.mediaType)) continue;
      if ((await linkedBlobSize(repository, blob.digest)) === undefined) absent.push(blob);
    }
    return absent;
  }
  if (options.acceptSparse) return absent;
  for (const child of parsed.manifests) {
    const isManifest = isIndexType(child.mediaType) || isManifestType(child.mediaType);
    const found = isManifest
      ? await readRecord(repository, child.digest)
      : await linkedBlobSize(repository, child.digest);
    if (found === undefined) absent.push(child);
  }
  return absent;
}

async function put(exchange: Exchange, repository: Repository, options: ManifestOptions): Promise<Answer> {
  const { reference } = options;
  if (!isDigest(reference) && !isTag(reference)) {
    return refusal('MANIFEST_INVALID', `"${reference.slice(0, 140)}" is neither a tag nor a digest`);
  }
  const pushed = await receive(exchange, reference);
  if ('status' in pushed) return pushed;
  const absent = await missing(repository, pushed.parsed, options);
  if (absent.length > 0) {
    const details = absent.map(({ digest, mediaType, size }) => ({ digest, mediaType, size }));
    return refusal('MANIFEST_BLOB_UNKNOWN', 'blob or manifest unknown to this repository', { details });
  }
  const digest = digestOf(pushed.bytes);
  await putManifest(repository, digest, pushed);
  if (!isDigest(reference)) await writeTag(repository, reference, { digest });
  const { subject } = pushed.record;
  return {
    status: 201,
    headers: {
      location: `/v2/${repository.name}/manifests/${digest}`,
      'docker-content-digest': digest,
      ...(subject === undefined || !options.referrers ? {} : { 'oci-subject': subject }),
    },
  };
}

/** `GET /v2/<name>/tags/list`, with `n` and `last`. */
export async function handleTags(exchange: Exchange, repository: Repository): Promise<Answer> {
  if (!(await isPopulated(repository))) {
    return refusal('NAME_UNKNOWN', 'repository name not known to this registry', {
      details: [{ name: repository.name }],
    });
  }
  const page = pageOf(exchange, await listTags(repository));
  if ('refused' in page) return page.refused;
  return jsonAnswer({ name: repository.name, tags: page.names }, { headers: page.headers });
}

/** `GET /v2/<name>/referrers/<digest>`, with `artifactType`. An unknown digest has an empty list, never a 404. */
export async function handleReferrers(
  exchange: Exchange,
  repository: Repository,
  options: { readonly digest: string },
): Promise<Answer> {
  if (!isDigest(options.digest)) {
    return refusal('DIGEST_INVALID', `"${options.digest.slice(0, 90)}" is not a sha256 digest`);
  }
  const wanted = exchange.query.get('artifactType');
  const all = await listReferrers(repository, options.digest);
  const manifests = all
    .filter((referrer) => wanted === null || referrer.artifactType === wanted)
    .map(({ mediaType, digest, size, artifactType, annotations }) => ({
      mediaType,
      digest,
      size,
      ...(artifactType === undefined ? {} : { artifactType }),
      ...(annotations === undefined ? {} : { annotations }),
    }));
  return jsonAnswer(
    { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests },
    { type: MEDIA.ociIndex, headers: wanted === null ? {} : { 'oci-filters-applied': 'artifactType' } },
  );
}
