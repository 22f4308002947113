import { createHash } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { stringify } from 'yaml';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readChartArchive } from '../helm/archive.ts';
import { diskError } from '../io/files.ts';
import { type Answer, type Exchange, NOT_FOUND, refusal } from './answer.ts';
import { contentAnswer, type Servable, streamOf } from './content.ts';
import { linksPage, type Page, urlPath } from './pages.ts';

/** How the chart repository writes its index. */
export interface ChartOptions {
  /** Whether `urls` in the index name the host. Default false: file names, relative to the index. */
  readonly absoluteUrls?: boolean;
  /** The time in `generated` and `created`. Default 2026-01-01T00:00:00Z, so that one content has one index. */
  readonly generated?: string;
}

/** The fields of a Chart.yaml. */
export type ChartEntry = Readonly<Record<string, unknown>> & {
  readonly name: string;
  readonly version: string;
};

/** What is said about a chart that is added to the repository. */
export interface AddedChart {
  /** What stands in the index entry. Default: the archive's Chart.yaml; give it for an archive that is not to be read. */
  readonly metadata?: ChartEntry;
  /** The provenance file, served beside the archive as `<file>.prov`. */
  readonly provenance?: Uint8Array | string;
  /** The digest that the index claims (64 hex digits), where a test needs a wrong one. Default: the archive's. */
  readonly indexDigest?: string;
  /** The urls that the index gives. Default: the archive's own. */
  readonly urls?: readonly string[];
}

/** Plain HTTP content beside the registry: a chart repository under `/charts/`, files under `/files/`, and what else is put there. */
export interface Shelf {
  /**
   * Adds a chart archive, or replaces the one of that file name.
   * @throws USAGE for a file name that is not `<name>.tgz`; CHART_ARCHIVE_*, CHART_INVALID where its metadata is read
   */
  addChart(fileName: string, bytes: Uint8Array, chart?: AddedChart): Promise<void>;
  /**
   * Serves `/files/<name>`, or replaces it. A file on the disk is read when it is asked for.
   * @throws USAGE for a name that is not a plain relative path
   */
  addFile(name: string, content: Uint8Array | string | { readonly path: string }): void;
  /** Serves a path out of something else, whatever its name is. */
  put(path: string, content: Elsewhere): void;
  /** Names a chart in the index whose archive is put by itself. */
  listChart(chart: ListedChart): void;
  /** Answers a request below `/charts/`, `/files/` or where else something was put. `base` is the server's own URL. */
  answer(exchange: Exchange, options: { readonly base: string }): Promise<Answer>;
}

/** Content that lies elsewhere, without its type, which its name tells; or why it is not there. */
export type Elsewhere = Omit<Servable, 'headers'> | { readonly absent: string };

type Content = Buffer | { readonly path: string } | Elsewhere;

/** A chart as the index names it. */
export interface ListedChart {
  readonly fileName: string;
  readonly entry: ChartEntry;
  /** Of the archive, 64 hex digits. */
  readonly digest: string;
  /** Default: the archive's own. */
  readonly urls?: readonly string[] | undefined;
}

const NAME = /^[A-Za-z0-9_][A-Za-z0-9._+@-]*(?:\/[A-Za-z0-9_][A-Za-z0-9._+@-]*)*$/;

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function typeOf(name: string): string {
  if (name.endsWith('.yaml')) return 'application/x-yaml';
  return name.endsWith('.tgz') ? 'application/gzip' : 'application/octet-stream';
}

async function metadataOf(fileName: string, archive: Buffer): Promise<ChartEntry> {
  const { chart } = await readChartArchive(Readable.from([archive]), { what: fileName });
  return { ...chart.document, name: chart.name, version: chart.version };
}

function indexText(
  listed: readonly ListedChart[],
  options: { readonly base: string; readonly generated: string },
): string {
  const entries = new Map<string, unknown[]>();
  for (const { fileName, entry, digest, urls } of listed) {
    const { name } = entry;
    const more = {
      created: options.generated,
      digest,
      urls: urls ?? [`${options.base}${urlPath(fileName)}`],
    };
    entries.set(name, [...(entries.get(name) ?? []), { ...entry, ...more }]);
  }
  const sorted = [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
  return stringify({ apiVersion: 'v1', entries: Object.fromEntries(sorted), generated: options.generated });
}

async function serve(exchange: Exchange, name: string, content: Content): Promise<Answer> {
  const headers = { 'content-type': typeOf(name) };
  if (Buffer.isBuffer(content)) {
    const open = async (span: { start: number; length: number }) => streamOf(content, span);
    return await contentAnswer(exchange, { size: content.length, etag: sha256(content), headers, open });
  }
  if ('absent' in content) {
    return { ...NOT_FOUND, body: Buffer.from(`${content.absent}\n`) };
  }
  if ('open' in content) return await contentAnswer(exchange, { ...content, headers });
  try {
    const { size, mtimeMs } = await stat(content.path);
    return await contentAnswer(exchange, {
      size,
      etag: `${size.toString(16)}-${Math.trunc(mtimeMs).toString(16)}`,
      headers,
      open: async ({ start, length }) => {
        if (length === 0) return streamOf(Buffer.alloc(0), { start: 0, length: 0 });
        const handle = await open(content.path, 'r');
        return handle.createReadStream({ start, end: start + length - 1 });
      },
    });
  } catch (error) {
    throw diskError(error, content.path);
  }
}

/** Links to everything below a folder of files; undefined where there is no such folder. */
function folderPage(path: string, paths: Iterable<string>): Page | undefined {
  if (!path.startsWith('/files/') || !path.endsWith('/')) return undefined;
  const below = [...paths].filter((p) => p.startsWith(path)).map((p) => p.slice(path.length));
  if (below.length === 0) return undefined;
  return linksPage(
    path,
    below.sort().map((name) => ({ href: `./${urlPath(name)}`, text: name })),
  );
}

function unservable(name: string, form: string): SealiftError {
  return new SealiftError('USAGE', `"${name}" cannot be served`, { hint: `write ${form}` });
}

/** An empty shelf. */
export function createShelf(options: ChartOptions = {}): Shelf {
  const charts = new Map<string, ListedChart>();
  const contents = new Map<string, Content>();
  const generated = options.generated ?? '2026-01-01T00:00:00Z';

  /** The index for each base, until a chart is added. */
  const indexes = new Map<string, Buffer>();
  /** Pages of folders, until something is added: all who ask for one get the same bytes, however many they are. */
  const pages = new Map<string, Answer>();
  let pagesSize = 0;

  const find = (path: string, base: string): Content | undefined => {
    if (path !== '/charts/index.yaml') return contents.get(path);
    const prefix = options.absoluteUrls === true ? `${base}/charts/` : '';
    const known = indexes.get(prefix);
    if (known !== undefined) return known;
    const index = Buffer.from(indexText([...charts.values()], { base: prefix, generated }));
    indexes.set(prefix, index);
    return index;
  };
  const list = (chart: ListedChart): void => {
    indexes.clear();
    charts.set(chart.fileName, chart);
  };
  const put = (path: string, content: Content): void => {
    pages.clear();
    contents.set(path, content);
  };
  const listing = (path: string): Answer | undefined => {
    const known = pages.get(path);
    if (known !== undefined) return known;
    const page = folderPage(path, contents.keys());
    if (page === undefined) return undefined;
    if (pages.size === 0) pagesSize = 0;
    pagesSize += page.body.length;
    if (pagesSize > LIMITS.listingsKept) {
      pages.clear();
      pagesSize = page.body.length;
    }
    pages.set(path, page);
    return page;
  };

  return {
    async addChart(fileName, bytes, chart = {}) {
      if (!NAME.test(fileName) || fileName.includes('/') || !fileName.endsWith('.tgz')) {
        throw unservable(fileName, '<name>-<version>.tgz');
      }
      const archive = Buffer.from(bytes);
      const entry = chart.metadata ?? (await metadataOf(fileName, archive));
      const digest = chart.indexDigest ?? sha256(archive);
      list({ fileName, entry, digest, urls: chart.urls });
      contents.set(`/charts/${fileName}`, archive);
      contents.delete(`/charts/${fileName}.prov`);
      if (chart.provenance !== undefined) {
        contents.set(`/charts/${fileName}.prov`, Buffer.from(chart.provenance));
      }
    },
    addFile(name, content) {
      if (!NAME.test(name)) throw unservable(name, 'a relative path of letters, digits and ._+@-');
      const isPath = typeof content === 'object' && 'path' in content;
      put(`/files/${name}`, isPath ? content : Buffer.from(content));
    },
    put,
    listChart: list,
    async answer(exchange, { base }) {
      const { path, method } = exchange;
      if (method !== 'GET' && method !== 'HEAD') {
        return refusal('UNSUPPORTED', 'read only', { headers: { allow: 'GET, HEAD' } });
      }
      const content = find(path, base);
      if (content !== undefined) return await serve(exchange, path, content);
      return listing(path) ?? NOT_FOUND;
    },
  };
}
