import { type Digest, isDigest } from '../core/digest.ts';
import { MEDIA } from '../core/media.ts';
import { isTag } from '../core/reference.ts';
import { type Answer, type Exchange, jsonAnswer, pageOf, refusal } from './answer.ts';
import { contentAnswer } from './content.ts';
import type { ShownRepository } from './shown.ts';

/** What a client may read of a repository: the endpoints of the distribution-spec for pulling and discovery. */

/** For a digest that is none. */
export function badDigest(text: string | null): Answer {
  const why =
    text === null ? 'the digest is missing' : `"${text.slice(0, 90)}" is not a digest that is known here`;
  return refusal('DIGEST_INVALID', `${why}; write sha256:<64 lower-case hex digits>`);
}

export function unknownBlob(digest: Digest, why?: string): Answer {
  return refusal('BLOB_UNKNOWN', why ?? 'blob unknown to this repository', { details: [{ digest }] });
}

export function unknownManifest(reference: string, why?: string): Answer {
  return refusal('MANIFEST_UNKNOWN', why ?? 'manifest unknown', {
    details: [{ reference: reference.slice(0, 140) }],
  });
}

/** The refusal for what has the shape of another digest; undefined for a tag or a digest. */
export function refusedReference(reference: string): Answer | undefined {
  if (!reference.includes(':') || isDigest(reference)) return undefined;
  return refusal('DIGEST_INVALID', `"${reference.slice(0, 90)}" is not a sha256 digest`);
}

/** The digest that a tag or a digest means here. */
export async function resolveReference(
  repository: ShownRepository,
  reference: string,
): Promise<Digest | undefined> {
  if (isDigest(reference)) return reference;
  return isTag(reference) ? await repository.tag(reference) : undefined;
}

/** GET and HEAD of one blob. */
export async function answerBlob(
  exchange: Exchange,
  repository: ShownRepository,
  options: { readonly digest: string },
): Promise<Answer> {
  const { digest } = options;
  if (!isDigest(digest)) return badDigest(digest);
  const blob = await repository.blob(digest);
  if (blob === undefined) return unknownBlob(digest, repository.whyAbsent?.(digest));
  return await contentAnswer(exchange, {
    size: blob.size,
    etag: digest,
    headers: { 'content-type': 'application/octet-stream', 'docker-content-digest': digest },
    open: (span) => blob.open(span),
  });
}

/** GET and HEAD of one manifest, by tag or digest. */
export async function answerManifest(
  exchange: Exchange,
  repository: ShownRepository,
  options: { readonly reference: string },
): Promise<Answer> {
  const { reference } = options;
  const refused = refusedReference(reference);
  if (refused !== undefined) return refused;
  const digest = await resolveReference(repository, reference);
  const manifest = digest === undefined ? undefined : await repository.manifest(digest);
  if (digest === undefined || manifest === undefined) {
    return unknownManifest(reference, digest === undefined ? undefined : repository.whyAbsent?.(digest));
  }
  return await contentAnswer(exchange, {
    size: manifest.size,
    etag: digest,
    headers: { 'content-type': manifest.mediaType, 'docker-content-digest': digest },
    open: (span) => manifest.open(span),
  });
}

/** `GET /v2/<name>/tags/list`, with `n` and `last`. */
export async function answerTags(exchange: Exchange, repository: ShownRepository): Promise<Answer> {
  const tags = await repository.tags();
  if (tags === undefined) {
    return refusal('NAME_UNKNOWN', 'repository name not known to this registry', {
      details: [{ name: repository.name }],
    });
  }
  const page = pageOf(exchange, tags);
  if ('refused' in page) return page.refused;
  return jsonAnswer({ name: repository.name, tags: page.names }, { headers: page.headers });
}

/** `GET /v2/<name>/referrers/<digest>`, with `artifactType`. An unknown digest has an empty list, never a 404. */
export async function answerReferrers(
  exchange: Exchange,
  repository: ShownRepository,
  options: { readonly digest: string },
): Promise<Answer> {
  if (!isDigest(options.digest)) {
    return refusal('DIGEST_INVALID', `"${options.digest.slice(0, 90)}" is not a sha256 digest`);
  }
  const wanted = exchange.query.get('artifactType');
  const all = await repository.referrers(options.digest);
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
