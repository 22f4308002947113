/**
 * A registry for one image whose layer is larger than any memory: the layer's bytes are made when they are asked for, and
 * what comes in is only digested and dropped.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { digestOf } from '../../src/io/verify.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/** More than 8 GiB, which a plain tar header cannot say, and no multiple of a block. */
const SIZE = 12 * GIB + 7;
/** Zeros, but 16 bytes at every GiB that tell the place apart; each lies across the border, and so also across 4 and 8 GiB. */
const MARK = 16;
const ZEROS = Buffer.alloc(MIB);

/** Bytes from `from`, at most to `end`: no longer than a MiB, and valid until the next call. */
function bytesAt(from: number, end: number): Buffer {
  const length = Math.min(MIB, end - from);
  const near = Math.round((from + length / 2) / GIB);
  const start = near * GIB - MARK / 2;
  if (near === 0 || start >= from + length || start + MARK <= from) return ZEROS.subarray(0, length);
  const bytes = Buffer.alloc(length);
  const mark = Buffer.from(`<here are ${near}G`.padEnd(MARK, '>'));
  for (let i = 0; i < MARK; i++) {
    const at = start + i - from;
    if (at >= 0 && at < length) bytes[at] = mark[i] ?? 0;
  }
  return bytes;
}

/**
 * The layer. Its SHA-256 stands here because it takes several seconds: when `bytesAt` changes, a pack says which one it
 * found. A registry here computes it once more of what comes in.
 */
export const BIG_LAYER = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  digest: 'sha256:00c468b9b5b4a0b86b0daff7c5247d00f5dbf3644af407f399ba03c508ed354c',
  size: SIZE,
} as const;

const CONFIG = Buffer.from(
  JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers' } }),
);
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

/** The image's manifest, as it must arrive. */
export const BIG_MANIFEST = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: {
      mediaType: 'application/vnd.oci.image.config.v1+json',
      digest: digestOf(CONFIG),
      size: CONFIG.length,
    },
    layers: [BIG_LAYER],
  }),
);

export interface BigRegistry {
  /** `127.0.0.1:port` */
  readonly host: string;
  /** Bytes of the layer that were sent. */
  sent: number;
  /** Byte of the layer at which the connection is cut, once. */
  cutAt: number | undefined;
  /** Blobs that came in: their size by the digest that was computed here. */
  readonly received: Map<string, number>;
  /** Manifests by tag and by digest. */
  readonly manifests: Map<string, Buffer>;
  close(): Promise<void>;
}

interface Exchange {
  readonly registry: BigRegistry;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

async function sendLayer({ registry, request, response }: Exchange): Promise<void> {
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const range = from === 0 ? {} : { 'content-range': `bytes ${from}-${SIZE - 1}/${SIZE}` };
  response.writeHead(from === 0 ? 200 : 206, { 'content-length': SIZE - from, ...range });
  let closed = false;
  response.once('close', () => {
    closed = true;
  });
  for (let at = from; at < SIZE && !closed; ) {
    const end = registry.cutAt !== undefined && registry.cutAt > at ? registry.cutAt : SIZE;
    const bytes = bytesAt(at, end);
    at += bytes.length;
    registry.sent += bytes.length;
    if (!response.write(bytes)) {
      await new Promise<void>((resolve) => {
        const go = (): void => {
          response.off('drain', go).off('close', go);
          resolve();
        };
        response.once('drain', go).once('close', go);
      });
    }
    if (at !== registry.cutAt) continue;
    registry.cutAt = undefined;
    response.socket?.destroy();
    return;
  }
  response.end();
}

async function takeBlob({ registry, request, response }: Exchange, wanted: string | null): Promise<void> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    hash.update(chunk);
    size += chunk.length;
  }
  const digest = `sha256:${hash.digest('hex')}`;
  registry.received.set(digest, size);
  response.writeHead(digest === wanted ? 201 : 400, { 'docker-content-digest': digest }).end();
}

async function takeManifest({ registry, request, response }: Exchange, reference: string): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  registry.manifests.set(reference, bytes).set(digestOf(bytes), bytes);
  response.writeHead(201, { 'docker-content-digest': digestOf(bytes) }).end();
}

function sendManifest({ registry, request, response }: Exchange, reference: string): void {
  const bytes = registry.manifests.get(reference);
  if (bytes === undefined) {
    response.writeHead(404).end();
    return;
  }
  const headers = { 'content-type': MANIFEST_TYPE, 'docker-content-digest': digestOf(bytes) };
  response.writeHead(200, { ...headers, 'content-length': bytes.length });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

async function answer(exchange: Exchange, filled: boolean): Promise<void> {
  const { registry, request, response } = exchange;
  const { method } = request;
  const url = new URL(request.url ?? '', 'http://registry');
  const [, kind, rest = ''] = /^\/v2\/big\/(manifests|blobs)\/(.*)$/.exec(url.pathname) ?? [];
  if (url.pathname === '/v2/') response.writeHead(200).end('{}');
  else if (kind === 'manifests' && method === 'PUT') await takeManifest(exchange, rest);
  else if (kind === 'manifests') sendManifest(exchange, rest);
  else if (method === 'POST') response.writeHead(202, { location: '/v2/big/blobs/uploads/1' }).end();
  else if (method === 'PUT') await takeBlob(exchange, url.searchParams.get('digest'));
  else if (method === 'GET' && filled && rest === BIG_LAYER.digest) await sendLayer(exchange);
  else if (method === 'GET' && filled && rest === digestOf(CONFIG)) response.writeHead(200).end(CONFIG);
  else response.writeHead(registry.received.has(rest) ? 200 : 404).end();
}

/** Starts a registry on a free port: `filled` with the image as `big:1`, or empty. */
export async function startBigRegistry(options: { readonly filled: boolean }): Promise<BigRegistry> {
  const server = createServer((request, response) => {
    request.on('error', () => {});
    response.on('error', () => {});
    answer({ registry, request, response }, options.filled).catch(() => response.destroy());
  });
  server.requestTimeout = 0;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const registry: BigRegistry = {
    host: `127.0.0.1:${port}`,
    sent: 0,
    cutAt: undefined,
    received: new Map(),
    manifests: new Map(),
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
  if (options.filled) {
    registry.manifests.set('1', BIG_MANIFEST).set(digestOf(BIG_MANIFEST), BIG_MANIFEST);
  }
  return registry;
}
