import { describe, expect, it } from 'vitest';
import { realmOf } from '../../src/oci/token.ts';
import { failureOf, gather, startServer, testContext } from '../io/server.ts';
import { basicAuth, blobOf, client, loggedIn } from './bench.ts';
import { ann, BEARER, sendToken, smallRegistry, tokenQueries } from './small-registry.ts';

const isToken = (authorization: string): boolean => authorization === 'Bearer T';

describe('a realm', () => {
  it('[A8] without a host is built again, not read as another host', () => {
    const registry = { host: 'nexus.local:5001', origin: new URL('http://nexus.local:5001') };
    for (const realm of ['http:///v2/token', 'https:/v2/token', 'https:nexus.local', 'http:\\\\v2/token']) {
      const { url, repaired } = realmOf({ scheme: 'bearer', params: { realm } }, registry);
      expect([realm, repaired, url.href]).toEqual([realm, true, 'http://nexus.local:5001/v2/token']);
    }
  });

  it('of one repository is not used for another at the same time', async () => {
    const server = await startServer((request, response) => {
      const url = new URL(request.url ?? '', 'http://x');
      const [, first = '', name = ''] = url.pathname.split('/');
      if (first === 'token') return sendToken({ token: `for-${name}` })(request, response);
      if (request.headers.authorization === `Bearer for-${name}`) return response.end('{"tags":["v1"]}');
      const challenge = `Bearer realm="http://${request.headers.host}/token/${name}",service="s"`;
      return response.writeHead(401, { 'www-authenticate': challenge }).end();
    });
    const { registry } = client(server.host);
    const names = Array.from({ length: 8 }, (_, i) => `app${i}`);
    const asked = await Promise.all([...names, ...names].map((name) => registry.listTags(name)));
    expect(asked).toEqual([...names, ...names].map(() => ['v1']));
    for (const name of names) expect(await registry.listTags(name)).toEqual(['v1']);
  });
});

describe('a password where Bearer and Basic are offered', () => {
  const both = ['Bearer realm="http://{host}/token",service="svc"', 'Basic realm="x"'];

  it('[A1-order] is sent itself when the token server does not work', async () => {
    const server = await smallRegistry({
      challenge: both,
      accepts: (authorization) => authorization === `Basic ${ann.auth}`,
      token: (_, response) => response.writeHead(404).end(),
    });
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: ann })),
    });
    expect(await registry.listTags('one')).toEqual(['v1']);
    await registry.listTags('one');
    expect(tokenQueries(server)).toHaveLength(1);
  });

  it('is not tried again elsewhere when the token server refuses it', async () => {
    const server = await smallRegistry({
      challenge: both,
      accepts: (authorization) => authorization.startsWith('Basic'),
      token: (_, response) => response.writeHead(401).end(),
    });
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: ann })),
    });
    expect(await failureOf(registry.listTags('one'))).toMatchObject({ code: 'AUTH_DENIED' });
  });
});

describe('an identity token', () => {
  it('[A3-fallback] where POST is unknown: the password beside it goes into the GET', async () => {
    const server = await smallRegistry({
      challenge: BEARER,
      accepts: isToken,
      token: (request, response) => {
        if (request.method === 'POST') response.writeHead(404).end();
        else sendToken({ token: 'T' })(request, response);
      },
    });
    const entry = { auth: basicAuth('ann', 'pw'), identitytoken: 'refresh' };
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: entry })),
    });
    expect(await registry.listTags('app')).toEqual(['v1']);
    expect(server.asked[2]).toMatchObject({ method: 'GET' });
    expect(server.asked[2]?.headers.authorization).toBe(`Basic ${basicAuth('ann', 'pw')}`);
  });
});

describe('a registry that redirects to another one', () => {
  it('[A7-redirect] the other gets a token for nobody, and never our login', async () => {
    const { bytes, descriptor } = blobOf('content');
    const other = await startServer((request, response) => {
      if (request.url?.startsWith('/token') === true) return sendToken({ token: 'T' })(request, response);
      if (request.headers.authorization === 'Bearer T') return response.end(bytes);
      const challenge = `Bearer realm="http://${request.headers.host}/token",service="o",scope="repository:real/app:pull"`;
      return response.writeHead(401, { 'www-authenticate': challenge }).end();
    });
    const redirecting = await startServer((request, response) => {
      if (request.headers.authorization === `Basic ${ann.auth}`) {
        return response.writeHead(307, { location: `${other.url}/v2/real/app/blob` }).end();
      }
      return response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
    });
    const auths = { [redirecting.host]: ann, [other.host]: ann };
    const { registry } = client(redirecting.host, { context: testContext(await loggedIn(auths)) });
    const read = gather(registry.readBlob('app', descriptor, { signal: new AbortController().signal }));
    expect((await read).equals(bytes)).toBe(true);
    expect(other.asked.map((r) => r.headers.authorization)).toEqual([undefined, undefined, 'Bearer T']);
    expect(other.asked[1]?.url).toBe('/token?service=o&scope=repository%3Areal%2Fapp%3Apull');
  });
});

describe('a server that repeats what it was sent', () => {
  it('[A10] is quoted without it, whatever form it has', async () => {
    const server = await startServer((request, response) => {
      if (request.url?.startsWith('/token') === true) {
        return sendToken({ token: 'opaque-hunter2' })(request, response);
      }
      const sent = request.headers.authorization;
      if (sent === undefined) {
        const challenge = `Bearer realm="http://${request.headers.host}/token"`;
        return response.writeHead(401, { 'www-authenticate': challenge }).end();
      }
      const said = `the token ${sent.slice(7)} of ann, pass"word-hunter2, ${encodeURIComponent('pass"word-hunter2')}, is unwelcome`;
      return response
        .writeHead(403, { warning: `299 - "unwelcome: ${sent.slice(7)}"` })
        .end(JSON.stringify({ errors: [{ code: sent.slice(7), message: said }] }));
    });
    const entry = { auth: basicAuth('ann', 'pass"word-hunter2') };
    const context = testContext(await loggedIn({ [server.host]: entry }));
    const { registry } = client(server.host, { context });
    const failure = await failureOf(registry.listTags('app'));
    expect(context.events).toMatchObject([
      { type: 'warning', fault: { message: expect.stringContaining('unwelcome: ***') } },
    ]);
    expect(failure).toMatchObject({
      code: 'AUTH_DENIED',
      message: expect.stringContaining('the token *** of ann'),
      details: { serverCode: '***' },
    });
    expect(JSON.stringify([failure, String(failure)])).not.toContain('hunter2');
  });
});
