import { describe, expect, it } from 'vitest';
import type { AuthOptions } from '../../src/serve/auth.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { digestOf, errorCodes } from './client.ts';

const USERS = { ann: 'pa:ss wörd', bob: '' };

async function withRegistry(
  auth: AuthOptions,
  work: (registry: RunningRegistry, clock: { ms: number }) => Promise<void>,
): Promise<void> {
  const clock = { ms: 0 };
  const registry = await startRegistry({ storage: 'memory', auth, now: () => clock.ms });
  try {
    await work(registry, clock);
  } finally {
    await registry.close();
  }
}

const basic = (user: string, password: string) =>
  `Basic ${Buffer.from(`${user}:${password}`, 'utf8').toString('base64')}`;
const ANN = basic('ann', USERS.ann);

function ask(url: string, authorization?: string, method = 'GET'): Promise<Response> {
  return fetch(url, { method, ...(authorization === undefined ? {} : { headers: { authorization } }) });
}

describe('a registry with passwords', () => {
  it('asks for Basic and lets known users do everything', () =>
    withRegistry({ kind: 'basic', users: USERS }, async ({ url }) => {
      const refused = await ask(`${url}/v2/`);
      expect(refused.status).toBe(401);
      expect(refused.headers.get('www-authenticate')).toBe('Basic realm="sealift"');
      expect(await errorCodes(refused)).toEqual(['UNAUTHORIZED']);
      expect((await ask(`${url}/v2/`, ANN)).status).toBe(200);
      expect((await ask(`${url}/v2/`, basic('bob', ''))).status).toBe(200);
      expect((await ask(`${url}/v2/a/blobs/uploads/`, ANN, 'POST')).status).toBe(202);
      expect((await ask(`${url}/v2/_catalog`, ANN)).status).toBe(200);
    }));

  it.each([
    basic('ann', 'wrong'),
    basic('eve', ''),
    basic('__proto__', ''),
    basic('toString', ''),
    'Basic',
    'Basic !!',
    `Basic ${Buffer.from('ann').toString('base64')}`,
    'Bearer x',
    ANN.replace('Basic', 'Digest'),
  ])('refuses %s', (header) =>
    withRegistry({ kind: 'basic', users: USERS, anonymousPull: true }, async ({ url }) => {
      expect((await ask(`${url}/v2/a/manifests/x`, header)).status).toBe(401);
    }),
  );

  it('lets everybody pull when it is told so, and nothing else', () =>
    withRegistry({ kind: 'basic', users: USERS, anonymousPull: true }, async ({ url }) => {
      expect((await ask(`${url}/v2/a/manifests/x`)).status).toBe(404);
      expect((await ask(`${url}/v2/`)).status).toBe(401);
      expect((await ask(`${url}/v2/_catalog`)).status).toBe(401);
      expect((await ask(`${url}/v2/a/blobs/uploads/`, undefined, 'POST')).status).toBe(401);
      expect((await ask(`${url}/v2/a/manifests/x`, undefined, 'DELETE')).status).toBe(401);
      expect((await ask(`${url}/charts/index.yaml`)).status).toBe(200);
    }));

  it.each(['basic', 'bearer'] as const)('guards charts and files with a password (%s)', (kind) =>
    withRegistry({ kind, users: USERS }, async ({ url }) => {
      for (const path of ['/charts/index.yaml', '/files/x']) {
        expect((await ask(url + path)).headers.get('www-authenticate')).toMatch(/^Basic /);
      }
      expect((await ask(`${url}/charts/index.yaml`, ANN)).status).toBe(200);
    }),
  );
});

describe('a registry with tokens', () => {
  const repository = 'team/app';
  const pull = `repository:${repository}:pull`;

  async function token(
    url: string,
    scopes: readonly string[],
    authorization?: string,
  ): Promise<{ status: number; bearer: string; body: Record<string, unknown> }> {
    const query = new URLSearchParams({ service: 'sealift' });
    for (const scope of scopes) query.append('scope', scope);
    const answer = await ask(`${url}/token?${query}`, authorization);
    const body = (await answer.json()) as Record<string, unknown>;
    return { status: answer.status, bearer: `Bearer ${String(body.token)}`, body };
  }

  it('says where to get a token and for what', () =>
    withRegistry({ kind: 'bearer', users: USERS }, async ({ url }) => {
      const challenge = async (path: string, method = 'GET') => {
        const answer = await ask(url + path, undefined, method);
        expect(answer.status).toBe(401);
        return answer.headers.get('www-authenticate');
      };
      const base = `Bearer realm="${url}/token",service="sealift"`;
      expect(await challenge('/v2/')).toBe(base);
      expect(await challenge('/v2/_catalog')).toBe(`${base},scope="registry:catalog:*"`);
      expect(await challenge('/v2/team/app/tags/list')).toBe(`${base},scope="${pull}"`);
      expect(await challenge('/v2/team/app/manifests/1', 'PUT')).toBe(`${base},scope="${pull},push"`);
      expect(await challenge('/v2/team/app/manifests/1', 'DELETE')).toBe(
        `${base},scope="repository:team/app:delete"`,
      );
      const mount = `/v2/team/app/blobs/uploads/?mount=${digestOf('x')}&from=team/base`;
      expect(await challenge(mount, 'POST')).toBe(`${base},scope="${pull},push repository:team/base:pull"`);
    }));

  it('enforces the scopes of a token', () =>
    withRegistry({ kind: 'bearer', users: USERS }, async ({ url }) => {
      const { bearer, body } = await token(url, [pull], ANN);
      expect(body.expires_in).toBe(300);
      expect(body.access_token).toBe(body.token);
      expect((await ask(`${url}/v2/`, bearer)).status).toBe(200);
      expect((await ask(`${url}/v2/team/app/manifests/x`, bearer)).status).toBe(404);
      expect((await ask(`${url}/v2/team/other/manifests/x`, bearer)).status).toBe(401);
      const push = await ask(`${url}/v2/team/app/blobs/uploads/`, bearer, 'POST');
      expect(push.status).toBe(401);
      expect(push.headers.get('www-authenticate')).toContain('error="insufficient_scope"');
      expect((await ask(`${url}/v2/`, ANN)).status).toBe(401);
    }));

  it('takes several scopes, as parameters or in one, and leaves nonsense out', () =>
    withRegistry({ kind: 'bearer', users: USERS }, async ({ url }) => {
      const scopes = [
        'repository:a:pull,push repository:b:pull',
        'registry:catalog:*',
        'repository:../x:pull',
        'junk',
      ];
      const { bearer } = await token(url, scopes, ANN);
      const mount = `${url}/v2/a/blobs/uploads/?mount=${digestOf('x')}&from=b`;
      expect((await ask(mount, bearer, 'POST')).status).toBe(202);
      expect((await ask(mount.replace('from=b', 'from=c'), bearer, 'POST')).status).toBe(401);
      expect((await ask(`${url}/v2/_catalog`, bearer)).status).toBe(200);
    }));

  it('gives anonymous users a token for pulling only, and only when it is told so', async () => {
    await withRegistry({ kind: 'bearer', users: USERS, anonymousPull: true }, async ({ url }) => {
      expect((await ask(`${url}/v2/team/app/manifests/x`)).status).toBe(401);
      const { bearer } = await token(url, [`${pull},push`, 'registry:catalog:*']);
      expect((await ask(`${url}/v2/team/app/manifests/x`, bearer)).status).toBe(404);
      expect((await ask(`${url}/v2/team/app/blobs/uploads/`, bearer, 'POST')).status).toBe(401);
      expect((await ask(`${url}/v2/_catalog`, bearer)).status).toBe(401);
      expect((await token(url, [pull], basic('ann', 'no'))).status).toBe(401);
    });
    await withRegistry({ kind: 'bearer', users: USERS }, async ({ url }) => {
      expect((await token(url, [pull])).status).toBe(401);
    });
  });

  it('ends a token after its time and takes no other', () =>
    withRegistry({ kind: 'bearer', users: USERS, tokenTtlSeconds: 2 }, async ({ url }, clock) => {
      const { bearer, body } = await token(url, [pull], ANN);
      expect(body.expires_in).toBe(2);
      const at = () => ask(`${url}/v2/team/app/manifests/x`, bearer);
      clock.ms = 1999;
      expect((await at()).status).toBe(404);
      clock.ms = 2000;
      const ended = await at();
      expect(ended.status).toBe(401);
      expect(ended.headers.get('www-authenticate')).toContain('error="invalid_token"');
      expect((await ask(`${url}/v2/`, 'Bearer made-up')).status).toBe(401);
    }));

  it('speaks OAuth2: a password gives a refresh token, which gives tokens', () =>
    withRegistry({ kind: 'bearer', users: USERS }, async ({ url }) => {
      const post = async (form: Record<string, string>) => {
        const answer = await fetch(`${url}/token`, { method: 'POST', body: new URLSearchParams(form) });
        return { status: answer.status, body: (await answer.json()) as Record<string, string> };
      };
      const first = await post({
        grant_type: 'password',
        username: 'ann',
        password: USERS.ann,
        access_type: 'offline',
        scope: pull,
      });
      expect(first.status).toBe(200);
      const refreshed = await post({
        grant_type: 'refresh_token',
        refresh_token: first.body.refresh_token ?? '',
        scope: `${pull} repository:other:pull,push`,
      });
      const bearer = `Bearer ${refreshed.body.access_token}`;
      expect((await ask(`${url}/v2/other/blobs/uploads/`, bearer, 'POST')).status).toBe(202);
      expect((await post({ grant_type: 'refresh_token', refresh_token: 'x' })).status).toBe(401);
      expect((await post({ grant_type: 'password', username: 'ann', password: 'x' })).status).toBe(401);
      expect(
        (await post({ grant_type: 'password', username: 'ann', password: 'x'.repeat(200_000) })).status,
      ).toBe(413);
    }));
});
