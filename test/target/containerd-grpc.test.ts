/** gRPC on a socket, against servers that answer by the byte. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type ServerHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { GrpcChannel, GrpcError, STATUS, statusName } from '../../src/oci/containerd/grpc.ts';

const LIMIT = 100_000;

async function channelTo(serve: (stream: ServerHttp2Stream, body: Buffer) => void): Promise<GrpcChannel> {
  const dir = mkdtempSync(join(tmpdir(), 'grpc-'));
  const server = createServer();
  server.on('session', (session) => session.on('error', () => {}));
  server.on('stream', async (stream) => {
    stream.on('error', () => {});
    const parts: Buffer[] = [];
    for await (const part of stream) parts.push(part);
    serve(stream, Buffer.concat(parts));
  });
  await new Promise<void>((done) => server.listen(join(dir, 's'), done));
  const channel = new GrpcChannel(join(dir, 's'), { messageLimit: LIMIT });
  onTestFinished(() => {
    channel.close();
    server.close();
    rmSync(dir, { recursive: true });
  });
  return channel;
}

function framed(message: Uint8Array, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** Sends these bytes, cut into pieces, and ends with these trailers. */
function answer(
  bytes: Buffer,
  options: { readonly trailers?: Record<string, string>; readonly piece?: number } = {},
) {
  const { trailers = { 'grpc-status': '0' }, piece = bytes.length } = options;
  return (stream: ServerHttp2Stream): void => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    for (let at = 0; at < bytes.length; at += piece) stream.write(bytes.subarray(at, at + piece));
    stream.end();
  };
}

async function messagesOf(channel: GrpcChannel, parts: readonly Uint8Array[] = []): Promise<Buffer[]> {
  const call = channel.call('/a.B/C', { 'containerd-namespace': 'n' });
  call.write(parts);
  call.end();
  const found: Buffer[] = [];
  for await (const message of call.messages()) found.push(Buffer.from(message));
  return found;
}

async function failureOf(channel: GrpcChannel): Promise<GrpcError> {
  try {
    await messagesOf(channel);
  } catch (error) {
    if (error instanceof GrpcError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('a gRPC call', () => {
  it('sends the parts of a message as one', async () => {
    let seen: Buffer = Buffer.alloc(0);
    const channel = await channelTo((stream, body) => {
      seen = body;
      answer(framed(Buffer.from('ok')))(stream);
    });
    const large = Buffer.alloc(70_000, 7);
    expect(await messagesOf(channel, [Buffer.from('ab'), large, Buffer.alloc(0)])).toEqual([
      Buffer.from('ok'),
    ]);
    expect(seen.equals(framed(Buffer.concat([Buffer.from('ab'), large])))).toBe(true);
  });

  it.each([1, 4, 5, 6, 1000])('finds its messages in pieces of %i bytes', async (piece) => {
    const sent = [Buffer.from('first'), Buffer.alloc(0), Buffer.alloc(3000, 1), Buffer.from('last')];
    const channel = await channelTo(answer(Buffer.concat(sent.map((m) => framed(m))), { piece }));
    expect(await messagesOf(channel)).toEqual(sent);
  });

  it('ends with the status and the text of the trailers', async () => {
    const trailers = {
      'grpc-status': '5',
      'grpc-message': 'content %22x%22%3a not found %ec%97%86%ec%9d%8c',
    };
    const failure = await failureOf(await channelTo(answer(framed(Buffer.from('a')), { trailers })));
    expect([failure.status, failure.message]).toEqual([STATUS.NOT_FOUND, 'content "x": not found 없음']);
    expect(statusName(failure.status)).toBe('NOT_FOUND');
  });

  it('ends with the status of an answer that has nothing else, also when it is broken text', async () => {
    const channel = await channelTo((stream) => {
      stream.respond({ ':status': 200, 'grpc-status': '12', 'grpc-message': '%zz' }, { endStream: true });
    });
    const failure = await failureOf(channel);
    expect([failure.status, failure.message]).toEqual([STATUS.UNIMPLEMENTED, '%zz']);
  });

  it.each([
    [
      'says a status that there is not',
      answer(framed(Buffer.from('a')), { trailers: { 'grpc-status': '99' } }),
      'UNKNOWN',
    ],
    [
      'says an empty status',
      answer(framed(Buffer.from('a')), { trailers: { 'grpc-status': '' } }),
      'UNKNOWN',
    ],
    [
      'says a status in hex',
      answer(framed(Buffer.from('a')), { trailers: { 'grpc-status': '0x0' } }),
      'UNKNOWN',
    ],
    ['ends without a status', answer(framed(Buffer.from('a')), { trailers: {} }), 'UNAVAILABLE'],
    ['ends inside a message', answer(framed(Buffer.from('abc')).subarray(0, 6)), 'UNAVAILABLE'],
    ['compresses', answer(framed(Buffer.from('a'), 1)), 'INTERNAL'],
    ['announces more than the limit', answer(framed(Buffer.alloc(LIMIT + 1))), 'RESOURCE_EXHAUSTED'],
    [
      'is no gRPC',
      (s: ServerHttp2Stream) => s.respond({ ':status': 404 }, { endStream: true }),
      'UNIMPLEMENTED',
    ],
    ['resets the stream', (s: ServerHttp2Stream) => s.close(2), 'UNAVAILABLE'],
    ['breaks the connection', (s: ServerHttp2Stream) => s.session?.destroy(), 'UNAVAILABLE'],
  ])('fails by name when the server %s', async (_, serve, name) => {
    expect(statusName((await failureOf(await channelTo(serve))).status)).toBe(name);
  });

  it('connects again after the connection broke', async () => {
    let calls = 0;
    const channel = await channelTo((stream) => {
      calls += 1;
      if (calls === 1) stream.session?.destroy();
      else answer(framed(Buffer.from('back')))(stream);
    });
    expect((await failureOf(channel)).status).toBe(STATUS.UNAVAILABLE);
    expect(await messagesOf(channel)).toEqual([Buffer.from('back')]);
  });

  it('is CANCELLED when it was broken off here', async () => {
    const channel = await channelTo(() => {});
    const call = channel.call('/a.B/C', {});
    const reading = call.messages().next();
    call.cancel();
    await expect(reading).rejects.toMatchObject({ status: STATUS.CANCELLED });
  });
});
