import { createHash, randomBytes } from 'node:crypto';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BulkAgent, type BulkAnswer } from '../../src/io/bulk.ts';
import { selfSigned } from './certificate.ts';
import { failureOf, startServer, testClient, testContext, testReceiver } from './server.ts';

const PLAIN = { key: '', settings: {} };

function agent(): BulkAgent {
  const bulk = new BulkAgent();
  onTestFinished(() => bulk.close());
  return bulk;
}

/** A server that writes exactly these bytes to every request, and ends the connection where the test says so. */
async function rawServer(answer: (socket: Socket, count: number) => void): Promise<string> {
  let count = 0;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('data', () => answer(socket, ++count));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

function get(
  bulk: BulkAgent,
  url: string,
  signal = new AbortController().signal,
): Promise<BulkAnswer | undefined> {
  return bulk.get({ url: new URL(url), headers: {}, tls: PLAIN, signal });
}

/** A chunk is valid only until the next one, so it is hashed or copied at once. */
async function bytesOf(answer: BulkAnswer | undefined): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of answer?.body ?? []) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

describe('a large download', () => {
  const content = randomBytes(5_000_000);

  it('comes whole, by one connection for one answer after the other', async () => {
    const sockets = new Set<unknown>();
    const server = await startServer((request, response) => {
      sockets.add(request.socket);
      response.writeHead(200, { 'content-length': content.length, 'x-a': ['1', '2'] }).end(content);
    });
    const bulk = agent();
    for (let i = 0; i < 3; i++) {
      const answer = await get(bulk, server.url);
      expect(answer?.status).toBe(200);
      expect(answer?.headers['x-a']).toBe('1, 2');
      expect((await bytesOf(answer)).equals(content)).toBe(true);
    }
    expect(sockets.size).toBe(1);
  });

  it('leaves no more listeners on its connection however often that is used', async () => {
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'content-length': 2 }).end('ok');
    });
    const warnings: Error[] = [];
    const onWarning = (warning: Error): unknown => warnings.push(warning);
    process.on('warning', onWarning);
    onTestFinished(() => void process.off('warning', onWarning));
    const bulk = agent();
    for (let i = 0; i < 30; i++) expect((await bytesOf(await get(bulk, server.url))).toString()).toBe('ok');
    // Node warns in the next turn.
    await new Promise((resolve) => setImmediate(resolve));
    expect(server.asked).toHaveLength(30);
    expect(warnings).toEqual([]);
  });

  it('comes whole over TLS to a reader that is slower than the server', async () => {
    const pair = selfSigned();
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'content-length': content.length }).end(content);
    }, pair);
    const answer = await agent().get({
      url: new URL(server.url),
      headers: {},
      tls: { key: 'ca', settings: { ca: [pair.cert] } },
      signal: new AbortController().signal,
    });
    const hash = createHash('sha256');
    for await (const chunk of answer?.body ?? []) {
      await new Promise((resolve) => setImmediate(resolve));
      hash.update(chunk);
    }
    expect(hash.digest('hex')).toBe(createHash('sha256').update(content).digest('hex'));
  });

  it('does not trust a certificate that nobody vouches for', async () => {
    const server = await startServer((_, response) => response.end('x'), selfSigned());
    expect(await failureOf(get(agent(), server.url))).toMatchObject({ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
  });

  it('is left to the general client where its length is not known', async () => {
    const server = await startServer((_, response) => {
      response.write('chunked');
      response.end(' text');
    });
    const bulk = agent();
    expect(await get(bulk, server.url)).toBeUndefined();
    expect(await get(bulk, server.url)).toBeUndefined();
    expect(server.asked).toHaveLength(1);
    const answer = await testClient(testContext()).request({
      method: 'GET',
      url: new URL(server.url),
      into: (await testReceiver(Buffer.from('chunked text'))).into,
    });
    expect(answer.body.pour).toBeUndefined();
    let text = '';
    for await (const chunk of answer.body) text += chunk.toString();
    expect(text).toBe('chunked text');
  });

  it('is not given up for a refusal of unknown length', async () => {
    const server = await startServer((_, response, count) => {
      if (count > 1) return response.writeHead(200, { 'content-length': 2 }).end('ok');
      response.writeHead(429).write('slow');
      return response.end(' down');
    });
    const bulk = agent();
    expect(await get(bulk, server.url)).toBeUndefined();
    expect((await bytesOf(await get(bulk, server.url))).toString()).toBe('ok');
  });

  it('begins anew on a fresh connection when the kept one was closed meanwhile', async () => {
    const url = await rawServer((socket, count) => {
      if (count === 2) socket.destroy();
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    });
    const bulk = agent();
    for (let i = 0; i < 2; i++) expect((await bytesOf(await get(bulk, url))).toString()).toBe('ok');
  });

  it.each([
    ['ends early', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort', 'UND_ERR_SOCKET'],
    ['is not HTTP', 'SSH-2.0-OpenSSH\r\n\r\n', 'HPE_NOT_HTTP'],
    [
      'says two lengths',
      'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc',
      'HPE_NOT_HTTP',
    ],
    ['says a length that is none', 'HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc', 'HPE_NOT_HTTP'],
    ['has a header line without a name', 'HTTP/1.1 200 OK\r\n: x\r\n\r\n', 'HPE_NOT_HTTP'],
    ['never ends its head', `HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(20_000)}`, 'HPE_NOT_HTTP'],
  ])('that %s is a failure', async (_, answer, code) => {
    const url = await rawServer((socket) => socket.end(answer));
    expect(await failureOf(get(agent(), url).then(bytesOf))).toMatchObject({ code });
  });

  it('gives no byte of what follows it on the connection, and does not use that connection again', async () => {
    const url = await rawServer((socket) => {
      socket.write(
        'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil',
      );
    });
    const bulk = agent();
    for (let i = 0; i < 2; i++) expect((await bytesOf(await get(bulk, url))).toString()).toBe('ok');
  });

  it('passes over answers of the 1xx class, also where the head comes byte by byte', async () => {
    const text =
      'HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 206 Partial\r\ncontent-length: 3\r\n\r\nabc';
    const url = await rawServer((socket) => {
      const write = (at: number): void => {
        if (at < text.length) socket.write(text.slice(at, at + 1), () => setImmediate(() => write(at + 1)));
      };
      write(0);
    });
    const answer = await get(agent(), url);
    expect(answer?.status).toBe(206);
    expect((await bytesOf(answer)).toString()).toBe('abc');
  });

  it('ends at once when it is stopped', async () => {
    const stop = new AbortController();
    const url = await rawServer((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc'));
    const answer = await get(agent(), url, stop.signal);
    const failure = failureOf(bytesOf(answer));
    stop.abort();
    expect(await failure).toMatchObject({ code: 'ABORTED' });
  });

  it('refuses headers that would begin another request', async () => {
    const url = new URL('http://127.0.0.1:1/');
    const headers = { authorization: 'x\r\nhost: other' };
    const { signal } = new AbortController();
    expect(await failureOf(agent().get({ url, headers, tls: PLAIN, signal }))).toMatchObject({
      code: 'INTERNAL',
    });
  });
});
