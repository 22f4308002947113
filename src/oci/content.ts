import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import type { Receiver } from '../io/receiver.ts';

/** How content is read. `offset` in bytes. */
export interface ReadOptions {
  readonly signal: AbortSignal;
  readonly offset?: number;
  readonly into?: Receiver;
  /** Bytes of each chunk, which go on to somebody who checks their SHA-256 himself: a registry, containerd. */
  readonly passOn?: number;
}

/** Streams a blob from a byte on; a source that can pour it into its receiver does so and gives empty chunks (`ReadOptions.into`). */
export type BlobStream = (offset: number, into?: Receiver) => AsyncIterable<Uint8Array>;

/**
 * Gives the streams of one blob, one after the other: the first, and then, told what ended the one before, the next. It is
 * read from the start after wrong content of which some came, else from behind the bytes that came.
 * @throws what is to be said in the end, when there is none any more
 */
export type NextStream = (failure?: unknown) => BlobStream;

/** Anything that content can be read from: a registry's repository, a bundle, a folder. */
export interface ContentReader {
  /**
   * Streams content from byte `offset` (default 0). Reading from the start is verified by SHA-256 and size, and the
   * stream fails at its end when they differ: a consumer keeps nothing that it cannot take back until the end.
   * With `into` the consumer verifies by itself: it hands each chunk to that receiver, which stands at `offset`, before it
   * asks for the next one. Content may then be poured into the receiver directly; the stream gives an empty chunk
   * whenever some of it has arrived there.
   * With `passOn` the reader may verify from the start by another hash that it has (a bundle's BLAKE3), and the consumer
   * is done with each chunk before it asks for the next one. When the receiver says that the bytes are wrong, the
   * consumer reads again without it: only then it is known whose fault that is.
   * @throws CONTENT_NOT_FOUND, CONTENT_DIGEST_MISMATCH, CONTENT_SIZE_MISMATCH
   */
  open(descriptor: Descriptor, options: ReadOptions): AsyncIterable<Uint8Array>;
}

/**
 * A blob on its way past several who take it: each opens it at its own time, and again only while its bytes are still held.
 * Who opens too late gets an error at once, never a wait.
 */
export interface PassingContent extends ContentReader {
  /** Whether it can be read from this byte on now. */
  has(offset: number): boolean;
}

/** Takes one blob that passes: reads as much of it as it needs, and settles when it is done. */
export type BlobTaker = (blob: PassingContent) => Promise<void>;

/** Who takes the blobs that pass. */
export interface BlobIntake {
  /** Those who want a blob; none waits for another one. Empty where it is not wanted, or there already. */
  takersOf(digest: Digest): readonly BlobTaker[];
}
