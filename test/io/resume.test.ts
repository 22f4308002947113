import type { IncomingMessage, ServerResponse } from 'node:http';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import type { HttpClient, HttpResponse } from '../../src/io/http.ts';
import { type ResumeOptions, resumableBytes, wholeAnswer } from '../../src/io/resume.ts';
import {
  failureOf,
  gather,
  someBytes,
  startServer,
  type TestContext,
  type TestServer,
  testClient,
  testContext,
} from './server.ts';

const DATA = someBytes(200_000);

function offsetOf(request: IncomingMessage): number {
  return Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
}

interface Sending {
  readonly data?: Buffer;
  /** Bytes after which the connection is cut. */
  readonly cutAfter?: number;
  readonly ranges?: boolean;
  readonly headers?: Record<string, string>;
}

/** Sends the data as a good server would, or a part of it. */
function sendData(request: IncomingMessage, response: ServerResponse, how: Sending = {}): void {
  const data = how.data ?? DATA;
  const from = how.ranges === false ? 0 : offsetOf(request);
  const part = data.subarray(from);
  const range = from > 0 ? { 'content-range': `bytes ${from}-${data.length - 1}/${data.length}` } : {};
  response.writeHead(from > 0 ? 206 : 200, { 'content-length': part.length, ...range, ...how.headers });
  if (how.cutAfter === undefined) response.end(part);
  else response.write(part.subarray(0, how.cutAfter), () => setTimeout(() => request.socket.destroy(), 5));
}

interface Reading extends Partial<Pick<ResumeOptions, 'start' | 'signal'>> {
  /** null: not known. */
  readonly size?: number | null;
  readonly context?: TestContext;
  readonly http?: HttpClient;
}

function read(server: TestServer, options: Reading = {}): AsyncGenerator<Buffer> {
  const context = options.context ?? testContext();
  const http = options.http ?? testClient(context);
  const size = options.size === undefined ? DATA.length : options.size;
  const open = (at: number): Promise<HttpResponse> => {
    const headers = at > 0 ? { range: `bytes=${at}-` } : {};
    return http.request({ method: 'GET', url: new URL(server.url), headers });
  };
  return resumableBytes({
    what: 'thing',
    start: options.start ?? 0,
    context,
    open,
    ...(size === null ? {} : { size }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
}

describe('a download that is cut', () => {
  it('[1.3-resume] goes on by Range from the last byte', async () => {
    const context = testContext();
    const server = await startServer((request, response, count) =>
      sendData(request, response, count < 4 ? { cutAfter: 50_000 } : {}),
    );
    expect((await gather(read(server, { context }))).equals(DATA)).toBe(true);
    expect(server.asked.map((r) => r.headers.range)).toEqual([
      undefined,
      'bytes=50000-',
      'bytes=100000-',
      'bytes=150000-',
    ]);
    expect(context.events).toMatchObject([
      { type: 'retry', what: 'thing at byte 50000' },
      { type: 'retry', what: 'thing at byte 100000' },
      { type: 'retry', what: 'thing at byte 150000' },
    ]);
  });

  it('[1.3-resume-ignored] skips what it has when the server ignores Range', async () => {
    const server = await startServer((request, response, count) =>
      sendData(
        request,
        response,
        count < 3 ? { cutAfter: 60_000 * count, ranges: false } : { ranges: false },
      ),
    );
    expect((await gather(read(server))).equals(DATA)).toBe(true);
    expect(server.asked).toHaveLength(3);
  });

  it('has the same bytes wherever it is cut (property)', async () => {
    let cuts: readonly number[] = [];
    let ranges = true;
    let done = 0;
    const server = await startServer((request, response) => {
      const cutAfter = cuts[done++];
      sendData(request, response, { ranges, ...(cutAfter === undefined ? {} : { cutAfter }) });
    });
    const http = testClient();
    const cutList = fc.array(fc.integer({ min: 1, max: 80_000 }), { maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(
        cutList,
        fc.boolean(),
        fc.integer({ min: 0, max: DATA.length }),
        async (c, r, start) => {
          [cuts, ranges, done] = [c, r, 0];
          const got = await gather(read(server, { start, http }));
          expect(got.equals(DATA.subarray(start))).toBe(true);
        },
      ),
      { numRuns: 25 },
    );
  });

  it('[1.3-resume-progress] gives up after so many cuts without a byte', async () => {
    const server = await startServer((request, response) => {
      response.writeHead(200, { 'content-length': DATA.length }).flushHeaders();
      setTimeout(() => request.socket.destroy(), 5);
    });
    expect(await failureOf(gather(read(server)))).toMatchObject({
      code: 'NETWORK_FAILED',
      message: expect.stringContaining('thing'),
    });
    expect(server.asked).toHaveLength(LIMITS.tries);
  });

  it('[1.3-resume-progress] does not give up while enough comes between the cuts', async () => {
    const data = someBytes(20 * LIMITS.bytesPerCut);
    const server = await startServer((request, response, count) =>
      sendData(request, response, { data, ...(count < 20 ? { cutAfter: LIMITS.bytesPerCut + 1 } : {}) }),
    );
    expect((await gather(read(server, { size: data.length }))).equals(data)).toBe(true);
    expect(server.asked.length).toBeGreaterThan(2 * LIMITS.tries);
  });

  it('[1.3-resume-progress] comes to an end when it is cut after every few bytes', async () => {
    const server = await startServer((request, response) => sendData(request, response, { cutAfter: 100 }));
    expect(await failureOf(gather(read(server)))).toMatchObject({ code: 'NETWORK_FAILED' });
    expect(server.asked).toHaveLength(LIMITS.tries);
  });

  it('does not multiply the retries of a request by its own', async () => {
    const server = await startServer((request) => request.socket.destroy());
    expect(await failureOf(gather(read(server)))).toMatchObject({ code: 'NETWORK_FAILED' });
    expect(server.asked).toHaveLength(LIMITS.tries);
  });

  it('without a known size remembers the size of the first answer', async () => {
    const server = await startServer((request, response, count) => {
      if (count === 1) sendData(request, response, { cutAfter: 1000 });
      else sendData(request, response, { data: someBytes(150_000) });
    });
    expect(await failureOf(gather(read(server, { size: null })))).toMatchObject({
      code: 'CONTENT_SIZE_MISMATCH',
    });
  });

  it('without a known size is not put together from two files', async () => {
    const server = await startServer((request, response, count) => {
      if (count === 1) sendData(request, response, { cutAfter: 1000, headers: { etag: '"old"' } });
      else sendData(request, response, { data: someBytes(DATA.length, 2), headers: { etag: '"new"' } });
    });
    expect(await failureOf(gather(read(server, { size: null })))).toMatchObject({
      code: 'REGISTRY_ANSWER_INVALID',
      message: expect.stringContaining('changed'),
    });
  });

  it('of known size may come from copies with different tags', async () => {
    const server = await startServer((request, response, count) =>
      sendData(request, response, {
        headers: { etag: `"${count}"` },
        ...(count === 1 ? { cutAfter: 1000 } : {}),
      }),
    );
    expect((await gather(read(server))).equals(DATA)).toBe(true);
  });
});

describe('an answer that is not what was asked', () => {
  const ranges: Record<string, string> = {
    'from another byte': `bytes 999-${DATA.length - 1}/${DATA.length}`,
    'that ends early': `bytes 1000-1999/${DATA.length}`,
    'without a range': '',
    'in another unit': `lines 1000-${DATA.length - 1}/${DATA.length}`,
    'that ends before it begins': `bytes 1000-10/${DATA.length}`,
  };
  for (const [name, range] of Object.entries(ranges)) {
    for (const size of [DATA.length, null]) {
      it(`[1.3-resume-range] is refused: a part ${name}, size ${size === null ? 'not ' : ''}known`, async () => {
        const server = await startServer((_, response) => {
          response.writeHead(206, range === '' ? {} : { 'content-range': range }).end(DATA.subarray(1000));
        });
        expect(await failureOf(gather(read(server, { start: 1000, size })))).toMatchObject({
          code: 'REGISTRY_ANSWER_INVALID',
        });
      });
    }
  }

  it('[1.3-resume-range] is refused: a part of a thing with another size', async () => {
    const server = await startServer((request, response) =>
      sendData(request, response, { data: someBytes(DATA.length + 1) }),
    );
    expect(await failureOf(gather(read(server, { start: 1000 })))).toMatchObject({
      code: 'CONTENT_SIZE_MISMATCH',
    });
  });

  for (const size of [DATA.length - 1, DATA.length + 1]) {
    it(`[1.3-size-announced] is refused before the first byte: Content-Length ${size - DATA.length} off`, async () => {
      const server = await startServer((request, response) =>
        sendData(request, response, { data: someBytes(size) }),
      );
      const chunks: Buffer[] = [];
      const work = (async () => {
        for await (const chunk of read(server)) chunks.push(chunk);
      })();
      expect(await failureOf(work)).toMatchObject({ code: 'CONTENT_SIZE_MISMATCH', side: 'source' });
      expect(chunks).toEqual([]);
      expect(server.asked).toHaveLength(1);
    });
  }

  it('is asked again: a Content-Length that the body does not reach', async () => {
    const server = await startServer((request, response, count) => {
      if (count > 1) sendData(request, response);
      else {
        const head = `HTTP/1.1 200 OK\r\nContent-Length: ${DATA.length}\r\n\r\n`;
        request.socket.end(Buffer.concat([Buffer.from(head), DATA.subarray(0, 70_000)]));
      }
    });
    expect((await gather(read(server))).equals(DATA)).toBe(true);
    expect(server.asked[1]?.headers.range).toBe('bytes=70000-');
  });

  it('[1.3-size-under] is a failure in the end: a body that never is whole', async () => {
    const server = await startServer((_, response) => {
      response.write(DATA.subarray(0, 70_000));
      response.end();
    });
    const chunks: Buffer[] = [];
    const work = (async () => {
      for await (const chunk of read(server)) chunks.push(chunk);
    })();
    expect(await failureOf(work)).toMatchObject({
      code: 'NETWORK_FAILED',
      message: expect.stringContaining('ended at 70000 of 200000 bytes'),
    });
    expect(Buffer.concat(chunks)).toHaveLength(70_000);
  });

  it('[1.3-size-under] is asked again: a chunked body that ends early but well', async () => {
    const server = await startServer((request, response, count) => {
      if (count > 1) sendData(request, response);
      else {
        response.write(DATA.subarray(0, 70_000));
        response.end();
      }
    });
    expect((await gather(read(server))).equals(DATA)).toBe(true);
    expect(server.asked[1]?.headers.range).toBe('bytes=70000-');
  });

  it('is left aside: a wrong part after a cut, then the whole is asked for and what was there skipped', async () => {
    const server = await startServer((request, response, count) => {
      if (count === 1) sendData(request, response, { cutAfter: 50_000 });
      else if (count === 2) {
        const wrong = { 'content-range': `bytes 0-${DATA.length - 1}/${DATA.length}` };
        response.writeHead(206, wrong).end(DATA);
      } else sendData(request, response);
    });
    expect((await gather(read(server))).equals(DATA)).toBe(true);
    expect(server.asked.map((r) => r.headers.range)).toEqual([undefined, 'bytes=50000-', undefined]);
  });

  it('is left aside: 416 for a part that exists', async () => {
    const server = await startServer((request, response, count) => {
      if (count === 1) sendData(request, response, { cutAfter: 50_000 });
      else if (count === 2) response.writeHead(416, { 'content-range': 'bytes */3' }).end();
      else sendData(request, response);
    });
    expect((await gather(read(server))).equals(DATA)).toBe(true);
    expect(server.asked.map((r) => r.headers.range)).toEqual([undefined, 'bytes=50000-', undefined]);
  });

  it('is refused: 416, and a whole of another size', async () => {
    const server = await startServer((request, response) => {
      if (request.headers.range !== undefined) response.writeHead(416).end();
      else sendData(request, response, { data: someBytes(3) });
    });
    expect(await failureOf(gather(read(server, { start: 1000 })))).toMatchObject({
      code: 'CONTENT_SIZE_MISMATCH',
    });
  });
});

describe('the ends of a download', () => {
  it('nothing is asked when all is there already', async () => {
    const server = await startServer((request, response) => sendData(request, response));
    expect(await gather(read(server, { start: DATA.length }))).toHaveLength(0);
    expect(server.asked).toHaveLength(0);
  });

  it('an empty thing is asked for once', async () => {
    const server = await startServer((request, response) =>
      sendData(request, response, { data: Buffer.alloc(0) }),
    );
    expect(await gather(read(server, { size: 0 }))).toHaveLength(0);
    expect(server.asked).toHaveLength(1);
  });

  it('a body without any length is taken to its end', async () => {
    const server = await startServer((_, response) => {
      response.write('abc');
      response.end('def');
    });
    expect((await gather(read(server, { size: null }))).toString()).toBe('abcdef');
  });

  it('a reader who leaves early ends the connection', async () => {
    let closed: () => void;
    const ended = new Promise<void>((resolve) => {
      closed = resolve;
    });
    const server = await startServer((request, response) => {
      request.socket.once('close', () => closed());
      response.writeHead(200, { 'content-length': DATA.length }).write(DATA.subarray(0, 1000));
    });
    for await (const chunk of read(server)) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    await ended;
  });

  it('being stopped ends the stream, whichever signal says so', async () => {
    for (const which of ['context', 'own'] as const) {
      const context = testContext();
      const own = new AbortController();
      const server = await startServer((request, response) => {
        sendData(request, response, { cutAfter: 1000 });
      });
      const stop = (): void => (which === 'context' ? context.stop() : own.abort());
      // The wait would be longer than the test.
      const waits = { ...context, random: () => 1000, emit: stop };
      const work = gather(read(server, { context: waits, signal: own.signal }));
      expect(await failureOf(work)).toMatchObject({ code: 'ABORTED' });
      expect(server.asked).toHaveLength(1);
    }
  });
});

describe('a small answer', () => {
  const ask = (server: TestServer, context = testContext(), limit = 1000) => {
    const http = testClient(context);
    const once = (): Promise<HttpResponse> => http.request({ method: 'GET', url: new URL(server.url) });
    return wholeAnswer(once, { what: 'small thing', limit, context });
  };

  it('is asked for again when it breaks in the middle', async () => {
    const data = Buffer.from('{"token":"x"}');
    const context = testContext();
    const server = await startServer((request, response, count) =>
      sendData(request, response, { data, ...(count < 3 ? { cutAfter: 5 } : {}) }),
    );
    expect((await ask(server, context)).bytes?.equals(data)).toBe(true);
    expect(context.events).toMatchObject([
      { type: 'retry', what: 'small thing' },
      { type: 'retry', what: 'small thing' },
    ]);
  });

  it('is given up after so many tries', async () => {
    const data = Buffer.alloc(100);
    const server = await startServer((request, response) =>
      sendData(request, response, { data, cutAfter: 5 }),
    );
    expect(await failureOf(ask(server))).toMatchObject({ code: 'NETWORK_FAILED' });
    expect(server.asked).toHaveLength(LIMITS.tries);
  });

  it('is refused when it is not small', async () => {
    const server = await startServer((request, response) => sendData(request, response));
    expect(await failureOf(ask(server))).toMatchObject({ code: 'CONTENT_TOO_LARGE' });
  });

  it('comes back unread when it is a refusal', async () => {
    const server = await startServer((_, response) => response.writeHead(404).end('why'));
    const { response, bytes } = await ask(server);
    expect(bytes).toBeUndefined();
    expect((await gather(response.body)).toString()).toBe('why');
  });
});
