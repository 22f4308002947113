import { TAR_BLOCK } from './tar.ts';

/** The fields of a tar header as any tool may write them: POSIX.1-2017 ustar and pax, GNU, old v7. Nothing here throws. */

export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((b) => b === 0);
}

/** A field's bytes up to its first NUL. */
export function textField(block: Buffer, from: number, length: number): Buffer {
  const end = block.subarray(from, from + length).indexOf(0);
  return block.subarray(from, end < 0 ? from + length : from + end);
}

/** Octal digits between spaces and NULs, or GNU's base 256; undefined when it is neither. */
export function numberField(block: Buffer, from: number, length: number): number | undefined {
  const field = block.subarray(from, from + length);
  if (((field[0] ?? 0) & 0x80) !== 0) {
    if (field[0] !== 0x80) return undefined;
    let value = 0;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const text = field.toString('latin1').replace(/^[ \0]+|[ \0]+$/g, '');
  return /^[0-7]*$/.test(text) ? Number.parseInt(text === '' ? '0' : text, 8) : undefined;
}

/** The size of an entry: what a PAX record said of it before, else its header's field; undefined when it is no number. */
export function sizeField(block: Buffer, stated: string | undefined): number | undefined {
  if (stated === undefined) return numberField(block, 124, 12);
  return /^\d{1,15}$/.test(stated) ? Number(stated) : undefined;
}

/** Whether the header's checksum is that of its bytes. */
export function checksumOk(block: Buffer): boolean {
  let sum = 0;
  for (let i = 0; i < TAR_BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : (block[i] ?? 0);
  return numberField(block, 148, 8) === sum;
}

/** The text of bytes that are UTF-8, else undefined. */
export function utf8Of(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** The name in a header, with ustar's prefix. */
export function nameField(block: Buffer): Buffer {
  const name = textField(block, 0, 100);
  const isUstar = block.toString('latin1', 257, 265) === 'ustar\x0000';
  const prefix = isUstar ? textField(block, 345, 155) : Buffer.alloc(0);
  return prefix.length === 0 ? name : Buffer.concat([prefix, Buffer.from('/'), name]);
}

/** PAX records, `<length> <key>=<value>\n` with the length counting itself; undefined when they are not of this form. */
export function paxRecords(data: Buffer): Map<string, string> | undefined {
  const records = new Map<string, string>();
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const digits = space < 0 || space - at > 10 ? '' : data.toString('latin1', at, space);
    const end = /^\d+$/.test(digits) ? at + Number(digits) : 0;
    if (end <= space + 1 || end > data.length || data[end - 1] !== 0x0a) return undefined;
    const record = utf8Of(data.subarray(space + 1, end - 1));
    const equals = record?.indexOf('=') ?? -1;
    if (record === undefined || equals <= 0 || record.includes('\0')) return undefined;
    records.set(record.slice(0, equals), record.slice(equals + 1));
    at = end;
  }
  return records;
}
