/** A small HTTP server that does exactly what a test says, and the context of an operation that remembers its events. */
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Context, Event } from '../../src/core/events.ts';
import { HttpClient } from '../../src/io/http.ts';
import type { Receiver } from '../../src/io/receiver.ts';
import { startReceiving } from '../../src/io/receivers.ts';
import { digestOf } from '../../src/io/verify.ts';

export interface Asked {
  readonly method: string;
  /** With its query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
}

export interface TestServer {
  /** `127.0.0.1:port` */
  readonly host: string;
  readonly url: string;
  readonly asked: readonly Asked[];
  close(): Promise<void>;
}

/** Answers one request. `count` is 1 for the first. */
export type Answer = (request: IncomingMessage, response: ServerResponse, count: number) => unknown;

/** Starts a server on a free port; it is closed when the test ends. */
export async function startServer(
  answer: Answer,
  tls?: {
    readonly key: string;
    readonly cert: string;
    /** With `requestCert`: the certificates that a client may show. */
    readonly ca?: string;
    readonly requestCert?: boolean;
    readonly maxVersion?: 'TLSv1.2';
  },
): Promise<TestServer> {
  const asked: Asked[] = [];
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    asked.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers });
    request.on('error', () => {});
    void answer(request, response, asked.length);
  };
  const server = tls === undefined ? createServer(handle) : createTlsServer({ ...tls }, handle);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  };
  onTestFinished(close);
  const host = `127.0.0.1:${port}`;
  return { host, url: `${tls === undefined ? 'http' : 'https'}://${host}`, asked, close };
}

/** Reads a request's body to its end. */
export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export interface TestContext extends Context {
  readonly events: Event[];
  readonly stop: () => void;
}

/** A context whose waits are short: no jitter, the real clock. */
export function testContext(env: Context['env'] = {}): TestContext {
  const stopper = new AbortController();
  const events: Event[] = [];
  return {
    signal: stopper.signal,
    emit: (event) => events.push(event),
    env,
    now: Date.now,
    random: () => 0,
    events,
    stop: () => stopper.abort(),
  };
}

/** A client that is closed when the test ends. */
export function testClient(context: Context = testContext()): HttpClient {
  const http = new HttpClient(context);
  onTestFinished(() => http.close());
  return http;
}

/** What a promise fails with; fails the test when it does not. */
export async function failureOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error('expected a failure');
}

/** Gathers a stream. */
export async function gather(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Bytes that differ from place to place, the same in every run. */
export function someBytes(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size);
  let state = seed;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

/** A receiver with its file; both are gone when the test ends. `bytes()` gives what has been written. */
export async function testReceiver(
  content: Buffer,
  options: { readonly begun?: Buffer; readonly context?: Context; readonly position?: number } = {},
): Promise<{ readonly into: Receiver; readonly bytes: () => Promise<Buffer>; readonly path: string }> {
  const { begun = Buffer.alloc(0), context = testContext(), position = 0 } = options;
  const dir = await mkdtemp(join(tmpdir(), 'sealift-receiver-'));
  const path = join(dir, 'content');
  await writeFile(path, Buffer.concat([Buffer.alloc(position), begun]));
  const handle = await open(path, 'r+');
  const receivers = startReceiving(content.length, context);
  const expected = { digest: digestOf(content), size: content.length, what: 'the content' };
  const into = await receivers.open({ file: handle.fd, path, position, begun: begun.length, expected });
  onTestFinished(async () => {
    into.close();
    await receivers.close();
    await handle.close();
    await rm(dir, { recursive: true });
  });
  return { into, bytes: async () => (await readFile(path)).subarray(position), path };
}
