/** A PyPI repository as Nexus has it (registry.md 2.7), in memory, with faults that a test switches on. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parseDistribution } from '../../src/core/distribution.ts';

export interface IndexFaults {
  /** Uploads that are stored and then answered with 503. */
  storedButRefused?: number;
  /** Uploads whose connection ends before the answer, stored or not. */
  cut?: number;
  /** Stores other bytes than came. */
  changes?: boolean;
  /** Pages that do not show yet what was uploaded. */
  stalePages?: number;
  /** Answer to every upload. */
  refuse?: { readonly status: number; readonly reason?: string; readonly body?: string };
  /** Runs before an upload is judged. */
  before?: (fileName: string) => void;
  /** Pages name MD5 only, as before 3.31. */
  md5Only?: boolean;
  /** The whole page of a project. */
  page?: string;
  /** What the search finds. */
  search?: readonly unknown[];
}

export interface IndexServer {
  readonly url: string;
  readonly files: Map<string, Buffer>;
  /** Fields of the last form for each file. */
  readonly forms: Map<string, ReadonlyMap<string, readonly string[]>>;
  readonly faults: IndexFaults;
  /** `METHOD path` of every request. */
  readonly requests: string[];
  close(): Promise<void>;
}

const REPOSITORY = 'pypi-hosted';

function hash(algorithm: string, bytes: Buffer): string {
  return createHash(algorithm).update(bytes).digest('hex');
}

/** Starts one whose only repository is `pypi-hosted`, of which nothing can be replaced. */
export async function startIndexServer(faults: IndexFaults = {}): Promise<IndexServer> {
  const files = new Map<string, Buffer>();
  const forms = new Map<string, ReadonlyMap<string, readonly string[]>>();
  const requests: string[] = [];
  const open = { faults, files, forms };
  const server = createServer((req, res) => {
    requests.push(`${req.method} ${req.url}`);
    answer(req, res, open).catch(() => res.destroy());
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    files,
    forms,
    faults,
    requests,
    close: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

type Open = Pick<IndexServer, 'files' | 'forms' | 'faults'>;

async function answer(req: IncomingMessage, res: ServerResponse, open: Open): Promise<void> {
  const { files, faults } = open;
  const path = (req.url ?? '').split('?')[0] ?? '';
  const json = (body: unknown): void =>
    void res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  if (path === '/service/rest/v1/repositories') {
    return json([
      { name: REPOSITORY, format: 'pypi', type: 'hosted', url: 'x' },
      { name: 'pypi-group', format: 'pypi', type: 'group', url: 'x' },
    ]);
  }
  if (path === '/service/rest/v1/search/assets') return json({ items: faults.search ?? [] });
  if (req.method === 'POST') return upload(req, res, open);
  const [, file = ''] =
    new RegExp(`^/repository/${REPOSITORY}/packages/[^/]+/[^/]+/([^/]+)$`).exec(path) ?? [];
  const bytes = files.get(file);
  if (bytes !== undefined) return void res.writeHead(200, { 'content-length': bytes.length }).end(bytes);
  const [, project] = new RegExp(`^/repository/${REPOSITORY}/simple/([^/]+)/$`).exec(path) ?? [];
  if (project === undefined) return void res.writeHead(404).end();
  page(project, res, open);
}

function page(project: string, res: ServerResponse, { files, faults }: Open): void {
  if (faults.page !== undefined) return void res.writeHead(200).end(faults.page);
  if ((faults.stalePages ?? 0) > 0 && files.size > 0) {
    faults.stalePages = (faults.stalePages ?? 0) - 1;
    return void res.writeHead(404).end();
  }
  const own = [...files].filter(([name]) => parseDistribution(name)?.project === project);
  if (own.length === 0) return void res.writeHead(404).end();
  const algorithm = faults.md5Only === true ? 'md5' : 'sha256';
  const links = own.map(([name, bytes]) => {
    const href = `../../packages/${project}/1.0/${name}#${algorithm}=${hash(algorithm, bytes)}`;
    return `<a href="${href}" data-requires-python="&gt;=3" >${name}</a><br/>`;
  });
  res.writeHead(200, { 'content-type': 'text/html' }).end(`<html><body>${links.join('\n')}</body></html>`);
}

async function upload(req: IncomingMessage, res: ServerResponse, open: Open): Promise<void> {
  const { files, forms, faults } = open;
  const chunks: Buffer[] = [];
  for await (const chunk of req as AsyncIterable<Buffer>) chunks.push(chunk);
  const whole = Buffer.concat(chunks);
  const type = req.headers['content-type'] ?? '';
  const end = `--${type.split('boundary=')[1]}--\r\n`;
  const form = await new Response(whole.subarray(0, whole.lastIndexOf(end) + end.length), {
    headers: { 'content-type': type },
  }).formData();
  const content = form.get('content');
  if (!(content instanceof File)) return void res.writeHead(400).end('no content');
  const { name } = content;
  const bytes = Buffer.from(await content.arrayBuffer());
  faults.before?.(name);
  if (faults.refuse !== undefined) {
    const { status, reason, body } = faults.refuse;
    return void (reason === undefined ? res.writeHead(status) : res.writeHead(status, reason)).end(body);
  }
  if (files.has(name)) {
    const reason = `Repository does not allow updating assets: ${REPOSITORY}`;
    return void res.writeHead(400, reason).end('<!DOCTYPE html><html><body>400</body></html>');
  }
  const md5 = form.get('md5_digest');
  if (md5 !== hash('md5', bytes)) return void res.writeHead(400, 'Digests do not match').end();
  if ((faults.cut ?? 0) > 0) {
    faults.cut = (faults.cut ?? 0) - 1;
    return void res.destroy();
  }
  files.set(name, faults.changes === true ? Buffer.concat([bytes, Buffer.from('!')]) : bytes);
  const fields = [...new Set(form.keys())].filter((key) => key !== 'content');
  forms.set(name, new Map(fields.map((key) => [key, form.getAll(key).map(String)])));
  if ((faults.storedButRefused ?? 0) > 0) {
    faults.storedButRefused = (faults.storedButRefused ?? 0) - 1;
    return void res.writeHead(503, { 'retry-after': '0' }).end();
  }
  res.writeHead(200).end();
}
