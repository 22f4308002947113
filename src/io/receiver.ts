import type { BulkAnswer, BulkRequest } from './bulk.ts';
import type { TlsOptions } from './certificates.ts';

/** Takes the bytes of one content: writes them at their place and hashes them. It may do so on another thread. */
export interface Receiver {
  /** Bytes from the start of the content that are written and hashed. */
  readonly received: number;
  /** Asks for content whose answer can be poured. undefined when the general client must ask (`BulkAgent.get`, same errors). */
  get(request: Omit<BulkRequest, 'tls'> & { readonly tls: TlsOptions }): Promise<BulkAnswer | undefined>;
  /** Takes the next bytes from this thread. @throws DISK_FULL, CONTENT_SIZE_MISMATCH */
  write(chunk: Uint8Array): Promise<void>;
  /**
   * Ends the content.
   * @returns its BLAKE3, 64 hex digits
   * @throws CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH
   */
  finish(): Promise<string>;
  /** Ends its connection. Who still pours must have given that up, or have come to its end. */
  close(): void;
}
