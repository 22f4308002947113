/** A bundle's tar taken apart into entries, to be put together wrongly. */
import { TAR_END, tarHeaderLength, tarPadding } from '../../src/io/tar.ts';
import type { Packed } from './site.ts';

export interface Part {
  readonly name: string;
  readonly header: Buffer;
  readonly body: Buffer;
  readonly padding: Buffer;
}

export const END = Buffer.alloc(TAR_END);

export function partsOf({ bytes, entries }: Packed): Part[] {
  return entries.map(({ name, size, offset }) => ({
    name,
    header: bytes.subarray(offset - tarHeaderLength(size), offset),
    body: bytes.subarray(offset, offset + size),
    padding: bytes.subarray(offset + size, offset + size + tarPadding(size)),
  }));
}

export function joined(parts: readonly Part[], end: Buffer = END): Buffer {
  return Buffer.concat([...parts.flatMap((p) => [p.header, p.body, p.padding]), end]);
}

/** A header with some fields written anew and a checksum that fits. */
export function changedHeader(header: Buffer, fields: Readonly<Record<number, string | Buffer>>): Buffer {
  const made = Buffer.from(header);
  for (const [at, value] of Object.entries(fields)) {
    Buffer.from(value as string, 'latin1').copy(made, Number(at));
  }
  made.write('        ', 148, 'latin1');
  const sum = made.reduce((a, b) => a + b, 0);
  made.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return made;
}

/** A part with another body, its header and padding as they must be for it. */
export function withBody(part: Part, body: Buffer): Part {
  const size = `${body.length.toString(8).padStart(11, '0')}\0`;
  return {
    name: part.name,
    header: changedHeader(part.header, { 124: size }),
    body,
    padding: Buffer.alloc(tarPadding(body.length)),
  };
}
