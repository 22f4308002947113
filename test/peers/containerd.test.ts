import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { MIB } from '../../src/core/limits.ts';
import { digestOf } from '../../src/io/verify.ts';
import { recordNames } from '../../src/target/containerd/plan.ts';
import { containerdTargets } from '../../src/target/containerd/target.ts';
import type { ImageItem, TargetRun } from '../../src/target/target.ts';
import { type Containerd, listCriImages, run, startContainerd } from '../support/peers.ts';
import {
  createContext,
  createStore,
  makeImage,
  type Store,
  type TestContext,
} from '../target/containerd-fixture.ts';

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };
const HOST = `linux/${ARCHITECTURES[process.arch] ?? process.arch}`;
const OTHER = HOST === 'linux/s390x' ? 'linux/ppc64le' : 'linux/s390x';

/** Loads into each namespace, all namespaces stage by stage as the verb does. */
async function load(
  containerd: Containerd,
  items: readonly ImageItem[],
  options: {
    readonly store: Store;
    readonly namespaces?: readonly string[];
    readonly pin?: boolean;
    readonly context?: TestContext;
  },
): Promise<TargetRun[]> {
  const { store, namespaces = ['k8s.io'], pin = false, context = createContext() } = options;
  const runs: TargetRun[] = [];
  for (const target of containerdTargets({ socket: containerd.socket, namespaces, pin })) {
    runs.push(await target.plan(items, { context, source: store.reader }));
  }
  try {
    await Promise.all(runs.map((r) => r.writeBlobs()));
    await Promise.all(runs.map((r) => r.writeManifests()));
    await Promise.all(runs.map((r) => r.commit()));
  } finally {
    await Promise.all(runs.map((r) => r.close()));
  }
  expect(runs.flatMap((r) => r.entries.map((e) => e.fault))).toEqual(
    runs.flatMap((r) => r.entries.map(() => undefined)),
  );
  return runs;
}

const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

/** Labels in an order of their own: ctr prints them in any. */
const sorted = (labels: string): string => labels.split(',').sort().join();

/** What the namespace holds, without what changes by itself: digest, size and labels of each blob. */
async function contentOf(containerd: Containerd, namespace: string): Promise<string[]> {
  const { stdout } = await containerd.ctr('-n', namespace, 'content', 'ls');
  const rows = lines(stdout).slice(1);
  return rows
    .map((row) => row.split(/\t+/).map((cell) => cell.trim()))
    .map(([digest, size, , labels = '']) => `${digest} ${size} ${sorted(labels)}`)
    .sort();
}

/** Every record's row with name, type, digest, size, platforms and labels. */
async function recordsOf(containerd: Containerd, namespace: string): Promise<string[]> {
  const { stdout } = await containerd.ctr('-n', namespace, 'images', 'ls');
  return lines(stdout)
    .slice(1)
    .map((row) => row.replace(/\S+\s*$/, (labels) => sorted(labels.trim())))
    .sort();
}

const quiet = async (containerd: Containerd, namespace: string, what: string): Promise<string[]> =>
  lines((await containerd.ctr('-n', namespace, what, 'ls', '-q')).stdout);

/**
 * Makes an unreferenced blob, lets containerd collect its garbage, and proves by that blob that it did. That the blob
 * was there says the command's success: right after a start containerd may collect it before anybody looks.
 */
async function collectGarbage(containerd: Containerd, namespace: string): Promise<void> {
  const { program, socket } = containerd;
  const garbage = `garbage of ${namespace}`;
  await run(program, ['--address', socket, '-n', namespace, 'content', 'ingest', 'garbage'], {
    input: garbage,
  });
  const lease = (await containerd.ctr('-n', namespace, 'leases', 'create')).stdout.trim();
  await containerd.ctr('-n', namespace, 'leases', 'delete', '--sync', lease);
  expect(await quiet(containerd, namespace, 'content')).not.toContain(digestOf(garbage));
}

async function expectComplete(containerd: Containerd, names: readonly string[]): Promise<void> {
  // By name: ctr ends with an error as soon as it sees an image of another platform.
  const filters = names.map((name) => `name==${name}`);
  const { stdout } = await containerd.ctr('-n', 'k8s.io', 'images', 'check', ...filters);
  const rows = lines(stdout).slice(1);
  expect(rows.map((row) => row.split(/\s/)[0]).sort()).toEqual([...names].sort());
  for (const row of rows) expect(row).toMatch(/\scomplete \((\d+)\/\1\)/);
}

describe.each(['1.6', '2.2'] as const)('a real containerd %s', (version) => {
  let containerd: Containerd;
  beforeAll(async () => {
    containerd = await startContainerd(version);
  });
  afterAll(() => containerd?.stop());

  describe('after a load', () => {
    const store = createStore();
    let items: ImageItem[];
    let names: string[];
    beforeAll(async () => {
      items = [
        await makeImage(store, 'docker.io/library/nginx:1.25.2', {
          platforms: [HOST, OTHER],
          layers: ['base', 'nginx'],
          layerSize: 1.5 * MIB,
        }),
        await makeImage(store, 'quay.io/prometheus/prometheus:v2.48.1', {
          platforms: [OTHER, HOST],
          carried: [HOST],
          layers: ['base', 'base'],
        }),
        await makeImage(store, 'registry.test:5000/plain:1', { plain: true, platforms: [HOST] }),
        await makeImage(store, 'registry.test:5000/foreign:1', { platforms: [OTHER] }),
      ];
      names = items.flatMap(recordNames);
      const [loaded] = await load(containerd, items, { store, pin: true });
      expect(loaded?.entries.map((e) => e.state)).toEqual(items.map(() => 'written'));
      const nodes = new Map(items.flatMap((i) => [...i.graph.nodes]));
      const bytes = [...nodes.values()].reduce((sum, node) => sum + node.descriptor.size, 0);
      expect(loaded?.tally.bytesWritten).toBe(bytes);
    });

    it('lists the canonical names, with their digests, managed and pinned', async () => {
      const { stdout } = await containerd.ctr('-n', 'k8s.io', 'images', 'ls');
      for (const item of items) {
        for (const name of recordNames(item)) {
          const row = lines(stdout).find((line) => line.startsWith(`${name} `));
          expect(row).toContain(item.root.digest);
          expect(row).toContain('io.cri-containerd.image=managed');
          expect(row).toContain('io.cri-containerd.pinned=pinned');
        }
      }
      const listed = (await quiet(containerd, 'k8s.io', 'images')).filter((n) => !n.startsWith('sha256:'));
      expect(listed.sort()).toEqual([...names].sort());
    });

    it('has every image of this platform complete, a sparse one too', async () => {
      await expectComplete(containerd, items.slice(0, 3).flatMap(recordNames));
    });

    it('has released its lease and left no unfinished ingest', async () => {
      expect(await quiet(containerd, 'k8s.io', 'leases')).toEqual([]);
      expect(lines((await containerd.ctr('-n', 'k8s.io', 'content', 'active')).stdout).slice(1)).toEqual([]);
    });

    it('loses nothing to a forced garbage collection and a restart', async () => {
      const before = await contentOf(containerd, 'k8s.io');
      expect(before).toHaveLength(new Set(items.flatMap((i) => [...i.graph.nodes.keys()])).size);
      await collectGarbage(containerd, 'k8s.io');
      expect(await contentOf(containerd, 'k8s.io')).toEqual(before);
      await containerd.restart();
      await collectGarbage(containerd, 'k8s.io');
      expect(await contentOf(containerd, 'k8s.io')).toEqual(before);
      await expectComplete(containerd, items.slice(0, 3).flatMap(recordNames));
    });

    it('writes nothing the second time', async () => {
      const before = await contentOf(containerd, 'k8s.io');
      const images = await recordsOf(containerd, 'k8s.io');
      store.opened.length = 0;
      const [again] = await load(containerd, items, { store, pin: true });
      expect(again?.entries.map((e) => e.state)).toEqual(items.map(() => 'present'));
      expect(again?.tally).toMatchObject({
        bytesWritten: 0,
        blobsWritten: 0,
        manifestsWritten: 0,
        blobsMounted: 0,
      });
      expect(store.opened).toEqual([]);
      expect(await contentOf(containerd, 'k8s.io')).toEqual(before);
      expect(await recordsOf(containerd, 'k8s.io')).toEqual(images);
    });

    it.runIf(version === '2.2')(
      'shows kubelet every image of this platform, with tag and digest',
      async () => {
        await vi.waitFor(async () => {
          const images = await listCriImages(containerd.socket);
          const seen = images.flatMap((i) => [...i.repoTags, ...i.repoDigests]);
          expect(seen.sort()).toEqual(items.slice(0, 3).flatMap(recordNames).sort());
        });
      },
    );

    it('fills another namespace from the store, without sending a byte', async () => {
      store.opened.length = 0;
      const namespaces = async (): Promise<string> => (await containerd.ctr('namespaces', 'ls', '-q')).stdout;
      expect(await namespaces()).not.toContain('other.space');
      const [moby] = await load(containerd, items, { store, namespaces: ['other.space'] });
      expect(await namespaces()).toContain('other.space');
      expect(moby?.entries.map((e) => e.state)).toEqual(items.map(() => 'written'));
      expect(moby?.tally.bytesWritten).toBe(0);
      expect(moby?.tally.blobsMounted).toBeGreaterThan(0);
      expect(store.opened).toEqual([]);
      const before = await contentOf(containerd, 'other.space');
      expect(before).toEqual(await contentOf(containerd, 'k8s.io'));
      await collectGarbage(containerd, 'other.space');
      expect(await contentOf(containerd, 'other.space')).toEqual(before);
    });

    it('puts a lost layer back, and a tag that moved', async () => {
      const [first] = items;
      const layer = [...(first?.graph.nodes.values() ?? [])].find((n) => n.kind === 'blob')?.descriptor;
      if (first === undefined || layer === undefined) throw new Error('no image');
      await containerd.ctr('-n', 'k8s.io', 'content', 'rm', layer.digest);
      await containerd.ctr(
        '-n',
        'k8s.io',
        'images',
        'tag',
        '--force',
        'registry.test:5000/plain:1',
        recordNames(first)[0] ?? '',
      );
      const [again] = await load(containerd, items, { store, pin: true });
      expect(again?.entries.map((e) => e.notes.length)).toEqual([1, 0, 0, 0]);
      expect(again?.tally.blobsMounted, 'from the other namespace').toBe(1);
      await expectComplete(containerd, recordNames(first));
      const { stdout } = await containerd.ctr(
        '-n',
        'k8s.io',
        'images',
        'ls',
        `name==${recordNames(first)[0]}`,
      );
      expect(stdout).toContain(first.root.digest);
    });
  });

  it('keeps both parts of an index that come one after the other', async () => {
    const platforms = [HOST, OTHER];
    const wanted = new Set<string>();
    // The second carries what is number 1 in the index, but number 0 of what it carries.
    for (const platform of platforms) {
      const store = createStore();
      const part = await makeImage(store, 'parts.test/image:1', { platforms, carried: [platform] });
      await load(containerd, [part], { store, namespaces: ['parts'] });
      for (const digest of part.graph.nodes.keys()) wanted.add(digest);
    }
    await collectGarbage(containerd, 'parts');
    expect((await quiet(containerd, 'parts', 'content')).sort()).toEqual([...wanted].sort());
  });

  it.each(['SIGTERM', 'SIGKILL'] as const)(
    'goes on inside a blob after an interruption, a garbage collection and a %s',
    async (signal) => {
      const context = createContext();
      let stopAt = 5 * MIB;
      const store = createStore({
        before: (_, offset) => {
          if (offset >= stopAt) context.stop();
        },
      });
      const ref = `stopped.test/${signal.toLowerCase()}:1`;
      const item = await makeImage(store, ref, { platforms: [HOST], layers: [], layerSize: 8 * MIB });
      const digest = [...item.graph.nodes.values()].find((n) => n.kind === 'blob')?.descriptor.digest;
      await expect(load(containerd, [item], { store, context })).rejects.toMatchObject({ code: 'ABORTED' });
      await collectGarbage(containerd, 'k8s.io');
      expect((await containerd.ctr('-n', 'k8s.io', 'content', 'active')).stdout).toContain(digest);
      await containerd.restart(signal);

      stopAt = Number.POSITIVE_INFINITY;
      store.opened.length = 0;
      const [again] = await load(containerd, [item], { store });
      const from = store.opened.find((o) => o.digest === digest)?.offset ?? 0;
      expect(from).toBeGreaterThanOrEqual(4 * MIB);
      expect(again?.tally.bytesWritten).toBeLessThan(4 * MIB + MIB / 2);
      await expectComplete(containerd, recordNames(item));
      await collectGarbage(containerd, 'k8s.io');
      await expectComplete(containerd, recordNames(item));
    },
  );

  it('goes on by itself when containerd crashes and comes back in the middle of a blob', async () => {
    let crashes = 1;
    const store = createStore({
      before: async (_, offset) => {
        if (offset >= 3 * MIB && crashes-- > 0) await containerd.restart('SIGKILL');
      },
    });
    const item = await makeImage(store, 'crash.test/image:1', {
      platforms: [HOST],
      layers: [],
      layerSize: 5 * MIB,
    });
    // Here waits have a length: the connection needs a moment.
    const context = { ...createContext(), random: () => 0.5 };
    const [loaded] = await load(containerd, [item], { store, context });
    expect(context.events.some((e) => e.type === 'retry')).toBe(true);
    expect(loaded?.tally.bytesWritten).toBeLessThan(6.5 * MIB);
    await expectComplete(containerd, recordNames(item));
    await collectGarbage(containerd, 'k8s.io');
    await expectComplete(containerd, recordNames(item));
  });

  it('leaves nothing of a bundle with a bad blob', async () => {
    const store = createStore();
    const item = await makeImage(store, 'bad.test/image:1', { platforms: [HOST], layerSize: 3 * MIB });
    const digest = [...item.graph.nodes.values()].filter((n) => n.kind === 'blob').at(-1)?.descriptor.digest;
    const bytes = digest === undefined ? undefined : store.blobs.get(digest);
    if (bytes === undefined) throw new Error('no layer');
    bytes.writeUInt8(bytes.readUInt8(2 * MIB) ^ 0x80, 2 * MIB);
    await expect(load(containerd, [item], { store, namespaces: ['bad'] })).rejects.toMatchObject({
      code: 'CONTENT_DIGEST_MISMATCH',
    });
    expect(await quiet(containerd, 'bad', 'images')).toEqual([]);
    expect(await quiet(containerd, 'bad', 'leases')).toEqual([]);
    expect(await quiet(containerd, 'bad', 'content')).toEqual([]);
    expect(lines((await containerd.ctr('-n', 'bad', 'content', 'active')).stdout).slice(1)).toEqual([]);
  });

  it('sends a blob once when it loads into several new namespaces at the same time', async () => {
    const store = createStore();
    const item = await makeImage(store, 'many.test/image:1', { platforms: [HOST], layerSize: 2 * MIB });
    const runs = await load(containerd, [item], { store, namespaces: ['n1', 'n2', 'n3'] });
    expect(store.opened).toHaveLength(item.graph.nodes.size);
    expect(runs.reduce((sum, r) => sum + r.tally.blobsWritten, 0)).toBe(3);
    expect(runs.reduce((sum, r) => sum + r.tally.blobsMounted, 0)).toBe(6);
    for (const namespace of ['n1', 'n2', 'n3']) {
      await collectGarbage(containerd, namespace);
      expect(await quiet(containerd, namespace, 'content')).toHaveLength(item.graph.nodes.size);
    }
  });
});
