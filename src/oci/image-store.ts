import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { imageName, parseReference } from '../core/reference.ts';
import type { Archive } from '../io/archive.ts';
import { throwIfAborted } from '../io/pool.ts';
import { verified } from '../io/verify.ts';
import type { ContentReader } from './content.ts';

/** An image of an archive: what it is called there, and its root. */
export interface StoredImage {
  /** Full names as `imageName()` gives them. Empty when nothing there is one. */
  readonly names: readonly string[];
  /** Names exactly as they stand there, for messages; untrusted text. */
  readonly said: readonly string[];
  readonly root: Descriptor;
  /** That its manifest was made here because `docker save` keeps none, and what stands there instead; for messages. */
  readonly made?: string;
}

/** Images with their content in a place that is not a registry. */
export interface ImagePlace extends ContentReader {
  /** For people: a path. */
  readonly name: string;
  readonly images: readonly StoredImage[];
  /** What to do where content lacks. */
  readonly lacksHint?: string;
  /**
   * Makes the image anew with compressed layers, which then are there by their digests, and gives its new root; always
   * the same of the same image. Absent where that is not done.
   */
  readonly recompress?: (image: StoredImage) => Promise<Descriptor>;
  /** Bytes of content by digest, as the place says; undefined when it is not there. */
  sizeOf(digest: Digest): Promise<number | undefined>;
  close(): Promise<void>;
}

/** An OCI layout or a `docker save` archive. */
export interface ImageStore extends ImagePlace {
  readonly kind: 'oci-layout' | 'docker-archive';
}

/** The full name that a text gives to an image, undefined when it gives none. */
export function fullName(text: string): string | undefined {
  try {
    return imageName(parseReference(text));
  } catch (error) {
    if (error instanceof SealiftError) return undefined;
    throw error;
  }
}

/** Streams a file of an archive as content: verified when it is read from its start. */
export async function* openContent(
  archive: Archive,
  content: { readonly file: string; readonly descriptor: Descriptor },
  options: { readonly signal: AbortSignal; readonly offset?: number },
): AsyncGenerator<Uint8Array> {
  const { digest, size } = content.descriptor;
  const { offset = 0, signal } = options;
  const bytes = archive.read(content.file, offset);
  const what = `${archive.path}: ${digest}`;
  for await (const chunk of offset > 0 ? bytes : verified(bytes, { digest, size, what })) {
    throwIfAborted(signal);
    yield chunk;
  }
}

/** The failure of content that a store has not. */
export function notThere(store: string, digest: Digest, more: { readonly hint?: string } = {}): SealiftError {
  return new SealiftError('CONTENT_NOT_FOUND', `${store}: no ${digest}`, { side: 'source', ...more });
}
