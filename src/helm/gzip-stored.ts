import { crc32 } from 'node:zlib';

/**
 * Gzip without compression (RFC 1952 around stored blocks of RFC 1951, 3.2.4). What deflate writes differs between
 * zlib builds and processors; stored blocks are the same bytes everywhere.
 */

/** Magic, deflate, no flags, time 0, no extra flags, unknown operating system. */
const HEADER = Buffer.from([0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0xff]);
const MAX_STORED = 0xffff;

function storedBlock(data: Buffer, isLast: boolean): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(isLast ? 1 : 0, 0);
  head.writeUInt16LE(data.length, 1);
  head.writeUInt16LE(data.length ^ MAX_STORED, 3);
  return Buffer.concat([head, data]);
}

/** The same bytes for the same content, however it is cut into chunks. */
export async function* gzipStored(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  yield HEADER;
  let crc = 0;
  let size = 0;
  let waiting = Buffer.alloc(0);
  for await (const chunk of source) {
    crc = crc32(chunk, crc);
    size += chunk.length;
    waiting = Buffer.concat([waiting, chunk]);
    // A full block is held back while it could be the last one.
    for (; waiting.length > MAX_STORED; waiting = waiting.subarray(MAX_STORED)) {
      yield storedBlock(waiting.subarray(0, MAX_STORED), false);
    }
  }
  yield storedBlock(waiting, true);
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc, 0);
  trailer.writeUInt32LE(size % 2 ** 32, 4);
  yield trailer;
}
