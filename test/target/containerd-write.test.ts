import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MIB } from '../../src/core/limits.ts';
import { digestOf } from '../../src/io/verify.ts';
import { inChunks } from '../../src/target/containerd/write.ts';
import type { Item, TargetRun } from '../../src/target/target.ts';
import { firstLayer, type LoadOptions, loadOn, refOf, stateOf, textIn } from './containerd-bench.ts';
import { type Fake, startFake } from './containerd-fake.ts';
import {
  createContext,
  createStore,
  makeImage,
  noise,
  type Store,
  type TestContext,
} from './containerd-fixture.ts';

let fake: Fake;
let store: Store;
let context: TestContext;

beforeEach(async () => {
  fake = await startFake();
  store = createStore();
  context = createContext();
});
afterEach(() => fake.stop());

const load = (items: readonly Item[], options: LoadOptions = {}): Promise<TargetRun> =>
  loadOn({ fake, store, context }, items, options);

describe('what containerd may say while a blob is written', () => {
  it('goes on where an earlier try stopped', async () => {
    const item = await makeImage(store, 'a.test/one:1', { layerSize: 300_000 });
    const { digest } = firstLayer(item);
    fake.ingests.set(refOf(item), (store.blobs.get(digest) ?? Buffer.alloc(0)).subarray(0, 200_000));
    const run = await load([item]);
    expect(stateOf(run)).toEqual(['written']);
    expect(store.opened).toContainEqual({ digest, offset: 200_000 });
    const total = [...store.blobs.values()].reduce((sum, b) => sum + b.length, 0);
    expect(run.tally.bytesWritten).toBe(total - 200_000);
    const passed = context.events.filter((e) => e.type === 'progress' && e.id.endsWith(digest));
    expect(passed.reduce((sum, e) => sum + (e.type === 'progress' ? e.bytes : 0), 0)).toBe(300_000);
  });

  it.each([
    ['other bytes', noise('leftover', 200_000)],
    ['more bytes than the blob has', noise('leftover', 300_001)],
    ['as many other bytes', noise('leftover', 300_000)],
  ])('drops a leftover with %s and sends the blob from the start', async (_, leftover) => {
    const item = await makeImage(store, 'a.test/one:1', { layerSize: 300_000 });
    const { digest } = firstLayer(item);
    fake.ingests.set(refOf(item), leftover);
    expect(stateOf(await load([item]))).toEqual(['written']);
    expect(digestOf(fake.blobs.get(digest)?.bytes ?? '')).toBe(digest);
    expect(store.opened.filter((o) => o.digest === digest).at(-1)?.offset).toBe(0);
  });

  it('takes the bytes that another namespace has, without sending them', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    const { digest } = firstLayer(item);
    fake.shared.set(digest, store.blobs.get(digest) ?? Buffer.alloc(0));
    const run = await load([item]);
    expect(stateOf(run)).toEqual(['written']);
    expect(store.opened.map((o) => o.digest)).not.toContain(digest);
    expect(run.tally).toMatchObject({ blobsMounted: 1, blobsWritten: 4 });
    expect(fake.blobs.get(digest)?.labels.size).toBe(1);
  });

  it('is content when somebody else writes the blob first, and still labels it', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    const { digest } = firstLayer(item);
    fake.hook = ({ method, request }) => {
      if (method === 'Content/Write' && textIn(request.get(4)) === digest.slice(7)) {
        fake.blobs.set(digest, { bytes: store.blobs.get(digest) ?? Buffer.alloc(0), labels: new Map() });
      }
      return undefined;
    };
    const run = await load([item]);
    expect(stateOf(run)).toEqual(['written']);
    expect(fake.blobs.get(digest)?.labels.get('containerd.io/distribution.source.a.test')).toBe('one');
    expect(run.tally).toMatchObject({ blobsPresent: 1, blobsWritten: 4 });
    expect(context.events).toContainEqual({
      type: 'end',
      id: `containerd:k8s.io:${digest}`,
      outcome: 'present',
    });
  });

  it('waits for another writer of the same blob, and goes on when that one stops', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    let refusals = 3;
    fake.hook = ({ method, request }) => {
      const ours =
        method === 'Content/Write' && textIn(request.get(2)) === refOf(item).replace('sha256:', '');
      return ours && refusals-- > 0 ? status.UNAVAILABLE : undefined;
    };
    expect(stateOf(await load([item]))).toEqual(['written']);
    expect(context.events.filter((e) => e.type === 'retry')).toHaveLength(3);
  });

  it('gives up on a blob that another writer never lets go, and loads the other images', async () => {
    const bad = await makeImage(store, 'a.test/bad:1');
    const good = await makeImage(store, 'a.test/good:1');
    fake.hook = ({ method, request }) =>
      method === 'Content/Write' && textIn(request.get(2)) === refOf(bad).replace('sha256:', '')
        ? status.UNAVAILABLE
        : undefined;
    const run = await load([bad, good]);
    expect(stateOf(run)).toMatchObject([
      { code: 'TARGET_FAILED', hint: expect.stringContaining('another client') },
      'written',
    ]);
    expect(fake.blobs.has(bad.root.digest)).toBe(false);
    expect([...fake.images.keys()]).toEqual(['a.test/good:1', `a.test/good@${good.root.digest}`]);
    expect(fake.leases.size, 'the lease stays, so that the next run goes on').toBe(1);
  });

  it('calls it the target’s failure when containerd refuses bytes that were right', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    fake.hook = ({ method, request }) =>
      method === 'Content/Write' && request.get(1)?.[0] === 2 ? status.FAILED_PRECONDITION : undefined;
    const run = await load([item]);
    expect(stateOf(run)).toMatchObject([{ code: 'TARGET_FAILED', hint: expect.stringContaining('memory') }]);
    expect(fake.ingests.size).toBe(0);
    expect(fake.images.size).toBe(0);
  });

  it('writes a record that appears between update and create', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    fake.hook = ({ method }) => {
      if (method === 'Images/Create') {
        const other = { mediaType: 'm', digest: 'sha256:other', size: 1, labels: new Map<string, string>() };
        if (!fake.images.has('a.test/one:1')) fake.images.set('a.test/one:1', other);
      }
      return undefined;
    };
    expect(stateOf(await load([item]))).toEqual(['written']);
    expect(fake.images.get('a.test/one:1')?.digest).toBe(item.root.digest);
  });

  it.each([
    [status.INTERNAL, 'TARGET_FAILED'],
    [status.PERMISSION_DENIED, 'AUTH_DENIED'],
    [status.NOT_FOUND, 'TARGET_FAILED'],
  ] as const)('records status %s of a record as that image’s fault', async (code, expected) => {
    const item = await makeImage(store, 'a.test/one:1');
    fake.hook = ({ method }) => (method === 'Images/Create' ? code : undefined);
    const run = await load([item]);
    expect(run.entries[0]?.state).toBe('failed');
    expect(run.entries[0]?.fault).toMatchObject({ code: expected, hint: expect.any(String) });
  });

  it('fails every image, once, when there can be no lease', async () => {
    fake.hook = ({ method }) => (method === 'Leases/Create' ? status.UNAVAILABLE : undefined);
    const items = [await makeImage(store, 'a.test/one:1'), await makeImage(store, 'a.test/two:1')];
    const run = await load(items);
    expect(stateOf(run)).toMatchObject([{ code: 'TARGET_UNREACHABLE' }, { code: 'TARGET_UNREACHABLE' }]);
    expect(fake.writes()).toEqual(['Leases/Create']);
  });

  it('ends well when the lease cannot be released', async () => {
    fake.hook = ({ method }) => (method === 'Leases/Delete' ? status.UNKNOWN : undefined);
    expect(stateOf(await load([await makeImage(store, 'a.test/one:1')]))).toEqual(['written']);
    expect(context.events).toContainEqual(expect.objectContaining({ type: 'warning' }));
  });
});

describe('a bundle with a bad blob', () => {
  it('ends the run with the bundle’s fault, drops the ingest and the lease, and names no image', async () => {
    const item = await makeImage(store, 'a.test/one:1', { layerSize: 200_000 });
    const { digest } = firstLayer(item);
    const bytes = Buffer.from(store.blobs.get(digest) ?? []);
    bytes.writeUInt8(bytes.readUInt8(150_000) ^ 1, 150_000);
    store.blobs.set(digest, bytes);
    await expect(load([item])).rejects.toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    expect([fake.images.size, fake.leases.size, fake.ingests.has(refOf(item))]).toEqual([0, 0, false]);
    expect(fake.blobs.has(digest)).toBe(false);
  });

  it('is found out even when the rest of a good leftover hides the bad part', async () => {
    const item = await makeImage(store, 'a.test/one:1', { layerSize: 200_000 });
    const { digest } = firstLayer(item);
    const good = store.blobs.get(digest) ?? Buffer.alloc(0);
    fake.ingests.set(refOf(item), good.subarray(0, 100_000));
    store.blobs.set(digest, good.subarray(0, 199_999));
    await expect(load([item])).rejects.toMatchObject({ code: 'CONTENT_SIZE_MISMATCH' });
    expect([fake.images.size, fake.leases.size]).toEqual([0, 0]);
  });
});

describe('a run that is stopped', () => {
  it('ends with ABORTED, keeps what was sent under its lease, and the next run goes on there', async () => {
    let stopAt = 2 * MIB;
    const stopping = createStore({
      before: (_, offset) => {
        if (offset >= stopAt) context.stop();
      },
    });
    const item = await makeImage(stopping, 'a.test/one:1', {
      layers: [],
      layerSize: 3 * MIB,
      platforms: ['linux/amd64'],
    });
    const { digest } = firstLayer(item);
    await expect(loadOn({ fake, store: stopping, context }, [item])).rejects.toMatchObject({
      code: 'ABORTED',
    });
    expect(fake.leases.size).toBe(1);
    expect(fake.ingests.get(refOf(item))).toHaveLength(2 * MIB);

    context = createContext();
    stopAt = Number.POSITIVE_INFINITY;
    stopping.opened.length = 0;
    const run = await loadOn({ fake, store: stopping, context }, [item]);
    expect(stateOf(run)).toEqual(['written']);
    expect(stopping.opened).toContainEqual({ digest, offset: 2 * MIB });
    expect(digestOf(fake.blobs.get(digest)?.bytes ?? '')).toBe(digest);
  });
});

describe('chunks', () => {
  it('have the wanted size whatever comes in, and the last one is the rest', async () => {
    async function* parts(): AsyncGenerator<Uint8Array> {
      for (const size of [1, 3, 10, 0, 2, 7]) yield noise(`${size}`, size);
    }
    const chunks: Uint8Array[] = [];
    for await (const chunk of inChunks(parts(), 4)) chunks.push(chunk);
    expect(chunks.map((c) => c.length)).toEqual([4, 4, 4, 4, 4, 3]);
    expect(Buffer.concat(chunks)).toEqual(Buffer.concat([1, 3, 10, 0, 2, 7].map((s) => noise(`${s}`, s))));
  });
});
