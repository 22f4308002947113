/**
 * Gzip whose bytes are the same on every machine. zlib's differ between builds and processors; fflate is plain
 * JavaScript, and is given pieces of one size, its memory, no time and one level, so nothing is left to choose.
 */

/** What decides the bytes, for the lock: another version of the library may write others. */
export const STEADY_GZIP = 'gzip by fflate 0.8.3, level 6';

const PIECE = 65_536;

/** The same bytes for the same content, however it is cut into chunks. */
export async function* gzipSteady(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  // Rarely needed, so it is not loaded with every run.
  const { Gzip } = await import('fflate');
  const ready: Uint8Array[] = [];
  const gzip = new Gzip({ level: 6, mem: 8, mtime: 0 }, (chunk) => ready.push(chunk));
  let piece = new Uint8Array(PIECE);
  let filled = 0;
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; ) {
      // A full piece is held back while it could be the last one.
      if (filled === PIECE) {
        gzip.push(piece);
        yield* ready.splice(0);
        piece = new Uint8Array(PIECE);
        filled = 0;
      }
      const part = chunk.subarray(at, at + PIECE - filled);
      piece.set(part, filled);
      filled += part.length;
      at += part.length;
    }
  }
  gzip.push(piece.subarray(0, filled), true);
  yield* ready;
}
