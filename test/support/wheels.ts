/** Wheels and source archives made by hand: a small writer of zips, and metadata as the tests want it. */
import { createHash } from 'node:crypto';
import { crc32, deflateRawSync, gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';

export interface ZipFile {
  readonly name: string;
  readonly data: Uint8Array | string;
  readonly compress?: boolean;
  /** Stated instead of the real one, for hostile archives. */
  readonly statedSize?: number;
}

function headerFields(file: ZipFile, data: Buffer, packed: Buffer): Buffer {
  const fields = Buffer.alloc(26);
  fields.writeUInt16LE(20, 0);
  fields.writeUInt16LE(0x0800, 2);
  fields.writeUInt16LE(file.compress === false ? 0 : 8, 4);
  fields.writeUInt16LE(0, 6);
  fields.writeUInt16LE(0x21, 8);
  fields.writeUInt32LE(crc32(data), 10);
  fields.writeUInt32LE(packed.length, 14);
  fields.writeUInt32LE(file.statedSize ?? data.length, 18);
  fields.writeUInt16LE(Buffer.byteLength(file.name), 22);
  return fields;
}

/** A zip of these files, in their order. */
export function zip(files: readonly ZipFile[]): Buffer {
  const parts: Buffer[] = [];
  const central: Buffer[] = [];
  let at = 0;
  for (const file of files) {
    const data = Buffer.from(file.data);
    const packed = file.compress === false ? data : deflateRawSync(data);
    const fields = headerFields(file, data, packed);
    const name = Buffer.from(file.name);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), fields, name, packed]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(at, 10);
    central.push(Buffer.concat([Buffer.from('PK\x01\x02\x14\x03', 'latin1'), fields, tail, name]));
    parts.push(local);
    at += local.length;
  }
  const directory = Buffer.concat(central);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, directory, end]);
}

export interface PackageText {
  readonly name: string;
  readonly version: string;
  readonly requires?: readonly string[];
  readonly requiresPython?: string;
  /** Further lines of the headers. */
  readonly lines?: readonly string[];
  readonly description?: string;
  /** What its module says of itself, so that bytes differ. */
  readonly says?: string;
  /** Bytes that no compression makes smaller, before everything else. */
  readonly padding?: number;
  /** `py3` by default. */
  readonly python?: string;
}

export function metadataText(of: PackageText): string {
  return [
    'Metadata-Version: 2.1',
    `Name: ${of.name}`,
    `Version: ${of.version}`,
    `Summary: ${of.name} of the tests`,
    ...(of.requiresPython === undefined ? [] : [`Requires-Python: ${of.requiresPython}`]),
    ...(of.requires ?? []).map((one) => `Requires-Dist: ${one}`),
    ...(of.lines ?? []),
    '',
    of.description ?? '',
  ].join('\n');
}

/** Bytes that look like noise, always the same. */
export function noise(size: number): Buffer {
  const out = Buffer.alloc(size);
  for (let at = 0, n = 0; at < size; n += 1) at += createHash('sha512').update(`${n}`).digest().copy(out, at);
  return out;
}

function moduleName(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]+/g, '_');
}

/** A wheel that pip installs: one module, METADATA at its end. */
export function wheel(of: PackageText): { readonly fileName: string; readonly bytes: Buffer } {
  const stem = `${of.name.replace(/[^A-Za-z0-9.]+/g, '_')}-${of.version}`;
  const info = `${stem}.dist-info`;
  const tag = `${of.python ?? 'py3'}-none-any`;
  const module = moduleName(of.name);
  const names = [`${module}.py`, `${info}/METADATA`, `${info}/WHEEL`, `${info}/RECORD`];
  const padding = of.padding ?? 0;
  const bytes = zip([
    ...(padding === 0 ? [] : [{ name: `${module}_data.bin`, data: noise(padding), compress: false }]),
    { name: `${module}.py`, data: `SAYS = ${JSON.stringify(of.says ?? of.version)}\n` },
    { name: `${info}/METADATA`, data: metadataText(of) },
    {
      name: `${info}/WHEEL`,
      data: `Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: ${tag}\n`,
    },
    { name: `${info}/RECORD`, data: names.map((name) => `${name},,\n`).join('') },
  ]);
  return { fileName: `${stem}-${tag}.whl`, bytes };
}

/** A source archive: PKG-INFO behind the code, as several builders write it. */
export async function sdist(of: PackageText): Promise<{ readonly fileName: string; readonly bytes: Buffer }> {
  const root = `${moduleName(of.name)}-${of.version}`;
  const tar = pack();
  if (of.padding !== undefined) tar.entry({ name: `${root}/data.bin` }, noise(of.padding));
  tar.entry(
    { name: `${root}/${moduleName(of.name)}.py` },
    `SAYS = ${JSON.stringify(of.says ?? of.version)}\n`,
  );
  tar.entry({ name: `${root}/PKG-INFO` }, metadataText(of));
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar as AsyncIterable<Buffer>) chunks.push(chunk);
  return { fileName: `${root}.tar.gz`, bytes: gzipSync(Buffer.concat(chunks)) };
}
