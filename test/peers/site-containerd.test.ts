import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { checkContainerd } from '../../src/target/containerd/check.ts';
import { fixContainerd } from '../../src/target/containerd/fix.ts';
import { containerdTargets } from '../../src/target/containerd/target.ts';
import type { Finding, TargetReport } from '../../src/target/finding.ts';
import { checkFolder } from '../../src/target/folder-check.ts';
import type { ImageItem } from '../../src/target/target.ts';
import { type Containerd, listCriImages, run, startContainerd } from '../support/peers.ts';
import { createContext, createStore, makeImage, type Store } from '../target/containerd-fixture.ts';

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };
const HOST = `linux/${ARCHITECTURES[process.arch] ?? process.arch}`;
const OTHER = HOST === 'linux/s390x' ? 'linux/ppc64le' : 'linux/s390x';

async function load(
  containerd: Containerd,
  items: readonly ImageItem[],
  options: { readonly store: Store; readonly namespace: string; readonly pin?: boolean },
): Promise<void> {
  const { store, namespace, pin = false } = options;
  const [target] = containerdTargets({ socket: containerd.socket, namespaces: [namespace], pin });
  const run = await target?.plan(items, { context: createContext(), source: store.reader });
  await run?.writeBlobs();
  await run?.writeManifests();
  await run?.commit();
  await run?.close();
  expect(run?.entries.map((e) => e.state)).toEqual(items.map(() => 'written'));
}

const check = ({ socket }: Containerd, namespace = 'k8s.io'): Promise<TargetReport> =>
  checkContainerd({ socket, namespace, target: 'node' }, createContext());

const find = ({ findings }: TargetReport, code: Finding['code']): Finding | undefined =>
  findings.find((f) => f.code === code);

const imagesOf = (found: Finding | undefined): readonly unknown[] =>
  (found?.details?.images as readonly unknown[] | undefined) ?? [];

const rows = (text: string): string[] => text.split('\n').filter((line) => line !== '');

/** Everything in a namespace that a change would show in. */
async function stateOf(containerd: Containerd, namespace: string): Promise<string[]> {
  const lists = ['images', 'content', 'leases', 'snapshots'].map(async (what) => {
    const { stdout } = await containerd.ctr('-n', namespace, what, 'ls');
    return rows(stdout).map((line) => {
      // The age of content, its third column, is counted in words and grows.
      const cells = line.split('\t');
      const kept = what === 'content' ? cells.filter((_, i) => i !== 2) : cells;
      return kept
        .join(' ')
        .split(/[\s,]+/)
        .sort()
        .join(' ');
    });
  });
  return (await Promise.all(lists)).flat().sort();
}

const fix = (
  { socket }: Containerd,
  more: { readonly dryRun?: boolean; readonly pin?: boolean; readonly from?: readonly string[] } = {},
) =>
  fixContainerd(
    { socket, namespace: 'k8s.io', pin: false, dryRun: false, isWanted: () => true, ...more },
    createContext(),
  );

describe.each(['1.6', '2.2'] as const)('the check of a real containerd %s', (version) => {
  let containerd: Containerd;
  const store = createStore();
  beforeAll(async () => {
    containerd = await startContainerd(version);
  });
  afterAll(() => containerd?.stop());

  it('says of an empty one that it is reachable, and how much space it has, and makes no namespace', async () => {
    const report = await check(containerd);
    expect(find(report, 'REACHABLE')?.level).toBe('ok');
    expect(find(report, 'NAMESPACE')?.level).toBe('info');
    expect(report.findings.filter((f) => f.level === 'fault')).toEqual([]);
    expect(report.room?.free).toBeGreaterThan(0);
    expect(report.room?.where).toBe(join(containerd.root, 'io.containerd.content.v1.content'));
    const { stdout } = await containerd.ctr('namespaces', 'ls', '-q');
    expect(rows(stdout)).not.toContain('k8s.io');
  });

  it('finds images in the wrong namespace, and the fix shows kubelet all platforms that are there', async () => {
    const items = [
      await makeImage(store, 'docker.io/library/nginx:1.25.2', { platforms: [HOST, OTHER] }),
      await makeImage(store, 'quay.io/app/web:2', { platforms: [OTHER, HOST], carried: [HOST] }),
      await makeImage(store, 'registry.test:5000/plain:1', { plain: true, platforms: [HOST] }),
    ];
    await load(containerd, items, { store, namespace: 'default' });
    const names = items.map((item) => item.name).sort();
    const before = await stateOf(containerd, 'default');
    const stray = find(await check(containerd), 'IMAGES_WRONG_NAMESPACE');
    expect(stray).toMatchObject({ level: 'warning', fix: 'sealift site fix --target node --yes' });
    expect(imagesOf(stray)).toEqual(names.map((name) => ({ name, namespace: 'default', said: name })));

    const dry = await fix(containerd, { dryRun: true });
    expect(dry.copies.map((c) => [c.name, c.state])).toEqual(names.map((name) => [name, 'copy']));
    expect(rows((await containerd.ctr('-n', 'k8s.io', 'images', 'ls', '-q')).stdout)).toEqual([]);

    const done = await fix(containerd, { pin: true });
    expect(done.copies.map((c) => [c.name, c.state])).toEqual(names.map((name) => [name, 'copied']));
    const { stdout } = await containerd.ctr('-n', 'k8s.io', 'images', 'ls');
    for (const item of items) {
      const row = rows(stdout).find((line) => line.startsWith(`${item.name} `));
      expect(row).toContain(item.root.digest);
      expect(row).toContain('io.cri-containerd.pinned=pinned');
    }
    // Both platforms of the first came along, with their layers.
    const content = (await containerd.ctr('-n', 'k8s.io', 'content', 'ls', '-q')).stdout;
    for (const item of items) for (const digest of item.graph.nodes.keys()) expect(content).toContain(digest);
    expect(rows((await containerd.ctr('-n', 'k8s.io', 'leases', 'ls', '-q')).stdout)).toEqual([]);
    expect(await stateOf(containerd, 'default')).toEqual(before);
    const after = await check(containerd);
    expect(find(after, 'IMAGES_WRONG_NAMESPACE')).toBeUndefined();
    expect(find(after, 'IMAGES_INCOMPLETE')).toBeUndefined();
    expect((await fix(containerd)).copies).toEqual([]);
  });

  it.runIf(version === '2.2')('shows kubelet what was copied', async () => {
    await vi.waitFor(async () => {
      const seen = (await listCriImages(containerd.socket)).flatMap((i) => i.repoTags);
      expect(seen).toContain('quay.io/app/web:2');
    });
  });

  it('keeps what was copied when its first namespace is emptied and garbage is collected', async () => {
    const names = rows((await containerd.ctr('-n', 'default', 'images', 'ls', '-q')).stdout);
    await containerd.ctr('-n', 'default', 'images', 'rm', '--sync', ...names);
    const report = await check(containerd);
    expect(find(report, 'IMAGES_INCOMPLETE')).toBeUndefined();
    expect(find(report, 'NAMESPACE')?.level).toBe('ok');
  });

  it('finds a short name, and the fix adds the full one', async () => {
    await containerd.ctr('-n', 'k8s.io', 'images', 'tag', 'docker.io/library/nginx:1.25.2', 'nginx:short');
    const short = find(await check(containerd), 'NAMES_NOT_CANONICAL');
    expect(imagesOf(short)).toEqual([
      { name: 'docker.io/library/nginx:short', namespace: 'k8s.io', said: 'nginx:short' },
    ]);
    expect((await fix(containerd)).copies.map((c) => [c.name, c.state])).toEqual([
      ['docker.io/library/nginx:short', 'copied'],
    ]);
    expect(find(await check(containerd), 'NAMES_NOT_CANONICAL')).toBeUndefined();
  });

  it('leaves another image under the same name as it is', async () => {
    const other = await makeImage(store, 'quay.io/app/web:2', { platforms: [HOST], layers: ['changed'] });
    await load(containerd, [other], { store, namespace: 'default' });
    const before = await stateOf(containerd, 'k8s.io');
    expect(find(await check(containerd), 'IMAGES_WRONG_NAMESPACE')?.level).toBe('info');
    const taken = (await fix(containerd)).copies.filter((c) => c.name === 'quay.io/app/web:2');
    expect(taken.map((c) => c.state)).toEqual(['taken']);
    expect(await stateOf(containerd, 'k8s.io')).toEqual(before);
  });

  it('tells which images kubelet may delete, and pins them', async () => {
    await load(containerd, [await makeImage(store, 'quay.io/app/loose:1', { platforms: [HOST] })], {
      store,
      namespace: 'k8s.io',
    });
    const loose = find(await check(containerd), 'IMAGES_UNPINNED');
    expect(loose?.level).toBe('warning');
    expect(imagesOf(loose)).toContain('quay.io/app/loose:1');
    const { pins } = await fix(containerd, { pin: true });
    expect(pins.map((p) => p.name)).toContain('quay.io/app/loose:1');
    expect(pins.map((p) => p.state)).toEqual(pins.map(() => 'pinned'));
    expect(find(await check(containerd), 'IMAGES_UNPINNED')).toBeUndefined();
  });

  it('changes nothing by looking', async () => {
    const before = [await stateOf(containerd, 'k8s.io'), await stateOf(containerd, 'default')];
    await check(containerd);
    await fix(containerd, { dryRun: true, pin: true });
    expect([await stateOf(containerd, 'k8s.io'), await stateOf(containerd, 'default')]).toEqual(before);
  });

  it('names the images whose content is gone, and by which digest', async () => {
    const item = await makeImage(store, 'quay.io/app/gone:1', { platforms: [HOST, OTHER] });
    await load(containerd, [item], { store, namespace: 'k8s.io' });
    const manifest = item.graph.nodes.get(item.platforms[HOST] as `sha256:${string}`);
    const layer = manifest?.children.at(-1)?.digest ?? '';
    await containerd.ctr('-n', 'k8s.io', 'content', 'rm', layer);
    const found = find(await check(containerd), 'IMAGES_INCOMPLETE');
    expect(found?.level).toBe('warning');
    expect(imagesOf(found)).toContainEqual({ name: 'quay.io/app/gone:1', manifests: [], layers: [layer] });
    await load(containerd, [item], { store, namespace: 'k8s.io' });
    expect(find(await check(containerd), 'IMAGES_INCOMPLETE')).toBeUndefined();
  });

  it('says of a lease that a stopped load left whose it is', async () => {
    const [target] = containerdTargets({ socket: containerd.socket, namespaces: ['k8s.io'], pin: false });
    const context = createContext();
    const item = await makeImage(store, 'quay.io/app/half:1', { platforms: [HOST] });
    const run = await target?.plan([item], { context, source: store.reader });
    await run?.writeBlobs();
    context.stop();
    await run?.close();
    const left = find(await check(containerd), 'LEASES_LEFT');
    expect(left?.message).toContain('loads of Sealift');
    expect(left?.message).toContain(`${item.graph.nodes.size} blobs`);
  });

  it('tells that the sandbox image is not there', async () => {
    const report = await check(containerd);
    if (version === '1.6') expect(find(report, 'CRI_ABSENT')?.level).toBe('info');
    else expect(find(report, 'SANDBOX_IMAGE')?.level).toBe('warning');
  });

  it('refuses a socket that is not there with the hint where it may be', async () => {
    const missing = join(containerd.root, 'none.sock');
    await expect(
      checkContainerd({ socket: missing, namespace: 'k8s.io', target: 'node' }, createContext()),
    ).rejects.toMatchObject({ code: 'TARGET_UNREACHABLE' });
    await rm(missing, { force: true });
  });
});

describe.each(['1.6', '2.2'] as const)('a real containerd %s that keeps namespaces apart', (version) => {
  let containerd: Containerd;
  beforeAll(async () => {
    containerd = await startContainerd(version, { isIsolated: true });
  });
  afterAll(() => containerd?.stop());

  it('copies nothing and says how to let others see the content, after which 2.2 does', async () => {
    const store = createStore();
    const item = await makeImage(store, 'quay.io/app/web:2', { platforms: [HOST] });
    await load(containerd, [item], { store, namespace: 'default' });
    expect(find(await check(containerd), 'CONTENT_ISOLATED')?.fix).toContain('namespace.shareable=true');
    const [refused] = (await fix(containerd)).copies;
    expect(refused).toMatchObject({ state: 'failed', fault: { code: 'TARGET_FAILED' } });
    expect(rows((await containerd.ctr('-n', 'k8s.io', 'content', 'ls', '-q')).stdout)).toEqual([]);
    await containerd.ctr('namespaces', 'label', 'default', 'containerd.io/namespace.shareable=true');
    const [again] = (await fix(containerd)).copies;
    // 1.6 knows the label and does not act by it.
    if (version === '1.6') expect(again?.fault?.hint).toContain('images export');
    else expect(again).toMatchObject({ state: 'copied', fault: null });
    expect(find(await check(containerd), 'IMAGES_INCOMPLETE')).toBeUndefined();
  });
});

describe('a folder on a file system that is read-only', () => {
  it('is refused with the way to make it writable', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'ro-'));
    await run('mount', ['-t', 'tmpfs', '-o', 'ro', 'none', dir]);
    try {
      const { findings } = await checkFolder(join(dir, 'charts'), 'chart-tree');
      expect(findings).toMatchObject([
        { level: 'fault', code: 'STORE_READ_ONLY', fix: expect.stringContaining('remount,rw') },
      ]);
    } finally {
      await run('umount', [dir]);
      await rm(dir, { recursive: true });
    }
  });
});
