import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { Registry } from '../../src/oci/registry.ts';
import {
  failureOf,
  gather,
  someBytes,
  startServer,
  type TestContext,
  type TestServer,
  testClient,
  testContext,
} from '../io/server.ts';
import { blobOf, client, runRegistry } from './bench.ts';

const never = new AbortController().signal;

describe('a blob', () => {
  const data = someBytes(300_000);
  const { descriptor } = blobOf(data);

  it('is streamed and verified', async () => {
    const server = await startServer((_, response) => response.end(data));
    const { registry } = client(server.host);
    expect((await gather(registry.readBlob('app', descriptor, { signal: never }))).equals(data)).toBe(true);
    expect(server.asked[0]?.url).toBe(`/v2/app/blobs/${descriptor.digest}`);
  });

  it('[1.3-hash-body] with one wrong byte fails at its end', async () => {
    const wrong = Buffer.from(data);
    wrong[299_999] = (data[299_999] ?? 0) ^ 1;
    const server = await startServer((_, response) => response.end(wrong));
    const work = gather(client(server.host).registry.readBlob('app', descriptor, { signal: never }));
    expect(await failureOf(work)).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
  });

  it('[1.3-size-over, 1.3-size-announced] with one byte more fails, announced or not', async () => {
    for (const headers of [{}, { 'content-length': String(data.length + 1) }]) {
      const server = await startServer((_, response) => {
        response.writeHead(200, headers);
        response.write(data);
        response.end('x');
      });
      const work = gather(client(server.host).registry.readBlob('app', descriptor, { signal: never }));
      expect(await failureOf(work)).toMatchObject({ code: 'CONTENT_SIZE_MISMATCH' });
    }
  });

  it('[1.3-redirect-fresh] that is cut goes on at the registry, also when its place was signed for a moment only', async () => {
    const store = await startServer((request, response, count) => {
      const from = Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0);
      const part = data.subarray(from);
      const range = { 'content-range': `bytes ${from}-${data.length - 1}/${data.length}` };
      response.writeHead(from === 0 ? 200 : 206, from === 0 ? {} : range);
      if (count === 1)
        response.write(part.subarray(0, 100_000), () => setTimeout(() => request.socket.destroy(), 5));
      else response.end(part);
    });
    const server = await startServer((_, response, count) =>
      response.writeHead(307, { location: `${store.url}/x?sig=${count}` }).end(),
    );
    const { registry } = client(server.host);
    expect((await gather(registry.readBlob('app', descriptor, { signal: never }))).equals(data)).toBe(true);
    expect(store.asked.map((r) => r.url)).toEqual(['/x?sig=1', '/x?sig=2']);
  });

  describe('at a place that is signed for a moment', () => {
    /** A registry that leads to a store, which cuts its first answer and refuses the signatures of `ended`. */
    async function signedStore(ended: (signature: number) => boolean): Promise<{
      readonly bytes: (context?: TestContext) => AsyncIterable<Uint8Array>;
      readonly store: TestServer;
      readonly server: TestServer;
    }> {
      const store = await startServer((request, response) => {
        const signature = Number(new URL(request.url ?? '', 'http://x').searchParams.get('sig'));
        const from = Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0);
        const part = data.subarray(from);
        const range = { 'content-range': `bytes ${from}-${data.length - 1}/${data.length}` };
        if (ended(signature)) return response.writeHead(403).end('<Error>Request has expired</Error>');
        response.writeHead(from === 0 ? 200 : 206, from === 0 ? {} : range);
        if (signature > 1) return response.end(part);
        return response.write(part.subarray(0, 100_000), () => setTimeout(() => request.socket.destroy(), 5));
      });
      const server = await startServer((_, response, count) =>
        response.writeHead(307, { location: `${store.url}/x?sig=${count}` }).end(),
      );
      const bytes = (context?: TestContext): AsyncIterable<Uint8Array> =>
        client(server.host, context === undefined ? {} : { context }).registry.readBlob('app', descriptor, {
          signal: never,
        });
      return { bytes, store, server };
    }

    it('[1.3-redirect-fresh] goes on after a cut also when the fresh place refuses it at first (HTTP 403)', async () => {
      const { bytes, store } = await signedStore((signature) => signature === 2);
      expect((await gather(bytes())).equals(data)).toBe(true);
      expect(store.asked.map((r) => r.url)).toEqual([1, 2, 3].map((n) => `/x?sig=${n}`));
      const [first, ...later] = store.asked.map((r) => Number(/\d+/.exec(r.headers.range ?? '')?.[0] ?? 0));
      expect(first).toBe(0);
      for (const from of later) expect(from).toBeGreaterThan(0);
    });

    it('[1.3-redirect-fresh] is given up after a bounded number of fresh places, and who refuses is named', async () => {
      const { bytes, store } = await signedStore((signature) => signature > 1);
      const context = testContext({ HOME: '/nonexistent' });
      const failure = await failureOf(gather(bytes(context)));
      expect(failure).toMatchObject({
        code: 'AUTH_DENIED',
        message: expect.stringContaining(
          `HTTP 403 from ${store.host} (tried ${LIMITS.redirectedTries} times)`,
        ),
        hint: expect.stringContaining('no login is sent'),
      });
      expect(store.asked).toHaveLength(1 + LIMITS.redirectedTries);
      expect(JSON.stringify([failure, context.events])).not.toContain('sig=');
    });
  });

  it('can be read from any byte on', async () => {
    const running = await runRegistry();
    const { registry } = client(running.host);
    const bytes = async function* () {
      yield data;
    };
    await registry.writeBlob('app', descriptor, bytes);
    const rest = await gather(registry.readBlob('app', descriptor, { signal: never, offset: 299_000 }));
    expect(rest.equals(data.subarray(299_000))).toBe(true);
    expect(running.requests.at(-1)?.range).toBe('bytes=299000-');
  });

  it('that is not there is CONTENT_NOT_FOUND, and hasBlob says no', async () => {
    const running = await runRegistry();
    const { registry } = client(running.host);
    const work = gather(registry.readBlob('app', descriptor, { signal: never }));
    expect(await failureOf(work)).toMatchObject({ code: 'CONTENT_NOT_FOUND', side: 'source' });
    expect(await registry.hasBlob('app', descriptor.digest)).toBe(false);
  });

  it('that a registry will not tell about is a fault and not a no', async () => {
    const server = await startServer((_, response) => response.writeHead(403).end());
    expect(await failureOf(client(server.host).registry.hasBlob('app', descriptor.digest))).toMatchObject({
      code: 'AUTH_DENIED',
      side: 'destination',
    });
  });

  it('ends at once when its reader is stopped, in the middle and while it waits', async () => {
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'content-length': data.length }).write(data.subarray(0, 1000));
    });
    const stop = new AbortController();
    const work = (async () => {
      for await (const _ of client(server.host).registry.readBlob('app', descriptor, {
        signal: stop.signal,
      })) {
        stop.abort();
      }
    })();
    expect(await failureOf(work)).toMatchObject({ code: 'ABORTED' });
  });
});

describe('the address of a registry', () => {
  it('is plain HTTP on the machine itself and HTTPS elsewhere, unless it is said', async () => {
    const server = await startServer((_, response) => response.end('{}'));
    await client(server.host).registry.ping();
    const strict = client(server.host, { config: { plainHttp: false } });
    expect(await failureOf(strict.registry.ping())).toMatchObject({ code: 'TARGET_UNREACHABLE' });
    expect(server.asked).toHaveLength(1);
  });

  it('[1.2-hub-host] of Docker Hub is another than its name', async () => {
    const asked: string[] = [];
    const context = testContext({ HOME: '/nonexistent' });
    const http = testClient(context);
    http.request = (request) => {
      asked.push(request.url.href);
      throw new Error('not sent');
    };
    await failureOf(new Registry('docker.io', { http, context }).listTags('library/nginx'));
    expect(asked).toEqual(['https://registry-1.docker.io/v2/library/nginx/tags/list?n=1000']);
  });
});

describe('ping', () => {
  it('is content with 200', async () => {
    const running = await runRegistry();
    await client(running.host).registry.ping();
  });

  for (const status of [404, 200]) {
    it(`tells a web page from a registry (HTTP ${status})`, async () => {
      const server = await startServer((_, response) => response.writeHead(status).end('<html>Nexus</html>'));
      expect(await failureOf(client(server.host).registry.ping())).toMatchObject({
        code: 'TARGET_UNREACHABLE',
        message: expect.stringContaining('web page'),
        hint: expect.stringContaining('8081'),
      });
    });
  }

  it('says that nobody answers', async () => {
    const server = await startServer(() => {});
    await server.close();
    expect(await failureOf(client(server.host).registry.ping())).toMatchObject({
      code: 'TARGET_UNREACHABLE',
      hint: expect.stringContaining('curl'),
    });
  });

  it('being stopped is not "unreachable"', async () => {
    const context = testContext();
    const server = await startServer(() => context.stop());
    expect(await failureOf(client(server.host, { context }).registry.ping())).toMatchObject({
      code: 'ABORTED',
    });
  });
});
