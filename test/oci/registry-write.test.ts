import { describe, expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import { bodyOf, failureOf, someBytes, startServer, testContext } from '../io/server.ts';
import { basicAuth, blobOf, client, loggedIn, MANIFEST, manifestOf, runRegistry, source } from './bench.ts';

const { bytes, descriptor } = blobOf(someBytes(300_000));

describe('a mount', () => {
  it('[1.4-2-mount] that is done is one request (201)', async () => {
    const running = await runRegistry();
    const { registry } = client(running.host);
    await registry.writeBlob('base', descriptor, source(bytes).open);
    const before = running.requests.length;
    expect(await registry.mountBlob('team/app', descriptor.digest, 'base')).toBe(true);
    expect(running.requests.slice(before).map((r) => `${r.method} ${r.path} ${r.status}`)).toEqual([
      'POST /v2/team/app/blobs/uploads/ 201',
    ]);
    expect(await registry.hasBlob('team/app', descriptor.digest)).toBe(true);
  });

  it('[1.4-2-session, 1.4-4-cancel] that opens an upload instead (202) is cancelled there', async () => {
    const running = await runRegistry();
    const { registry } = client(running.host);
    expect(await registry.mountBlob('app', descriptor.digest, 'nowhere')).toBe(false);
    const [start, cancel] = running.requests;
    expect([start?.method, start?.status, cancel?.method, cancel?.status]).toEqual([
      'POST',
      202,
      'DELETE',
      204,
    ]);
  });

  it('[1.4-4-cancel] that opens an upload which cannot be cancelled is only not done', async () => {
    for (const location of ['http://[broken', 'file:///x', '/up']) {
      const server = await startServer((request, response) => {
        response.writeHead(request.method === 'POST' ? 202 : 401, { location }).end();
      });
      expect(await client(server.host).registry.mountBlob('app', descriptor.digest, 'base')).toBe(false);
    }
  });

  for (const status of [400, 403, 404, 405, 500, 200]) {
    it(`[1.4-2-refused, 1.4-2-from] that is refused (HTTP ${status}) is only not done`, async () => {
      const server = await startServer((_, response) => response.writeHead(status).end('{}'));
      expect(await client(server.host).registry.mountBlob('app', descriptor.digest, 'base')).toBe(false);
      expect(server.asked[0]?.url).toBe(
        `/v2/app/blobs/uploads/?mount=${descriptor.digest.replace(':', '%3A')}&from=base`,
      );
    });
  }

  it('for which no token is given is only not done: an upload needs less', async () => {
    const server = await startServer((request, response) => {
      const url = new URL(request.url ?? '', 'http://x');
      if (url.pathname === '/token') {
        const denied = url.searchParams.getAll('scope').some((s) => s.includes('base'));
        response.writeHead(denied ? 403 : 200).end('{"token":"T"}');
      } else if (request.headers.authorization === 'Bearer T') {
        response.writeHead(request.method === 'POST' ? 202 : 201, { location: '/up' }).end();
      } else {
        const challenge = `Bearer realm="http://${request.headers.host}/token"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      }
      request.resume();
    });
    const auths = { [server.host]: { auth: basicAuth('ann', 'pw') } };
    const { registry } = client(server.host, { context: testContext(await loggedIn(auths)) });
    expect(await registry.mountBlob('app', descriptor.digest, 'base')).toBe(false);
    await registry.writeBlob('app', descriptor, source(bytes).open);
  });

  it('that nobody answers is a fault', async () => {
    const server = await startServer((request) => request.socket.destroy());
    const work = client(server.host).registry.mountBlob('app', descriptor.digest, 'base');
    expect(await failureOf(work)).toMatchObject({ code: 'NETWORK_FAILED' });
  });
});

describe('putting a manifest', () => {
  const image = manifestOf({
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: blobOf('{}').descriptor,
    layers: [],
  });

  it('[1.4-5-type, 1.3-bytes] sends the bytes as they are, under their own type', async () => {
    const odd = Buffer.from(` ${image.bytes.toString()}\n`);
    let received: Buffer | undefined;
    const server = await startServer(async (request, response) => {
      received = await bodyOf(request);
      response.writeHead(201, { 'docker-content-digest': digestOf(odd) }).end();
    });
    const content = {
      bytes: odd,
      descriptor: { mediaType: MANIFEST, digest: digestOf(odd), size: odd.length },
    };
    await client(server.host).registry.putManifest('team/app', 'v1', content);
    expect(received?.equals(odd)).toBe(true);
    expect(server.asked[0]).toMatchObject({
      method: 'PUT',
      url: '/v2/team/app/manifests/v1',
      headers: { 'content-type': MANIFEST, 'content-length': String(odd.length) },
    });
  });

  for (const stored of [digestOf('rewritten'), 'sha256:short', 'nonsense']) {
    it(`[1.4-5-digest] that comes out as ${stored.slice(0, 16)} is a fault of the target`, async () => {
      const server = await startServer(async (request, response) => {
        await bodyOf(request);
        response.writeHead(201, { 'docker-content-digest': stored }).end();
      });
      expect(await failureOf(client(server.host).registry.putManifest('app', 'v1', image))).toMatchObject({
        code: 'TARGET_FAILED',
        message: expect.stringContaining(image.descriptor.digest),
        hint: expect.stringContaining('rewrites'),
      });
    });
  }

  for (const status of [200, 201, 202]) {
    it(`is done with HTTP ${status} and no digest in the answer`, async () => {
      const server = await startServer(async (request, response) => {
        await bodyOf(request);
        response.writeHead(status).end();
      });
      await client(server.host).registry.putManifest('app', 'v1', image);
    });
  }

  it('whose blobs are missing says so with the code of the registry', async () => {
    const running = await runRegistry();
    expect(await failureOf(client(running.host).registry.putManifest('app', 'v1', image))).toMatchObject({
      side: 'destination',
      details: { serverCode: 'MANIFEST_BLOB_UNKNOWN' },
    });
  });

  it('is tried again after a cut and after 5xx', async () => {
    const server = await startServer(async (request, response, count) => {
      await bodyOf(request);
      if (count === 1) request.socket.destroy();
      else response.writeHead(count === 2 ? 502 : 201).end();
    });
    await client(server.host).registry.putManifest('app', 'v1', image);
    expect(server.asked).toHaveLength(3);
  });
});
