import { describe, expect, it } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { diskError } from '../../src/io/files.ts';
import { backoffMs, errorText, isLoopback } from '../../src/io/http.ts';
import { isNetworkError, networkError } from '../../src/io/network-errors.ts';
import { retryAfterMs } from '../../src/io/rate-limit.ts';
import { withoutQuery } from '../../src/io/redirect.ts';
import { failureOf, gather, startServer, testClient, testContext } from './server.ts';

const BUSY = [408, 425, 429, 499, 500, 502, 503, 504, 522];

describe('retries of a request', () => {
  for (const status of BUSY) {
    it(`[1.3-retry-status] are made after HTTP ${status}`, async () => {
      const server = await startServer((_, response, count) => {
        response.writeHead(count === 1 ? status : 200).end();
      });
      const context = testContext();
      const answer = await testClient(context).request({ method: 'GET', url: new URL(server.url) });
      expect(answer.status).toBe(200);
      expect(context.events).toEqual([
        { type: 'retry', what: `GET ${server.host}/`, reason: `HTTP ${status}`, waitMs: 0 },
      ]);
    });
  }

  for (const status of [400, 401, 403, 404, 409, 413, 416, 501]) {
    it(`[1.3-retry-status] are not made after HTTP ${status}: it is an answer`, async () => {
      const server = await startServer((_, response) => response.writeHead(status).end('why'));
      const answer = await testClient().request({ method: 'GET', url: new URL(server.url) });
      expect(answer.status).toBe(status);
      expect(await errorText(answer)).toBe('why');
      expect(server.asked).toHaveLength(1);
    });
  }

  it('[1.3-retry] end after the last try with the answer itself', async () => {
    const server = await startServer((_, response) => response.writeHead(503).end('down for good'));
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url) });
    expect([answer.status, await errorText(answer)]).toEqual([503, 'down for good']);
    expect(server.asked).toHaveLength(LIMITS.tries);
  });

  it('[1.3-retry] are six, with a random part of a wait that doubles between them', async () => {
    const server = await startServer((_, response) => response.writeHead(503).end());
    const context = { ...testContext(), random: () => 0.002 };
    await (await testClient(context).request({ method: 'GET', url: new URL(server.url) })).body.dump();
    expect(server.asked).toHaveLength(6);
    const waits = context.events.map((e) => (e.type === 'retry' ? e.waitMs : undefined));
    expect(waits).toEqual([2, 4, 8, 16, 32]);
  });

  it('can be fewer when the caller says so', async () => {
    const server = await startServer((_, response) => response.writeHead(503).end());
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url), tries: 2 });
    await answer.body.dump();
    expect(server.asked).toHaveLength(2);
  });

  it('[1.3-retry-connection] are made after a connection that was cut before the answer', async () => {
    const server = await startServer((request, response, count) => {
      if (count < 3) request.socket.destroy();
      else response.end('ok');
    });
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url) });
    expect((await gather(answer.body)).toString()).toBe('ok');
    expect(server.asked).toHaveLength(3);
  });

  it('are made after an answer that is not HTTP', async () => {
    const server = await startServer((request, response, count) => {
      if (count === 1) request.socket.end('SSH-2.0-OpenSSH_9.6\r\n');
      else response.end('ok');
    });
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url) });
    expect((await gather(answer.body)).toString()).toBe('ok');
  });

  it('end with NETWORK_FAILED, which names the server and says what to do', async () => {
    const server = await startServer(() => {});
    await server.close();
    const failure = await failureOf(testClient().request({ method: 'GET', url: new URL(server.url) }));
    expect(failure).toMatchObject({ code: 'NETWORK_FAILED', message: expect.stringContaining(server.url) });
    expect((failure as SealiftError).hint).toContain('run the same command again');
  });
});

it.each(['EMFILE', 'ENFILE'])(
  'a connection for which there are too few files (%s) is tried again, and says so',
  (code) => {
    const system = Object.assign(new Error(`connect ${code} 127.0.0.1:5000`), { code });
    expect(isNetworkError(system)).toBe(true);
    expect(networkError(system, 'http://127.0.0.1:5000')).toMatchObject({
      code: 'NETWORK_FAILED',
      hint: expect.stringContaining('ulimit -n'),
    });
    expect(diskError(system, '/x')).toMatchObject({ hint: expect.stringContaining('ulimit -n') });
  },
);

describe('Retry-After', () => {
  it('[1.3-retry-after] in seconds is waited for', async () => {
    const server = await startServer((_, response, count) => {
      response.writeHead(count === 1 ? 503 : 200, { 'retry-after': '0.02' }).end();
    });
    const context = testContext();
    await (await testClient(context).request({ method: 'GET', url: new URL(server.url) })).body.dump();
    expect(context.events).toMatchObject([{ type: 'retry', waitMs: 20 }]);
  });

  it('[1.3-retry-after] as a date is waited for', async () => {
    const now = Date.parse('Sun, 06 Nov 1994 08:49:36.980Z');
    const server = await startServer((_, response, count) => {
      response.writeHead(count === 1 ? 503 : 200, { 'retry-after': 'Sun, 06 Nov 1994 08:49:37 GMT' }).end();
    });
    const context = { ...testContext(), now: () => now };
    await (await testClient(context).request({ method: 'GET', url: new URL(server.url) })).body.dump();
    expect(context.events).toMatchObject([{ type: 'retry', waitMs: 20 }]);
  });

  it('[1.3-retry-after] is bounded, never negative, and ignored when it says nothing', () => {
    const now = Date.parse('2026-01-01T00:00:00Z');
    expect(retryAfterMs('120', now)).toBe(120_000);
    expect(retryAfterMs('999999999', now)).toBe(15 * 60_000);
    expect(retryAfterMs('-5', now)).toBe(0);
    expect(retryAfterMs('Thu, 01 Jan 2026 00:00:30 GMT', now)).toBe(30_000);
    expect(retryAfterMs('Wed, 31 Dec 2025 23:00:00 GMT', now)).toBe(0);
    expect(retryAfterMs('Fri, 01 Jan 2027 00:00:00 GMT', now)).toBe(LIMITS.retryAfterMs);
    for (const text of ['soon', '1e999', 'NaN', undefined]) expect(retryAfterMs(text, now)).toBeUndefined();
  });

  it('[1.3-host-pause] of a 429 holds for everybody who talks to that host', async () => {
    let clock = 1_000_000;
    const times: number[] = [];
    const server = await startServer((_, response, count) => {
      times.push(clock);
      response.writeHead(count === 1 ? 429 : 200, { 'retry-after': '0.05' }).end();
    });
    // The clock stands until the wait is over, so that a request which does not wait is seen.
    const context = { ...testContext(), now: () => clock };
    const client = testClient(context);
    const first = client.request({ method: 'GET', url: new URL('/a', server.url) });
    while (context.events.length === 0) await new Promise((resolve) => setImmediate(resolve));
    const second = client.request({ method: 'GET', url: new URL('/b', server.url) });
    setTimeout(() => {
      clock += 1000;
    }, 25);
    await (await second).body.dump();
    await (await first).body.dump();
    expect(times[0]).toBe(1_000_000);
    expect(times.slice(1)).toEqual([1_001_000, 1_001_000]);
  });

  it('[1.3-retry] backoff doubles up to 30 s and takes any part of it', () => {
    expect([1, 2, 3, 10].map((attempt) => backoffMs(attempt, () => 1))).toEqual([1000, 2000, 4000, 30_000]);
    expect(backoffMs(5, () => 0)).toBe(0);
  });
});

describe('what is told', () => {
  it('[A10-query] never holds a query, a password in an address or a header', async () => {
    const server = await startServer((request, response, count) => {
      if (count === 1) request.socket.destroy();
      else if (count === 2) response.writeHead(503).end();
      else response.writeHead(302, { location: 'http://user:hunter2@[broken/?opaque=hunter2#hunter2' }).end();
    });
    const context = testContext();
    const url = new URL(`http://user:hunter2@${server.host}/file?opaque=hunter2#hunter2`);
    const headers = { authorization: 'Bearer hunter2hunter2' };
    const failure = await failureOf(testClient(context).request({ method: 'GET', url, headers }));
    expect(failure).toMatchObject({ code: 'NETWORK_URL_REFUSED' });
    const { message, hint, details } = failure as SealiftError;
    expect(context.events).toHaveLength(2);
    expect(JSON.stringify([context.events, message, hint, details])).not.toContain('hunter2');
  });

  it('shows an address without query, fragment and user', () => {
    expect(withoutQuery('https://u:p@cdn.example.org/a/b?sig=1#x')).toBe('https://***@cdn.example.org/a/b');
    expect(withoutQuery(`/${'a'.repeat(500)}`)).toHaveLength(200);
    expect(withoutQuery('?x')).toBe('');
  });

  it('keeps only the start of an error body, however long it is', async () => {
    const server = await startServer((_, response) => {
      response.writeHead(400);
      const write = (): void => {
        while (!response.destroyed && response.write('x'.repeat(4096)));
        if (!response.destroyed) response.once('drain', write);
      };
      write();
    });
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url) });
    expect(await errorText(answer)).toHaveLength(LIMITS.errorBody);
  });

  it('keeps what came of an error body that broke', async () => {
    const server = await startServer((request, response) => {
      response.writeHead(400, { 'content-length': 100 }).write('some');
      setTimeout(() => request.socket.destroy(), 10);
    });
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url) });
    expect(await errorText(answer)).toBe('some');
  });
});

it('[1.3-identity] asks for bytes as they are: no transport compression', async () => {
  const server = await startServer((_, response) => response.end());
  await (await testClient().request({ method: 'GET', url: new URL(server.url) })).body.dump();
  expect(server.asked[0]?.headers['accept-encoding']).toBe('identity');
});

it('knows the machine itself', () => {
  for (const name of ['localhost', 'LOCALHOST', '127.0.0.1', '127.9.9.9', '[::1]', '::1'])
    expect(isLoopback(name)).toBe(true);
  for (const name of ['localhost.example.org', '128.0.0.1', '127.0.0.1.example.org', '10.0.0.1', '::2'])
    expect(isLoopback(name)).toBe(false);
});
