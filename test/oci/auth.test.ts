import { describe, expect, it } from 'vitest';
import { bodyOf, failureOf, gather, startServer, testContext } from '../io/server.ts';
import {
  basicAuth,
  blobOf,
  client,
  envOf,
  loggedIn,
  pushImage,
  runRegistry,
  source,
  tempDir,
  writeFiles,
  writeHelper,
} from './bench.ts';
import { ann, BEARER, sendToken, smallRegistry, users } from './small-registry.ts';

describe('with a password', () => {
  for (const kind of ['basic', 'bearer'] as const) {
    it(`everything can be pushed and pulled (${kind})`, async () => {
      const running = await runRegistry({ auth: { kind, users } });
      const context = testContext(await loggedIn({ [running.host]: ann }));
      const { registry } = client(running.host, { context });
      await registry.ping();
      const image = await pushImage(registry, { repository: 'team/app', tag: 'v1' });
      expect((await registry.getManifest('team/app', 'v1')).bytes.equals(image.bytes)).toBe(true);
      expect(await registry.listTags('team/app')).toEqual(['v1']);
    });

    it(`that is wrong nothing can (${kind})`, async () => {
      const running = await runRegistry({ auth: { kind, users } });
      const wrong = { auth: basicAuth('ann', 'guess') };
      const { registry } = client(running.host, {
        context: testContext(await loggedIn({ [running.host]: wrong })),
      });
      expect(await failureOf(registry.listTags('team/app'))).toMatchObject({
        code: kind === 'basic' ? 'AUTH_REQUIRED' : 'AUTH_DENIED',
        hint: expect.stringContaining(`sealift login ${running.host}`),
      });
    });

    it(`that is not there is asked for (${kind})`, async () => {
      const running = await runRegistry({ auth: { kind, users } });
      const { registry } = client(running.host);
      const failure = await failureOf(registry.listTags('team/app'));
      expect(failure).toMatchObject({ hint: expect.stringContaining(`sealift login ${running.host}`) });
      expect(['AUTH_REQUIRED', 'AUTH_DENIED']).toContain((failure as { code: string }).code);
    });
  }

  it('from a helper program it works as well', async () => {
    const running = await runRegistry({ auth: { kind: 'bearer', users } });
    const home = await tempDir();
    const answer = JSON.stringify({ ServerURL: running.host, Username: 'ann', Secret: users.ann });
    await writeHelper(home, 'x', `cat >/dev/null; echo '${answer}'`);
    await writeFiles(home, { '.docker/config.json': { credHelpers: { [running.host]: 'x' } } });
    const { registry } = client(running.host, { context: testContext(envOf(home)) });
    await pushImage(registry, { repository: 'team/app', tag: 'v1' });
  });

  it('different repositories may have different ones', async () => {
    const seen: string[] = [];
    const server = await startServer((request, response) => {
      const authorization = request.headers.authorization;
      if (authorization === undefined) {
        response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
        return;
      }
      seen.push(`${request.url?.split('/')[2]} ${Buffer.from(authorization.slice(6), 'base64')}`);
      response.end('{"tags":[]}');
    });
    const auths = {
      [`${server.host}/one`]: { auth: basicAuth('first', 'p1') },
      [server.host]: { auth: basicAuth('other', 'p2') },
    };
    const { registry } = client(server.host, { context: testContext(await loggedIn(auths)) });
    await registry.listTags('one/app');
    await registry.listTags('two/app');
    expect(seen).toEqual(['one first:p1', 'two other:p2']);
  });
});

describe('without a login (A9)', () => {
  it('[A9] a Bearer challenge is answered with a token for nobody', async () => {
    const running = await runRegistry({ auth: { kind: 'bearer', users, anonymousPull: true } });
    const owner = client(running.host, { context: testContext(await loggedIn({ [running.host]: ann })) });
    const image = await pushImage(owner.registry, { repository: 'team/app', tag: 'v1' });
    const { registry } = client(running.host);
    expect((await registry.getManifest('team/app', 'v1')).descriptor.digest).toBe(image.descriptor.digest);
    const { descriptor, bytes } = blobOf('new');
    expect(await failureOf(registry.writeBlob('team/app', descriptor, source(bytes).open))).toMatchObject({
      code: 'AUTH_REQUIRED',
    });
  });

  it('[A9] a Basic challenge is a fault that says so, without a second request', async () => {
    const server = await smallRegistry({ challenge: 'Basic realm="x"', accepts: () => false });
    const { registry } = client(server.host);
    expect(await failureOf(registry.listTags('app'))).toMatchObject({
      code: 'AUTH_REQUIRED',
      message: expect.stringContaining('user name and a password'),
    });
    expect(server.asked).toHaveLength(1);
  });
});

describe('challenges that a server may send (A1)', () => {
  const token = sendToken({ token: 'T' });
  const accepts = (authorization: string): boolean => authorization === 'Bearer T';

  it('[A1, A1-order] Bearer is taken before Basic, whatever the order, in one header or several', async () => {
    for (const challenge of [
      `Negotiate, Basic realm="a, b", ${BEARER}`,
      ['Negotiate', 'Basic realm="x"', BEARER],
      [BEARER, 'Basic realm="x"'],
    ]) {
      const server = await smallRegistry({ challenge, accepts, token });
      const { registry } = client(server.host);
      expect(await registry.listTags('app')).toEqual(['v1']);
    }
  });

  it('Basic is taken when Bearer names no realm', async () => {
    const server = await smallRegistry({
      challenge: 'Bearer service="x", Basic realm="y"',
      accepts: (authorization) => authorization === `Basic ${ann.auth}`,
    });
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: ann })),
    });
    expect(await registry.listTags('app')).toEqual(['v1']);
  });

  for (const [challenge, named] of [
    ['Negotiate', 'negotiate'],
    ['Digest realm="x", nonce="y"', 'digest'],
    ['', 'nothing'],
    ['???', 'nothing'],
  ] as const) {
    it(`only others are a fault that names them: "${challenge}"`, async () => {
      const server = await smallRegistry({ challenge, accepts: () => false });
      const { registry } = client(server.host);
      expect(await failureOf(registry.listTags('app'))).toMatchObject({
        code: 'AUTH_REQUIRED',
        message: expect.stringContaining(`offers ${named}`),
      });
    });
  }
});

describe('authorization stays with the registry (A7)', () => {
  it('[A7, A7-redirect] a blob that is elsewhere is fetched without it, and a 401 there is not answered', async () => {
    const { bytes, descriptor } = blobOf('content');
    let allowed = true;
    const store = await startServer((_, response) => {
      if (allowed) response.end(bytes);
      else response.writeHead(401, { 'www-authenticate': 'Basic realm="give me"' }).end();
    });
    const running = await runRegistry({
      auth: { kind: 'basic', users },
      intercept: (request, response) => {
        if (!request.url?.includes('/blobs/sha256') || request.headers.authorization === undefined)
          return false;
        response.writeHead(307, { location: `${store.url}/signed?sig=1` }).end();
        return true;
      },
    });
    const { registry } = client(running.host, {
      context: testContext(await loggedIn({ [running.host]: ann })),
    });
    const read = () => gather(registry.readBlob('app', descriptor, { signal: new AbortController().signal }));
    expect((await read()).equals(bytes)).toBe(true);
    allowed = false;
    expect(await failureOf(read())).toMatchObject({ code: 'AUTH_REQUIRED' });
    expect(store.asked).toHaveLength(2);
    for (const request of store.asked) expect(request.headers).not.toHaveProperty('authorization');
  });

  it('[A7, 1.4-3-elsewhere] an upload that is to go elsewhere goes without it', async () => {
    const { bytes, descriptor } = blobOf('content');
    const store = await startServer(async (request, response) => {
      await bodyOf(request);
      response.writeHead(201).end();
    });
    const running = await runRegistry({
      auth: { kind: 'basic', users },
      intercept: (request, response) => {
        if (request.method !== 'POST' || request.headers.authorization === undefined) return false;
        response.writeHead(202, { location: `${store.url}/upload?id=1` }).end();
        return true;
      },
    });
    const { registry } = client(running.host, {
      context: testContext(await loggedIn({ [running.host]: ann })),
    });
    await registry.writeBlob('app', descriptor, source(bytes).open);
    expect(store.asked[0]?.headers).not.toHaveProperty('authorization');
    expect(store.asked[0]?.url).toBe(`/upload?id=1&digest=${descriptor.digest.replace(':', '%3A')}`);
  });
});
