import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { isIndexType, isManifestType, isSchema1Type, MEDIA } from '../core/media.ts';
import type { Platform } from '../core/platform.ts';
import { digestOf } from '../io/verify.ts';

/** What a manifest or an index says, checked. The bytes themselves are what is stored and sent. */
export type ParsedManifest = Said &
  (
    | {
        readonly kind: 'manifest';
        /** undefined in the withdrawn artifact manifest alone. */
        readonly config: Descriptor | undefined;
        readonly layers: readonly Descriptor[];
      }
    | { readonly kind: 'index'; readonly manifests: readonly Descriptor[] }
  );

/** What both kinds say. */
interface Said {
  readonly mediaType: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly artifactType: string | undefined;
  /** What this is about: a signature's image (image-spec manifest.md, "subject"). */
  readonly subject: Descriptor | undefined;
}

type Json = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function stringMap(value: unknown): Readonly<Record<string, string>> {
  if (!isObject(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter((e): e is [string, string] => typeof e[1] === 'string'),
  );
}

function parsePlatformOf(value: unknown): Platform | undefined {
  if (!isObject(value)) return undefined;
  const { os, architecture, variant, 'os.version': osVersion } = value;
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined;
  return {
    os,
    architecture,
    ...(typeof variant === 'string' && variant !== '' ? { variant } : {}),
    ...(typeof osVersion === 'string' && osVersion !== '' ? { osVersion } : {}),
  };
}

/** A value for a message. Lists and objects only by their kind: to print them may take any depth, or call what they hold. */
function shown(value: unknown, length: number): string {
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? '[…]' : '{…}';
  return String(value).slice(0, length);
}

const OTHER_DIGEST = /^([a-z0-9]+(?:[+._-][a-z0-9]+)*):[a-zA-Z0-9=_-]+$/;

/** Names an algorithm that is not ours, rather than calling the digest malformed (image-spec descriptor.md, "Digests"). */
function parseDigestOf(value: unknown, where: string): Digest {
  if (typeof value === 'string' && isDigest(value)) return value;
  const text = shown(value, 90);
  const algorithm = OTHER_DIGEST.exec(text)?.[1];
  if (algorithm === undefined || algorithm === 'sha256') {
    throw new SealiftError('OCI_MANIFEST_INVALID', `${where}: "${text}" is not a sha256 digest`);
  }
  throw new SealiftError(
    'CONTENT_UNSUPPORTED',
    `${where}: the digest algorithm ${algorithm} is not supported`,
    {
      hint: 'Sealift carries content by its sha256, as registries keep it: push the image again with sha256 digests',
    },
  );
}

/** The content that a descriptor embeds, decoded (image-spec descriptor.md, "data"); undefined when it embeds none. */
export function embeddedBytes(descriptor: Descriptor): Buffer | undefined {
  return descriptor.data === undefined ? undefined : Buffer.from(descriptor.data, 'base64');
}

/** Embedded content that is not what digest and size say would let two readers see two things. */
function checkData(descriptor: Descriptor, where: string): void {
  const bytes = embeddedBytes(descriptor);
  if (bytes === undefined) return;
  if (bytes.length === descriptor.size && digestOf(bytes) === descriptor.digest) return;
  throw new SealiftError(
    'OCI_MANIFEST_INVALID',
    `${where}: its data is not the content of ${descriptor.digest}`,
  );
}

function parseUrls(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.filter((u): u is string => typeof u === 'string').slice(0, LIMITS.foreignUrls);
}

function parseDescriptor(value: unknown, where: string): Descriptor {
  const bad = (why: string): SealiftError => new SealiftError('OCI_MANIFEST_INVALID', `${where}: ${why}`);
  if (!isObject(value)) throw bad('not a descriptor');
  const { mediaType, size } = value;
  if (typeof mediaType !== 'string' || mediaType === '') throw bad('descriptor without mediaType');
  const digest = parseDigestOf(value.digest, where);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw bad(`"${shown(size, 40)}" is not a size in bytes`);
  }
  const platform = parsePlatformOf(value.platform);
  const annotations = stringMap(value.annotations);
  const urls = parseUrls(value.urls);
  const descriptor: Descriptor = {
    mediaType,
    digest,
    size,
    ...(platform === undefined ? {} : { platform }),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    ...(typeof value.artifactType === 'string' ? { artifactType: value.artifactType } : {}),
    ...(urls.length === 0 ? {} : { urls }),
    ...(typeof value.data === 'string' && value.data !== '' ? { data: value.data } : {}),
  };
  checkData(descriptor, where);
  return descriptor;
}

function parseList(value: unknown, where: string, limit: number): Descriptor[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new SealiftError('OCI_MANIFEST_INVALID', `${where}: not a list`);
  if (value.length > limit) {
    throw new SealiftError(
      'OCI_MANIFEST_INVALID',
      `${where}: ${value.length} entries, the limit is ${limit}`,
    );
  }
  return value.map((v, i) => parseDescriptor(v, `${where}[${i}]`));
}

/** The media type of a body whose Content-Type did not say: from its `mediaType`, else from its shape. */
export function sniffMediaType(body: Json): string | undefined {
  if (typeof body.mediaType === 'string') return body.mediaType;
  if (body.schemaVersion === 1) return MEDIA.dockerSchema1;
  if (Array.isArray(body.manifests)) return MEDIA.ociIndex;
  if (isObject(body.config) && Array.isArray(body.layers)) return MEDIA.ociManifest;
  if (Array.isArray(body.blobs)) return MEDIA.ociArtifact;
  return undefined;
}

function parseJson(bytes: Uint8Array, where: string): Json {
  let body: unknown;
  try {
    body = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new SealiftError('OCI_MANIFEST_INVALID', `${where}: not JSON`, { cause });
  }
  if (!isObject(body)) throw new SealiftError('OCI_MANIFEST_INVALID', `${where}: not a JSON object`);
  return body;
}

/** Refuses a body that is of another kind than `mediaType` says, or of two kinds. */
function checkKind(body: Json, mediaType: string, where: string): void {
  if (isSchema1Type(mediaType) || body.schemaVersion === 1) {
    throw new SealiftError('CONTENT_UNSUPPORTED', `${where}: Docker image manifest schema 1`, {
      hint: 'schema 1 was retired in 2017: push the image again with a current tool, or use a newer tag',
    });
  }
  const isManifest = ['layers', 'config', 'blobs'].some((key) => body[key] !== undefined);
  if (body.manifests !== undefined && isManifest) {
    throw new SealiftError('OCI_MANIFEST_INVALID', `${where}: both an index and a manifest`);
  }
  if (typeof body.mediaType === 'string' && body.mediaType !== mediaType) {
    throw new SealiftError(
      'OCI_MANIFEST_INVALID',
      `${where}: announced as ${mediaType.slice(0, 100)}, the body says ${body.mediaType.slice(0, 100)}`,
    );
  }
  if (!isIndexType(mediaType) && !isManifestType(mediaType)) {
    throw new SealiftError('CONTENT_UNSUPPORTED', `${where}: media type ${mediaType.slice(0, 100)}`, {
      hint: 'Sealift carries OCI and Docker schema 2 images, indexes and artifacts',
    });
  }
}

/**
 * Reads a manifest or index whose bytes were already verified against `descriptor.digest`.
 * Rules: registry.md 1.3 "Media type" (a body that is both index and manifest is refused, CVE-2021-41190; schema 1 is
 * refused by name; `mediaType` in the body must agree). The withdrawn artifact manifest (image-spec 1.1.0-rc2) is read as a
 * manifest without config whose layers are its blobs.
 * @throws OCI_MANIFEST_INVALID, CONTENT_UNSUPPORTED
 */
export function parseManifest(
  bytes: Uint8Array,
  descriptor: { readonly mediaType: string; readonly digest: string },
): ParsedManifest {
  const where = `manifest ${descriptor.digest}`;
  const { mediaType } = descriptor;
  const body = parseJson(bytes, where);
  checkKind(body, mediaType, where);
  const { artifactType, subject } = body;
  const said: Said = {
    mediaType,
    annotations: stringMap(body.annotations),
    artifactType: typeof artifactType === 'string' && artifactType !== '' ? artifactType : undefined,
    subject:
      subject === undefined || subject === null ? undefined : parseDescriptor(subject, `${where} subject`),
  };
  if (isIndexType(mediaType)) {
    if (!Array.isArray(body.manifests)) {
      throw new SealiftError('OCI_MANIFEST_INVALID', `${where}: an index without manifests`);
    }
    const manifests = parseList(body.manifests, `${where} manifests`, LIMITS.indexChildren);
    return { kind: 'index', ...said, manifests };
  }
  if (mediaType === MEDIA.ociArtifact) {
    const layers = parseList(body.blobs, `${where} blobs`, LIMITS.layersPerManifest);
    return { kind: 'manifest', ...said, config: undefined, layers };
  }
  if (body.config === undefined || body.layers === undefined) {
    throw new SealiftError('OCI_MANIFEST_INVALID', `${where}: a manifest without config or layers`);
  }
  return {
    kind: 'manifest',
    ...said,
    config: parseDescriptor(body.config, `${where} config`),
    layers: parseList(body.layers, `${where} layers`, LIMITS.layersPerManifest),
  };
}

/** The platform that an image config states (OCI image-spec config.md). */
export function platformOfConfig(bytes: Uint8Array, digest: string): Platform | undefined {
  return parsePlatformOf(parseJson(bytes, `config ${digest}`));
}

/** The media type of manifest bytes, from the Content-Type where it is one of ours and from the body otherwise. */
export function manifestMediaType(bytes: Uint8Array, contentType: string | undefined, where: string): string {
  const announced = contentType?.split(';')[0]?.trim().toLowerCase();
  if (
    announced !== undefined &&
    (isIndexType(announced) || isManifestType(announced) || isSchema1Type(announced))
  ) {
    return announced;
  }
  return sniffMediaType(parseJson(bytes, where)) ?? announced ?? 'application/octet-stream';
}
