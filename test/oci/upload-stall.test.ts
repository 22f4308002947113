import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { failureOf } from '../io/server.ts';
import { blobOf, client, manifestOf } from './bench.ts';

/** Silence is over soon; the time for the answer to a large blob is so long that a test that waits for it fails. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  const limits = { idleMs: 250, headersMs: 600_000, tries: 2 };
  return { ...real, LIMITS: { ...real.LIMITS, ...limits } };
});

/** A registry that opens uploads and does with every body what a test says; it has nothing. */
async function registryThat(
  take: (request: IncomingMessage, response: ServerResponse, count: number) => unknown,
): Promise<{ readonly host: string; readonly bodies: string[] }> {
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    const { method = '' } = request;
    request.on('error', () => {});
    if (method === 'PUT' || method === 'PATCH') {
      bodies.push(method);
      take(request, response, bodies.length);
    } else if (method === 'POST') response.writeHead(202, { location: '/v2/app/uploads/1' }).end();
    else response.writeHead(404).end();
  });
  // What is paused in Node still fills the buffers of the system, as with any server that hangs.
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, bodies };
}

const stall = (request: IncomingMessage): unknown => request.pause();

function takeAll(request: IncomingMessage, response: ServerResponse): void {
  request.resume().on('end', () => response.writeHead(201).end());
}

it('a registry that stores a blob under another digest than it was sent is told of', async () => {
  const digest = `sha256:${'0'.repeat(64)}`;
  const { host } = await registryThat((request, response) =>
    request.resume().on('end', () => response.writeHead(201, { 'docker-content-digest': digest }).end()),
  );
  const blob = blobOf(Buffer.from('bytes'));
  const work = client(host).registry.writeBlob('app', blob.descriptor, async function* () {
    yield blob.bytes;
  });
  expect(await failureOf(work)).toMatchObject({ code: 'REGISTRY_FAILED', details: { stored: digest } });
});

describe('a registry that stops reading', () => {
  it.each([
    ['a blob that is gone into the sockets already', 10_000],
    ['a blob in the middle', 64_000_000],
  ])('[1.3-idle] is left after the idle time: %s', async (_, size) => {
    const { host, bodies } = await registryThat(stall);
    const blob = blobOf(Buffer.alloc(size, 'a'));
    const { registry, context } = client(host);
    const work = registry.writeBlob('app', blob.descriptor, async function* () {
      yield blob.bytes;
    });
    expect(await failureOf(work)).toMatchObject({ code: 'NETWORK_TIMEOUT' });
    expect(bodies).toEqual(['PUT', 'PUT']);
    expect(context.events.filter((e) => e.type === 'retry')).toHaveLength(1);
  });

  it.runIf(process.platform === 'linux')(
    '[1.3-idle] is left after the idle time: a blob whose end lies in the buffers of the system',
    async () => {
      const { host } = await registryThat(stall);
      const blob = blobOf(Buffer.alloc(2_000_000, 'a'));
      const work = client(host).registry.writeBlob('app', blob.descriptor, async function* () {
        yield blob.bytes;
      });
      expect(await failureOf(work)).toMatchObject({
        code: 'NETWORK_TIMEOUT',
        message: expect.stringMatching(/took no byte for 0.25 s, and lacks the last \d+/),
      });
    },
  );

  it('[1.3-idle] is waited for where it took all and only commits', async () => {
    const { host, bodies } = await registryThat((request, response) =>
      request.resume().on('end', () => setTimeout(() => response.writeHead(201).end(), 700)),
    );
    const blob = blobOf(Buffer.alloc(2_000_000, 'a'));
    await client(host).registry.writeBlob('app', blob.descriptor, async function* () {
      yield blob.bytes;
    });
    expect(bodies).toEqual(['PUT']);
  });

  it('[1.3-idle] once is asked again, and gets the whole blob', async () => {
    const { host, bodies } = await registryThat((request, response, count) =>
      count === 1 ? stall(request) : takeAll(request, response),
    );
    const blob = blobOf(Buffer.alloc(64_000_000, 'a'));
    await client(host).registry.writeBlob('app', blob.descriptor, async function* () {
      yield blob.bytes;
    });
    expect(bodies).toEqual(['PUT', 'PUT']);
  });

  it('is left when it does so with a manifest', async () => {
    const { host, bodies } = await registryThat(stall);
    const manifest = manifestOf({ schemaVersion: 2 });
    const failure = await failureOf(client(host).registry.putManifest('app', '1', manifest));
    expect(failure).toMatchObject({ code: 'NETWORK_TIMEOUT' });
    expect(bodies).toEqual(['PUT', 'PUT']);
  });

  it('[1.3-idle] but goes on each time within the idle time is waited for', async () => {
    const { host, bodies } = await registryThat(async (request, response) => {
      let unread = 0;
      for await (const chunk of request) {
        unread += chunk.length;
        if (unread < 10_000_000) continue;
        unread = 0;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      response.writeHead(201).end();
    });
    const blob = blobOf(Buffer.alloc(64_000_000, 'a'));
    const { registry, context } = client(host);
    await registry.writeBlob('app', blob.descriptor, async function* () {
      yield blob.bytes;
    });
    expect(bodies).toEqual(['PUT']);
    expect(context.events).toEqual([]);
  });
});
