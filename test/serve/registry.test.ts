import { once } from 'node:events';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { artifact, digestOf, errorCodes, pushBlob, putManifest } from './client.ts';

let registry: RunningRegistry;
let url: string;

beforeAll(async () => {
  registry = await startRegistry({ storage: 'memory' });
  url = registry.url;
});
afterAll(() => registry.close());

/** Sends a request line that no HTTP library would: paths stay as they are. */
async function raw(method: string, path: string): Promise<string> {
  const [host = '', port = ''] = registry.host.split(':');
  const socket = connect(Number(port), host);
  socket.end(`${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1');
  });
  await once(socket, 'close');
  return text;
}

describe('the version check', () => {
  it('answers an empty object and says which API this is', async () => {
    for (const path of ['/v2/', '/v2']) {
      const answer = await fetch(url + path);
      expect(answer.status).toBe(200);
      expect(answer.headers.get('docker-distribution-api-version')).toBe('registry/2.0');
      expect(await answer.json()).toEqual({});
    }
  });

  it('refuses other methods and says which there are', async () => {
    const answer = await fetch(`${url}/v2/`, { method: 'DELETE' });
    expect(answer.status).toBe(405);
    expect(answer.headers.get('allow')).toBe('GET, HEAD');
    expect(await errorCodes(answer)).toEqual(['UNSUPPORTED']);
  });

  it('knows nothing outside of its paths', async () => {
    expect((await fetch(`${url}/`)).status).toBe(404);
    expect((await fetch(`${url}/v1/search`)).status).toBe(404);
    expect((await fetch(`${url}/token`)).status).toBe(404);
  });
});

describe('hostile names', () => {
  const digest = digestOf('x');
  it.each([
    '/v2/../manifests/x',
    '/v2/a/../b/manifests/x',
    '/v2/%2e%2e/%2e%2e/etc/manifests/x',
    '/v2/a%2f..%2f..%2fb/manifests/x',
    '/v2/A/manifests/x',
    '/v2/a//b/manifests/x',
    '/v2/a%00b/manifests/x',
    '/v2/_blobs/manifests/x',
    '/v2/a/_manifests/manifests/x',
    `/v2/${'a'.repeat(256)}/manifests/x`,
    `/v2/..%5c..%5cx/blobs/${digest}`,
    '/v2/-a/tags/list',
    '/v2/a%zz/manifests/x',
    '/v2/.tmp/tags/list',
  ])('%s is NAME_INVALID', async (path) => {
    const answer = await raw('GET', path);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toContain('"NAME_INVALID"');
  });

  it.each([
    ['GET', '/v2/a/blobs/sha256:..%2f..%2fpasswd', 404],
    ['GET', '/v2/a/blobs/..', 400],
    ['GET', '/v2/a/blobs/sha256:zz', 400],
    ['GET', `/v2/a/blobs/${digest.toUpperCase()}`, 400],
    ['GET', '/v2/a/manifests/sha256:..', 400],
    ['GET', '/v2/a/manifests/..', 404],
    ['DELETE', '/v2/a/manifests/..', 404],
    ['GET', '/v2/a/manifests/%2e%2e%2fx', 404],
    ['PATCH', '/v2/a/blobs/uploads/..', 404],
    ['PATCH', '/v2/a/blobs/uploads/%2e%2e?_state=x', 404],
    ['POST', '/v2/a/blobs/uploads/?mount=..&from=a', 400],
    ['PUT', '/v2/a/tags/list', 405],
    ['POST', '/v2/a/manifests/x', 405],
    ['GET', '/v2/a/blobs/uploads/', 405],
    ['GET', '/files/../../etc/passwd', 404],
    ['GET', '/charts/..%2f..%2fetc%2fpasswd', 404],
  ])('%s %s is %i', async (method, path, status) => {
    expect(await raw(method, path)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  });

  it('a repository may have the words of the API in its name', async () => {
    const { bytes } = await artifact(url, 'blobs/uploads/manifests');
    const put = await putManifest(
      url,
      { repository: 'blobs/uploads/manifests', reference: 'tags' },
      { bytes },
    );
    expect(put.status).toBe(201);
    const tags = await fetch(`${url}/v2/blobs/uploads/manifests/tags/list`);
    expect(await tags.json()).toEqual({ name: 'blobs/uploads/manifests', tags: ['tags'] });
  });
});

describe('a running registry', () => {
  it('records every answer with the bytes of both ways', async () => {
    const own = await startRegistry({ storage: 'memory' });
    try {
      const digest = await pushBlob(own.url, 'a', Buffer.from('0123456789'));
      await (await fetch(`${own.url}/v2/a/blobs/${digest}`)).text();
      await (await fetch(`${own.url}/v2/a/blobs/${digest}`, { headers: { range: 'bytes=2-4' } })).text();
      await fetch(`${own.url}/v2/a/blobs/${digest}`, { method: 'HEAD' });
      expect(own.requests.map((r) => [r.method, r.status, r.bytes, r.received, r.range])).toEqual([
        ['POST', 202, 0, 0, ''],
        ['PUT', 201, 0, 10, ''],
        ['GET', 200, 10, 0, ''],
        ['GET', 206, 3, 0, 'bytes=2-4'],
        ['HEAD', 200, 0, 0, ''],
      ]);
      expect(own.requests[1]?.path).toMatch(/^\/v2\/a\/blobs\/uploads\//);
      expect(own.requests[1]?.query).toContain('digest=');
    } finally {
      await own.close();
    }
  });

  it('lets a test answer first, also after a while', async () => {
    const own = await startRegistry({
      storage: 'memory',
      intercept: async (request, response) => {
        await Promise.resolve();
        if (request.method !== 'HEAD') return false;
        response.writeHead(503, { 'retry-after': '1' }).end();
        return true;
      },
    });
    try {
      expect((await fetch(`${own.url}/v2/`, { method: 'HEAD' })).status).toBe(503);
      expect((await fetch(`${own.url}/v2/`)).status).toBe(200);
    } finally {
      await own.close();
    }
  });

  it('closes with open connections, half sent bodies and hanging tests, and answers nobody afterwards', async () => {
    const own = await startRegistry({
      storage: 'memory',
      intercept: (request) => (request.url === '/hang' ? new Promise<boolean>(() => {}) : false),
    });
    const hanging = fetch(`${own.url}/hang`).catch(() => 'cut');
    const [host = '', port = ''] = own.host.split(':');
    const socket = connect(Number(port), host);
    socket.on('error', () => {});
    socket.write('POST /v2/a/blobs/uploads/?digest=');
    socket.write(`${digestOf('x')} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc`);
    await fetch(`${own.url}/v2/`);
    await Promise.all([own.close(), own.close()]);
    expect(await hanging).toBe('cut');
    await expect(fetch(`${own.url}/v2/`)).rejects.toThrow();
  });

  it('closes when its signal is aborted', async () => {
    const controller = new AbortController();
    const own = await startRegistry({ storage: 'memory', signal: controller.signal });
    expect((await fetch(`${own.url}/v2/`)).status).toBe(200);
    controller.abort();
    await own.close();
    await expect(fetch(`${own.url}/v2/`)).rejects.toThrow();
    await expect(startRegistry({ storage: 'memory', signal: controller.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
  });

  it('says that a port is taken', async () => {
    const port = Number(registry.host.split(':')[1]);
    await expect(startRegistry({ storage: 'memory', port })).rejects.toMatchObject({ code: 'USAGE' });
  });
});
