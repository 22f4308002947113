import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { MEDIA } from '../core/media.ts';
import { digestOf } from '../io/verify.ts';
import { nextQuery } from './answers.ts';
import { type ParsedManifest, parseManifest } from './manifest.ts';
import type { RegistryWire } from './wire.ts';

/** A manifest that is about another one. */
export interface Referrer {
  readonly subject: Digest;
  /** As a list of referrers names it: with `artifactType` and annotations, without platform. */
  readonly descriptor: Descriptor;
}

/**
 * A manifest as the referrers of its subject name it (distribution-spec, "Listing Referrers"): without an artifactType an
 * image manifest is listed by its config's type. undefined when it has no subject.
 */
export function referrerOf(parsed: ParsedManifest, own: Descriptor): Referrer | undefined {
  if (parsed.subject === undefined) return undefined;
  const artifactType = artifactTypeOf(parsed);
  const { mediaType, digest, size } = own;
  return {
    subject: parsed.subject.digest,
    descriptor: {
      mediaType,
      digest,
      size,
      ...(artifactType === undefined ? {} : { artifactType }),
      ...(Object.keys(parsed.annotations).length === 0 ? {} : { annotations: parsed.annotations }),
    },
  };
}

/** What kind of artifact a manifest is: its own word, else its config's type. */
export function artifactTypeOf(parsed: ParsedManifest): string | undefined {
  const config = parsed.kind === 'manifest' ? parsed.config?.mediaType : undefined;
  return parsed.artifactType ?? config;
}

/** Answers that say that a registry has no referrers API (ggcr takes 400 as 404; 405 and 501 say it by name). */
const UNSUPPORTED = new Set([400, 404, 405, 501]);

/** True for the media type that every list of referrers has; a proxy's web page or a bare JSON is none. */
function isReferrersType(contentType: string | undefined): boolean {
  return contentType?.split(';')[0]?.trim().toLowerCase() === MEDIA.ociIndex;
}

/**
 * Asks the referrers API, page by page (registry.md 1.5).
 * @returns undefined when the registry has no such API
 * @throws AUTH_DENIED, REGISTRY_FAILED, OCI_MANIFEST_INVALID, CONTENT_TOO_LARGE for a list of more than LIMITS.referrers
 */
export async function askReferrers(
  wire: RegistryWire,
  about: { readonly repository: string; readonly subject: Digest },
): Promise<Descriptor[] | undefined> {
  const { repository, subject } = about;
  const what = `${wire.host}/${repository} referrers of ${subject}`;
  const found = new Map<Digest, Descriptor>();
  let search: string | undefined = '';
  for (let page = 0; search !== undefined; page++) {
    const url = wire.url(`/v2/${repository}/referrers/${subject}`);
    url.search = search;
    const { response, bytes } = await wire.read(
      { url, headers: { accept: MEDIA.ociIndex } },
      { repository, access: 'pull', limit: LIMITS.manifest, what },
    );
    if (bytes === undefined) {
      if (page > 0 || !UNSUPPORTED.has(response.status)) throw await wire.fail(response, what, 'source');
      await response.body.dump();
      return undefined;
    }
    if (!isReferrersType(response.headers['content-type'])) return undefined;
    const before = found.size;
    for (const descriptor of indexEntries(bytes)) found.set(descriptor.digest, descriptor);
    if (found.size > LIMITS.referrers || page >= LIMITS.referrerPages) throw tooMany(what);
    search = found.size === before ? undefined : nextQuery(response.headers.link, url);
  }
  return [...found.values()];
}

/**
 * What the index of a fallback tag lists.
 * @throws OCI_MANIFEST_INVALID, CONTENT_TOO_LARGE
 */
export function listedReferrers(bytes: Uint8Array, what: string): readonly Descriptor[] {
  const list = indexEntries(bytes);
  if (list.length > LIMITS.referrers) throw tooMany(what);
  return list;
}

function tooMany(what: string): SealiftError {
  return new SealiftError('CONTENT_TOO_LARGE', `${what}: more than ${LIMITS.referrers}`, {
    hint: 'leave them out for this image with {ref: …, include: [signatures]}',
  });
}

/** Whether a list says null for none, as servers in Go do by mistake. */
function saysNone(bytes: Uint8Array): boolean {
  try {
    const body: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    return typeof body === 'object' && body !== null && 'manifests' in body && body.manifests === null;
  } catch {
    return false;
  }
}

/** @throws OCI_MANIFEST_INVALID, CONTENT_UNSUPPORTED */
function indexEntries(bytes: Uint8Array): readonly Descriptor[] {
  if (saysNone(bytes)) return [];
  const parsed = parseManifest(bytes, { mediaType: MEDIA.ociIndex, digest: digestOf(bytes) });
  return parsed.kind === 'index' ? parsed.manifests : [];
}

/**
 * The index for the fallback tag with some referrers added: what is there stays as it is, in its order, and what lacks
 * comes behind it by digest, so that the same input gives the same bytes (distribution-spec, "Referrers Tag Schema").
 * @returns undefined when nothing lacks
 * @throws OCI_MANIFEST_INVALID when what is there is no index
 */
export function addReferrers(
  existing: Uint8Array | undefined,
  referrers: readonly Descriptor[],
): { readonly descriptor: Descriptor; readonly bytes: Buffer } | undefined {
  const known = new Set((existing === undefined ? [] : indexEntries(existing)).map((d) => d.digest));
  const lacking = [...new Map(referrers.map((d) => [d.digest, d])).values()]
    .filter((d) => !known.has(d.digest))
    .sort((a, b) => (a.digest < b.digest ? -1 : 1));
  if (lacking.length === 0) return undefined;
  const empty = { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: [] };
  const body: { manifests: unknown[] | null } =
    existing === undefined ? empty : JSON.parse(Buffer.from(existing).toString('utf8'));
  const manifests = [...(body.manifests ?? []), ...lacking];
  const bytes = Buffer.from(JSON.stringify({ ...body, manifests }));
  return { bytes, descriptor: { mediaType: MEDIA.ociIndex, digest: digestOf(bytes), size: bytes.length } };
}
