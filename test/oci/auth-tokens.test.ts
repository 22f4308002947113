import type { ServerResponse } from 'node:http';
import { describe, expect, it } from 'vitest';
import { bodyOf, failureOf, testContext } from '../io/server.ts';
import { blobOf, client, loggedIn, pushImage, runRegistry, source } from './bench.ts';
import { ann, BEARER, sendToken, smallRegistry, tokenQueries, users } from './small-registry.ts';

describe('tokens (A2)', () => {
  for (const field of ['token', 'access_token']) {
    it(`[A2-answer] may be called ${field}`, async () => {
      const server = await smallRegistry({
        challenge: BEARER,
        accepts: (authorization) => authorization === 'Bearer T',
        token: sendToken({ [field]: 'T' }),
      });
      const { registry } = client(server.host);
      expect(await registry.listTags('app')).toEqual(['v1']);
    });
  }

  it('[A2, A3-password] are asked for with service and scope; the password goes in the header only', async () => {
    const server = await smallRegistry({
      challenge: 'Bearer realm="http://{host}/token?kept=1",service="my service"',
      accepts: (authorization) => authorization === 'Bearer T',
      token: sendToken({ token: 'T' }),
    });
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: ann })),
    });
    await registry.listTags('team/app');
    expect(tokenQueries(server)).toEqual(['kept=1&service=my+service&scope=repository:team/app:pull']);
    expect(server.asked[1]?.headers.authorization).toBe(`Basic ${ann.auth}`);
  });

  const bad: Record<string, (response: ServerResponse) => unknown> = {
    'no JSON': (r) => r.end('T'),
    'no object': (r) => r.end('"T"'),
    'no token': (r) => r.end('{}'),
    'an empty token': (r) => r.end('{"token":""}'),
    'a number': (r) => r.end('{"token":5}'),
    'a token with a line break': (r) => r.end('{"token":"a\\r\\nx: y"}'),
    'a token that no header can hold': (r) => r.end('{"token":"\u{1F600}"}'),
  };
  for (const [name, answer] of Object.entries(bad)) {
    it(`[A2-answer] that are none are a fault: ${name}`, async () => {
      const server = await smallRegistry({
        challenge: BEARER,
        accepts: () => false,
        token: (_, response) => answer(response),
      });
      const { registry } = client(server.host);
      expect(await failureOf(registry.listTags('app'))).toMatchObject({ code: 'REGISTRY_ANSWER_INVALID' });
    });
  }

  it('[A2-limit] that never end are cut', async () => {
    const server = await smallRegistry({
      challenge: BEARER,
      accepts: () => false,
      token: (_, response) => response.end(`{"token":"${'T'.repeat(1e6)}"}`),
    });
    expect(await failureOf(client(server.host).registry.listTags('app'))).toMatchObject({
      code: 'CONTENT_TOO_LARGE',
    });
  });

  for (const [status, code, hint] of [
    [401, 'AUTH_DENIED', 'sealift login'],
    [403, 'AUTH_DENIED', 'sealift login'],
    [429, 'REGISTRY_RATE_LIMITED', 'again later'],
    [500, 'REGISTRY_FAILED', 'again later'],
    [404, 'REGISTRY_FAILED', 'ask the owner'],
  ] as const) {
    it(`that are refused with HTTP ${status} are ${code}`, async () => {
      const server = await smallRegistry({
        challenge: BEARER,
        accepts: () => false,
        token: (_, response) => response.writeHead(status).end('why'),
      });
      expect(await failureOf(client(server.host).registry.listTags('app'))).toMatchObject({
        code,
        hint: expect.stringContaining(hint),
      });
    });
  }

  it('whose answer breaks in the middle are asked for again', async () => {
    let asked = 0;
    const server = await smallRegistry({
      challenge: BEARER,
      accepts: (authorization) => authorization === 'Bearer T',
      token: (request, response) => {
        if (++asked > 1) return sendToken({ token: 'T' })(request, response);
        response.writeHead(200, { 'content-length': 100 }).write('{"tok');
        setTimeout(() => request.socket.destroy(), 5);
      },
    });
    expect(await client(server.host).registry.listTags('app')).toEqual(['v1']);
  });

  it('[A5-single] are asked for once however many wait', async () => {
    const running = await runRegistry({ auth: { kind: 'bearer', users } });
    const { registry } = client(running.host, {
      context: testContext(await loggedIn({ [running.host]: ann })),
    });
    await pushImage(registry, { repository: 'app', tag: 'v1' });
    const fresh = client(running.host, { context: testContext(await loggedIn({ [running.host]: ann })) });
    const before = running.requests.length;
    await Promise.all(Array.from({ length: 12 }, () => fresh.registry.getManifest('app', 'v1')));
    const asked = running.requests.slice(before);
    expect(asked.filter((r) => r.path === '/token')).toHaveLength(1);
    expect(asked.filter((r) => r.status === 200 && r.path !== '/token')).toHaveLength(12);
  });

  it('[A5, A5-early] are kept for each set of scopes, and used until they end', async () => {
    let now = 1_000_000;
    let made = 0;
    let good = 'none yet';
    const server = await smallRegistry({
      challenge: BEARER,
      accepts: (authorization) => authorization === good,
      token: (request, response) => {
        good = `Bearer T${++made}`;
        sendToken({ token: `T${made}`, expires_in: 100 })(request, response);
      },
    });
    const context = { ...testContext({ HOME: '/nonexistent' }), now: () => now };
    const { registry } = client(server.host, { context });
    await registry.listTags('app');
    now += 94_000;
    await registry.listTags('app');
    expect(made).toBe(1);
    // 5 s early, so that it does not end on the way.
    now += 1_001;
    await Promise.all([registry.listTags('app'), registry.listTags('app')]);
    expect(made).toBe(2);
    await registry.listTags('other');
    expect(made).toBe(3);
  });

  it('[A2-expiry, A5-early] hold 60 s when nothing is said, and short ones are not thrown away at once', async () => {
    for (const [stated, seconds] of [
      [undefined, 60],
      [0, 60],
      [-1, 60],
      ['900', 60],
      [2, 2],
    ] as const) {
      let now = 1_000_000;
      const server = await smallRegistry({
        challenge: BEARER,
        accepts: (authorization) => authorization === 'Bearer T',
        token: sendToken({ token: 'T', ...(stated === undefined ? {} : { expires_in: stated }) }),
      });
      const context = { ...testContext({ HOME: '/nonexistent' }), now: () => now };
      const { registry } = client(server.host, { context });
      await registry.listTags('app');
      now += seconds * 850;
      await registry.listTags('app');
      expect(tokenQueries(server)).toHaveLength(1);
      now += seconds * 151;
      await registry.listTags('app');
      expect(tokenQueries(server)).toHaveLength(2);
    }
  });

  it('that the server no longer takes are replaced in the middle of a run', async () => {
    let skew = 0;
    const running = await runRegistry({
      auth: { kind: 'bearer', users, tokenTtlSeconds: 100 },
      now: () => Date.now() + skew,
    });
    const { registry } = client(running.host, {
      context: testContext(await loggedIn({ [running.host]: ann })),
    });
    await pushImage(registry, { repository: 'app', tag: 'v1' });
    skew = 3_600_000;
    const before = running.requests.length;
    await pushImage(registry, { repository: 'app', tag: 'v2' });
    expect(running.requests.slice(before).filter((r) => r.status === 401)).toHaveLength(1);
    expect(await registry.listTags('app')).toEqual(['v1', 'v2']);
  });

  it('[A6] that end during an upload: the blob is sent again with a new one', async () => {
    const { bytes, descriptor } = blobOf(Buffer.alloc(400_000, 7));
    let puts = 0;
    const running = await runRegistry({
      auth: { kind: 'bearer', users },
      intercept: async (request, response) => {
        if (request.method !== 'PUT' || ++puts > 1) return false;
        await bodyOf(request);
        const challenge = `Bearer realm="http://${request.headers.host}/token",service="sealift",error="invalid_token"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
        return true;
      },
    });
    const { registry } = client(running.host, {
      context: testContext(await loggedIn({ [running.host]: ann })),
    });
    const blob = source(bytes);
    await registry.writeBlob('app', descriptor, blob.open);
    expect([blob.opened, await registry.hasBlob('app', descriptor.digest)]).toEqual([2, true]);
  });
});
