import type { Digest } from './digest.ts';
import type { Platform } from './platform.ts';

/** A pointer to content: type, digest and size in bytes (OCI image-spec descriptor.md). */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly platform?: Platform;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly artifactType?: string;
  /** Where else the content is (image-spec descriptor.md); of layers that registries need not hold. */
  readonly urls?: readonly string[];
  /** The content itself, base64, when the descriptor embeds it; checked against digest and size. */
  readonly data?: string;
}

/** Annotation keys that Sealift reads or writes. */
export const ANNOTATION = {
  refName: 'org.opencontainers.image.ref.name',
  title: 'org.opencontainers.image.title',
  containerdName: 'io.containerd.image.name',
  sealiftName: 'dev.sealift.name',
  sealiftVersion: 'dev.sealift.version',
  sealiftLock: 'dev.sealift.lock',
} as const;
