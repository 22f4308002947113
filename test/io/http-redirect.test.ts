import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { errorText } from '../../src/io/http.ts';
import { isNetworkError, networkError } from '../../src/io/network-errors.ts';
import { nextHop } from '../../src/io/redirect.ts';
import { selfSigned } from './certificate.ts';
import {
  bodyOf,
  failureOf,
  gather,
  startServer,
  type TestServer,
  testClient,
  testContext,
} from './server.ts';

describe('redirects', () => {
  it('[1.3-redirect, 1.3-redirect-auth] keep the authorization on the same origin and drop it, and cookies, for another', async () => {
    const other = await startServer((_, response) => response.end('blob'));
    const server = await startServer((request, response) => {
      const location = request.url === '/a' ? '/b' : `${other.url}/c?sig=abc`;
      response.writeHead(307, { location }).end();
    });
    const answer = await testClient().request({
      method: 'GET',
      url: new URL('/a', server.url),
      headers: { authorization: 'Bearer secret', cookie: 'c=1', range: 'bytes=3-' },
    });
    expect((await gather(answer.body)).toString()).toBe('blob');
    expect(answer.url.href).toBe(`${other.url}/c?sig=abc`);
    expect(server.asked.map((r) => r.headers.authorization)).toEqual(['Bearer secret', 'Bearer secret']);
    expect(other.asked[0]?.headers).not.toHaveProperty('authorization');
    expect(other.asked[0]?.headers).not.toHaveProperty('cookie');
    expect(other.asked[0]?.headers.range).toBe('bytes=3-');
  });

  it('[1.3-redirect-auth] do not bring the authorization back on the way home', async () => {
    let home = '';
    const other = await startServer((_, response) =>
      response.writeHead(302, { location: `${home}/end` }).end(),
    );
    const server = await startServer((request, response) => {
      if (request.url === '/end') response.end();
      else response.writeHead(302, { location: other.url }).end();
    });
    home = server.url;
    const headers = { authorization: 'Bearer secret' };
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url), headers });
    await answer.body.dump();
    expect(server.asked.map((r) => r.headers.authorization)).toEqual(['Bearer secret', undefined]);
  });

  it.each([
    ['the scheme', 'https://registry.example:8080/b'],
    ['the host', 'http://elsewhere.example:8080/b'],
    ['the port', 'http://registry.example:8081/b'],
  ])('[1.3-redirect-auth] that change only %s drop authorization and cookies, and nothing else', (_, to) => {
    const url = new URL('http://registry.example:8080/a');
    const headers = { authorization: 'Bearer secret', cookie: 'c=1', range: 'bytes=3-' };
    const hop = { url, method: 'GET', headers, body: undefined } as const;
    expect(nextHop(hop, { status: 307, url: new URL(to) }).headers).toEqual({ range: 'bytes=3-' });
    expect(nextHop(hop, { status: 307, url: new URL('/b', url) }).headers).toEqual(headers);
  });

  it('[1.3-redirect] that go in a circle end', async () => {
    const server = await startServer((_, response) => response.writeHead(302, { location: '/' }).end());
    const failure = await failureOf(testClient().request({ method: 'GET', url: new URL(server.url) }));
    expect(failure).toMatchObject({ code: 'NETWORK_URL_REFUSED' });
    expect(server.asked).toHaveLength(10 + 1);
  });

  for (const location of ['file:///etc/passwd', 'ftp://127.0.0.1/x', 'data:text/plain,x', 'http://[broken']) {
    it(`[1.3-redirect] to ${location} are refused`, async () => {
      const server = await startServer((_, response) => response.writeHead(302, { location }).end());
      const failure = await failureOf(testClient().request({ method: 'GET', url: new URL(server.url) }));
      expect(failure).toMatchObject({ code: 'NETWORK_URL_REFUSED' });
      expect(server.asked).toHaveLength(1);
    });
  }

  it('[1.3-redirect] from https to plain http are refused', async () => {
    const plain = await startServer((_, response) => response.end());
    const server = await startServer(
      (_, response) => response.writeHead(301, { location: plain.url }).end(),
      selfSigned(),
    );
    const tls = { insecure: true };
    const failure = await failureOf(testClient().request({ method: 'GET', url: new URL(server.url), tls }));
    expect(failure).toMatchObject({ code: 'NETWORK_URL_REFUSED' });
    expect(plain.asked).toHaveLength(0);
  });

  it('take `insecure` along only to the same host name', async () => {
    const other = await startServer((_, response) => response.end('secret place'), selfSigned());
    const { port } = new URL(other.url);
    const server = await startServer((_, response, count) => {
      const host = count === 1 ? '127.0.0.1' : 'localhost';
      response.writeHead(302, { location: `https://${host}:${port}/` }).end();
    }, selfSigned());
    const request = { method: 'GET', url: new URL(server.url), tls: { insecure: true }, tries: 1 } as const;
    const client = testClient();
    const answer = await client.request(request);
    await answer.body.dump();
    expect(answer.status).toBe(200);
    const failure = await failureOf(client.request(request));
    expect(failure).toMatchObject({ code: 'NETWORK_FAILED' });
    expect(other.asked).toHaveLength(1);
  });

  it('are answers when nobody wants to follow them', async () => {
    const server = await startServer((_, response) => response.writeHead(302, { location: '/x' }).end());
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url), follow: false });
    await answer.body.dump();
    expect(answer.status).toBe(302);
  });

  it('send a body again after 307, and ask with GET after 303', async () => {
    const seen: string[] = [];
    const server = await startServer(async (request, response) => {
      seen.push(`${request.method} ${request.url} ${await bodyOf(request)}`);
      const to: Record<string, [number, string]> = { '/1': [307, '/2'], '/2': [303, '/3'] };
      const [status, location] = to[request.url ?? ''] ?? [200, ''];
      response.writeHead(status, location === '' ? {} : { location }).end();
    });
    const body = async function* () {
      yield Buffer.from('con');
      yield Buffer.from('tent');
    };
    const url = new URL('/1', server.url);
    const answer = await testClient().request({ method: 'PUT', url, body, contentLength: 7 });
    await answer.body.dump();
    expect(seen).toEqual(['PUT /1 content', 'PUT /2 content', 'GET /3 ']);
  });

  it('[1.3-redirect-fresh] that broke are followed from the first address again, where a fresh one is given', async () => {
    const server = await startServer((request, response, count) => {
      if (request.url === '/') response.writeHead(307, { location: `/signed?n=${count}` }).end();
      else if (request.url === '/signed?n=1') request.socket.destroy();
      else response.end('ok');
    });
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url) });
    expect((await gather(answer.body)).toString()).toBe('ok');
    expect(server.asked.map((r) => r.url)).toEqual(['/', '/signed?n=1', '/', '/signed?n=3']);
  });

  /** A server that leads to another one, each time with a fresh signature, and that one. */
  async function signing(
    refuse: (signature: string) => number | undefined,
  ): Promise<{ server: TestServer; store: TestServer }> {
    const store = await startServer((request, response) => {
      const status = refuse(new URL(request.url ?? '', 'http://x').searchParams.get('sig') ?? '');
      response.writeHead(status ?? 200).end(status === undefined ? 'ok' : 'Request has expired');
    });
    const server = await startServer((_, response, count) =>
      response.writeHead(307, { location: `${store.url}/blob?sig=${count}` }).end(),
    );
    return { server, store };
  }

  it.each([403, 400])(
    '[1.3-redirect-fresh] to an address whose signature has ended (HTTP %i) are asked for again',
    async (status) => {
      const { server, store } = await signing((signature) => (signature === '1' ? status : undefined));
      const context = testContext();
      const url = new URL('/blob', server.url);
      const answer = await testClient(context).request({ method: 'GET', url });
      expect([answer.status, (await gather(answer.body)).toString()]).toEqual([200, 'ok']);
      expect(store.asked.map((r) => r.url)).toEqual(['/blob?sig=1', '/blob?sig=2']);
      // Neither signature is told.
      expect(JSON.stringify(context.events)).not.toContain('sig');
    },
  );

  it('[1.3-redirect-fresh] to another host that refuses all signatures end after a bounded number of them', async () => {
    const { server, store } = await signing(() => 403);
    const answer = await testClient().request({ method: 'GET', url: new URL(server.url) });
    expect([answer.status, answer.tries, await errorText(answer)]).toEqual([
      403,
      LIMITS.redirectedTries,
      'Request has expired',
    ]);
    expect(store.asked).toHaveLength(LIMITS.redirectedTries);
  });

  it('to another host that refuses a request which changes something are not asked for again', async () => {
    const { server, store } = await signing(() => 403);
    const body = Buffer.from('x');
    const answer = await testClient().request({ method: 'PUT', url: new URL(server.url), body });
    expect([answer.status, store.asked.length]).toEqual([403, 1]);
    await answer.body.dump();
  });
});

describe('TLS', () => {
  it('is checked by default, and the fault says how to give a CA', async () => {
    const server = await startServer((_, response) => response.end(), selfSigned());
    const context = testContext();
    const failure = await failureOf(testClient(context).request({ method: 'GET', url: new URL(server.url) }));
    expect(failure).toMatchObject({
      code: 'NETWORK_FAILED',
      message: expect.stringContaining('TLS'),
      hint: expect.stringContaining('caFile'),
    });
    expect(context.events).toEqual([]);
  });

  it('trusts the CA file that was given for the host', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'sealift-tls-'));
    onTestFinished(() => rm(dir, { recursive: true }));
    const pem = selfSigned();
    const caFile = join(dir, 'ca.crt');
    await writeFile(caFile, pem.cert);
    const server = await startServer((_, response) => response.end('ok'), pem);
    const url = new URL(server.url);
    const answer = await testClient().request({ method: 'GET', url, tls: { caFile } });
    expect((await gather(answer.body)).toString()).toBe('ok');
  });

  it('with a CA file that is not there names the file', async () => {
    const tls = { caFile: '/nowhere/ca.crt' };
    const work = testClient().request({ method: 'GET', url: new URL('https://127.0.0.1:1/'), tls });
    expect(await failureOf(work)).toMatchObject({
      code: 'FILE_NOT_FOUND',
      message: expect.stringContaining('/nowhere/ca.crt'),
    });
  });

  it('to a server that has none says so', async () => {
    const server = await startServer((_, response) => response.end());
    const url = new URL(server.url.replace('http:', 'https:'));
    expect(await failureOf(testClient().request({ method: 'GET', url }))).toMatchObject({
      code: 'NETWORK_FAILED',
      hint: expect.stringContaining('plainHttp'),
    });
  });

  for (const code of [
    'CERT_HAS_EXPIRED',
    'DEPTH_ZERO_SELF_SIGNED_CERT',
    'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
    'ERR_TLS_CERT_ALTNAME_INVALID',
  ]) {
    it(`${code} is a fault of TLS that no retry cures`, () => {
      const error = Object.assign(new Error('no'), { code });
      expect(isNetworkError(error)).toBe(false);
      expect(networkError(error, 'host')).toMatchObject({
        code: 'NETWORK_FAILED',
        message: `host: TLS failed (${code})`,
      });
    });
  }
});
