import { ANNOTATION, type Descriptor } from '../core/descriptor.ts';
import { EMPTY_JSON_DIGEST } from '../core/digest.ts';
import { MEDIA } from '../core/media.ts';
import { digestOf } from '../io/verify.ts';

/** The config of artifacts that have none: `{}` (OCI image-spec manifest.md, "Guidance for an Empty Descriptor"). */
export const EMPTY_CONFIG: Descriptor = { mediaType: MEDIA.ociEmpty, digest: EMPTY_JSON_DIGEST, size: 2 };
export const EMPTY_CONFIG_BYTES: Buffer = Buffer.from('{}');

/**
 * The manifest of a single file as `oras push` makes it, without `created`, so that the same file has the same manifest
 * everywhere: one layer titled with the file's base name, an empty config, keys in the order of oras.
 */
export function fileArtifact(file: {
  readonly title: string;
  readonly content: { readonly digest: Descriptor['digest']; readonly size: number };
}): { readonly descriptor: Descriptor; readonly bytes: Buffer; readonly layer: Descriptor } {
  const layer: Descriptor = {
    mediaType: MEDIA.ociLayer,
    digest: file.content.digest,
    size: file.content.size,
    annotations: { [ANNOTATION.title]: file.title },
  };
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      artifactType: MEDIA.unknownArtifact,
      config: EMPTY_CONFIG,
      layers: [layer],
    }),
  );
  return {
    bytes,
    layer,
    descriptor: { mediaType: MEDIA.ociManifest, digest: digestOf(bytes), size: bytes.length },
  };
}
