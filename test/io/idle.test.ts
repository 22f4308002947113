import { describe, expect, it, vi } from 'vitest';
import { resumableBytes } from '../../src/io/resume.ts';
import { failureOf, gather, startServer, testClient, testContext } from './server.ts';

/** The real limits are minutes; here silence is over soon. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  return { ...real, LIMITS: { ...real.LIMITS, idleMs: 250, headersMs: 500, tries: 2 } };
});

describe('a server that falls silent', () => {
  it('before its answer is a timeout, after as many tries as any other fault', async () => {
    const context = testContext();
    const server = await startServer(() => {});
    const failure = await failureOf(testClient(context).request({ method: 'GET', url: new URL(server.url) }));
    expect(failure).toMatchObject({ code: 'NETWORK_TIMEOUT', message: expect.stringContaining(server.url) });
    expect(context.events).toHaveLength(1);
    expect(server.asked).toHaveLength(2);
  });

  it('[1.3-idle] in the middle of a body is left, and another connection goes on from there', async () => {
    const server = await startServer((_, response, count) => {
      if (count === 1) response.writeHead(200, { 'content-length': 10 }).write('01234');
      else response.writeHead(206, { 'content-range': 'bytes 5-9/10', 'content-length': 5 }).end('56789');
    });
    const context = testContext();
    const http = testClient(context);
    const bytes = resumableBytes({
      what: 'thing',
      size: 10,
      start: 0,
      context,
      open: (at) =>
        http.request({
          method: 'GET',
          url: new URL(server.url),
          headers: at > 0 ? { range: `bytes=${at}-` } : {},
        }),
    });
    expect((await gather(bytes)).toString()).toBe('0123456789');
    expect(server.asked[1]?.headers.range).toBe('bytes=5-');
  });

  it('[1.3-idle] but a slow one that goes on sending is waited for', async () => {
    const server = await startServer((_, response) => {
      let left = 8;
      const timer = setInterval(() => {
        response.write('x');
        if (--left > 0) return;
        clearInterval(timer);
        response.end();
      }, 100);
    });
    const context = testContext();
    const answer = await testClient(context).request({ method: 'GET', url: new URL(server.url) });
    expect((await gather(answer.body)).toString()).toBe('xxxxxxxx');
    expect(context.events).toEqual([]);
  });
});
