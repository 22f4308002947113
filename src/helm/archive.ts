import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { errorOf, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { errnoOf } from '../io/files.ts';
import {
  type ChartContent,
  chartDepthOf,
  contentCollector,
  isNestedArchive,
  type NestedChart,
} from './content.ts';
import { type PathRegister, pathRegister } from './paths.ts';
import { type Budget, bomb, broken, chartBudget, readTar, type TarEntry } from './tar-reader.ts';

const GZIP_MAGIC = Buffer.from([0x1f, 0x8b, 0x08]);
const BOM = Buffer.from([0xef, 0xbb, 0xbf]);
const CHUNK = 64 * 1024;
const MAX_FAULTS = 100;
const AFTER_END = 'data after the end of the gzip archive';

/** A file without the UTF-8 byte order mark that Helm takes away from every file (helm.md 1.2 point 5). */
export function stripBom(data: Buffer): Buffer {
  return data.subarray(0, BOM.length).equals(BOM) ? data.subarray(BOM.length) : data;
}

interface ReadOptions {
  readonly what: string;
  readonly onFile?: ((path: string, data: Buffer) => void | Promise<void>) | undefined;
  readonly depth: number;
  readonly budget: Budget;
}

/**
 * Reads a chart archive (.tgz) once, as a stream, by Helm's rules (helm.md 1.2) and stricter: links, devices, paths that
 * lead out, a second base folder, a path that is there twice and anything after the end are refused, in archives
 * inside it too.
 * @param options.what the archive's name or URL, for messages
 * @param options.onFile gets each file without its BOM, path relative to the chart's folder, in the archive's order;
 *   what it got counts only once the promise is fulfilled
 * @throws CHART_ARCHIVE_INVALID, _BOMB, _LINK, _SPECIAL, _TRAVERSAL, _ROOTS (all faulty entries at once), CHART_INVALID
 */
export async function readChartArchive(
  source: AsyncIterable<Uint8Array>,
  options: {
    readonly what: string;
    readonly onFile?: (path: string, data: Buffer) => void | Promise<void>;
  },
): Promise<ChartContent> {
  const { what, onFile } = options;
  return readArchive(source, { what, onFile, depth: 0, budget: chartBudget() });
}

async function readArchive(source: AsyncIterable<Uint8Array>, options: ReadOptions): Promise<ChartContent> {
  const { what, onFile, depth, budget } = options;
  const paths = pathRegister(what);
  const collector = contentCollector(what);
  const nested: NestedChart[] = [];
  let unpackedSize = 0;
  for await (const entry of readTar(gunzip(source, { what, budget }), { what, budget })) {
    const path = judge(entry, { paths, what, depth });
    if (paths.faults.length >= MAX_FAULTS) break;
    if (path === undefined || paths.faults.length > 0) continue;
    const data = stripBom(await entry.read());
    unpackedSize += entry.size;
    collector.add(path, data);
    if (isNestedArchive(path)) {
      const inner = { what: `${what}: ${path}`, depth: depth + chartDepthOf(path), budget };
      nested.push({ path, content: await readArchive(once(data), { ...inner, onFile: undefined }) });
    }
    await onFile?.(path, data);
  }
  const { faults, warnings } = paths;
  if (faults.length > 0) throw errorOf(faults, `${what}: ${faults.length} entries that no chart may have`);
  return collector.finish({ nested, unpackedSize, warnings });
}

/** The path to keep, or undefined with the reason, if there is one, in `paths.faults`. */
function judge(
  entry: TarEntry,
  options: { readonly paths: PathRegister; readonly what: string; readonly depth: number },
): string | undefined {
  const { paths, what, depth } = options;
  const { name, kind, detail } = entry;
  if (kind === 'link' || kind === 'special') {
    const code = kind === 'link' ? 'CHART_ARCHIVE_LINK' : 'CHART_ARCHIVE_SPECIAL';
    paths.faults.push(
      fault(code, `${what}: ${JSON.stringify(name.slice(0, 200))} is ${detail}`, {
        hint: 'a chart holds only files; ask its publisher for one without it',
      }),
    );
    return undefined;
  }
  const path = paths.add(name, kind);
  if (path !== undefined && depth + chartDepthOf(path) > LIMITS.chartDepth) {
    paths.faults.push(
      fault('CHART_ARCHIVE_INVALID', `${what}: ${path}: charts nested deeper than ${LIMITS.chartDepth}`),
    );
    return undefined;
  }
  return path;
}

async function* once(data: Uint8Array): AsyncGenerator<Uint8Array> {
  yield data;
}

async function* checkedInput(
  source: AsyncIterable<Uint8Array>,
  options: { readonly what: string; readonly count: { bytes: number } },
): AsyncGenerator<Uint8Array> {
  const { what, count } = options;
  let head = Buffer.alloc(0);
  for await (const chunk of source) {
    count.bytes += chunk.length;
    if (count.bytes > LIMITS.chartArchive) {
      throw new SealiftError('CONTENT_TOO_LARGE', `${what}: more than ${LIMITS.chartArchive} bytes`);
    }
    if (head.length < GZIP_MAGIC.length) {
      head = Buffer.concat([head, chunk.subarray(0, GZIP_MAGIC.length - head.length)]);
      if (!head.equals(GZIP_MAGIC.subarray(0, head.length))) break;
    }
    yield chunk;
  }
  if (!head.equals(GZIP_MAGIC)) throw broken(what, 'not a gzip archive');
}

/** Unpacks gzip, whole members only, and stops at the budget. */
async function* gunzip(
  source: AsyncIterable<Uint8Array>,
  options: { readonly what: string; readonly budget: Budget },
): AsyncGenerator<Uint8Array> {
  const { what, budget } = options;
  const count = { bytes: 0 };
  const unzip = createGunzip({ chunkSize: CHUNK });
  const fed = pipeline(checkedInput(source, { what, count }), unzip);
  fed.catch(() => {}); // Seen below, or of no interest when the reader stopped early.
  try {
    for await (const chunk of unzip) {
      budget.stream -= chunk.length;
      if (budget.stream < 0)
        throw bomb(
          what,
          `it unpacks to far more than the ${LIMITS.chartUnpacked} bytes that a chart may hold`,
        );
      yield chunk;
    }
    await fed;
  } catch (error) {
    // Node ends at zeros behind the archive, before all of them were taken.
    if (errnoOf(error) === 'ERR_STREAM_PREMATURE_CLOSE') throw broken(what, AFTER_END, { cause: error });
    if (errnoOf(error).startsWith('Z_'))
      throw broken(what, 'the gzip data is damaged or cut off', { cause: error });
    throw error;
  } finally {
    unzip.destroy();
  }
  if (unzip.bytesWritten !== count.bytes) throw broken(what, AFTER_END);
}
