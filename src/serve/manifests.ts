import type { Descriptor } from '../core/descriptor.ts';
import { isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { isForeignLayer, isIndexType, isManifestType } from '../core/media.ts';
import { isTag } from '../core/reference.ts';
import { collect, digestOf } from '../io/verify.ts';
import { manifestMediaType, type ParsedManifest, parseManifest } from '../oci/manifest.ts';
import { type Answer, bodyOf, type Exchange, refusal } from './answer.ts';
import { refusedReference, resolveReference, unknownManifest } from './reading.ts';
import {
  linkedBlobSize,
  type ManifestRecord,
  putManifest,
  type Repository,
  readRecord,
  removeManifest,
  removeTag,
  shownRepository,
  writeTag,
} from './repository.ts';

/** Manifest endpoints of the distribution-spec that write. */

export interface ManifestOptions {
  /** A tag or a digest, as it stands in the path. */
  readonly reference: string;
  /** Whether an index may name manifests that the repository does not hold. */
  readonly acceptSparse: boolean;
  /** Whether the referrers API is there. */
  readonly referrers: boolean;
}

/** PUT and DELETE of one manifest or tag. */
export async function changeManifest(
  exchange: Exchange,
  repository: Repository,
  options: ManifestOptions,
): Promise<Answer> {
  const { reference } = options;
  const refused = refusedReference(reference);
  if (refused !== undefined) return refused;
  if (exchange.method === 'PUT') return await put(exchange, repository, options);
  const digest = await resolveReference(shownRepository(repository), reference);
  if (digest === undefined || (await readRecord(repository, digest)) === undefined) {
    return unknownManifest(reference);
  }
  if (isDigest(reference)) await removeManifest(repository, digest);
  else await removeTag(repository, reference);
  return { status: 202 };
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
