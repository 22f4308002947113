import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { planOn } from './containerd-bench.ts';
import { type Fake, startFake } from './containerd-fake.ts';
import { createContext, createStore, makeImage, type Store, type TestContext } from './containerd-fixture.ts';

/** A disk that is full, wherever it is asked about. */
const disk = vi.hoisted(() => ({ bavail: 0 }));
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  return { ...real, statfs: async () => ({ blocks: 1000, bavail: disk.bavail, bsize: 4096 }) };
});

let fake: Fake;
let store: Store;
let context: TestContext;
let root: string;

beforeEach(async () => {
  disk.bavail = 0;
  root = await mkdtemp(join(tmpdir(), 'sealift-content-'));
  fake = await startFake();
  fake.exports.set('root', root);
  store = createStore();
  context = createContext();
});
afterEach(async () => {
  await fake.stop();
  await rm(root, { recursive: true });
});

/** The warnings of a plan for one image. */
async function warnings(): Promise<string[]> {
  const item = await makeImage(store, 'docker.io/library/nginx:1.25.2');
  const run = await planOn({ fake, store, context }, [item]);
  await run.close();
  return context.events.flatMap((e) => (e.type === 'warning' ? [`${e.fault.code} ${e.fault.message}`] : []));
}

describe('the disk of a containerd', () => {
  it('is warned about where its folder is on this machine and has too little room', async () => {
    const [warning, ...others] = await warnings();
    expect(others).toEqual([]);
    expect(warning).toMatch(
      /^DISK_FULL .*: \d+ bytes are needed, 0 are free at .*sealift-content-.*: \d+ too few$/,
    );
  });

  it('is left alone where there is room, and where its folder is not on this machine', async () => {
    disk.bavail = 1000;
    expect(await warnings()).toEqual([]);
    disk.bavail = 0;
    for (const other of ['/no/such/folder', 'relative', '']) {
      fake.exports.set('root', other);
      expect(await warnings()).toEqual([]);
    }
  });

  it('is no reason not to load for one that does not answer about itself', async () => {
    fake.hook = ({ method }) => (method === 'Introspection/Plugins' ? status.UNIMPLEMENTED : undefined);
    expect(await warnings()).toEqual([]);
  });
});
