/**
 * The one tar encoding that bundles use: ustar, regular files, mode 0644, uid and gid 0, no owner names, mtime 0; a PAX
 * record only for a size of 8 GiB or more (POSIX.1-2017 pax, "ustar Interchange Format"). Bytes that decode to the same
 * entry but differ from this encoding are refused by readers, so there is one form only.
 */

export const TAR_BLOCK = 512;
/** First size that eleven octal digits cannot hold. */
const PAX_FROM = 0o77777777777 + 1;
const MAX_NAME = 100;

/** Zero bytes after content of `size` bytes up to the next block. */
export function tarPadding(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

/** Bytes of the header of an entry: one block, or three with a PAX record. */
export function tarHeaderLength(size: number): number {
  return size >= PAX_FROM ? 3 * TAR_BLOCK : TAR_BLOCK;
}

/** The end of an archive: exactly two zero blocks. */
export const TAR_END = 2 * TAR_BLOCK;

function octal(value: number, digits: number): string {
  return `${value.toString(8).padStart(digits, '0')}\0`;
}

/** All of a header but name, size and checksum, and the sum of its bytes with a checksum of eight spaces. */
function template(type: '0' | 'x'): { readonly bytes: Buffer; readonly sum: number } {
  const bytes = Buffer.alloc(TAR_BLOCK);
  bytes.write(octal(0o644, 7), 100, 'latin1');
  bytes.write(octal(0, 7), 108, 'latin1');
  bytes.write(octal(0, 7), 116, 'latin1');
  bytes.write(octal(0, 11), 136, 'latin1');
  bytes.write('        ', 148, 'latin1');
  bytes.write(type, 156, 'latin1');
  bytes.write('ustar\x0000', 257, 'latin1');
  bytes.write(octal(0, 7), 329, 'latin1');
  bytes.write(octal(0, 7), 337, 'latin1');
  return { bytes, sum: sumOf(bytes.toString('latin1')) };
}

function sumOf(text: string): number {
  let sum = 0;
  for (let i = 0; i < text.length; i++) sum += text.charCodeAt(i);
  return sum;
}

const TEMPLATES = { '0': template('0'), x: template('x') };

function block(name: string, size: number, type: '0' | 'x'): Buffer {
  const { bytes, sum } = TEMPLATES[type];
  const header = Buffer.from(bytes);
  const stated = octal(size, 11);
  header.write(name, 0, 'latin1');
  header.write(stated, 124, 'latin1');
  header.write(`${(sum + sumOf(name) + sumOf(stated)).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

function paxRecord(size: number): string {
  const body = ` size=${size}\n`;
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  return `${length}${body}`;
}

/**
 * The header of a regular file.
 * @param name at most 100 bytes of printable ASCII
 * @param size in bytes, up to Number.MAX_SAFE_INTEGER
 */
export function tarHeader(name: string, size: number): Buffer {
  if (name.length === 0 || name.length > MAX_NAME || !/^[\x21-\x7e]+$/.test(name)) {
    throw new RangeError(`not a name for a tar entry: ${JSON.stringify(name.slice(0, 120))}`);
  }
  if (!Number.isSafeInteger(size) || size < 0) throw new RangeError(`not a size: ${size}`);
  if (size < PAX_FROM) return block(name, size, '0');
  const record = paxRecord(size);
  const data = Buffer.alloc(TAR_BLOCK);
  data.write(record, 0, 'latin1');
  return Buffer.concat([block('pax', record.length, 'x'), data, block(name, 0, '0')]);
}

/** Name and size that a header states, if its bytes are exactly what `tarHeader` writes; undefined otherwise. */
export function readTarHeader(bytes: Buffer): { readonly name: string; readonly size: number } | undefined {
  if (bytes.length < TAR_BLOCK) return undefined;
  const isPax = bytes[156] === 0x78;
  if (isPax && bytes.length < 3 * TAR_BLOCK) return undefined;
  const text = (from: number, to: number): string => {
    const end = bytes.indexOf(0, from);
    return bytes.toString('latin1', from, end < 0 || end > to ? to : end);
  };
  const name = isPax ? text(2 * TAR_BLOCK, 2 * TAR_BLOCK + MAX_NAME) : text(0, MAX_NAME);
  const stated = isPax
    ? /^\d+ size=(\d{1,16})\n/.exec(text(TAR_BLOCK, 2 * TAR_BLOCK))?.[1]
    : /^[0-7]{11}$/.exec(text(124, 136))?.[0];
  if (stated === undefined || !/^[\x21-\x7e]{1,100}$/.test(name)) return undefined;
  const size = Number.parseInt(stated, isPax ? 10 : 8);
  if (!Number.isSafeInteger(size)) return undefined;
  const canonical = tarHeader(name, size);
  return canonical.equals(bytes.subarray(0, canonical.length)) ? { name, size } : undefined;
}
