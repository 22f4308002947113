/** A server that keeps files as Nexus's raw and helm repositories do (registry.md 2.4 to 2.6), of both generations. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import type { Descriptor } from '../../src/core/descriptor.ts';
import type { Context } from '../../src/core/events.ts';
import { MEDIA } from '../../src/core/media.ts';
import { HttpClient } from '../../src/io/http.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { ContentReader } from '../../src/oci/content.ts';
import { type CredentialSource, NOBODY } from '../../src/oci/credentials.ts';
import type { GraphNode } from '../../src/oci/graph.ts';
import type { ChartItem, Item, Target, TargetOptions, TargetRun } from '../../src/target/target.ts';
import { WebServer } from '../../src/target/web/server.ts';

const hex = (algorithm: string, bytes: Uint8Array): string =>
  createHash(algorithm).update(bytes).digest('hex');

export interface SmallNexusOptions {
  /** 3.30 sends no ETag, looks at no precondition, and lists other checksums. */
  readonly version?: '3.30' | '3.71';
  readonly policy?: 'ALLOW' | 'ALLOW_ONCE' | 'DENY';
  /** Answers instead of it: true when it did. */
  readonly instead?: (req: IncomingMessage, res: ServerResponse, nexus: SmallNexus) => boolean;
  /** What it keeps of what it gets. */
  readonly keeps?: (bytes: Buffer, path: string) => Buffer;
}

/** The only repository is `r`. */
export class SmallNexus {
  readonly files = new Map<string, Buffer>();
  readonly asked: string[] = [];
  /** PUT requests that were taken. */
  puts = 0;
  /** Most PUT requests at the same time. */
  most = 0;
  #running = 0;
  readonly options: SmallNexusOptions;

  constructor(options: SmallNexusOptions = {}) {
    this.options = options;
  }

  get isOld(): boolean {
    return this.options.version === '3.30';
  }

  async answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { method = '', url = '' } = req;
    this.asked.push(`${method} ${url}`);
    if (this.options.instead?.(req, res, this) === true) return;
    if (url.startsWith('/service/rest/v1/')) return void this.#rest(url, res);
    const [path] = url.split('?');
    if (path?.startsWith('/repository/r/') !== true)
      return void res.writeHead(404, 'Repository not found').end();
    const name = decodeURIComponent(path.slice('/repository/r/'.length));
    if (method === 'PUT') return this.#put(name, req, res);
    if (method === 'DELETE') return void res.writeHead(this.files.delete(name) ? 204 : 404).end();
    const bytes = this.files.get(name);
    if (bytes === undefined) return void res.writeHead(404, name).end('<html>404</html>');
    const etag = this.isOld ? {} : { etag: `"${hex('sha1', bytes)}"` };
    res.writeHead(200, { 'content-length': bytes.length, ...etag });
    res.end(method === 'HEAD' ? undefined : bytes);
  }

  async #put(name: string, req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { policy = 'ALLOW_ONCE', keeps } = this.options;
    const isThere = this.files.has(name);
    this.#running += 1;
    this.most = Math.max(this.most, this.#running);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of req) chunks.push(chunk);
    } catch {
      return;
    } finally {
      this.#running -= 1;
    }
    if (isThere && !this.isOld && req.headers['if-none-match'] === '*') return void res.writeHead(412).end();
    if (policy === 'DENY') {
      return void res
        .writeHead(400, this.isOld ? 'Repository is read only: r' : `r/${name} is read-only`)
        .end();
    }
    if (isThere && policy === 'ALLOW_ONCE') {
      const said = this.isOld
        ? 'Repository does not allow updating assets: r'
        : `r/${name} cannot be updated`;
      return void res.writeHead(400, said).end();
    }
    const bytes = Buffer.concat(chunks);
    this.files.set(name, keeps?.(bytes, name) ?? bytes);
    this.puts += 1;
    res.writeHead(201).end();
  }

  /** Pages of 10, as both generations have them. */
  #rest(url: string, res: ServerResponse): void {
    const { pathname, searchParams } = new URL(url, 'http://x');
    if (pathname.endsWith('/status')) {
      const server = `Nexus/${this.isOld ? '3.30.0-01' : '3.71.0-06'} (OSS)`;
      return void res.writeHead(200, { server }).end();
    }
    const id = /\/v1\/assets\/(.+)$/.exec(pathname)?.[1];
    if (id !== undefined) {
      const name = decodeURIComponent(id);
      return void (this.files.has(name)
        ? res.end(JSON.stringify(this.#asset(name)))
        : res.writeHead(404).end());
    }
    if (searchParams.get('repository') !== 'r') return void res.writeHead(404).end();
    const names = [...this.files.keys()];
    if (pathname.endsWith('/search/assets')) {
      const isFound = (name: string): boolean =>
        Object.entries(this.#asset(name).checksum).some(([hash, hex]) => searchParams.get(hash) === hex);
      const items = names.filter(isFound).map((name) => this.#asset(name));
      return void res.end(JSON.stringify({ items, continuationToken: null }));
    }
    const from = Number(searchParams.get('continuationToken') ?? 0);
    const items = names.slice(from, from + 10).map((name) => this.#asset(name));
    const continuationToken = from + 10 < names.length ? String(from + 10) : null;
    res.end(JSON.stringify({ items, continuationToken }));
  }

  #asset(name: string) {
    const bytes = this.files.get(name) ?? Buffer.alloc(0);
    const more = this.isOld ? {} : { sha256: hex('sha256', bytes) };
    const checksum = { sha1: hex('sha1', bytes), md5: hex('md5', bytes), ...more };
    return { id: name, path: this.isOld ? name : `/${name}`, repository: 'r', format: 'raw', checksum };
  }

  /** Requests of one method for files. */
  count(method: string): number {
    return this.asked.filter((line) => line.startsWith(`${method} /repository/`)).length;
  }
}

/** A client of a server, which ends with the test. */
export function webServer(
  { url, ...login }: { readonly url: string; readonly username?: string; readonly password?: string },
  context: Context,
): WebServer {
  const http = new HttpClient(context);
  onTestFinished(() => http.close());
  const { username, password } = login;
  const credentials: CredentialSource =
    username === undefined || password === undefined
      ? NOBODY
      : { find: async () => ({ kind: 'password', username, password }) };
  return new WebServer({ http, context, base: new URL(url), credentials });
}

/** Starts it, with a client of it; both end with the test. */
export async function serve(nexus: SmallNexus, context: Context): Promise<WebServer> {
  const server = createServer((req, res) => void nexus.answer(req, res));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  });
  const { port } = server.address() as AddressInfo;
  return webServer({ url: `http://127.0.0.1:${port}/` }, context);
}

const EMPTY = new Map();

/** A file as it would be loaded. */
export function fileItem(name: string, bytes: Uint8Array, mode = 0o644): Item {
  const digest = digestOf(bytes);
  const content = { mediaType: 'application/octet-stream', digest, size: bytes.length };
  return { kind: 'file', name, root: content, graph: { root: content, nodes: EMPTY }, content, mode };
}

export const CHART_BYTES = Buffer.from('the bytes of web-1.0.0.tgz');

/** The chart `web` as it would be loaded. */
export function chartItem(version: string, parts: { archive?: Buffer; prov?: Buffer } = {}): ChartItem {
  const { archive = CHART_BYTES, prov } = parts;
  const blob = (bytes: Buffer, mediaType: string): GraphNode => ({
    descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length },
    kind: 'blob',
    children: [],
    left: [],
  });
  const nodes = [
    blob(archive, MEDIA.helmChart),
    ...(prov === undefined ? [] : [blob(prov, MEDIA.helmProvenance)]),
  ];
  const root = { mediaType: MEDIA.ociManifest, digest: digestOf(`manifest ${version}`), size: 1 };
  const graph = { root, nodes: new Map(nodes.map((n) => [n.descriptor.digest, n])) };
  const { descriptor } = blob(archive, MEDIA.helmChart);
  return {
    kind: 'chart',
    name: `web-${version}`,
    chartName: 'web',
    version,
    root,
    graph,
    archive: descriptor,
    tree: digestOf('tree'),
  };
}

/** Content by digest, as a bundle gives it, in pieces; wrong content fails only behind its last byte. */
export function contentOf(...all: readonly Uint8Array[]): { opened: number; open: ContentReader['open'] } {
  const byDigest = new Map(all.map((bytes) => [digestOf(bytes), bytes]));
  const reader = {
    opened: 0,
    async *open({ digest }: Descriptor): AsyncGenerator<Uint8Array> {
      reader.opened += 1;
      const bytes = byDigest.get(digest);
      if (bytes === undefined) throw new Error(`${digest} is not in the test`);
      for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000);
    },
  };
  return reader;
}

/** All stages of a load of one target. */
export async function runAll(
  target: Target,
  items: readonly Item[],
  options: TargetOptions,
): Promise<TargetRun> {
  const run = await target.plan(items, options);
  try {
    await run.writeBlobs();
    await run.writeManifests();
    await run.commit();
  } finally {
    await run.close();
  }
  return run;
}

/** The states of all entries by the end of their address. */
export function statesOf(run: TargetRun): Record<string, string> {
  return Object.fromEntries(
    run.entries.map(({ as, state }) => [as.replace(/^.*\/repository\/r\//, ''), state]),
  );
}
