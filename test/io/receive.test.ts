/** Receiving: content goes from the connection to its place in a file, hashed on the way. */
import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { HttpResponse } from '../../src/io/http.ts';
import { startReceiving } from '../../src/io/receivers.ts';
import { resumableBytes } from '../../src/io/resume.ts';
import { blake3Of, digestOf } from '../../src/io/verify.ts';
import { failureOf, startServer, testClient, testContext, testReceiver } from './server.ts';

const content = randomBytes(3_000_000);

/** Serves ranges of the content; `cut` breaks an answer after so many bytes. */
function contentServer(
  options: { readonly ranges?: boolean; readonly cut?: (count: number) => number } = {},
) {
  return startServer((request, response, count) => {
    const from = options.ranges === false ? 0 : Number(/(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const part = content.subarray(from);
    const range =
      from === 0 ? {} : { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` };
    response.writeHead(from === 0 ? 200 : 206, { 'content-length': part.length, ...range });
    const cut = options.cut?.(count) ?? Number.POSITIVE_INFINITY;
    if (cut >= part.length) response.end(part);
    else response.write(part.subarray(0, cut), () => response.socket?.end());
  });
}

type Received = Awaited<ReturnType<typeof testReceiver>>;

/** Reads the whole content into the receiver, as a registry does. */
async function receiveAll(url: string, received: Received, context = testContext()): Promise<number[]> {
  const http = testClient(context);
  const { into } = received;
  const open = (at: number): Promise<HttpResponse> =>
    http.request({
      method: 'GET',
      url: new URL(url),
      into,
      headers: at === 0 ? {} : { range: `bytes=${at}-` },
    });
  const start = into.received;
  const chunks = resumableBytes({ what: 'it', size: content.length, start, context, into, open });
  const sizes: number[] = [];
  for await (const chunk of chunks) {
    sizes.push(chunk.length);
    if (chunk.length > 0) await into.write(chunk);
  }
  return sizes;
}

describe('a receiver', () => {
  it('has an answer poured into its place, which gives empty chunks only', async () => {
    const server = await contentServer();
    const received = await testReceiver(content, { position: 4096 });
    const sizes = await receiveAll(server.url, received);
    expect(new Set(sizes)).toEqual(new Set([0]));
    expect(await received.into.finish()).toBe(blake3Of(content));
    expect((await received.bytes()).equals(content)).toBe(true);
  });

  it.each([
    ['by Range from the byte where it broke', true, [0, 700_001, 2_100_003]],
    ['and skips what it has when the server ignores Range', false, [0, 700_001, 1_400_002, 2_100_003]],
  ])('goes on after cuts %s', async (_, ranges, places) => {
    const server = await contentServer({ ranges, cut: (count) => (count < 4 ? 700_001 * count : 1e9) });
    const received = await testReceiver(content);
    await receiveAll(server.url, received);
    expect(await received.into.finish()).toBe(blake3Of(content));
    expect((await received.bytes()).equals(content)).toBe(true);
    const asked = server.asked.map((a) => Number(/\d+/.exec(a.headers.range ?? '')?.[0] ?? 0));
    // Every byte that came before a cut was kept: the next answer was asked from there.
    expect(asked).toEqual(places);
  });

  it('hashes a beginning that is there, and asks for the rest', async () => {
    const server = await contentServer();
    const received = await testReceiver(content, { begun: content.subarray(0, 1_234_567) });
    expect(received.into.received).toBe(1_234_567);
    await receiveAll(server.url, received);
    expect(server.asked.map((a) => a.headers.range)).toEqual(['bytes=1234567-']);
    expect(await received.into.finish()).toBe(blake3Of(content));
    expect((await received.bytes()).equals(content)).toBe(true);
  });

  it('takes chunks of this thread and poured ones in one content', async () => {
    const server = await contentServer();
    const received = await testReceiver(content);
    await received.into.write(content.subarray(0, 1_000_000));
    await receiveAll(server.url, received);
    expect(await received.into.finish()).toBe(blake3Of(content));
  });

  it('never writes behind the size that is expected', async () => {
    const received = await testReceiver(content.subarray(0, 1000));
    const failure = await failureOf(received.into.write(content.subarray(0, 1001)));
    expect(failure).toMatchObject({ code: 'CONTENT_SIZE_MISMATCH' });
    expect(await received.bytes()).toHaveLength(0);
  });

  // Both are there wherever Linux is: one disk is full, the other (the memory at 0, where nothing is) gives errors.
  it.each([
    ['/dev/full', 'DISK_FULL', 'no space left on the disk', 'free some space'],
    ['/proc/self/mem', 'FILE_UNREADABLE', 'EIO', 'the disk gives errors'],
  ])(
    'tells of no byte that the disk did not take, and of the file that we write: %s',
    async (path, code, said, hint) => {
      const context = testContext();
      const receivers = startReceiving(content.length, context);
      const file = await open(path, 'r+');
      onTestFinished(async () => {
        await receivers.close();
        await file.close();
      });
      const expected = { digest: digestOf(content), size: content.length, what: 'the content' };
      const into = await receivers.open({
        file: file.fd,
        path: '/out/file',
        position: 0,
        begun: 0,
        expected,
      });
      const server = await contentServer();
      const answer = await testClient(context).request({ method: 'GET', url: new URL(server.url), into });
      const poured = (async () => {
        for await (const _ of answer.body.pour?.(0) ?? []);
      })();
      expect(await failureOf(poured)).toMatchObject({
        code,
        message: expect.stringContaining(`/out/file: ${said}`),
        hint: expect.stringContaining(hint),
        side: 'destination',
      });
      expect(into.received).toBe(0);
      into.close();
    },
  );

  it('finds wrong content out at the end', async () => {
    const server = await contentServer();
    const received = await testReceiver(Buffer.alloc(content.length, 1));
    await receiveAll(server.url, received);
    expect(await failureOf(received.into.finish())).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
  });

  it('writes nothing more once who reads has given up', async () => {
    let more = (): void => {};
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'content-length': content.length });
      response.write(content.subarray(0, 1_500_000));
      more = () => void response.end(content.subarray(1_500_000));
    });
    const received = await testReceiver(content);
    const { into } = received;
    const answer = await testClient(testContext()).request({ method: 'GET', url: new URL(server.url), into });
    for await (const _ of answer.body.pour?.(0) ?? []) if (into.received > 0) break;
    const before = into.received;
    more();
    into.close();
    expect(into.received).toBe(before);
    expect((await received.bytes()).length).toBe(before);
  });

  it('ends with its run', async () => {
    const context = testContext();
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'content-length': content.length });
      response.write(content.subarray(0, 10));
    });
    const received = await testReceiver(content, { context });
    const running = failureOf(receiveAll(server.url, received, context));
    setTimeout(context.stop, 100);
    expect(await running).toMatchObject({ code: 'ABORTED' });
  });

  it('gives an answer that is no content to this thread, as it came', async () => {
    const server = await startServer((_, response) => response.writeHead(404).end('{"errors": []}'));
    const { into } = await testReceiver(content);
    const answer = await testClient(testContext()).request({ method: 'GET', url: new URL(server.url), into });
    expect(answer.status).toBe(404);
    const chunks: Buffer[] = [];
    for await (const chunk of answer.body) chunks.push(chunk);
    expect(Buffer.concat(chunks).toString()).toBe('{"errors": []}');
    expect(into.received).toBe(0);
  });
});
