import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { containerdTargets } from '../../src/target/containerd/target.ts';
import type { Item, TargetRun } from '../../src/target/target.ts';
import { firstLayer, type LoadOptions, loadOn, planOn, stateOf, textIn } from './containerd-bench.ts';
import { build, type Fake, startFake } from './containerd-fake.ts';
import { createContext, createStore, makeImage, type Store, type TestContext } from './containerd-fixture.ts';

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

const plan = (items: readonly Item[], options: LoadOptions = {}): Promise<TargetRun> =>
  planOn({ fake, store, context }, items, options);

describe('a load into an empty namespace', () => {
  it('writes children before parents, then records, under a lease that it releases', async () => {
    // The first layer comes last: whoever does not wait for it is before it.
    let [held, until]: (Digest | undefined)[] = [];
    store = createStore({
      before: (digest) =>
        digest === held ? vi.waitFor(() => expect(fake.blobs.has(until ?? '')).toBe(true), 5000) : undefined,
    });
    const item = await makeImage(store, 'docker.io/library/nginx:1.25.2');
    held = firstLayer(item).digest;
    until = [...item.graph.nodes.values()].findLast((n) => n.kind === 'config')?.descriptor.digest;
    const run = await load([item], { pin: true });
    expect(stateOf(run)).toEqual(['written']);
    expect([...fake.blobs.keys()].sort()).toEqual([...item.graph.nodes.keys()].sort());
    expect([...fake.images]).toEqual(
      ['docker.io/library/nginx:1.25.2', `docker.io/library/nginx@${item.root.digest}`].map((name) => [
        name,
        {
          mediaType: item.root.mediaType,
          digest: item.root.digest,
          size: item.root.size,
          labels: new Map([
            ['io.cri-containerd.image', 'managed'],
            ['io.cri-containerd.pinned', 'pinned'],
          ]),
        },
      ]),
    );
    expect(fake.leases.size).toBe(0);
    const commits = fake.calls.filter((c) => c.method === 'Content/Write' && c.request.get(1)?.[0] === 2);
    const order = commits.map((c) => `sha256:${textIn(c.request.get(4))}`);
    for (const { descriptor, children } of item.graph.nodes.values()) {
      const own = order.indexOf(descriptor.digest);
      for (const child of children) expect(order.indexOf(child.digest)).toBeLessThan(own);
    }
    expect(order.at(-1)).toBe(item.root.digest);
    expect(run.tally).toMatchObject({
      blobsWritten: 5,
      manifestsWritten: 3,
      blobsPresent: 0,
      blobsMounted: 0,
    });
    expect(run.tally.bytesWritten).toBe([...store.blobs.values()].reduce((sum, b) => sum + b.length, 0));
  });

  it('writes manifests of one image while blobs of another are still being sent', async () => {
    let held: Digest | undefined;
    const isThere = (): boolean => fake.blobs.has(one.root.digest);
    store = createStore({
      before: (digest) =>
        digest === held ? vi.waitFor(() => expect(isThere()).toBe(true), 20_000) : undefined,
    });
    const one = await makeImage(store, 'a.test/one:1');
    const two = await makeImage(store, 'a.test/two:1');
    held = firstLayer(two).digest;
    const run = await load([one, two]);
    expect(stateOf(run)).toEqual(['written', 'written']);
    expect(isThere()).toBe(true);
  });

  it('sends namespace and lease with every call, and a lease that ends a day after now', async () => {
    context = { ...createContext(), now: () => Date.parse('2026-11-21T00:00:00Z') };
    let labels: unknown;
    fake.hook = ({ method }) => {
      if (method === 'Leases/AddResource' || method === 'Images/Create')
        labels = fake.leases.get('lease-1')?.labels;
      return undefined;
    };
    await load([await makeImage(store, 'a.test/x:1')]);
    expect(labels).toEqual(
      new Map([
        ['containerd.io/gc.expire', '2026-11-22T00:00:00.000Z'],
        ['dev.sealift.lease', 'load'],
      ]),
    );
    const changes = fake.calls.filter((c) => /Content\/Write|Images\/(Update|Create)/.test(c.method));
    expect(new Set(changes.map((c) => `${c.namespace} ${c.lease}`))).toEqual(new Set(['k8s.io lease-1']));
  });

  it('labels manifests and indexes with their children and every blob with its repositories', async () => {
    const one = await makeImage(store, 'a.test/one:1', { layers: ['common'] });
    const two = await makeImage(store, 'a.test/two:1', { layers: ['common'] });
    await load([one, two]);
    expect(fake.blobs.get(firstLayer(one).digest)?.labels).toEqual(
      new Map([['containerd.io/distribution.source.a.test', 'one,two']]),
    );
    const index = fake.blobs.get(one.root.digest)?.labels;
    expect(Object.fromEntries(index ?? [])).toEqual({
      'containerd.io/distribution.source.a.test': 'one',
      'containerd.io/gc.ref.content.m.0': one.platforms['linux/amd64'],
      'containerd.io/gc.ref.content.m.1': one.platforms['linux/arm64'],
    });
  });

  it('[1.6-containerd] labels only what is carried of a sparse index', async () => {
    const item = await makeImage(store, 'a.test/x:1', {
      platforms: ['linux/arm64', 'linux/amd64'],
      carried: ['linux/amd64'],
    });
    expect(stateOf(await load([item]))).toEqual(['written']);
    const gc = [...(fake.blobs.get(item.root.digest)?.labels ?? [])].filter(([k]) => k.includes('gc.ref'));
    expect(gc).toEqual([['containerd.io/gc.ref.content.m.0', item.platforms['linux/amd64']]]);
  });

  it('asks for all content and all records at once, and sends the last bytes with the commit', async () => {
    const item = await makeImage(store, 'a.test/x:1');
    await load([item]);
    const counts = new Map<string, number>();
    for (const { method } of fake.calls) counts.set(method, (counts.get(method) ?? 0) + 1);
    expect(Object.fromEntries(counts)).toEqual({
      'Version/Version': 1,
      'Introspection/Plugins': 1,
      'Content/List': 1,
      'Images/List': 1,
      'Leases/Create': 1,
      'Content/Write': 2 * item.graph.nodes.size,
      'Images/Create': 2,
      'Leases/Delete': 1,
    });
  });

  it('writes nothing while it plans', async () => {
    const run = await plan([await makeImage(store, 'a.test/x:1')], { namespace: 'new' });
    expect(fake.writes()).toEqual([]);
    await run.close();
  });

  it('loads an image that has only a digest under that name', async () => {
    const tagged = await makeImage(store, 'a.test/x:1', { plain: true });
    const { host, repository } = tagged.reference;
    const item = { ...tagged, reference: { host, repository, digest: tagged.root.digest } };
    const run = await load([item]);
    expect(run.entries[0]?.as).toBe(`a.test/x@${tagged.root.digest}`);
    expect([...fake.images.keys()]).toEqual([`a.test/x@${tagged.root.digest}`]);
  });

  it('sends an empty blob', async () => {
    const item = await makeImage(store, 'a.test/x:1', { layerSize: 0 });
    expect(stateOf(await load([item]))).toEqual(['written']);
    expect(fake.blobs.get(firstLayer(item).digest)?.bytes).toHaveLength(0);
  });
});

describe('a plan', () => {
  it('counts a blob that two images share once, for the first, and writes nothing', async () => {
    const items = [
      await makeImage(store, 'a.test/one:1', {
        layers: ['common'],
        layerSize: 1000,
        plain: true,
        platforms: ['linux/amd64'],
      }),
      await makeImage(store, 'a.test/two:1', {
        layers: ['common'],
        layerSize: 1000,
        plain: true,
        platforms: ['linux/amd64'],
      }),
    ];
    const run = await plan(items);
    await run.close();
    const sizes = run.entries.map((e) => e.writeBytes);
    const all = [...store.blobs.values()].reduce((sum, b) => sum + b.length, 0);
    expect((sizes[0] ?? 0) + (sizes[1] ?? 0)).toBe(all);
    expect((sizes[0] ?? 0) - (sizes[1] ?? 0)).toBe(1000);
    expect(run.entries.map((e) => [e.state, e.presentBytes])).toEqual([
      ['write', 0],
      ['write', 0],
    ]);
    expect(fake.writes()).toEqual([]);
  });

  it('refuses two images that would get one record', async () => {
    const one = await makeImage(store, 'a.test/x:1');
    const two = await makeImage(store, 'a.test/x:1', { layers: ['other'] });
    await expect(plan([one, two])).rejects.toMatchObject({ code: 'TARGET_NAME_COLLISION' });
  });

  it('takes only images', async () => {
    const [target] = containerdTargets({ socket: fake.socket, namespaces: ['k8s.io'], pin: false });
    const image = await makeImage(store, 'a.test/x:1');
    expect(target?.accepts(image)).toBe(true);
    expect(target?.accepts({ ...image, kind: 'file', content: image.root, mode: 0o644 })).toBe(false);
  });
});

describe('a second load', () => {
  it('writes nothing at all: no lease, no label, no record', async () => {
    const items = [await makeImage(store, 'a.test/one:1'), await makeImage(store, 'b.test:5000/two:2')];
    await load(items);
    fake.calls.length = 0;
    store.opened.length = 0;
    const run = await load(items);
    expect(fake.writes()).toEqual([]);
    expect(store.opened).toEqual([]);
    expect(stateOf(run)).toEqual(['present', 'present']);
    expect(run.entries.map((e) => e.writeBytes)).toEqual([0, 0]);
    expect(run.tally).toMatchObject({
      blobsPresent: 10,
      manifestsPresent: 6,
      bytesWritten: 0,
      blobsWritten: 0,
    });
  });

  it('adds the pin that was not asked for before, and nothing else', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    await load([item]);
    fake.calls.length = 0;
    const run = await load([item], { pin: true });
    expect(run.tally.bytesWritten).toBe(0);
    expect(fake.writes().filter((m) => m.startsWith('Content/') || m.startsWith('Images/'))).toEqual([
      'Images/Update',
      'Images/Update',
    ]);
  });

  it('sends only what was lost, and protects the rest by the lease meanwhile', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    await load([item]);
    fake.blobs.delete(firstLayer(item).digest);
    let leased = 0;
    fake.hook = ({ method }) => {
      if (method === 'Leases/Delete') leased = fake.leases.get('lease-1')?.content.size ?? 0;
      return undefined;
    };
    store.opened.length = 0;
    const run = await load([item]);
    expect(store.opened).toEqual([{ digest: firstLayer(item).digest, offset: 0 }]);
    expect(run.tally).toMatchObject({ blobsWritten: 1, blobsPresent: 4, bytesWritten: 5000 });
    expect(leased).toBe(item.graph.nodes.size);
  });

  it('repairs an index that lost a label, and keeps the labels that others set', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    await load([item]);
    const labels = fake.blobs.get(item.root.digest)?.labels;
    labels?.delete('containerd.io/gc.ref.content.m.1');
    labels?.set('containerd.io/gc.ref.content.m.0', 'sha256:theirs');
    const run = await load([item]);
    expect(stateOf(run)).toEqual(['written']);
    expect(labels?.get('containerd.io/gc.ref.content.m.0')).toBe('sha256:theirs');
    expect([...(labels?.values() ?? [])]).toEqual(expect.arrayContaining(Object.values(item.platforms)));
    expect(run.tally.bytesWritten).toBe(0);
  });

  it('moves a record that points elsewhere, says so, and leaves its other labels', async () => {
    const old = await makeImage(store, 'a.test/one:1', { layers: ['old'] });
    await load([old]);
    fake.images.get('a.test/one:1')?.labels.set('mine', '1');
    const item = await makeImage(store, 'a.test/one:1', { layers: ['new'] });
    const run = await load([item]);
    expect(run.entries[0]?.notes).toEqual([`a.test/one:1: ${old.root.digest} → ${item.root.digest}`]);
    const record = fake.images.get('a.test/one:1');
    expect(record?.digest).toBe(item.root.digest);
    expect(record?.labels.get('mine')).toBe('1');
    expect(fake.images.get(`a.test/one@${old.root.digest}`)?.digest).toBe(old.root.digest);
  });
});

describe('a namespace that others use too', () => {
  it('has more records than one message holds: each name is asked for', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    await load([item]);
    fake.calls.length = 0;
    fake.hook = ({ method }) => (method === 'Images/List' ? status.RESOURCE_EXHAUSTED : undefined);
    expect(stateOf(await load([item]))).toEqual(['present']);
    expect(fake.calls.filter(({ method }) => method === 'Images/Get')).toHaveLength(2);
  });

  it('says why it cannot be asked', async () => {
    fake.hook = ({ method }) => (method === 'Images/List' ? status.PERMISSION_DENIED : undefined);
    const item = await makeImage(store, 'a.test/one:1');
    await expect(load([item])).rejects.toMatchObject({ code: 'AUTH_DENIED' });
    expect(fake.writes()).toEqual([]);
  });

  it('is left when its list has no end', async () => {
    fake.infos = function* () {
      const many = Buffer.concat(new Array(100_000).fill(build({ 1: build({ 2: 1 }) })));
      for (;;) yield many;
    };
    const item = await makeImage(store, 'a.test/one:1');
    await expect(load([item])).rejects.toMatchObject({
      code: 'TARGET_FAILED',
      message: expect.stringContaining('more than 1000000 entries'),
    });
    expect(fake.writes()).toEqual([]);
  });
});

describe('several namespaces of one containerd', () => {
  it('do not write one blob at the same time: one finds the other’s bytes', async () => {
    const item = await makeImage(store, 'a.test/one:1');
    const targets = containerdTargets({
      socket: fake.socket,
      namespaces: ['k8s.io', 'k8s.io', 'moby'],
      pin: false,
    });
    expect(targets.map((t) => t.name)).toEqual([
      `containerd ${fake.socket} k8s.io`,
      `containerd ${fake.socket} moby`,
    ]);
    const runs: TargetRun[] = [];
    for (const target of targets) runs.push(await target.plan([item], { context, source: store.reader }));
    await Promise.all(runs.map((r) => r.writeBlobs()));
    await Promise.all(runs.map((r) => r.writeManifests()));
    await Promise.all(runs.map((r) => r.commit()));
    await Promise.all(runs.map((r) => r.close()));
    expect(runs.flatMap((r) => r.entries.map((e) => e.state))).toEqual(['written', 'written']);
    expect(store.opened.length).toBe(item.graph.nodes.size);
    expect(context.events.filter((e) => e.type === 'retry')).toEqual([]);
    // Whoever comes first to a blob sends it.
    expect(runs.map((r) => r.tally.blobsWritten).reduce((sum, n) => sum + n)).toBe(5);
  });
});
