import type { Descriptor } from '../core/descriptor.ts';

/** How content is read. `offset` in bytes. */
export interface ReadOptions {
  readonly signal: AbortSignal;
  readonly offset?: number;
  readonly raw?: boolean;
}

/** Anything that content can be read from: a registry's repository, a bundle, a folder. */
export interface ContentReader {
  /**
   * Streams content from byte `offset` (default 0). Reading from the start is verified by SHA-256 and size, and the
   * stream fails at its end when they differ: a consumer keeps nothing that it cannot take back until the end.
   * With `raw` the consumer verifies by itself, and is done with each chunk before it asks for the next one.
   * @throws CONTENT_NOT_FOUND, CONTENT_DIGEST_MISMATCH, CONTENT_SIZE_MISMATCH
   */
  open(descriptor: Descriptor, options: ReadOptions): AsyncIterable<Uint8Array>;
}
