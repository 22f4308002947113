import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { downloadUrl } from '../../src/source/download.ts';
import { failureOf, gather, startServer, testClient, testContext } from '../io/server.ts';

describe('a file from an address', () => {
  for (const [status, code] of [
    [401, 'AUTH_REQUIRED'],
    [403, 'AUTH_DENIED'],
    [404, 'CONTENT_NOT_FOUND'],
    [410, 'CONTENT_NOT_FOUND'],
    [500, 'NETWORK_FAILED'],
  ] as const) {
    it(`that answers HTTP ${status} is ${code}, and its query is not shown`, async () => {
      const server = await startServer((_, response) => response.writeHead(status).end());
      const context = testContext();
      const http = testClient(context);
      const work = gather(downloadUrl(`${server.url}/tool?opaque=hunter2`, { http, context }));
      const failure = await failureOf(work);
      expect(failure).toMatchObject({ code, message: expect.stringContaining(`${server.url}/tool`) });
      const { message, hint, details } = failure as SealiftError;
      expect(JSON.stringify([message, hint, details, context.events])).not.toContain('hunter2');
    });
  }

  it('that is cut goes on, and its query is neither shown nor lost', async () => {
    const server = await startServer((request, response, count) => {
      if (count === 1) {
        response.writeHead(200, { 'content-length': 10 });
        response.write('01234', () => setTimeout(() => request.socket.destroy(), 5));
      } else response.writeHead(206, { 'content-range': 'bytes 5-9/10' }).end('56789');
    });
    const context = testContext();
    const http = testClient(context);
    const bytes = await gather(downloadUrl(`${server.url}/tool?opaque=hunter2`, { http, context }));
    expect(bytes.toString()).toBe('0123456789');
    expect(server.asked.map((r) => r.url)).toEqual(['/tool?opaque=hunter2', '/tool?opaque=hunter2']);
    expect(context.events).toHaveLength(1);
    expect(JSON.stringify(context.events)).not.toContain('hunter2');
  });

  it('that is not http or https is refused', () => {
    const context = testContext();
    const http = testClient(context);
    for (const address of ['file:///etc/passwd', 'ftp://x/y?opaque=hunter2', 'data:text/plain,x']) {
      expect(() => downloadUrl(address, { http, context })).toThrow(SealiftError);
      expect(() => downloadUrl(address, { http, context })).not.toThrow(/hunter2/);
    }
  });
});
