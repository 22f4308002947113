/** The layers of fleet.mjs: real tar files in real gzip, made from a text key. */
import { createCipheriv, createHash } from 'node:crypto';
import { crc32, deflateRawSync, constants as zlib } from 'node:zlib';

const MIB = 1024 * 1024;

export const sha256 = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Bytes that do not compress: the AES-CTR key stream of a key made from a text. */
function noise(key, size) {
  const secret = createHash('sha256').update(`noise ${key}`).digest();
  const cipher = createCipheriv('aes-128-ctr', secret.subarray(0, 16), secret.subarray(16));
  return cipher.update(Buffer.alloc(size));
}

/** A random number maker, 0 ≤ x < 1, seeded by a text (mulberry32). */
function randomOf(key) {
  let state = createHash('sha256').update(`random ${key}`).digest().readUInt32LE(0);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Bytes that compress well: lines like those of a configuration. */
function text(key, size) {
  const random = randomOf(key);
  let block = '';
  while (block.length < Math.min(size, 16 * 1024)) {
    const word = Math.floor(random() * 4096).toString(36);
    block += `option.${word}.timeout = ${Math.floor(random() * 1000)}\n`;
  }
  return Buffer.alloc(size, block);
}

/** One ustar header. */
function tarHeader(entry) {
  const header = Buffer.alloc(512);
  const octal = (value, at, length) =>
    header.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1');
  header.write(entry.name, 0, 100, 'utf8');
  octal(entry.mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(entry.body?.length ?? 0, 124, 12);
  octal(1767225600, 136, 12);
  header.write('        ', 148, 'latin1');
  header.write(entry.type, 156, 'latin1');
  header.write(entry.link ?? '', 157, 100, 'utf8');
  header.write('ustar\x0000', 257, 'latin1');
  header.write('root', 265, 'latin1');
  header.write('root', 297, 'latin1');
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/** The entries of a layer: folders, programs (noise), texts, a link, and a whiteout where something below is hidden. */
function layerEntries(layer) {
  const { key, size } = layer;
  const name = sha256(key).slice(7, 15);
  const entries = [
    { name: 'etc/', type: '5', mode: 0o755 },
    { name: 'usr/', type: '5', mode: 0o755 },
    { name: 'usr/lib/', type: '5', mode: 0o755 },
    { name: `usr/lib/${name}/`, type: '5', mode: 0o755 },
    {
      name: `etc/${name}.conf`,
      type: '0',
      mode: 0o644,
      body: text(key, Math.max(256, Math.floor(size / 4))),
    },
  ];
  const pieces = Math.max(1, Math.min(8, Math.ceil(size / MIB)));
  for (let i = 0; i < pieces; i++) {
    const from = Math.floor((size * i) / pieces);
    const body = noise(`${key} ${i}`, Math.floor((size * (i + 1)) / pieces) - from);
    entries.push({ name: `usr/lib/${name}/lib${i}.so.1`, type: '0', mode: 0o755, body, stored: true });
  }
  entries.push({ name: `usr/lib/${name}/lib.so`, type: '2', mode: 0o777, link: 'lib0.so.1' });
  if (layer.hides !== undefined) entries.push({ name: `etc/.wh.${layer.hides}`, type: '0', mode: 0o644 });
  return entries;
}

/**
 * Makes a layer from `{key, size, hides}`: its gzip bytes and the digest of its tar. The gzip member is put together from deflate pieces, noise stored and everything else at level 1, because
 * compressing noise would take most of the time.
 */
export function makeLayer(layer) {
  const tar = createHash('sha256');
  const parts = [Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])];
  let crc = 0;
  let length = 0;
  const add = (bytes, level) => {
    if (bytes.length === 0) return;
    tar.update(bytes);
    crc = crc32(bytes, crc);
    length += bytes.length;
    parts.push(
      deflateRawSync(bytes, { level, finishFlush: zlib.Z_FULL_FLUSH, chunkSize: bytes.length + 1024 }),
    );
  };
  let small = [];
  const flush = () => {
    add(Buffer.concat(small), 1);
    small = [];
  };
  for (const entry of layerEntries(layer)) {
    small.push(tarHeader(entry));
    const body = entry.body ?? Buffer.alloc(0);
    const padding = Buffer.alloc((512 - (body.length % 512)) % 512);
    if (entry.stored) {
      flush();
      add(body, 0);
      small.push(padding);
    } else small.push(body, padding);
  }
  small.push(Buffer.alloc(1024));
  flush();
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc >>> 0, 0);
  trailer.writeUInt32LE(length % 2 ** 32, 4);
  // An empty last block ends the deflate stream.
  const bytes = Buffer.concat([...parts, Buffer.from([0x03, 0x00]), trailer]);
  return { bytes, diffId: `sha256:${tar.digest('hex')}` };
}
