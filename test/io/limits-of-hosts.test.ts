import type { ServerResponse } from 'node:http';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { HttpClient, type HttpOptions } from '../../src/io/http.ts';
import { isNetworkError } from '../../src/io/network-errors.ts';
import { type Answer, failureOf, gather, startServer, testContext, testReceiver } from './server.ts';

/** Requests to one host at once at the start. */
const atFirst = vi.hoisted(() => ({ requests: 16 }));

/** The real limits are minutes and hours; here a wait is long above 15 ms. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  const short = {
    briefWaitMs: 15,
    limitProbeMs: 20,
    rateLimitMs: 2_000,
    retryAfterMs: 2_000,
    patienceMs: 100,
  };
  const limits = { ...real.LIMITS, ...short, tries: 3 };
  Object.defineProperty(limits, 'requestsAtFirst', { get: () => atFirst.requests });
  return { ...real, LIMITS: limits };
});

/** A client that begins with so many requests to one host at once. */
function beginningWith(requests: number, context = testContext()): HttpClient {
  atFirst.requests = requests;
  onTestFinished(() => {
    atFirst.requests = 16;
  });
  return clientOf(context);
}

function clientOf(context = testContext(), options: HttpOptions = {}): HttpClient {
  const http = new HttpClient(context, options);
  onTestFinished(() => http.close());
  return http;
}

/** Refuses the first `times` requests. */
function refusing(times: number, headers: Readonly<Record<string, string>>, status = 429): Answer {
  return (_, response, count) => {
    if (count <= times) response.writeHead(status, headers).end();
    else response.end('ok');
  };
}

async function textOf(answer: Awaited<ReturnType<HttpClient['request']>>): Promise<string> {
  return (await gather(answer.body)).toString();
}

describe('a limit on requests', () => {
  it('whose end is far is announced once for its host, waited for, and is no try', async () => {
    const server = await startServer(refusing(5, { 'retry-after': '0.03' }));
    const context = testContext();
    const answer = await clientOf(context).request({ method: 'GET', url: new URL(server.url) });
    expect(await textOf(answer)).toBe('ok');
    expect(answer.tries).toBe(1);
    expect(server.asked).toHaveLength(6);
    expect(context.events[0]).toMatchObject({ type: 'pause', host: server.host });
    expect(context.events.some((e) => e.type === 'retry')).toBe(false);
  });

  it('with only a window is asked for again until it has ended', async () => {
    const server = await startServer(
      refusing(3, { 'ratelimit-limit': '100;w=1', 'ratelimit-remaining': '0;w=1' }),
    );
    const answer = await clientOf().request({ method: 'GET', url: new URL(server.url) });
    expect(await textOf(answer)).toBe('ok');
    expect(server.asked).toHaveLength(4);
  });

  it('comes back as the answer at once when nobody wants to wait', async () => {
    const server = await startServer(refusing(9, { 'retry-after': '0.05' }));
    const context = testContext();
    const answer = await clientOf(context, { waitForLimits: false }).request({
      method: 'GET',
      url: new URL(server.url),
    });
    await answer.body.dump();
    expect(answer.status).toBe(429);
    expect(server.asked).toHaveLength(1);
    expect(context.events).toEqual([]);
  });

  it('that is brief is an ordinary try also then', async () => {
    const server = await startServer(refusing(1, { 'retry-after': '0.001' }));
    const answer = await clientOf(testContext(), { waitForLimits: false }).request({
      method: 'GET',
      url: new URL(server.url),
    });
    expect(await textOf(answer)).toBe('ok');
    expect(answer.tries).toBe(2);
  });

  it('that would last too long comes back as the answer at once', async () => {
    for (const [status, headers] of [
      [429, { 'retry-after': '3' }],
      [429, { 'ratelimit-limit': '1;w=999999' }],
      [503, { 'retry-after': '3' }],
    ] as const) {
      const server = await startServer(refusing(9, headers, status));
      const answer = await clientOf().request({ method: 'GET', url: new URL(server.url) });
      await answer.body.dump();
      expect(answer.status).toBe(status);
      expect(server.asked.length).toBe(1);
    }
  });

  it('that does not end is given up after its bound', async () => {
    let clock = 1_000_000;
    const server = await startServer((_, response) => {
      clock += 900;
      response.writeHead(429, { 'retry-after': '0.02' }).end();
    });
    const context = { ...testContext(), now: () => clock };
    const answer = await clientOf(context).request({ method: 'GET', url: new URL(server.url) });
    await answer.body.dump();
    expect([answer.status, server.asked.length]).toEqual([429, 4]);
  });

  it('ends at once with the stop of the person', async () => {
    const server = await startServer(refusing(9, { 'retry-after': '1.9' }));
    const context = testContext();
    const asking = clientOf(context).request({ method: 'GET', url: new URL(server.url) });
    while (context.events.length === 0) await new Promise((resolve) => setImmediate(resolve));
    context.stop();
    expect(await failureOf(asking)).toMatchObject({ code: 'ABORTED' });
  });

  it('[1.3-host-pause] that is extended while others wait holds for them too', async () => {
    const order: string[] = [];
    const held: ServerResponse[] = [];
    const server = await startServer((request, response, count) => {
      if (count > 2) order.push(request.url ?? '');
      if (count > 2) response.end('ok');
      else held.push(response);
    });
    const context = testContext();
    const http = clientOf(context);
    const ask = async (path: string): Promise<string> =>
      textOf(await http.request({ method: 'GET', url: new URL(path, server.url) }));
    const until = async (isSo: () => boolean): Promise<void> => {
      while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
    };
    const asking = [ask('/a'), ask('/b')];
    await until(() => held.length === 2);
    held[0]?.writeHead(429, { 'retry-after': '0.25' }).end();
    await until(() => context.events.length > 0);
    asking.push(ask('/c'));
    setTimeout(() => order.push('400 ms'), 400);
    held[1]?.writeHead(429, { 'retry-after': '0.6' }).end();
    expect(await Promise.all(asking)).toEqual(['ok', 'ok', 'ok']);
    expect([order[0], order.slice(1).sort()]).toEqual(['400 ms', ['/a', '/b', '/c']]);
  });

  it('of another host, after a redirect, holds for that host', async () => {
    const blobs = await startServer(refusing(1, { 'retry-after': '0.05' }));
    const server = await startServer((_, response) => response.writeHead(307, { location: blobs.url }).end());
    const context = testContext();
    const answer = await clientOf(context).request({ method: 'GET', url: new URL(server.url) });
    expect(await textOf(answer)).toBe('ok');
    expect(context.events).toMatchObject([{ type: 'pause', host: blobs.host }]);
    expect(server.asked).toHaveLength(2);
  });

  it('is remembered with what is left', async () => {
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'ratelimit-limit': '100;w=60', 'ratelimit-remaining': '99;w=60' }).end();
    });
    const http = clientOf();
    expect(http.quota(server.host)).toBeUndefined();
    await (await http.request({ method: 'HEAD', url: new URL(server.url) })).body.dump();
    expect(http.quota(server.host)).toMatchObject({ limit: 100, remaining: 99 });
  });
});

describe('a fault of the wire', () => {
  it('that stays says at the end how often it was tried', async () => {
    const server = await startServer((request) => request.socket.destroy());
    const failure = await failureOf(clientOf().request({ method: 'GET', url: new URL(server.url) }));
    expect(failure).toMatchObject({
      code: 'NETWORK_FAILED',
      message: expect.stringContaining('tried 3 times'),
    });
    expect(isNetworkError(failure)).toBe(true);
  });
});

describe('requests to one host at once', () => {
  it('fall to half when it refuses, and never pass the limit', async () => {
    const open = new Set<ServerResponse>();
    let most = 0;
    let refuse = true;
    const server = await startServer((_, response) => {
      open.add(response);
      most = Math.max(most, open.size);
      response.on('close', () => open.delete(response));
      if (refuse) response.writeHead(503).end();
      else setTimeout(() => response.end('ok'), 2);
    });
    const http = beginningWith(8);
    const url = new URL(server.url);
    await (await http.request({ method: 'GET', url, tries: 1 })).body.dump();
    expect(http.limit(url)).toBe(4);
    refuse = false;
    most = 0;
    await Promise.all(
      Array.from({ length: 9 }, async () => (await http.request({ method: 'GET', url })).body.dump()),
    );
    expect(most).toBeLessThanOrEqual(4);
    expect(most).toBeGreaterThan(1);
  });

  it('fall to half when a body breaks, and grow with good answers', async () => {
    const server = await startServer((request, response, count) => {
      if (count > 1) return void response.end('ok');
      response.writeHead(200, { 'content-length': 10 }).write('some');
      setTimeout(() => request.socket.destroy(), 5);
    });
    const http = beginningWith(8);
    const url = new URL(server.url);
    await failureOf(gather((await http.request({ method: 'GET', url })).body));
    expect(http.limit(url)).toBe(4);
    for (let i = 0; i < 10; i++) await gather((await http.request({ method: 'GET', url })).body);
    expect(http.limit(url)).toBe(5);
  });

  it('give their place back after an answer without a body, a body that was left, and a failure', async () => {
    const server = await startServer((request, response) => {
      if (request.url === '/cut') request.socket.destroy();
      else if (request.method === 'HEAD') response.end();
      else if (request.url === '/empty') response.writeHead(204).end();
      else response.end('x'.repeat(300_000));
    });
    const http = beginningWith(1);
    const url = new URL(server.url);
    await http.request({ method: 'HEAD', url });
    await http.request({ method: 'GET', url: new URL('/empty', url) });
    await failureOf(http.request({ method: 'GET', url: new URL('/cut', url), tries: 1 }));
    (await http.request({ method: 'GET', url })).body.destroy();
    for await (const _ of (await http.request({ method: 'GET', url })).body) break;
    const { into } = await testReceiver(Buffer.alloc(300_000, 'x'));
    for await (const _ of (await http.request({ method: 'GET', url, into })).body.pour?.(0) ?? []) break;
    expect(into.received).toBeGreaterThan(0);
    await (await http.request({ method: 'GET', url })).body.dump();
    // Each of these waits for the places before it.
    expect(server.asked.length).toBe(7);
    expect(http.limit(url)).toBe(1);
  });

  it('do not hang on a body that nobody reads', async () => {
    const server = await startServer((_, response) => response.end('x'.repeat(300_000)));
    const http = beginningWith(1);
    const url = new URL(server.url);
    const forgotten = await http.request({ method: 'GET', url });
    const answer = await http.request({ method: 'GET', url });
    expect((await gather(answer.body)).length).toBe(300_000);
    forgotten.body.destroy();
  });

  it('to one host do not hold those to another', async () => {
    const slow = await startServer(() => {});
    const fast = await startServer((_, response) => response.end('ok'));
    const context = testContext();
    const http = beginningWith(1, context);
    const stuck = failureOf(http.request({ method: 'GET', url: new URL(slow.url) }));
    expect(await textOf(await http.request({ method: 'GET', url: new URL(fast.url) }))).toBe('ok');
    context.stop();
    expect(await stuck).toMatchObject({ code: 'ABORTED' });
  });
});
