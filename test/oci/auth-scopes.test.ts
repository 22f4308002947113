import { describe, expect, it } from 'vitest';
import { bodyOf, failureOf, startServer, testContext } from '../io/server.ts';
import { blobOf, client, loggedIn, pushImage, runRegistry, source } from './bench.ts';
import { ann, BEARER, sendToken, smallRegistry, tokenQueries, users } from './small-registry.ts';

describe('scopes (A4)', () => {
  async function scopesOf(
    work: (registry: ReturnType<typeof client>['registry']) => Promise<unknown>,
    challenge = BEARER,
  ): Promise<string[]> {
    const server = await smallRegistry({
      challenge,
      accepts: (authorization) => authorization === 'Bearer T',
      token: sendToken({ token: 'T' }),
    });
    const { registry } = client(server.host);
    await work(registry).catch(() => {});
    const query = tokenQueries(server)[0] ?? '';
    return new URLSearchParams(query).getAll('scope');
  }
  const { descriptor, bytes } = blobOf('x');

  it('[A4, A4-order] are all asked for at once: pull, pull and push, and the other repository for a mount', async () => {
    expect(await scopesOf((r) => r.listTags('app'))).toEqual(['repository:app:pull']);
    expect(await scopesOf((r) => r.writeBlob('app', descriptor, source(bytes).open))).toEqual([
      'repository:app:pull,push',
    ]);
    expect(await scopesOf((r) => r.mountBlob('app', descriptor.digest, 'base'))).toEqual([
      'repository:app:pull,push',
      'repository:base:pull',
    ]);
    expect(await scopesOf((r) => r.ping())).toEqual([]);
  });

  it('[A4-merge] of the challenge are added, unless ours hold them already', async () => {
    const with2 = `${BEARER},scope="repository:app:pull repository:proxy/app:pull"`;
    expect(await scopesOf((r) => r.listTags('app'), with2)).toEqual([
      'repository:app:pull',
      'repository:proxy/app:pull',
    ]);
    const less = `${BEARER},scope="repository:app:pull"`;
    expect(await scopesOf((r) => r.writeBlob('app', descriptor, source(bytes).open), less)).toEqual([
      'repository:app:pull,push',
    ]);
    const registryScope = `${BEARER},scope="registry:catalog:*"`;
    expect(await scopesOf((r) => r.ping(), registryScope)).toEqual(['registry:catalog:*']);
  });

  it('of one repository do not go to another', async () => {
    const server = await startServer((request, response) => {
      if (request.url?.startsWith('/token') === true) {
        sendToken({ token: new URL(request.url, 'http://x').searchParams.getAll('scope').join(' ') })(
          request,
          response,
        );
        return;
      }
      const repository = request.url?.split('/')[2] ?? '';
      const scope = `repository:${repository}:pull`;
      if (request.headers.authorization === `Bearer ${scope}`) response.end('{"tags":[]}');
      else {
        const challenge = `Bearer realm="http://${request.headers.host}/token",scope="${scope}"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      }
    });
    const { registry } = client(server.host);
    for (const name of ['one', 'two', 'one']) await registry.listTags(name);
    expect(tokenQueries(server)).toEqual(['scope=repository:one:pull', 'scope=repository:two:pull']);
    // The second repository needs no 401 to know where tokens are.
    expect(
      server.asked.filter((r) => r.headers.authorization === undefined && r.url.startsWith('/v2/')),
    ).toHaveLength(1);
  });
});

describe('identity tokens (A3)', () => {
  const identity = { identitytoken: 'refresh me' };
  const accepts = (authorization: string): boolean => authorization === 'Bearer T';

  it('[A3] are exchanged by POST, in the body', async () => {
    let form = '';
    const server = await smallRegistry({
      challenge: BEARER,
      accepts,
      token: async (request, response) => {
        form = (await bodyOf(request)).toString();
        sendToken({ access_token: 'T' })(request, response);
      },
    });
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: identity })),
    });
    expect(await registry.listTags('app')).toEqual(['v1']);
    expect(Object.fromEntries(new URLSearchParams(form))).toEqual({
      grant_type: 'refresh_token',
      service: 'svc',
      client_id: 'sealift',
      refresh_token: 'refresh me',
      scope: 'repository:app:pull',
    });
    expect(server.asked.map((r) => `${r.method} ${r.url.split('?')[0]}`)).toEqual([
      'GET /v2/app/tags/list',
      'POST /token',
      'GET /v2/app/tags/list',
    ]);
  });

  it('work with a server that gave them out', async () => {
    const running = await runRegistry({ auth: { kind: 'bearer', users } });
    const answer = await fetch(`${running.url}/token?offline_token=true&service=sealift`, {
      headers: { authorization: `Basic ${ann.auth}` },
    });
    const { refresh_token: token } = (await answer.json()) as { refresh_token: string };
    const auths = { [running.host]: { identitytoken: token } };
    const { registry } = client(running.host, { context: testContext(await loggedIn(auths)) });
    await pushImage(registry, { repository: 'app', tag: 'v1' });
    expect(await registry.listTags('app')).toEqual(['v1']);
  });

  it('are not carried on by a redirect of the token server', async () => {
    const other = await startServer((request, response) => sendToken({ token: 'T' })(request, response));
    const server = await smallRegistry({
      challenge: BEARER,
      accepts,
      token: (_, response) => response.writeHead(307, { location: other.url }).end(),
    });
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: identity })),
    });
    expect(await failureOf(registry.listTags('app'))).toMatchObject({ code: 'REGISTRY_FAILED' });
    expect(other.asked).toHaveLength(0);
  });

  it('that ran out are a fault of the login', async () => {
    const server = await smallRegistry({
      challenge: BEARER,
      accepts,
      token: (_, response) => response.writeHead(400).end('{"error":"invalid_grant"}'),
    });
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: identity })),
    });
    expect(await failureOf(registry.listTags('app'))).toMatchObject({ code: 'AUTH_DENIED' });
  });

  for (const status of [404, 405]) {
    it(`[A3-fallback] fall back to GET, as nobody, where POST is unknown (HTTP ${status})`, async () => {
      const server = await smallRegistry({
        challenge: BEARER,
        accepts,
        token: (request, response) => {
          if (request.method === 'POST') response.writeHead(status).end();
          else sendToken({ token: 'T' })(request, response);
        },
      });
      const { registry } = client(server.host, {
        context: testContext(await loggedIn({ [server.host]: identity })),
      });
      expect(await registry.listTags('app')).toEqual(['v1']);
      expect(server.asked[2]).toMatchObject({ method: 'GET' });
      expect(server.asked[2]?.headers).not.toHaveProperty('authorization');
    });
  }
});

it('[1.1-entry-registry-token] registry tokens are sent as they are', async () => {
  const server = await smallRegistry({ challenge: BEARER, accepts: (a) => a === 'Bearer ready' });
  const auths = { [server.host]: { registrytoken: 'ready' } };
  const { registry } = client(server.host, { context: testContext(await loggedIn(auths)) });
  expect(await registry.listTags('app')).toEqual(['v1']);
  expect(tokenQueries(server)).toEqual([]);
});
