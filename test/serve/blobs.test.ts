import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { digestOf, errorCodes, locationOf, pushBlob } from './client.ts';

let registry: RunningRegistry;
let url: string;

beforeAll(async () => {
  registry = await startRegistry({ storage: 'memory' });
  url = registry.url;
});
afterAll(() => registry.close());

describe('blobs', () => {
  it('answer HEAD, GET and DELETE in the repository that has them, and only there', async () => {
    const bytes = Buffer.from('some blob');
    const digest = await pushBlob(url, 'b/one', bytes);
    const head = await fetch(`${url}/v2/b/one/blobs/${digest}`, { method: 'HEAD' });
    expect(head.status).toBe(200);
    expect(head.headers.get('content-length')).toBe('9');
    expect(head.headers.get('accept-ranges')).toBe('bytes');
    expect(head.headers.get('docker-content-digest')).toBe(digest);
    const got = await fetch(`${url}/v2/b/one/blobs/${digest.replace(':', '%3A')}`);
    expect(Buffer.from(await got.arrayBuffer())).toEqual(bytes);
    const other = await fetch(`${url}/v2/b/two/blobs/${digest}`);
    expect(other.status).toBe(404);
    expect(await errorCodes(other)).toEqual(['BLOB_UNKNOWN']);
    expect((await fetch(`${url}/v2/b/one/blobs/${digest}`, { method: 'DELETE' })).status).toBe(202);
    expect((await fetch(`${url}/v2/b/one/blobs/${digest}`)).status).toBe(404);
    expect((await fetch(`${url}/v2/b/one/blobs/${digest}`, { method: 'DELETE' })).status).toBe(404);
  });

  it('may be empty', async () => {
    const digest = await pushBlob(url, 'b/empty', Buffer.alloc(0));
    const got = await fetch(`${url}/v2/b/empty/blobs/${digest}`);
    expect(got.status).toBe(200);
    expect(got.headers.get('content-length')).toBe('0');
    expect(await got.text()).toBe('');
  });

  it.each([
    ['bytes=0-3', 206, '0123', 'bytes 0-3/10'],
    ['bytes=4-', 206, '456789', 'bytes 4-9/10'],
    ['bytes=-2', 206, '89', 'bytes 8-9/10'],
    ['bytes=-99', 206, '0123456789', 'bytes 0-9/10'],
    ['bytes=8-999', 206, '89', 'bytes 8-9/10'],
    ['bytes=9-9', 206, '9', 'bytes 9-9/10'],
    ['bytes=5-4', 200, '0123456789', null],
    ['bytes=0-1,4-5', 200, '0123456789', null],
    ['lines=0-1', 200, '0123456789', null],
    ['bytes=-', 200, '0123456789', null],
    ['bytes=a-b', 200, '0123456789', null],
  ])('answer the range %s with %i', async (range, status, text, contentRange) => {
    const digest = await pushBlob(url, 'b/range', Buffer.from('0123456789'));
    const got = await fetch(`${url}/v2/b/range/blobs/${digest}`, { headers: { range } });
    expect(got.status).toBe(status);
    expect(got.headers.get('content-range')).toBe(contentRange);
    expect(got.headers.get('content-length')).toBe(`${text.length}`);
    expect(await got.text()).toBe(text);
  });

  it('answer 416 to a range that begins behind the end', async () => {
    const digest = await pushBlob(url, 'b/range', Buffer.from('0123456789'));
    for (const range of ['bytes=10-', 'bytes=99-100', 'bytes=-0']) {
      const got = await fetch(`${url}/v2/b/range/blobs/${digest}`, { headers: { range } });
      expect(got.status).toBe(416);
      expect(got.headers.get('content-range')).toBe('bytes */10');
    }
  });

  it('are sent whole when If-Range names other content', async () => {
    const digest = await pushBlob(url, 'b/range', Buffer.from('0123456789'));
    const get = (ifRange: string) =>
      fetch(`${url}/v2/b/range/blobs/${digest}`, { headers: { range: 'bytes=1-2', 'if-range': ifRange } });
    expect((await get(`"${digest}"`)).status).toBe(206);
    expect((await get('"other"')).status).toBe(200);
  });
});

describe('uploads', () => {
  const start = (repository: string, query = '') =>
    fetch(`${url}/v2/${repository}/blobs/uploads/${query}`, { method: 'POST' });

  it('take a blob in one request', async () => {
    const bytes = Buffer.from('monolith');
    const digest = digestOf(bytes);
    const answer = await fetch(`${url}/v2/u/mono/blobs/uploads/?digest=${digest}`, {
      method: 'POST',
      body: bytes,
    });
    expect(answer.status).toBe(201);
    expect(new URL(locationOf(answer)).pathname).toBe(`/v2/u/mono/blobs/${digest}`);
    expect(await (await fetch(locationOf(answer))).text()).toBe('monolith');
  });

  it('take a blob in chunks, tell how far they are, and take the last chunk with PUT', async () => {
    let answer = await start('u/chunks');
    expect(answer.status).toBe(202);
    expect(answer.headers.get('range')).toBe('0-0');
    const id = answer.headers.get('docker-upload-uuid');
    const patch = (body: string, range?: string) =>
      fetch(locationOf(answer), {
        method: 'PATCH',
        body,
        ...(range === undefined ? {} : { headers: { 'content-range': range } }),
      });
    answer = await patch('hello', '0-4');
    expect(answer.status).toBe(202);
    expect(answer.headers.get('range')).toBe('0-4');
    answer = await patch(', wor');
    expect(answer.headers.get('range')).toBe('0-9');
    const status = await fetch(locationOf(answer));
    expect(status.status).toBe(204);
    expect(status.headers.get('range')).toBe('0-9');
    expect(status.headers.get('docker-upload-uuid')).toBe(id);
    const digest = digestOf('hello, world');
    expect((await fetch(`${url}/v2/u/chunks/blobs/${digest}`, { method: 'HEAD' })).status).toBe(404);
    const put = await fetch(locationOf(answer, { digest }), {
      method: 'PUT',
      body: 'ld',
      headers: { 'content-range': '10-11' },
    });
    expect(put.status).toBe(201);
    expect(put.headers.get('docker-content-digest')).toBe(digest);
    expect(await (await fetch(`${url}/v2/u/chunks/blobs/${digest}`)).text()).toBe('hello, world');
    expect((await fetch(locationOf(answer))).status).toBe(404);
  });

  it('answer 416 to a chunk that does not follow, tell where to go on, and do go on', async () => {
    let answer = await start('u/order');
    const patch = (body: string, range: string) =>
      fetch(locationOf(answer), { method: 'PATCH', body, headers: { 'content-range': range } });
    answer = await patch('abc', '0-2');
    for (const range of ['0-2', '4-6', '2-4']) {
      const refused = await patch('def', range);
      expect(refused.status).toBe(416);
      expect(refused.headers.get('range')).toBe('0-2');
      expect(await errorCodes(refused)).toEqual(['BLOB_UPLOAD_INVALID']);
    }
    for (const range of ['bytes 3-5', 'x', '5-3']) expect((await patch('def', range)).status).toBe(400);
    expect((await patch('def', '3-9')).status).toBe(400);
    answer = await patch('def', '3-5');
    const put = await fetch(locationOf(answer, { digest: digestOf('abcdef') }), { method: 'PUT' });
    expect(put.status).toBe(201);
  });

  it('end without a blob when the digest is not that of the bytes', async () => {
    const answer = await start('u/wrong');
    const put = await fetch(locationOf(answer, { digest: digestOf('right') }), {
      method: 'PUT',
      body: 'wrong',
    });
    expect(put.status).toBe(400);
    expect(await errorCodes(put)).toEqual(['DIGEST_INVALID']);
    for (const text of ['right', 'wrong']) {
      expect((await fetch(`${url}/v2/u/wrong/blobs/${digestOf(text)}`)).status).toBe(404);
    }
    expect((await fetch(locationOf(answer))).status).toBe(404);
  });

  it('ask for a digest that is one', async () => {
    const answer = await start('u/digest');
    for (const digest of ['', 'sha256:abc', `sha512:${'0'.repeat(128)}`, `sha256:${'A'.repeat(64)}`]) {
      const put = await fetch(locationOf(answer, { digest }), { method: 'PUT', body: 'x' });
      expect(put.status).toBe(400);
      expect(await errorCodes(put)).toEqual(['DIGEST_INVALID']);
    }
    expect((await fetch(locationOf(answer), { method: 'PUT', body: 'x' })).status).toBe(400);
    expect((await start('u/digest', '?digest-algorithm=sha512')).status).toBe(400);
  });

  it('are forgotten when they are cancelled', async () => {
    const answer = await start('u/cancel');
    expect((await fetch(locationOf(answer), { method: 'DELETE' })).status).toBe(204);
    const gone = await fetch(locationOf(answer), { method: 'PATCH', body: 'x' });
    expect(gone.status).toBe(404);
    expect(await errorCodes(gone)).toEqual(['BLOB_UPLOAD_UNKNOWN']);
  });

  it('belong to one repository and to the whole Location', async () => {
    const answer = await start('u/mine');
    const location = locationOf(answer);
    expect((await fetch(location.replace('/u/mine/', '/u/yours/'))).status).toBe(404);
    expect((await fetch(location.replace(/\?.*/, ''))).status).toBe(404);
    expect((await fetch(location)).status).toBe(204);
  });

  it('that broke in the middle show nothing and go on from the byte that arrived last', async () => {
    const answer = await start('u/broken');
    const [host = '', port = ''] = registry.host.split(':');
    const target = new URL(locationOf(answer));
    const socket = connect(Number(port), host);
    socket.write(
      `PATCH ${target.pathname}${target.search} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nfirst half, `,
    );
    let range: string | null = '0-0';
    for (let tries = 0; range === '0-0' && tries < 200; tries++) {
      range = (await fetch(locationOf(answer))).headers.get('range');
    }
    expect(range).toBe('0-11');
    const second = await fetch(locationOf(answer), { method: 'PATCH', body: 'x' });
    expect(second.status).toBe(409);
    socket.destroy();
    let next: Response;
    do
      next = await fetch(locationOf(answer), {
        method: 'PATCH',
        body: 'rest',
        headers: { 'content-range': '12-15' },
      });
    while (next.status === 409);
    expect(next.status).toBe(202);
    const digest = digestOf('first half, rest');
    expect((await fetch(`${url}/v2/u/broken/blobs/${digest}`)).status).toBe(404);
    expect((await fetch(locationOf(next, { digest }), { method: 'PUT' })).status).toBe(201);
    expect(await (await fetch(`${url}/v2/u/broken/blobs/${digest}`)).text()).toBe('first half, rest');
  });

  it('are mounted from a repository that has the blob, and become a normal upload otherwise', async () => {
    const digest = await pushBlob(url, 'u/from', Buffer.from('shared'));
    const mount = (query: string) => start('u/to', `?mount=${query}`);
    const unknown = await mount(`${digest}&from=u/elsewhere`);
    expect(unknown.status).toBe(202);
    expect((await fetch(`${url}/v2/u/to/blobs/${digest}`)).status).toBe(404);
    expect((await mount(digest)).status).toBe(202);
    expect((await mount(`${digest}&from=../etc`)).status).toBe(202);
    expect((await mount('sha256:x&from=u/from')).status).toBe(400);
    const put = await fetch(locationOf(unknown, { digest: digestOf('own') }), { method: 'PUT', body: 'own' });
    expect(put.status).toBe(201);
    const mounted = await mount(`${digest}&from=u/from`);
    expect(mounted.status).toBe(201);
    expect(await (await fetch(locationOf(mounted))).text()).toBe('shared');
  });
});
