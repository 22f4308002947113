/** How far a bundle has come. Bytes and blobs. */
export interface WriterStats {
  /** Found complete in the interrupted file; bytes with the beginnings that were continued. */
  resumed: { blobs: number; bytes: number };
  /** Copied from an older bundle or an interrupted one. */
  reused: { blobs: number; bytes: number };
  /** Received from sources. */
  fetched: { blobs: number; bytes: number };
}

/** Nothing yet. */
export function emptyStats(): WriterStats {
  const none = (): WriterStats['fetched'] => ({ blobs: 0, bytes: 0 });
  return { resumed: none(), reused: none(), fetched: none() };
}
