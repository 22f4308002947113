import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { errorText } from '../../src/io/http.ts';
import { isNetworkError } from '../../src/io/network-errors.ts';
import {
  bodyOf,
  failureOf,
  gather,
  someBytes,
  startServer,
  type TestContext,
  testClient,
  testContext,
} from './server.ts';

/** Sends a body that never ends; `open` tells how many of its sources were begun and not let go of. */
function endlessUpload(
  to: string,
  options: { readonly context?: TestContext; readonly tries?: number },
): { readonly sent: Promise<unknown>; readonly open: () => number } {
  let open = 0;
  const body = async function* () {
    open++;
    try {
      for (;;) yield Buffer.alloc(65_536);
    } finally {
      open--;
    }
  };
  const { context, ...tries } = options;
  const request = { method: 'PUT', url: new URL(to), body, contentLength: 1e12, ...tries } as const;
  return { sent: testClient(context).request(request), open: () => open };
}

describe('a body to send', () => {
  it('[A6] is made again for every try', async () => {
    const bytes = someBytes(300_000);
    const received: number[] = [];
    const server = await startServer(async (request, response, count) => {
      const body = await bodyOf(request);
      received.push(body.equals(bytes) ? body.length : -1);
      response.writeHead(count < 3 ? 502 : 201).end();
    });
    let made = 0;
    const body = async function* () {
      made++;
      for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000);
    };
    const url = new URL(server.url);
    const answer = await testClient().request({ method: 'PUT', url, body, contentLength: bytes.length });
    await answer.body.dump();
    expect(answer.status).toBe(201);
    expect([made, received]).toEqual([3, [300_000, 300_000, 300_000]]);
    expect(server.asked[0]?.headers).toMatchObject({ 'content-length': '300000' });
  });

  it('of no bytes is announced as Content-Length: 0', async () => {
    const server = await startServer((_, response) => response.writeHead(202).end());
    const url = new URL(server.url);
    const body = new Uint8Array();
    await (await testClient().request({ method: 'POST', url, body, contentLength: 0 })).body.dump();
    expect(server.asked[0]?.headers['content-length']).toBe('0');
    expect(server.asked[0]?.headers).not.toHaveProperty('transfer-encoding');
  });

  it('that fails at its source fails with just that error, and is not tried again', async () => {
    const wrong = new SealiftError('BUNDLE_CHECKSUM_MISMATCH', 'blob 12ab: damaged', { side: 'source' });
    const server = await startServer((request) => void bodyOf(request).catch(() => {}));
    const body = async function* () {
      yield Buffer.alloc(10);
      throw wrong;
    };
    const url = new URL(server.url);
    const failure = await failureOf(testClient().request({ method: 'PUT', url, body, contentLength: 100 }));
    expect(failure).toBe(wrong);
    expect(server.asked.length).toBeLessThanOrEqual(1);
  });

  it('that fails with something that is no Error fails with that too', async () => {
    const server = await startServer((request) => void bodyOf(request).catch(() => {}));
    const body = async function* () {
      yield Buffer.alloc(10);
      throw new TypeError('a bug');
    };
    const url = new URL(server.url);
    const failure = await failureOf(testClient().request({ method: 'PUT', url, body, contentLength: 100 }));
    expect(failure).toBeInstanceOf(TypeError);
  });

  for (const size of [9, 11]) {
    it(`of another size than announced is a fault of the source (${size} instead of 10 bytes)`, async () => {
      const server = await startServer((request, response) => {
        bodyOf(request).then(
          () => response.writeHead(201).end(),
          () => {},
        );
      });
      const body = async function* () {
        yield Buffer.alloc(5);
        yield Buffer.alloc(size - 5);
      };
      const url = new URL(server.url);
      const failure = await failureOf(testClient().request({ method: 'PUT', url, body, contentLength: 10 }));
      expect(failure).toMatchObject({ code: 'CONTENT_SIZE_MISMATCH', side: 'source' });
    });
  }

  it('is let go of when the server hangs up in the middle', async () => {
    const server = await startServer((request) => {
      request.once('data', () => request.socket.destroy());
    });
    const upload = endlessUpload(server.url, { tries: 2 });
    expect(await failureOf(upload.sent)).toMatchObject({ code: 'NETWORK_FAILED' });
    await expect.poll(upload.open).toBe(0);
  });

  it('that the server refuses before its end still gets the refusal', async () => {
    const server = await startServer((request, response) => {
      request.once('data', () => {
        response.writeHead(413, { connection: 'close' }).end('too large');
        request.resume();
      });
    });
    const body = async function* () {
      for (let i = 0; i < 1000; i++) yield Buffer.alloc(65_536);
    };
    const url = new URL(server.url);
    const answer = await testClient().request({ method: 'PUT', url, body, contentLength: 65_536_000 });
    expect([answer.status, await errorText(answer)]).toEqual([413, 'too large']);
  });
});

describe('being stopped', () => {
  const stopped = { code: 'ABORTED' };

  it('ends a request before it began', async () => {
    const server = await startServer((_, response) => response.end());
    const context = testContext();
    context.stop();
    const work = testClient(context).request({ method: 'GET', url: new URL(server.url) });
    expect(await failureOf(work)).toMatchObject(stopped);
    expect(server.asked).toHaveLength(0);
  });

  it('ends a request that waits for its answer', async () => {
    const context = testContext();
    const server = await startServer(() => context.stop());
    const work = testClient(context).request({ method: 'GET', url: new URL(server.url) });
    expect(await failureOf(work)).toMatchObject(stopped);
  });

  it('ends a request by its own signal', async () => {
    const own = new AbortController();
    const server = await startServer(() => own.abort());
    const work = testClient().request({ method: 'GET', url: new URL(server.url), signal: own.signal });
    expect(await failureOf(work)).toMatchObject(stopped);
  });

  it('ends a wait between two tries', async () => {
    const server = await startServer((_, response) =>
      response.writeHead(503, { 'retry-after': '300' }).end(),
    );
    const context = testContext();
    const emit: typeof context.emit = (event) => {
      if (event.type === 'retry') context.stop();
    };
    const work = testClient({ ...context, emit }).request({ method: 'GET', url: new URL(server.url) });
    expect(await failureOf(work)).toMatchObject(stopped);
    expect(server.asked).toHaveLength(1);
  });

  it('ends a wait for a host that said 429 to another request', async () => {
    const server = await startServer((_, response) =>
      response.writeHead(429, { 'retry-after': '300' }).end(),
    );
    const context = testContext();
    const client = testClient(context);
    await (await client.request({ method: 'GET', url: new URL(server.url), tries: 1 })).body.dump();
    const waiting = [1, 2].map(() => failureOf(client.request({ method: 'GET', url: new URL(server.url) })));
    while (context.events.length === 0) await new Promise((resolve) => setImmediate(resolve));
    context.stop();
    for (const failure of await Promise.all(waiting)) expect(failure).toMatchObject(stopped);
  });

  it('ends an upload and its source', async () => {
    const context = testContext();
    const server = await startServer((request) => request.once('data', () => context.stop()));
    const upload = endlessUpload(server.url, { context });
    expect(await failureOf(upload.sent)).toMatchObject(stopped);
    await expect.poll(upload.open).toBe(0);
  });

  it('between the head and the body of an answer is an error of the body and nothing else', async () => {
    const server = await startServer((_, response) => void response.writeHead(200).write('begin'));
    const context = testContext();
    const answer = await testClient(context).request({ method: 'GET', url: new URL(server.url) });
    context.stop();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await failureOf(gather(answer.body))).toBeInstanceOf(Error);
  });

  it('also ends everything when the client is closed', async () => {
    const server = await startServer(() => {});
    const client = testClient();
    const work = client.request({ method: 'GET', url: new URL(server.url), tries: 1 });
    while (server.asked.length === 0) await new Promise((resolve) => setImmediate(resolve));
    await client.close();
    expect(isNetworkError(await failureOf(work))).toBe(true);
  });
});
