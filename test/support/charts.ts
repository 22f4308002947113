/** Small chart archives for tests, good and hostile. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type Header, pack } from 'tar-stream';

export interface TarSpec extends Partial<Header> {
  readonly name: string;
  readonly data?: string | Uint8Array;
}

/** A tar as tar-stream writes it: any type, any name. */
export async function tarOf(entries: readonly TarSpec[]): Promise<Buffer> {
  const tar = pack();
  for (const { data, ...header } of entries) {
    const body = Buffer.from(data ?? '');
    tar.entry({ mtime: new Date(0), ...header, size: header.size ?? body.length }, body);
  }
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(Buffer.from(chunk as Uint8Array));
  return Buffer.concat(chunks);
}

export async function tgzOf(entries: readonly TarSpec[]): Promise<Buffer> {
  return gzipSync(await tarOf(entries));
}

export type ChartFiles = Readonly<Record<string, string | Uint8Array>>;

/** Chart.yaml, values and one template with an image. */
export function demoFiles(name = 'demo', version = '1.2.3'): ChartFiles {
  return {
    'Chart.yaml': `apiVersion: v2\nname: ${name}\nversion: ${version}\nappVersion: "7.0"\ndescription: for tests\n`,
    'values.yaml': 'image: docker.io/library/nginx:1.25.2\n',
    'templates/cm.yaml':
      'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  image: {{ .Values.image | quote }}\n',
  };
}

/** A chart archive of these files below `root`. */
export function chartArchive(files: ChartFiles = demoFiles(), root = 'demo'): Promise<Buffer> {
  return tgzOf(Object.entries(files).map(([path, data]) => ({ name: `${root}/${path}`, data })));
}

/** Writes a chart's files as a folder. */
export async function writeChart(dir: string, files: ChartFiles): Promise<void> {
  for (const [path, data] of Object.entries(files)) {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), data);
  }
}

/** One header block made by hand, for what no library writes. */
export function rawHeader(fields: {
  readonly name: string;
  readonly size?: number;
  readonly type?: string;
  readonly mode?: string;
  readonly magic?: string;
  readonly sizeField?: string;
}): Buffer {
  const block = Buffer.alloc(512);
  block.write(fields.name, 0, 'utf8');
  block.write(fields.mode ?? '0000644', 100, 'latin1');
  block.write(fields.sizeField ?? (fields.size ?? 0).toString(8).padStart(11, '0'), 124, 'latin1');
  block.write('00000000000', 136, 'latin1');
  block.write('        ', 148, 'latin1');
  block.write(fields.type ?? '0', 156, 'latin1');
  block.write(fields.magic ?? 'ustar\x0000', 257, 'latin1');
  const sum = block.reduce((a, b) => a + b, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Content padded to whole blocks. */
export function padded(data: string | Uint8Array): Buffer {
  const body = Buffer.from(data);
  return Buffer.concat([body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
}

/** Bytes in pieces, as they come from a network. */
export async function* inPieces(data: Uint8Array, size = data.length || 1): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}
