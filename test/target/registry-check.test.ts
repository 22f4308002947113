import { describe, expect, it } from 'vitest';
import { grantedActions } from '../../src/oci/access.ts';
import type { CredentialSource } from '../../src/oci/credentials.ts';
import { NOBODY } from '../../src/oci/credentials.ts';
import type { Finding } from '../../src/target/finding.ts';
import { checkRegistry } from '../../src/target/registry-check.ts';
import { startServer, type TestServer, testClient, testContext } from '../io/server.ts';

const ann: CredentialSource = {
  find: async () => ({ kind: 'password', username: 'ann', password: 'hunter2' }),
};

const jwt = (access: unknown): string =>
  ['{"alg":"none"}', JSON.stringify({ access }), 'signed']
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');

/** A registry whose token server grants these actions, or gives this token as it is. */
function registryOf(grant: readonly string[] | string): Promise<TestServer> {
  return startServer((request, response) => {
    const url = new URL(request.url ?? '', 'http://x');
    if (url.pathname === '/token') {
      const [, name = ''] = (url.searchParams.get('scope') ?? '').split(':');
      const token = typeof grant === 'string' ? grant : jwt([{ type: 'repository', name, actions: grant }]);
      response.end(JSON.stringify({ token }));
    } else if (request.headers.authorization?.startsWith('Bearer ') !== true) {
      response.writeHead(401, {
        'www-authenticate': `Bearer realm="http://${request.headers.host}/token",service="svc"`,
      });
      response.end();
    } else if (url.pathname === '/v2/') response.end('{}');
    else if (request.method === 'DELETE') response.writeHead(405).end('{}');
    else response.writeHead(404).end('{}');
  });
}

async function check(server: TestServer, credentials = ann, prefix = ''): Promise<readonly Finding[]> {
  const context = testContext();
  const { host } = new URL(server.url);
  const place = { host, prefix, config: { plainHttp: true }, credentials };
  return (await checkRegistry(place, { http: testClient(context), context })).findings;
}

const rights = (findings: readonly Finding[]): Finding | undefined =>
  findings.find((f) => f.code === 'RIGHTS' || f.code === 'AUTH_DENIED');

describe('the check of a registry', () => {
  it('reads in the token that a push is granted, and sends nothing', async () => {
    const server = await registryOf(['pull', 'push', 'delete']);
    const findings = await check(server, ann, 'gpu/mirror');
    expect(rights(findings)).toMatchObject({
      level: 'ok',
      message: expect.stringContaining('push to gpu/mirror/sealift-check, and delete'),
    });
    const asked = server.asked.map(({ method, url }) => `${method} ${url}`);
    expect(asked.filter((line) => /^(POST|PUT|PATCH)/.test(line))).toEqual([]);
    expect(asked.join('\n')).toContain(
      'scope=repository%3Agpu%2Fmirror%2Fsealift-check%3Apull%2Cpush%2Cdelete',
    );
  });

  it('refuses a login that may only pull', async () => {
    expect(rights(await check(await registryOf(['pull'])))).toMatchObject({
      level: 'fault',
      code: 'AUTH_DENIED',
      message: expect.stringContaining('only pull'),
    });
    expect(rights(await check(await registryOf([])))?.message).toContain('may nothing');
  });

  it('says so where the token does not tell', async () => {
    expect(rights(await check(await registryOf('DockerToken.1234')))?.level).toBe('info');
  });

  it('tells that a registry deletes nothing and lists no referrers', async () => {
    const findings = await check(await registryOf(['pull', 'push']));
    expect(findings.map((f) => `${f.level} ${f.code}`)).toEqual([
      'ok REACHABLE',
      'ok RIGHTS',
      'info REFERRERS',
      'info RIGHTS',
    ]);
  });

  it('wants a login where there is none', async () => {
    const server = await startServer((_, response) => {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
    });
    expect(await check(server, NOBODY)).toMatchObject([{ level: 'fault', code: 'AUTH_REQUIRED' }]);
    expect(await check(server)).toMatchObject([{ level: 'fault', code: expect.stringMatching(/^AUTH/) }]);
  });

  it('takes a web page for no registry', async () => {
    const server = await startServer((_, response) => response.end('<html>Welcome</html>'));
    expect(await check(server)).toMatchObject([
      { level: 'fault', code: 'TARGET_UNREACHABLE', fix: expect.stringContaining('connector') },
    ]);
  });

  it('says that nobody answers', async () => {
    const server = await registryOf([]);
    await server.close();
    expect(await check(server)).toMatchObject([
      { level: 'fault', code: 'TARGET_UNREACHABLE', fix: expect.stringContaining('curl') },
    ]);
  });
});

describe('the actions in a token', () => {
  it.each([
    ['no JWT', 'abc', undefined],
    ['no JSON inside', 'a.b.c', undefined],
    ['no access', jwt(undefined), []],
    ['null', jwt(null), []],
    ['another repository', jwt([{ type: 'repository', name: 'b', actions: ['push'] }]), []],
    ['no list', jwt('push'), undefined],
    ['odd actions', jwt([{ type: 'repository', name: 'a', actions: [1, 'push', null] }, 7]), ['push']],
  ])('with %s', (_, token, granted) => {
    expect(grantedActions(token, 'a')).toEqual(granted);
  });
});
