import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { ContainerdClient } from '../../src/oci/containerd/client.ts';
import { containerdTargets } from '../../src/target/containerd/target.ts';
import { type Fake, startFake } from './containerd-fake.ts';
import { createContext, createStore, type Store, type TestContext } from './containerd-fixture.ts';

let fake: Fake;
let store: Store;
let context: TestContext;

beforeEach(async () => {
  fake = await startFake();
  store = createStore();
  context = createContext();
});
afterEach(() => fake.stop());

describe('a socket that cannot be used', () => {
  const planAt = (socket: string): Promise<unknown> => {
    const [target] = containerdTargets({ socket, namespaces: ['k8s.io'], pin: false });
    return target?.plan([], { context, source: store.reader }) ?? Promise.resolve();
  };
  const folder = (): string => {
    const dir = mkdtempSync(join(tmpdir(), 'sock-'));
    onTestFinished(() => rmSync(dir, { recursive: true }));
    return dir;
  };

  it('is unreachable with a hint where sockets are when there is none', async () => {
    await expect(planAt(join(folder(), 'none.sock'))).rejects.toMatchObject({
      code: 'TARGET_UNREACHABLE',
      hint: expect.stringContaining('containerd.sock'),
      details: { errno: 'ENOENT' },
    });
  });

  it('is unreachable when it is a file, and when nobody listens', async () => {
    const file = join(folder(), 'file');
    writeFileSync(file, '');
    await expect(planAt(file)).rejects.toMatchObject({ code: 'TARGET_UNREACHABLE' });
  });

  it('says that root is needed when it may not be opened', async () => {
    chmodSync(fake.socket, 0);
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) process.seteuid?.(65_534);
    try {
      await expect(planAt(fake.socket)).rejects.toMatchObject({
        code: 'TARGET_UNREACHABLE',
        hint: expect.stringContaining('sudo'),
      });
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  });

  it('is unreachable when something else than gRPC answers', async () => {
    const path = join(folder(), 's');
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
    });
    onTestFinished(() => void server.close());
    await new Promise<void>((done) => server.listen(path, done));
    await expect(planAt(path)).rejects.toMatchObject({ code: 'TARGET_UNREACHABLE', side: 'destination' });
  });

  it('is unreachable when it is gRPC but not containerd', async () => {
    fake.hook = () => status.UNIMPLEMENTED;
    await expect(planAt(`unix://${fake.socket}`)).rejects.toMatchObject({
      code: 'TARGET_UNREACHABLE',
      details: { grpcStatus: 'UNIMPLEMENTED' },
    });
  });

  it('is a usage error when the namespace cannot be one', () => {
    for (const namespaces of [[], [''], ['a/b'], ['../x'], ['x'.repeat(77)]]) {
      expect(() => containerdTargets({ socket: '/s', namespaces, pin: false })).toThrow(
        expect.objectContaining({ code: 'USAGE' }),
      );
    }
  });
});

describe('one call', () => {
  it('ends with ABORTED when it is stopped, before and during', async () => {
    const client = new ContainerdClient(fake.socket, 'k8s.io');
    onTestFinished(() => client.close());
    await expect(client.version(AbortSignal.abort())).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await client.version(context.signal)).toBe('v0.0-fake');
    const stop = new AbortController();
    const waiting = client.openWrite(stop.signal);
    const answer = waiting.send({ action: 'stat', ref: 'r', total: 1, expected: 'sha256:x' });
    fake.hook = () => {
      stop.abort();
      return undefined;
    };
    await expect(answer).rejects.toMatchObject({ code: 'ABORTED' });
  });
});
