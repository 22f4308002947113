import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { proxyChooser } from '../../src/io/proxy.ts';
import { startProxy } from '../support/proxy.ts';
import { selfSigned } from './certificate.ts';
import { bodyOf, failureOf, gather, startServer, testClient, testContext, testReceiver } from './server.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** The proxy's host for an address, or undefined. */
function chosen(env: Env, address: string): string | undefined {
  return proxyChooser(env)(new URL(address))?.url.host;
}

describe('which proxy', () => {
  const both = { HTTP_PROXY: 'http://plain:3128', HTTPS_PROXY: 'http://secure:3128' };

  it('is taken follows the scheme of the address', () => {
    expect(chosen(both, 'http://quay.io/x')).toBe('plain:3128');
    expect(chosen(both, 'https://quay.io/x')).toBe('secure:3128');
    expect(chosen({ HTTP_PROXY: 'http://plain:3128' }, 'https://quay.io')).toBeUndefined();
    expect(chosen({}, 'https://quay.io')).toBeUndefined();
  });

  it('is also read from small letters; capitals win, and an empty one says nothing', () => {
    expect(chosen({ https_proxy: 'http://small:1' }, 'https://quay.io')).toBe('small:1');
    expect(chosen({ https_proxy: 'http://small:1', HTTPS_PROXY: 'http://big:1' }, 'https://q.io')).toBe(
      'big:1',
    );
    expect(chosen({ https_proxy: 'http://small:1', HTTPS_PROXY: ' ' }, 'https://q.io')).toBe('small:1');
    expect(chosen({ HTTPS_PROXY: '' }, 'https://quay.io')).toBeUndefined();
  });

  it('is ALL_PROXY where the own one is not set', () => {
    expect(chosen({ ALL_PROXY: 'all:1' }, 'https://quay.io')).toBe('all:1');
    expect(chosen({ ALL_PROXY: 'all:1', HTTP_PROXY: 'plain:1' }, 'http://quay.io')).toBe('plain:1');
  });

  it('may be written without a scheme', () => {
    expect(chosen({ HTTPS_PROXY: 'proxy.corp:8080' }, 'https://quay.io')).toBe('proxy.corp:8080');
  });

  it('is none for the machine itself, whatever the variables say', () => {
    for (const host of [
      'localhost:5000',
      'LOCALHOST',
      'localhost.',
      '127.0.0.1:5000',
      '127.9.9.9',
      '[::1]:5000',
    ]) {
      expect(chosen({ HTTP_PROXY: 'p:1' }, `http://${host}/`)).toBeUndefined();
    }
    expect(chosen({ HTTP_PROXY: 'p:1' }, 'http://localhost.example.org/')).toBe('p:1');
    expect(chosen({ HTTP_PROXY: 'p:1' }, 'http://10.0.0.1/')).toBe('p:1');
  });

  it.each(['socks5://p:1', 'ftp://p:1', 'http://', 'http://p:99999', 'http://u:%zz@p:1'])(
    'is an error for %s, without the value',
    (value) => {
      const secret = value.replace('://', '://user:hunter2@');
      for (const text of [value, secret]) {
        const failure = (() => {
          try {
            return chosen({ HTTPS_PROXY: text }, 'https://quay.io');
          } catch (error) {
            return error as SealiftError;
          }
        })();
        expect(failure).toMatchObject({ code: 'USAGE', message: expect.stringContaining('HTTPS_PROXY') });
        expect(JSON.stringify([(failure as SealiftError).message, failure])).not.toContain('hunter2');
      }
    },
  );
});

describe('NO_PROXY', () => {
  const isDirect = (noProxy: string, address: string): boolean =>
    chosen({ ALL_PROXY: 'p:1', NO_PROXY: noProxy }, address) === undefined;

  it.each([
    ['example.com', 'https://example.com', true],
    ['example.com', 'https://a.b.example.com', true],
    ['EXAMPLE.com', 'https://Example.COM', true],
    ['example.com', 'https://notexample.com', false],
    ['example.com.', 'https://example.com', true],
    ['.example.com', 'https://a.example.com', true],
    ['.example.com', 'https://example.com', false],
    ['*.example.com', 'https://a.example.com', true],
    ['*.example.com', 'https://example.com', false],
    ['example.com:5000', 'https://example.com:5000', true],
    ['example.com:5000', 'https://example.com', false],
    ['example.com:443', 'https://example.com', true],
    ['example.com:80', 'http://a.example.com', true],
    ['10.0.0.1', 'https://10.0.0.1:5000', true],
    ['10.0.0.1:5000', 'https://10.0.0.1:5000', true],
    ['10.0.0.1:5000', 'https://10.0.0.1', false],
    ['0.0.1', 'https://10.0.0.1', false],
    ['10.0.0.0/8', 'https://10.255.3.4', true],
    ['10.0.0.0/8', 'https://11.0.0.1', false],
    ['10.0.0.0/99', 'https://10.0.0.1', false],
    ['10.0.0.0/8', 'https://ten.example', false],
    ['fd00::/8', 'https://[fd12::1]:5000', true],
    ['fd00::/8', 'https://[fe80::1]', false],
    ['fd12::1', 'https://[fd12::1]', true],
    ['[fd12::1]:5000', 'https://[fd12::1]:5000', true],
    ['[fd12::1]:5000', 'https://[fd12::1]', false],
    ['*', 'https://quay.io', true],
    ['a.org, b.org c.org', 'https://b.org', true],
    ['a.org, b.org c.org', 'https://c.org', true],
    [' , ,,', 'https://quay.io', false],
  ])('%s: %s goes straight: %s', (noProxy, address, expected) => {
    expect(isDirect(noProxy, address)).toBe(expected);
  });

  it('is also read in small letters', () => {
    expect(chosen({ ALL_PROXY: 'p:1', no_proxy: 'quay.io' }, 'https://quay.io')).toBeUndefined();
  });
});

/** A server that repeats the body that it gets, or says hello. */
function echo(tls?: ReturnType<typeof selfSigned>) {
  return startServer(async (request, response) => {
    const body = await bodyOf(request);
    response.end(body.length > 0 ? body : `hello ${request.headers.host}`);
  }, tls);
}

describe('a request through a proxy', () => {
  it('is plain: the proxy gets the whole address, the server its own name, and the body goes along', async () => {
    const server = await echo();
    const proxy = await startProxy({ hosts: { 'registry.example:5000': server.host } });
    const http = testClient(testContext({ HTTP_PROXY: proxy.url }));
    const url = new URL('http://registry.example:5000/v2/?n=1#part');
    expect((await gather((await http.request({ method: 'GET', url })).body)).toString()).toBe(
      'hello registry.example:5000',
    );
    const sent = await http.request({ method: 'PUT', url, body: Buffer.from('some bytes') });
    expect((await gather(sent.body)).toString()).toBe('some bytes');
    expect(proxy.asked).toEqual([
      'GET http://registry.example:5000/v2/?n=1',
      'PUT http://registry.example:5000/v2/?n=1',
    ]);
  });

  it('is https: a tunnel, in which the name and the CA of the server are checked', async () => {
    const pair = selfSigned('registry.example');
    const server = await echo(pair);
    const proxy = await startProxy({ hosts: { 'registry.example:443': server.host } });
    const http = testClient(testContext({ HTTPS_PROXY: proxy.url }));
    const url = new URL('https://registry.example/v2/');
    const dir = await mkdtemp(join(tmpdir(), 'sealift-proxy-'));
    onTestFinished(() => rm(dir, { recursive: true }));
    const caFile = join(dir, 'ca.crt');
    await writeFile(caFile, pair.cert);
    const failure = await failureOf(http.request({ method: 'GET', url }));
    expect(failure).toMatchObject({ code: 'NETWORK_FAILED', message: expect.stringContaining('TLS failed') });
    const trusted = await http.request({ method: 'GET', url, tls: { caFile } });
    expect((await gather(trusted.body)).toString()).toBe('hello registry.example');
    expect(proxy.asked).toEqual(Array(2).fill('CONNECT registry.example:443'));
  });

  it('is https with another name in the certificate: refused, except with insecure', async () => {
    const server = await echo(selfSigned('other.example'));
    const proxy = await startProxy({ hosts: { 'registry.example:8443': server.host } });
    const http = testClient(testContext({ https_proxy: proxy.url }));
    const url = new URL('https://registry.example:8443/');
    expect(await failureOf(http.request({ method: 'GET', url, tries: 1 }))).toMatchObject({
      code: 'NETWORK_FAILED',
    });
    const answer = await http.request({ method: 'GET', url, tls: { insecure: true } });
    expect((await gather(answer.body)).toString()).toBe('hello registry.example:8443');
  });

  it('that is large goes the same way', async () => {
    const server = await startServer((_, response) => response.end('big'), selfSigned());
    const proxy = await startProxy({ hosts: { 'registry.example:443': server.host } });
    const http = testClient(testContext({ HTTPS_PROXY: proxy.url }));
    const url = new URL('https://registry.example/blob');
    const { into } = await testReceiver(Buffer.from('big'));
    const answer = await http.request({ method: 'GET', url, into, tls: { insecure: true } });
    expect(answer.body.pour).toBeUndefined();
    expect((await gather(answer.body)).toString()).toBe('big');
    expect(proxy.asked).toEqual(['CONNECT registry.example:443']);
  });

  it('uses its tunnels again', async () => {
    const server = await echo(selfSigned());
    const proxy = await startProxy({ hosts: { 'registry.example:443': server.host } });
    const http = testClient(testContext({ HTTPS_PROXY: proxy.url }));
    for (let i = 0; i < 4; i++) {
      const url = new URL(`https://registry.example/${i}`);
      await gather((await http.request({ method: 'GET', url, tls: { insecure: true } })).body);
    }
    expect(server.asked).toHaveLength(4);
    // The pool may open a second one while the first answer is still being read.
    expect(proxy.asked.length).toBeLessThan(4);
  });

  it('logs in with what the variable holds, percent-encoded, and the server never sees it', async () => {
    const servers = [await echo(), await echo(selfSigned())];
    const hosts = {
      'plain.example:80': servers[0]?.host ?? '',
      'secure.example:443': servers[1]?.host ?? '',
    };
    const proxy = await startProxy({
      hosts: { ...hosts, 'plain.example': hosts['plain.example:80'] },
      login: 'ann:hun@ter:2',
    });
    const address = proxy.url.replace('//', '//ann:hun%40ter%3A2@');
    const http = testClient(testContext({ ALL_PROXY: address }));
    for (const url of ['http://plain.example/', 'https://secure.example/']) {
      const answer = await http.request({ method: 'GET', url: new URL(url), tls: { insecure: true } });
      expect(answer.status).toBe(200);
      await answer.body.dump();
    }
    const login = `Basic ${Buffer.from('ann:hun@ter:2').toString('base64')}`;
    expect(proxy.logins).toEqual([login, login]);
    for (const { asked } of servers) expect(asked[0]?.headers['proxy-authorization']).toBeUndefined();
  });

  it('follows a redirect to a host that needs no proxy straight', async () => {
    const blobs = await echo();
    const server = await startServer((_, response) => {
      response.writeHead(307, { location: `${blobs.url}/blob` }).end();
    });
    const proxy = await startProxy({ hosts: { 'registry.example': server.host } });
    const http = testClient(testContext({ HTTP_PROXY: proxy.url }));
    const answer = await http.request({ method: 'GET', url: new URL('http://registry.example/v2/') });
    await answer.body.dump();
    expect(answer.url.href).toBe(`${blobs.url}/blob`);
    expect(proxy.asked).toHaveLength(1);
  });
});

describe('a proxy that refuses', () => {
  const ask = async (rules: Parameters<typeof startProxy>[0], scheme = 'https', login = '') => {
    const proxy = await startProxy(rules);
    const context = testContext({ ALL_PROXY: proxy.url.replace('//', `//${login}`) });
    const url = new URL(`${scheme}://registry.example/v2/`);
    const failure = await failureOf(testClient(context).request({ method: 'GET', url, tries: 2 }));
    return { proxy, context, failure: failure as SealiftError };
  };

  it.each(['http', 'https'])(
    'because it wants a login (407, %s) says so and is not asked again',
    async (scheme) => {
      const { proxy, failure } = await ask({ login: 'ann:secret' }, scheme);
      expect(failure).toMatchObject({ code: 'AUTH_REQUIRED', message: expect.stringContaining(proxy.host) });
      expect(failure.message).toContain('ALL_PROXY');
      expect(failure.hint).toContain('wants a login');
      expect(proxy.asked).toHaveLength(1);
    },
  );

  it('the login says so without the password', async () => {
    const { proxy, context, failure } = await ask({ login: 'ann:secret' }, 'https', 'ann:hunter2@');
    expect(failure).toMatchObject({
      code: 'AUTH_REQUIRED',
      hint: expect.stringContaining('refused the login'),
    });
    expect(failure.hint).toContain(proxy.host);
    const all = JSON.stringify([
      context.events,
      failure.message,
      failure.hint,
      failure.details,
      String(failure.cause),
    ]);
    expect(all).not.toContain('hunter2');
    expect(all).not.toContain(Buffer.from('ann:hunter2').toString('base64'));
  });

  it.each([403, 404, 405])('a tunnel with %i is an answer, not a fault of the wire', async (refuse) => {
    const { proxy, failure } = await ask({ refuse });
    expect(failure).toMatchObject({ code: 'NETWORK_URL_REFUSED', details: { status: refuse } });
    expect(failure.message).toContain('registry.example:443');
    expect(failure.hint).toContain(proxy.host);
    expect(failure.hint).toContain('NO_PROXY');
    expect(proxy.asked).toHaveLength(1);
  });

  it.each([502, 503, 504])('a tunnel with %i is asked again and then named', async (refuse) => {
    const { proxy, failure, context } = await ask({ refuse });
    expect(failure).toMatchObject({
      code: 'NETWORK_FAILED',
      message: expect.stringContaining(`HTTP ${refuse}`),
    });
    expect(failure.hint).toContain(proxy.host);
    expect(proxy.asked).toHaveLength(2);
    expect(context.events).toHaveLength(1);
  });

  it('and closes the connection is not asked without end', async () => {
    for (const scheme of ['http', 'https']) {
      const { proxy, failure } = await ask({ refuse: 'cut' }, scheme);
      expect(failure).toMatchObject({ code: 'NETWORK_FAILED', message: expect.stringContaining(proxy.host) });
      expect(proxy.asked).toHaveLength(2);
    }
  });

  it('a login from a variable that cannot be reached is never shown', async () => {
    const server = await startServer(() => {});
    await server.close();
    const context = testContext({ ALL_PROXY: server.url.replace('//', '//ann:hunter2@') });
    for (const scheme of ['http', 'https']) {
      const url = new URL(`${scheme}://registry.example/v2/`);
      const failure = await failureOf(testClient(context).request({ method: 'GET', url, tries: 2 }));
      const { message, hint } = failure as SealiftError;
      expect(message).toContain(`the proxy ${server.host} (ALL_PROXY)`);
      expect(JSON.stringify([message, hint, context.events])).not.toContain('hunter2');
    }
  });

  it('ends with the stop of the person', async () => {
    const proxy = await startProxy({ refuse: 'silent' });
    const context = testContext({ ALL_PROXY: proxy.url });
    const asking = testClient(context).request({ method: 'GET', url: new URL('https://registry.example/') });
    while (proxy.asked.length === 0) await new Promise((resolve) => setImmediate(resolve));
    context.stop();
    expect(await failureOf(asking)).toMatchObject({ code: 'ABORTED' });
  });
});
