/**
 * A registry for one image with layers of any size: their bytes are made when they are asked for, and what comes in is
 * only digested and dropped.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { digestOf } from '../../src/io/verify.ts';

export interface MadeLayer {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  /** Some bytes from `from` on, at least one and none behind `end`; valid until the next call. */
  bytesAt(from: number, end: number): Buffer;
}

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = Buffer.from(
  JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers' } }),
);

/** The manifest of the image. */
export function manifestOf(layers: readonly MadeLayer[]): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST_TYPE,
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: digestOf(CONFIG),
        size: CONFIG.length,
      },
      layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
    }),
  );
}

export interface BlobRegistry {
  /** `address:port` */
  readonly host: string;
  /** Bytes of layers that were sent, all together. */
  sent: number;
  /**
   * When so many bytes of layers were sent, every connection that sends one is ended, once. What was sent until then
   * arrives.
   */
  cutAt: number | undefined;
  /** Blobs that came in: their size by the digest that was computed here. */
  readonly received: Map<string, number>;
  /** Manifests by tag and by digest. */
  readonly manifests: Map<string, Buffer>;
  close(): Promise<void>;
}

interface Exchange {
  readonly registry: BlobRegistry;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** Goes on when the connection takes more bytes, or is over. */
function untilDrained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const go = (): void => {
      response.off('drain', go).off('close', go);
      resolve();
    };
    response.once('drain', go).once('close', go);
  });
}

async function sendLayer({ registry, request, response }: Exchange, layer: MadeLayer): Promise<void> {
  const { size } = layer;
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const range = from === 0 ? {} : { 'content-range': `bytes ${from}-${size - 1}/${size}` };
  response.writeHead(from === 0 ? 200 : 206, { 'content-length': size - from, ...range });
  const isCuttable = registry.cutAt !== undefined;
  let over = false;
  response.once('close', () => {
    over = true;
  });
  for (let at = from; at < size && !over; ) {
    const left = (registry.cutAt ?? Number.POSITIVE_INFINITY) - registry.sent;
    const bytes = layer.bytesAt(at, Math.min(size, at + Math.max(1, left)));
    at += bytes.length;
    registry.sent += bytes.length;
    if (registry.sent === registry.cutAt) registry.cutAt = undefined;
    const isCut = isCuttable && registry.cutAt === undefined;
    if (!response.write(bytes) && !isCut) await untilDrained(response);
    if (!isCuttable || registry.cutAt !== undefined) continue;
    response.socket?.end();
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

async function answer(exchange: Exchange, layers: readonly MadeLayer[]): Promise<void> {
  const { registry, request, response } = exchange;
  const { method } = request;
  const url = new URL(request.url ?? '', 'http://registry');
  const [, kind, rest = ''] = /^\/v2\/big\/(manifests|blobs)\/(.*)$/.exec(url.pathname) ?? [];
  const layer = layers.find((l) => l.digest === rest);
  if (url.pathname === '/v2/') response.writeHead(200).end('{}');
  else if (kind === 'manifests' && method === 'PUT') await takeManifest(exchange, rest);
  else if (kind === 'manifests') sendManifest(exchange, rest);
  else if (method === 'POST') response.writeHead(202, { location: '/v2/big/blobs/uploads/1' }).end();
  else if (method === 'PUT') await takeBlob(exchange, url.searchParams.get('digest'));
  else if (method === 'GET' && layer !== undefined) await sendLayer(exchange, layer);
  else if (method === 'GET' && layers.length > 0 && rest === digestOf(CONFIG)) response.end(CONFIG);
  else response.writeHead(registry.received.has(rest) ? 200 : 404).end();
}

/** Starts a registry on a free port: with the image of these layers as `big:1`, or empty without any. */
export async function startBlobRegistry(
  options: { readonly layers?: readonly MadeLayer[]; readonly address?: string } = {},
): Promise<BlobRegistry> {
  const { layers = [], address = '127.0.0.1' } = options;
  const server = createServer((request, response) => {
    request.on('error', () => {});
    response.on('error', () => {});
    answer({ registry, request, response }, layers).catch(() => response.destroy());
  });
  server.requestTimeout = 0;
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  const { port } = server.address() as AddressInfo;
  const registry: BlobRegistry = {
    host: `${address}:${port}`,
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
  const manifest = manifestOf(layers);
  if (layers.length > 0) registry.manifests.set('1', manifest).set(digestOf(manifest), manifest);
  return registry;
}
