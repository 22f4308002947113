import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError, kindOf, readFileLimited } from '../io/files.ts';
import { TAR_BLOCK, TAR_END, tarHeader, tarPadding } from '../io/tar.ts';
import { readChartArchive, stripBom } from './archive.ts';
import { parseChartYaml } from './chartfile.ts';
import { type ChartContent, isNestedArchive } from './content.ts';
import { gzipStored } from './gzip-stored.ts';
import { type Ignore, parseIgnore } from './ignore.ts';
import { compareBytes } from './paths.ts';
import { openPlain, treeFault, walkTree } from './tree.ts';

/** A fetched dependency that goes into the archive. It takes the place of a file at that path. */
export interface VendorFile {
  /** `charts/<name>-<version>.tgz`. */
  readonly path: string;
  /** The archive's bytes, or the file that holds them. */
  readonly data: Uint8Array | { readonly file: string };
}

export interface PackedChart extends ChartContent {
  /** Of the archive. */
  readonly digest: Digest;
  /** Of the archive, in bytes. */
  readonly size: number;
}

/**
 * Packs a chart folder into an archive that is a pure function of its files: base folder named after the chart, paths
 * in byte order, mode 0644, uid, gid and mtime 0, no owner names, `.helmignore` honoured, a BOM taken away as Helm
 * does, gzip without compression. What was written is read back with every check of `readChartArchive`.
 * @param options.write gets the archive's bytes in order; without it the archive is only measured
 * @throws FILE_NOT_FOUND, CHART_INVALID, CHART_ARCHIVE_LINK and _SPECIAL with every fault, FILE_UNREADABLE
 */
export async function packChartDirectory(
  dir: string,
  options: {
    readonly vendor?: readonly VendorFile[];
    readonly write?: (chunk: Buffer) => void | Promise<void>;
  } = {},
): Promise<PackedChart> {
  const { chart, ignore } = await readRules(dir);
  const files = await gather(dir, { ignore, vendor: options.vendor ?? [] });
  const sha = createHash('sha256');
  let size = 0;
  const passed = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of gzipStored(tarOf(files, chart.name))) {
      sha.update(chunk);
      size += chunk.length;
      await options.write?.(chunk);
      yield chunk;
    }
  };
  const content = await readChartArchive(passed(), { what: dir });
  return { ...content, digest: `sha256:${sha.digest('hex')}`, size };
}

async function readRules(
  dir: string,
): Promise<{ readonly chart: { readonly name: string }; readonly ignore: Ignore }> {
  const kind = await kindOf(dir);
  if (kind !== 'folder') {
    throw new SealiftError(
      'FILE_NOT_FOUND',
      `${dir}: ${kind === undefined ? 'no such folder' : 'not a folder'}`,
      {
        hint: 'a chart with `path` is a folder that holds Chart.yaml',
      },
    );
  }
  const small = { limit: LIMITS.chartYaml, missing: 'CHART_INVALID' } as const;
  const what = join(dir, 'Chart.yaml');
  const chart = parseChartYaml(stripBom(await readFileLimited(what, small)), { what });
  const ignoreFile = join(dir, '.helmignore');
  const hasIgnore = (await kindOf(ignoreFile)) === 'file';
  const text = hasIgnore ? (await readFileLimited(ignoreFile, small)).toString('utf8') : '';
  return { chart, ignore: parseIgnore(text, ignoreFile) };
}

interface Source {
  readonly path: string;
  readonly data: VendorFile['data'];
}

async function gather(
  dir: string,
  options: { readonly ignore: Ignore; readonly vendor: readonly VendorFile[] },
): Promise<Source[]> {
  const files = new Map<string, Source>();
  const faults: Fault[] = [];
  const keep = (file: { path: string; kind: string }): boolean =>
    !options.ignore(file.path, file.kind === 'folder');
  for await (const file of walkTree(dir, keep)) {
    const bad = treeFault(file, dir);
    if (bad !== undefined) faults.push(bad);
    else if (file.kind === 'file')
      files.set(file.path, { path: file.path, data: { file: join(dir, file.path) } });
  }
  if (faults.length > 0) throw errorOf(faults, `${dir}: ${faults.length} entries that no chart may have`);
  for (const { path, data } of options.vendor) {
    if (!isNestedArchive(path)) throw new SealiftError('INTERNAL', `${path} is no place for a dependency`);
    files.set(path, { path, data });
  }
  return [...files.values()].sort((a, b) => compareBytes(a.path, b.path));
}

async function readSource(source: Source): Promise<Buffer> {
  if (source.data instanceof Uint8Array) return Buffer.from(source.data);
  const { file } = source.data;
  const handle = await openPlain(file);
  try {
    const { size } = await handle.stat();
    if (size > LIMITS.chartUnpacked) {
      throw new SealiftError(
        'CHART_ARCHIVE_BOMB',
        `${file}: ${size} bytes, a chart holds at most ${LIMITS.chartUnpacked}`,
      );
    }
    return await handle.readFile();
  } catch (error) {
    throw diskError(error, file);
  } finally {
    await handle.close();
  }
}

async function* tarOf(files: readonly Source[], base: string): AsyncGenerator<Buffer> {
  for (const file of files) {
    const data = stripBom(await readSource(file));
    yield header(`${base}/${file.path}`, data.length);
    yield data;
    yield Buffer.alloc(tarPadding(data.length));
  }
  yield Buffer.alloc(TAR_END);
}

/** A plain ustar header where the name fits, otherwise one with a PAX path before it. */
function header(name: string, size: number): Buffer {
  if (/^[\x21-\x7e]{1,100}$/.test(name)) return tarHeader(name, size);
  const body = Buffer.from(` path=${name}\n`);
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  const record = Buffer.concat([Buffer.from(String(length)), body]);
  const pax = tarHeader('pax', record.length);
  pax.write('x', 156, 'latin1');
  pax.write('        ', 148, 'latin1');
  const sum = pax.subarray(0, TAR_BLOCK).reduce((a, b) => a + b, 0);
  pax.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return Buffer.concat([pax, record, Buffer.alloc(tarPadding(record.length)), tarHeader('long-name', size)]);
}
