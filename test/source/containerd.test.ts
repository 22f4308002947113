import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { verify } from '../../src/ops/verify.ts';
import { failureOf } from '../io/server.ts';
import { layoutFiles, writeFolder } from '../support/archives.ts';
import { makeRuns, makeSite, type Runs, type Site, testContext } from '../support/bundles.ts';
import { type FleetImage, makeImage } from '../support/fleet.ts';
import { build, type Fake, startFake } from '../target/containerd-fake.ts';

/** Images of a registry that nobody can reach, which a containerd still has. A real one is asked in test/peers. */
const HOST = '127.0.0.1:1';

let site: Site;
let fake: Fake;
let image: FleetImage;
let ref: string;
let manifestPath: string;
let runs: Runs;

const mirror = (namespace = 'k8s.io'): string => `containerd://${fake.socket}?namespace=${namespace}`;

async function manifest(mirrors: readonly string[], platforms = 'all'): Promise<void> {
  manifestPath = await site.put(
    'sealift.yaml',
    `apiVersion: sealift/v1\nname: a\nversion: "1"\nplatforms: ${platforms}\nimages: ["${ref}"]\n` +
      `registries: {"${HOST}": {mirrors: ${JSON.stringify(mirrors)}}}\n`,
  );
}

/** What the fake has of an image: everything, under its name. */
function hold(i: FleetImage): void {
  for (const [path, bytes] of layoutFiles([i], () => ({}))) {
    const hex = /^blobs\/sha256\/(.+)$/.exec(path)?.[1];
    if (hex !== undefined) fake.blobs.set(`sha256:${hex}`, { bytes, labels: new Map() });
  }
  const { mediaType, digest, bytes } = i.index;
  fake.images.set(`${HOST}/${i.name}:${i.tag}`, { mediaType, digest, size: bytes.length, labels: new Map() });
}

/** The biggest blob of the image: a layer. */
function layerOf(): string {
  const sizes = [...fake.blobs].map(([digest, { bytes }]) => ({ digest, size: bytes.length }));
  return sizes.toSorted((a, b) => b.size - a.size)[0]?.digest ?? '';
}

/** A second place that has everything. */
async function archive(): Promise<string> {
  const files = layoutFiles([image], () => ({ 'io.containerd.image.name': ref }));
  await writeFolder(join(site.dir, 'layout'), files);
  return 'oci:layout';
}

beforeEach(async () => {
  [site, fake] = await Promise.all([makeSite(), startFake()]);
  runs = makeRuns(site);
  image = makeImage({ prefix: 'fleet/', platforms: ['linux/amd64', 'linux/arm64'] });
  ref = `${HOST}/${image.name}:${image.tag}`;
  hold(image);
});

afterEach(async () => {
  await Promise.all([site.close(), fake.stop()]);
});

describe('an image that a containerd has', () => {
  it('is locked and packed from it, and nothing there is changed', async () => {
    await manifest([mirror()]);
    expect(await runs.lock(manifestPath))?.toMatchObject({ ref, digest: image.index.digest });
    const { faults, images } = await verify(
      { bundle: await runs.pack(manifestPath), deep: true },
      testContext(),
    );
    expect([faults, images]).toEqual([[], 1]);
    expect(fake.writes()).toEqual([]);
    expect(new Set(fake.calls.map((c) => c.namespace))).toEqual(new Set(['k8s.io']));
  });

  it('is found by its own name only, whatever else is called there', async () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    const wrong = { mediaType: 'x', digest, size: 1, labels: new Map() };
    for (const name of [
      digest,
      '',
      '../..:\u0000',
      'UPPER:1',
      `${ref}x`,
      `docker.io/${image.name}:${image.tag}`,
    ]) {
      fake.images.set(name, wrong);
    }
    fake.images.set('no.test/digest:1', { ...wrong, digest: 'sha256:none' });
    await manifest([mirror()]);
    expect((await runs.lock(manifestPath))?.digest).toBe(image.index.digest);
    fake.images.delete(ref);
    expect(await failureOf(runs.lock(manifestPath, { updateAll: true }))).toMatchObject({
      message: expect.stringContaining(`no ${ref}`),
    });
  });

  it('of which a layer lacks is named, and its bytes come from the next mirror', async () => {
    await manifest([mirror()]);
    await runs.lock(manifestPath);
    const layer = layerOf();
    fake.blobs.delete(layer);
    expect(await failureOf(runs.pack(manifestPath))).toMatchObject({
      message: expect.stringContaining(`containerd ${fake.socket} k8s.io: no ${layer}`),
      hint: expect.stringContaining('content fetch --all-platforms'),
    });
    await manifest([mirror(), await archive()]);
    expect(
      (await verify({ bundle: await runs.pack(manifestPath), deep: true }, testContext())).faults,
    ).toEqual([]);
    expect(runs.notes().join()).toContain(`no ${layer}`);
  });

  it('of which a platform lacks is locked for the platforms that are there', async () => {
    const [amd64 = '', arm64 = ''] = ['linux/amd64', 'linux/arm64'].map((p) => image.platforms[p] ?? '');
    fake.blobs.delete(arm64);
    await manifest([mirror()], '[linux/amd64]');
    expect((await runs.lock(manifestPath))?.platforms).toEqual({ 'linux/amd64': amd64 });
    expect((await verify({ bundle: await runs.pack(manifestPath) }, testContext())).faults).toEqual([]);
  });
});

describe('a containerd that cannot be used as a mirror', () => {
  it('because its bytes are wrong is named and not asked again', async () => {
    await manifest([mirror()]);
    await runs.lock(manifestPath);
    const layer = layerOf();
    const bytes = Buffer.from(fake.blobs.get(layer)?.bytes ?? []);
    bytes.writeUInt8(bytes.readUInt8(10) ^ 1, 10);
    fake.blobs.set(layer, { bytes, labels: new Map() });
    await manifest([mirror(), await archive()]);
    expect(
      (await verify({ bundle: await runs.pack(manifestPath), deep: true }, testContext())).faults,
    ).toEqual([]);
    expect(runs.notes().join()).toMatch(/expected sha256:.*it is not asked again/);
  });

  it('because a blob of it never ends is stopped at its size', async () => {
    await manifest([mirror()]);
    await runs.lock(manifestPath);
    let sent = 0;
    fake.read = function* (bytes) {
      yield bytes;
      for (; sent < 100_000; sent += 1) yield Buffer.alloc(65_536);
    };
    await manifest([mirror(), await archive()]);
    expect(
      (await verify({ bundle: await runs.pack(manifestPath), deep: true }, testContext())).faults,
    ).toEqual([]);
    expect(sent).toBeLessThan(100_000);
    expect(runs.notes().join()).toContain('it is not asked again');
  });

  it.each(['ends', 'breaks off'])(
    'because a blob of it %s in the middle is helped out by the next one',
    async (how) => {
      await manifest([mirror()]);
      await runs.lock(manifestPath);
      const begun = new Set<Buffer>();
      fake.read = function* (bytes) {
        begun.add(bytes);
        yield bytes.subarray(0, bytes.length / 2);
        if (how === 'breaks off') throw Object.assign(new Error('gone'), { code: status.UNAVAILABLE });
      };
      await manifest([mirror(), await archive()]);
      expect(
        (await verify({ bundle: await runs.pack(manifestPath), deep: true }, testContext())).faults,
      ).toEqual([]);
      expect(runs.notes().filter((n) => n.endsWith('it is not asked again'))).toHaveLength(1);
      // Manifests and blobs that were asked for at the same time.
      expect(begun.size).toBeLessThan(image.blobs.size);
    },
  );

  it.each([
    ['is no protobuf', Buffer.from([0xff, 0xff, 0xff])],
    ['has a record cut off', build({ 1: Buffer.from([0x0a, 0x7f]) })],
    ['has a size that is none', build({ 1: build({ 1: 'a:1', 3: build({ 3: -1 }) }) })],
  ])('because its list %s is left for the next one', async (_, list) => {
    fake.list = list;
    await manifest([mirror(), await archive()]);
    expect((await runs.lock(manifestPath))?.digest).toBe(image.index.digest);
    expect(runs.notes().join()).toContain('Images/List: the answer cannot be read');
  });

  it.each([
    ['it refuses', 'PERMISSION_DENIED said the fake'],
    ['its namespace is empty', 'no image is in this namespace'],
    ['there is no socket', 'no such socket'],
  ])('because %s is told, with what to do, once', async (what, message) => {
    if (what === 'it refuses') fake.hook = () => status.PERMISSION_DENIED;
    else if (what === 'there is no socket') await rm(fake.socket);
    else fake.images.clear();
    await manifest([mirror()]);
    const failure = await failureOf(runs.lock(manifestPath));
    expect(failure).toMatchObject({ message: expect.stringContaining(message) });
    await manifest([mirror(), await archive()]);
    await runs.lock(manifestPath);
    expect(runs.notes().filter((n) => n.includes(message))).toHaveLength(1);
  });
});
