import { ANNOTATION, type Descriptor } from '../core/descriptor.ts';
import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { MEDIA } from '../core/media.ts';
import { digestOf } from '../io/verify.ts';
import { EMPTY_CONFIG } from '../oci/artifact.ts';
import { parseManifest } from '../oci/manifest.ts';

/** A bundle as an OCI artifact (docs/decisions/018): equal byte splits of its tar, one a layer. */
export const BUNDLE_ARTIFACT = 'application/vnd.dev.sealift.bundle.v1';
export const BUNDLE_CHUNK = 'application/vnd.dev.sealift.bundle.chunk.v1';

/** What a bundle in a registry says of itself. */
export interface BundleLabel {
  readonly name: string;
  readonly version: string;
  /** SHA-256 of its versions.lock. */
  readonly lock: Digest;
}

/** Some bytes of a bundle: from `offset` on, in bytes. */
export interface Span {
  readonly offset: number;
  readonly size: number;
}

/** One layer: where its bytes lie in the bundle, and the name of the file that an ORAS client makes of it. */
export interface Chunk extends Span {
  readonly digest: Digest;
  readonly title: string;
}

/**
 * Splits a bundle of `size` bytes.
 * @throws USAGE where that makes more layers than a manifest may have
 */
export function splitBytes(size: number, chunkSize: number): Span[] {
  const count = Math.ceil(size / chunkSize);
  if (count > LIMITS.layersPerManifest) {
    const least = Math.ceil(size / LIMITS.layersPerManifest);
    throw new SealiftError(
      'USAGE',
      `${size} bytes in chunks of ${chunkSize} are ${count} layers, the limit is ${LIMITS.layersPerManifest}`,
      { hint: `use chunks of ${least} bytes or more: --chunk-size` },
    );
  }
  return Array.from({ length: count }, (_, i) => ({
    offset: i * chunkSize,
    size: Math.min(chunkSize, size - i * chunkSize),
  }));
}

/** File names end at 255 bytes; a name and a version have up to 128 each. */
const LONGEST_STEM = 230;

/**
 * The name of each chunk, by what the bundle says of itself and not by the name of a file: the same bundle has the same
 * artifact everywhere. One chunk is `NAME-VERSION.tar`; of several each is a volume, `NAME-VERSION.tar.001`.
 */
export function chunkTitles({ name, version }: BundleLabel, count: number): string[] {
  const stem = `${`${name}-${version}`.slice(0, LONGEST_STEM)}.tar`;
  if (count === 1) return [stem];
  const width = Math.max(3, String(count).length);
  return Array.from({ length: count }, (_, i) => `${stem}.${String(i + 1).padStart(width, '0')}`);
}

/** The manifest of a bundle in a registry. Its bytes depend on the bundle and the size of the chunks alone. */
export function bundleManifest(
  label: BundleLabel,
  chunks: readonly Chunk[],
): { readonly descriptor: Descriptor; readonly bytes: Buffer } {
  const layers = chunks.map(({ digest, size, title }) => ({
    mediaType: BUNDLE_CHUNK,
    digest,
    size,
    annotations: { [ANNOTATION.title]: title },
  }));
  const annotations = {
    [ANNOTATION.sealiftLock]: label.lock,
    [ANNOTATION.sealiftName]: label.name,
    [ANNOTATION.sealiftVersion]: label.version,
  };
  const mediaType = MEDIA.ociManifest;
  const body = {
    schemaVersion: 2,
    mediaType,
    artifactType: BUNDLE_ARTIFACT,
    config: EMPTY_CONFIG,
    layers,
    annotations,
  };
  const bytes = Buffer.from(JSON.stringify(body));
  return { bytes, descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length } };
}

/** A bundle as its manifest in a registry describes it. Nothing of its bytes is known yet. */
export interface BundleArtifact {
  /** What it says of itself; `verify` says whether the bundle agrees. */
  readonly label: BundleLabel;
  readonly chunks: readonly Chunk[];
  /** Bytes of the bundle. */
  readonly size: number;
}

const LABEL = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/;
const TITLE = /^[A-Za-z0-9][A-Za-z0-9._+-]*\.tar(?:\.\d{3,6})?$/;

/**
 * Reads the manifest of a bundle; its bytes were verified. Everything in it comes from outside: titles become names of
 * files, and sizes places in them.
 * @param where for messages: the reference
 * @throws CONTENT_UNSUPPORTED for something else than a bundle; OCI_MANIFEST_INVALID
 */
export function parseBundleManifest(
  content: { readonly bytes: Uint8Array; readonly descriptor: Descriptor },
  where: string,
): BundleArtifact {
  const parsed = parseManifest(content.bytes, content.descriptor);
  const kind = parsed.kind === 'index' ? 'an index' : (parsed.artifactType ?? parsed.config?.mediaType);
  if (parsed.kind === 'index' || parsed.artifactType !== BUNDLE_ARTIFACT) {
    throw new SealiftError('CONTENT_UNSUPPORTED', `${where} is no bundle: ${String(kind).slice(0, 100)}`, {
      hint: '`sealift push BUNDLE oci://…` puts bundles there; images are for `sealift lock` and `pack`',
    });
  }
  const label = readLabel(parsed.annotations, where);
  const chunks = readChunks(parsed.layers, where);
  const last = chunks.at(-1);
  const size = last === undefined ? 0 : last.offset + last.size;
  if (size === 0 || !Number.isSafeInteger(size)) throw invalid(where, `${size} is no size of a bundle`);
  const titles = chunkTitles(label, chunks.length);
  const wrong = chunks.findIndex((chunk, i) => chunk.title !== titles[i]);
  if (wrong < 0) return { label, chunks, size };
  const found = JSON.stringify(chunks[wrong]?.title);
  throw invalid(where, `chunk ${wrong + 1} is called ${found}, expected ${titles[wrong]}`);
}

function invalid(where: string, why: string): SealiftError {
  return new SealiftError('OCI_MANIFEST_INVALID', `${where}: ${why}`, {
    hint: 'it was not pushed by `sealift push`, or was changed since: push the bundle again',
  });
}

function readLabel(annotations: Readonly<Record<string, string>>, where: string): BundleLabel {
  const name = annotations[ANNOTATION.sealiftName] ?? '';
  const version = annotations[ANNOTATION.sealiftVersion] ?? '';
  const lock = annotations[ANNOTATION.sealiftLock] ?? '';
  for (const text of [name, version]) {
    if (!LABEL.test(text))
      throw invalid(where, `${JSON.stringify(text.slice(0, 200))} is no name or version`);
  }
  if (!isDigest(lock)) throw invalid(where, 'it does not say which lock it was packed from');
  return { name, version, lock };
}

/** All chunks but the last have one size: so the files of an ORAS client are volumes of a bundle. */
function readChunks(layers: readonly Descriptor[], where: string): Chunk[] {
  const chunks: Chunk[] = [];
  const usual = layers[0]?.size ?? 0;
  let offset = 0;
  for (const [i, { mediaType, digest, size, annotations }] of layers.entries()) {
    const title = (annotations?.[ANNOTATION.title] ?? '').slice(0, 300);
    if (mediaType !== BUNDLE_CHUNK) {
      throw invalid(where, `chunk ${i + 1} is of type ${mediaType.slice(0, 100)}`);
    }
    if (!TITLE.test(title)) {
      throw invalid(where, `chunk ${i + 1} is called ${JSON.stringify(title)}, which is no name of a volume`);
    }
    const isLast = i === layers.length - 1;
    if (size === 0 || size > usual || (!isLast && size !== usual)) {
      throw invalid(where, `chunk ${i + 1} has ${size} bytes, expected ${isLast ? '1 to ' : ''}${usual}`);
    }
    chunks.push({ digest, title, offset, size });
    offset += size;
  }
  return chunks;
}
