import type { IncomingMessage, ServerResponse } from 'node:http';
import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { LIMITS, MIB } from '../../src/core/limits.ts';
import type { RunningRegistry } from '../../src/serve/registry.ts';
import { bodyOf, failureOf, gather, someBytes, startServer } from '../io/server.ts';
import { blobOf, client, runRegistry, source } from './bench.ts';

const never = new AbortController().signal;
const KIB = 1024;
const big = blobOf(someBytes(3 * MIB + 1234));

/** A refusal as a proxy gives it: before the body, which it throws away. */
function tooLarge(request: IncomingMessage, response: ServerResponse, limit: number): boolean {
  if (Number(request.headers['content-length'] ?? 0) <= limit) return false;
  request.resume();
  response.writeHead(413, { 'content-type': 'text/html' }).end('<html>413 nginx</html>');
  return true;
}

/** What was asked for, without the session's name: `PATCH 202 0-99`. */
function lines(running: RunningRegistry): string[] {
  return running.requests.map((r) => `${r.method} ${r.status}`);
}

async function expectThere(running: RunningRegistry, blob = big): Promise<void> {
  const { registry } = client(running.host);
  const found = await gather(registry.readBlob('app', blob.descriptor, { signal: never }));
  expect(found.equals(blob.bytes)).toBe(true);
}

describe('an upload that is refused as too large', () => {
  it('[1.4-4-chunks] goes in chunks, halved until they pass, and later blobs start so', async () => {
    const limit = 300 * KIB;
    const seen: string[] = [];
    const running = await runRegistry({
      intercept: (request, response) => {
        if (request.method === 'PATCH' || request.method === 'PUT')
          seen.push(`${request.method} ${request.headers['content-range'] ?? ''}`.trim());
        return tooLarge(request, response, limit);
      },
    });
    const { registry } = client(running.host);
    const blob = source(big.bytes);
    await registry.writeBlob('app', big.descriptor, blob.open);
    await expectThere(running);
    expect(seen.slice(0, 5)).toEqual([
      'PUT',
      'PATCH 0-1048575',
      'PATCH 0-524287',
      'PATCH 0-262143',
      'PATCH 262144-524287',
    ]);
    expect(seen.at(-1)).toBe('PUT');

    seen.length = 0;
    const second = blobOf(someBytes(600 * KIB, 5));
    const again = source(second.bytes);
    await registry.writeBlob('app', second.descriptor, again.open);
    await expectThere(running, second);
    expect(seen).toEqual(['PATCH 0-262143', 'PATCH 262144-524287', 'PATCH 524288-614399', 'PUT']);
    // One pass over the source: chunks are cut out of a stream that is read forward.
    expect(again.opened).toBe(1);

    seen.length = 0;
    const small = blobOf(someBytes(200 * KIB, 6));
    await registry.writeBlob('app', small.descriptor, source(small.bytes).open);
    expect(seen).toEqual(['PUT']);
  });

  it('[1.4-4-cancel] ends with the hint for the proxy when no chunk is small enough', async () => {
    const running = await runRegistry({
      intercept: (request, response) => tooLarge(request, response, 1000),
    });
    const work = client(running.host).registry.writeBlob('app', big.descriptor, source(big.bytes).open);
    expect(await failureOf(work)).toMatchObject({
      code: 'REGISTRY_FAILED',
      details: { status: 413 },
      hint: expect.stringContaining('client_max_body_size'),
      side: 'destination',
    });
    expect(lines(running).at(-1)).toBe('DELETE 204');
  });

  it('says so when the registry wants larger chunks than are let through', async () => {
    const running = await runRegistry({
      intercept: (request, response) => {
        if (request.method === 'POST') response.setHeader('oci-chunk-min-length', `${MIB}`);
        return tooLarge(request, response, 300 * KIB);
      },
    });
    const work = client(running.host).registry.writeBlob('app', big.descriptor, source(big.bytes).open);
    expect(await failureOf(work)).toMatchObject({
      code: 'REGISTRY_FAILED',
      message: expect.stringContaining(`at least ${MIB} bytes`),
      hint: expect.stringContaining('client_max_body_size'),
    });
  });

  it('[1.4-4-chunk-length] keeps to OCI-Chunk-Min-Length for every chunk but the last', async () => {
    const ranges: string[] = [];
    const running = await runRegistry({
      intercept: (request, response) => {
        if (request.method === 'POST') response.setHeader('oci-chunk-min-length', `${1.5 * MIB}`);
        if (request.method === 'PATCH') ranges.push(request.headers['content-range'] ?? '');
        return tooLarge(request, response, 2 * MIB);
      },
    });
    const { registry } = client(running.host);
    await registry.writeBlob('app', big.descriptor, source(big.bytes).open);
    await expectThere(running);
    expect(ranges).toEqual(['0-1572863', '1572864-3145727', `3145728-${big.bytes.length - 1}`]);
  });
});

/** Destroys the connection when `after` bytes of the body have come. */
function cutAfter(request: IncomingMessage, after: number): void {
  let got = 0;
  request.on('data', (chunk: Buffer) => {
    got += chunk.length;
    if (got >= after) request.socket.destroy();
  });
}

/** A registry that knows only chunks above `limit`, and does with each PATCH what a test says. */
async function chunkRegistry(
  patch: (request: IncomingMessage, response: ServerResponse, count: number) => boolean,
) {
  let count = 0;
  return runRegistry({
    intercept: (request, response) => {
      if (request.method === 'PATCH' && patch(request, response, ++count)) return true;
      return tooLarge(request, response, MIB);
    },
  });
}

describe('an upload in chunks that breaks', () => {
  it('[1.4-4-offset] goes on from where the registry says after a cut (GET of the session, Range)', async () => {
    const running = await chunkRegistry((request, _, count) => {
      if (count === 2) setTimeout(() => request.socket.destroy(), 20);
      return false;
    });
    const { registry, context } = client(running.host);
    // The source is slow in the middle of the second chunk, so that it is cut there.
    const open = async function* () {
      yield big.bytes.subarray(0, MIB + 300_000);
      await new Promise((resolve) => setTimeout(resolve, 60));
      yield big.bytes.subarray(MIB + 300_000);
    };
    await registry.writeBlob('app', big.descriptor, open);
    await expectThere(running);
    const asked = running.requests.filter((r) => r.method === 'GET' && r.path.includes('/uploads/'));
    expect(asked.map((r) => r.status)).toEqual([204]);
    const received = running.requests.reduce((sum, r) => sum + r.received, 0);
    expect(received).toBe(big.bytes.length);
    expect(context.events).toContainEqual(
      expect.objectContaining({ type: 'retry', what: expect.stringContaining(`at byte ${MIB}`) }),
    );
  });

  for (const status of [408, 409, 416, 429, 500, 503]) {
    it(`by HTTP ${status} asks how far it is and goes on`, async () => {
      const running = await chunkRegistry((request, response, count) => {
        if (count !== 2) return false;
        request.resume();
        response.writeHead(status).end();
        return true;
      });
      const { registry } = client(running.host);
      await registry.writeBlob('app', big.descriptor, source(big.bytes).open);
      await expectThere(running);
      expect(lines(running).filter((l) => l === 'POST 202')).toHaveLength(2);
    });
  }

  it('[1.4-7-restart] starts over from POST when the session is gone', async () => {
    let gone: string | undefined;
    let patches = 0;
    const running = await runRegistry({
      intercept: (request, response) => {
        const path = request.url?.split('?')[0];
        if (request.method === 'PATCH' && ++patches === 3) gone = path;
        if (path !== gone) return tooLarge(request, response, MIB);
        request.resume();
        response.writeHead(404).end('{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"gone"}]}');
        return true;
      },
    });
    const { registry } = client(running.host);
    await registry.writeBlob('app', big.descriptor, source(big.bytes).open);
    await expectThere(running);
    expect(lines(running).filter((l) => l === 'POST 202')).toHaveLength(3);
  });

  it('[1.4-4-chunks] goes on after an answer of 201 (ECR), each time at the place that the registry names', async () => {
    const received: Buffer[] = [];
    const asked: string[] = [];
    const server = await startServer(async (request, response) => {
      const body = await bodyOf(request);
      asked.push(`${request.method} ${request.url?.split('?')[0]}`);
      if (request.method === 'POST') return response.writeHead(202, { location: '/up/0' }).end();
      if (request.method === 'DELETE') return response.writeHead(204).end();
      if (body.length > MIB) return response.writeHead(413).end();
      received.push(body);
      const held = Buffer.concat(received).length;
      return response.writeHead(201, { location: `/up/${received.length}`, range: `0-${held - 1}` }).end();
    });
    await client(server.host).registry.writeBlob('app', big.descriptor, source(big.bytes).open);
    expect(Buffer.concat(received).equals(big.bytes)).toBe(true);
    const puts = ['PATCH /up/0', 'PATCH /up/1', 'PATCH /up/2', 'PATCH /up/3', 'PUT /up/4'];
    expect(asked.slice(-puts.length)).toEqual(puts);
  });

  it('sends only what is missing when the registry kept a part of a chunk', async () => {
    const running = await chunkRegistry((request, response, count) => {
      if (count !== 2) return false;
      // Tells less than it was sent: the next chunk must begin there.
      const start = MIB;
      response.writeHead(202, { range: `0-${start - 1 + 1000}` });
      request.resume();
      response.end();
      return true;
    });
    const { registry } = client(running.host);
    // The registry did not take those 1000 bytes, so it refuses the next chunk (416) and is asked.
    await registry.writeBlob('app', big.descriptor, source(big.bytes).open);
    await expectThere(running);
    expect(lines(running)).toContain('PATCH 416');
  });

  it('gives up when nothing moves any more', async () => {
    const running = await chunkRegistry((request) => {
      request.socket.destroy();
      return true;
    });
    const { registry } = client(running.host);
    const failure = await failureOf(registry.writeBlob('app', big.descriptor, source(big.bytes).open));
    expect(failure).toMatchObject({ code: 'NETWORK_FAILED', hint: expect.any(String) });
    expect(lines(running).filter((l) => l === 'PATCH 0')).toHaveLength(LIMITS.tries);
    expect(lines(running).at(-1)).toBe('DELETE 204');
  });

  it('is not ended with a damaged source', async () => {
    const wrong = new SealiftError('BUNDLE_CHECKSUM_MISMATCH', 'damaged', { side: 'source' });
    const running = await chunkRegistry(() => false);
    const open = async function* () {
      yield big.bytes;
      throw wrong;
    };
    const { registry } = client(running.host);
    expect(await failureOf(registry.writeBlob('app', big.descriptor, open))).toBe(wrong);
    expect(await registry.hasBlob('app', big.descriptor.digest)).toBe(false);
    expect(lines(running).filter((l) => l.startsWith('PUT 2'))).toEqual([]);
  });
});

describe('an upload that breaks as a whole', () => {
  it('twice at about one byte goes in chunks, which pass below the limit', async () => {
    const limit = 2 * MIB;
    const running = await runRegistry({
      intercept: (request) => {
        if (Number(request.headers['content-length'] ?? 0) > limit) cutAfter(request, limit);
        return false;
      },
    });
    const { registry } = client(running.host);
    const large = blobOf(someBytes(24 * MIB, 3));
    await registry.writeBlob('app', large.descriptor, source(large.bytes).open);
    await expectThere(running, large);
    const puts = running.requests.filter((r) => r.method === 'PUT');
    expect(puts.map((r) => r.status)).toEqual([0, 0, 201]);
    const other = blobOf(someBytes(24 * MIB, 4));
    const from = running.requests.length;
    await registry.writeBlob('app', other.descriptor, source(other.bytes).open);
    await expectThere(running, other);
    expect(running.requests.slice(from).map((r) => r.method)).not.toContain('DELETE');
  });

  it('is not sent again when only the answer was lost', async () => {
    let lost = false;
    const running = await runRegistry({
      intercept: (request, response) => {
        if (request.method !== 'PUT' || lost) return false;
        lost = true;
        const end = response.end.bind(response);
        response.writeHead = () => response;
        response.end = ((...args: Parameters<typeof end>) => {
          request.socket.destroy();
          return end(...args);
        }) as typeof response.end;
        return false;
      },
    });
    const { registry } = client(running.host);
    const blob = source(big.bytes);
    await registry.writeBlob('app', big.descriptor, blob.open);
    await expectThere(running);
    expect(blob.opened).toBe(1);
  });
});
