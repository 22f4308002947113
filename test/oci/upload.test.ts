import type { IncomingMessage, ServerResponse } from 'node:http';
import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { selfSigned } from '../io/certificate.ts';
import { bodyOf, failureOf, gather, someBytes, startServer, testContext } from '../io/server.ts';
import { blobOf, client, runRegistry, source } from './bench.ts';

const never = new AbortController().signal;

const { bytes, descriptor } = blobOf(someBytes(300_000));

const query = `digest=${descriptor.digest.replace(':', '%3A')}`;

interface Session {
  /** The Location of the answer to POST; undefined: none. */
  readonly location?: (host: string) => string;
  /** Answers the PUT after its body was read; default 201. `count` is 1 for the first. */
  readonly put?: (response: ServerResponse, count: number, request: IncomingMessage) => unknown;
}

/** A registry that only takes uploads. */
async function uploadServer(session: Session = {}) {
  const bodies: Buffer[] = [];
  const server = await startServer(async (request, response) => {
    if (request.method === 'POST') {
      const place =
        session.location === undefined ? '/upload/1' : session.location(request.headers.host ?? '');
      response.writeHead(202, place === '' ? {} : { location: place }).end();
      return;
    }
    if (request.method === 'DELETE') {
      response.writeHead(204).end();
      return;
    }
    bodies.push(await bodyOf(request).catch(() => Buffer.alloc(0)));
    if (session.put === undefined) response.writeHead(201).end();
    else session.put(response, bodies.length, request);
  });
  return { ...server, bodies };
}

function asked(server: { readonly asked: readonly { method: string; url: string }[] }): string[] {
  return server.asked.map((r) => `${r.method} ${r.url}`);
}

describe('an upload', () => {
  it('[1.4-3-start, 1.4-4-put] is a POST and a PUT with the exact length', async () => {
    const server = await uploadServer();
    const blob = source(bytes);
    await client(server.host).registry.writeBlob('team/app', descriptor, blob.open);
    expect(asked(server)).toEqual(['POST /v2/team/app/blobs/uploads/', `PUT /upload/1?${query}`]);
    expect(server.asked.map((r) => r.headers['content-length'])).toEqual(['0', '300000']);
    expect(server.asked[1]?.headers['content-type']).toBe('application/octet-stream');
    expect(server.bodies[0]?.equals(bytes)).toBe(true);
    expect(blob.opened).toBe(1);
  });

  it('ends up in a real registry, also an empty one', async () => {
    const running = await runRegistry();
    const { registry } = client(running.host);
    for (const blob of [blobOf(bytes), blobOf('')]) {
      await registry.writeBlob('app', blob.descriptor, source(blob.bytes).open);
      expect(await registry.hasBlob('app', blob.descriptor.digest)).toBe(true);
      const found = await gather(registry.readBlob('app', blob.descriptor, { signal: never }));
      expect(found.equals(blob.bytes)).toBe(true);
    }
  });

  it('[1.3-empty-push] of no bytes says Content-Length: 0 and opens no source', async () => {
    const server = await uploadServer();
    const empty = blobOf('');
    const blob = source(empty.bytes);
    await client(server.host).registry.writeBlob('app', empty.descriptor, blob.open);
    expect(server.asked[1]?.headers['content-length']).toBe('0');
    expect(blob.opened).toBe(0);
  });

  it('[1.4-4-put] that is answered with 204 is done too', async () => {
    const server = await uploadServer({ put: (response) => response.writeHead(204).end() });
    await client(server.host).registry.writeBlob('app', descriptor, source(bytes).open);
    expect(server.asked).toHaveLength(2);
  });
});

describe('the Location of an upload', () => {
  const forms: Record<string, [(host: string) => string, string]> = {
    'a whole address': [(host) => `http://${host}/up/1`, `/up/1?${query}`],
    'a path': [() => '/up/1', `/up/1?${query}`],
    'relative to the request': [() => '1-2-3', `/v2/team/app/blobs/uploads/1-2-3?${query}`],
    'with a query, which is kept as it is': [
      () => '/up/1?_state=a%2Bb%3D%3D&x',
      `/up/1?_state=a%2Bb%3D%3D&x=&${query}`,
    ],
    'with a digest of its own, which is replaced': [() => '/up/1?digest=sha256:old', `/up/1?${query}`],
    'with the scheme that a proxy took away (registry.md 1.4 point 3)': [
      (host) => `https://${host}/up/1`,
      `/up/1?${query}`,
    ],
    'with the scheme and without the port': [() => 'https://127.0.0.1/up/1', `/up/1?${query}`],
  };
  for (const [name, [location, expected]] of Object.entries(forms)) {
    it(`[1.4-3-location] may be ${name}`, async () => {
      const server = await uploadServer({ location });
      await client(server.host).registry.writeBlob('team/app', descriptor, source(bytes).open);
      expect(asked(server)[1]).toBe(`PUT ${expected}`);
    });
  }

  it('[1.4-3-scheme] may be plain http for an https registry when only the scheme is wrong, with a warning', async () => {
    const seen: string[] = [];
    const server = await startServer(async (request, response) => {
      seen.push(`${request.method} ${request.url?.split('?')[0]}`);
      await bodyOf(request);
      const location = `http://${request.headers.host}/up/1`;
      response.writeHead(request.method === 'POST' ? 202 : 201, { location }).end();
    }, selfSigned());
    const { registry, context } = client(server.host, { config: { plainHttp: false, insecure: true } });
    await registry.writeBlob('app', descriptor, source(bytes).open);
    expect(seen).toEqual(['POST /v2/app/blobs/uploads/', 'PUT /up/1']);
    await registry.writeBlob('app', descriptor, source(bytes).open);
    expect(context.events).toMatchObject([
      { type: 'warning', fault: { message: expect.stringContaining('http:// although') } },
    ]);
  });

  it('on another host without TLS is refused for an https registry', async () => {
    const other = await startServer((_, response) => response.writeHead(201).end());
    const server = await startServer((_, response) => {
      response
        .writeHead(202, { location: `${other.url.replace('127.0.0.1', 'localhost')}/up?token=t` })
        .end();
    }, selfSigned());
    const { registry } = client(server.host, { config: { plainHttp: false, insecure: true } });
    expect(await failureOf(registry.writeBlob('app', descriptor, source(bytes).open))).toMatchObject({
      code: 'REGISTRY_ANSWER_INVALID',
      side: 'destination',
    });
    expect(other.asked).toHaveLength(0);
  });

  for (const location of [
    'file:///etc/passwd?opaque=hunter2',
    'ftp://x/?opaque=hunter2',
    'http://[broken?opaque=hunter2',
    '',
  ]) {
    it(`that is no place to send to is refused, and its query not shown: "${location.split('?')[0]}"`, async () => {
      const server = await uploadServer({ location: () => location });
      const blob = source(bytes);
      const failure = await failureOf(client(server.host).registry.writeBlob('app', descriptor, blob.open));
      expect(failure).toMatchObject({ code: 'REGISTRY_ANSWER_INVALID', side: 'destination' });
      expect((failure as SealiftError).message).not.toContain('hunter2');
      expect(blob.opened).toBe(0);
    });
  }
});

describe('an upload that fails', () => {
  for (const status of [404, 408, 416, 429, 500, 502, 503]) {
    it(`[1.4-7-restart] with HTTP ${status} starts over from POST with a new session`, async () => {
      let session = 0;
      const server = await uploadServer({
        location: () => `/upload/${++session}`,
        put: (response, count) => response.writeHead(count === 1 ? status : 201).end(),
      });
      const { registry, context } = client(server.host);
      const blob = source(bytes);
      await registry.writeBlob('app', descriptor, blob.open);
      expect(asked(server).map((a) => a.split('?')[0])).toEqual([
        'POST /v2/app/blobs/uploads/',
        'PUT /upload/1',
        // The broken session is given up, unless it is gone or the registry wants fewer requests.
        ...(status === 404 || status === 429 ? [] : ['DELETE /upload/1']),
        'POST /v2/app/blobs/uploads/',
        'PUT /upload/2',
      ]);
      expect(server.bodies.every((b) => b.equals(bytes))).toBe(true);
      expect(blob.opened).toBe(2);
      expect(context.events).toMatchObject([{ type: 'retry', reason: `HTTP ${status}`, waitMs: 0 }]);
    });
  }

  it('waits as long as the registry says', async () => {
    const server = await uploadServer({
      put: (response, count) => response.writeHead(count === 1 ? 503 : 201, { 'retry-after': '0.03' }).end(),
    });
    const { registry, context } = client(server.host);
    await registry.writeBlob('app', descriptor, source(bytes).open);
    expect(context.events).toMatchObject([{ type: 'retry', waitMs: 30 }]);
  });

  it('by a cut connection starts over as well', async () => {
    let cut = false;
    const running = await runRegistry({
      intercept: (request) => {
        if (request.method !== 'PUT' || cut) return false;
        cut = true;
        request.once('data', () => request.socket.destroy());
        return true;
      },
    });
    const { registry } = client(running.host);
    const blob = source(bytes);
    await registry.writeBlob('app', descriptor, blob.open);
    expect([blob.opened, await registry.hasBlob('app', descriptor.digest)]).toEqual([2, true]);
  });

  it('gives up after the last try with what the registry said', async () => {
    const server = await uploadServer({ put: (response) => response.writeHead(500).end('disk full') });
    const failure = await failureOf(
      client(server.host).registry.writeBlob('app', descriptor, source(bytes).open),
    );
    expect(failure).toMatchObject({ code: 'REGISTRY_FAILED', message: expect.stringContaining('disk full') });
    expect(server.bodies).toHaveLength(LIMITS.tries);
  });

  for (const [status, code] of [
    [400, 'REGISTRY_FAILED'],
    [403, 'AUTH_DENIED'],
  ] as const) {
    it(`for good (HTTP ${status}) is not tried again`, async () => {
      const server = await uploadServer({ put: (response) => response.writeHead(status).end() });
      const failure = await failureOf(
        client(server.host).registry.writeBlob('app', descriptor, source(bytes).open),
      );
      expect(failure).toMatchObject({ code, side: 'destination', details: { status } });
      expect(server.bodies).toHaveLength(1);
      expect(asked(server).at(-1)).toBe('DELETE /upload/1');
    });
  }

  it('before its body was sent tells why, with the hint for a proxy', async () => {
    const server = await startServer((request, response) => {
      if (request.method === 'POST') response.writeHead(202, { location: '/up' }).end();
      else {
        response.writeHead(413, { connection: 'close' }).end('<html>nginx</html>');
        request.resume();
      }
    });
    const big = blobOf(Buffer.alloc(8_000_000));
    const work = client(server.host).registry.writeBlob('app', big.descriptor, source(big.bytes).open);
    expect(await failureOf(work)).toMatchObject({
      code: 'REGISTRY_FAILED',
      hint: expect.stringContaining('client_max_body_size'),
    });
  });

  it('at its POST is a fault of the destination', async () => {
    const server = await startServer((_, response) =>
      response.writeHead(405).end('{"errors":[{"code":"UNSUPPORTED","message":"read only"}]}'),
    );
    const blob = source(bytes);
    expect(
      await failureOf(client(server.host).registry.writeBlob('app', descriptor, blob.open)),
    ).toMatchObject({
      code: 'REGISTRY_FAILED',
      side: 'destination',
      details: { status: 405, serverCode: 'UNSUPPORTED' },
    });
    expect(blob.opened).toBe(0);
  });

  it('at its source fails with just that error, once', async () => {
    const wrong = new SealiftError('BUNDLE_CHECKSUM_MISMATCH', 'damaged', { side: 'source' });
    const running = await runRegistry();
    let opened = 0;
    const open = async function* () {
      opened++;
      yield bytes.subarray(0, 1000);
      throw wrong;
    };
    const { registry } = client(running.host);
    expect(await failureOf(registry.writeBlob('app', descriptor, open))).toBe(wrong);
    expect(opened).toBe(1);
    expect(await registry.hasBlob('app', descriptor.digest)).toBe(false);
  });

  it('at a source on the network is tried again', async () => {
    const running = await runRegistry();
    let opened = 0;
    const open = async function* () {
      yield bytes.subarray(0, 1000);
      if (++opened === 1) throw new SealiftError('NETWORK_FAILED', 'the source broke', { side: 'source' });
      yield bytes.subarray(1000);
    };
    const { registry } = client(running.host);
    await registry.writeBlob('app', descriptor, open);
    expect(opened).toBe(2);
  });

  it('of other bytes than the descriptor says is refused by the registry', async () => {
    const running = await runRegistry();
    const other = Buffer.from(bytes);
    other[5] = 0;
    other[6] = 1;
    const { registry } = client(running.host);
    expect(await failureOf(registry.writeBlob('app', descriptor, source(other).open))).toMatchObject({
      code: 'REGISTRY_FAILED',
      details: { serverCode: 'DIGEST_INVALID' },
    });
  });

  it('ends at once when the work is stopped, in a wait or in the middle', async () => {
    const waiting = testContext();
    const slow = await uploadServer({
      put: (response) => {
        response.writeHead(503, { 'retry-after': '300' }).end();
        setTimeout(waiting.stop, 20);
      },
    });
    const first = client(slow.host, { context: waiting }).registry.writeBlob(
      'app',
      descriptor,
      source(bytes).open,
    );
    expect(await failureOf(first)).toMatchObject({ code: 'ABORTED' });

    const middle = testContext();
    const server = await startServer((request, response) => {
      if (request.method === 'POST') response.writeHead(202, { location: '/up' }).end();
      else request.once('data', middle.stop);
    });
    const endless = async function* () {
      for (;;) yield Buffer.alloc(65_536);
    };
    const huge = { ...descriptor, size: 1e12 };
    const second = client(server.host, { context: middle }).registry.writeBlob('app', huge, endless);
    expect(await failureOf(second)).toMatchObject({ code: 'ABORTED' });
  });
});
