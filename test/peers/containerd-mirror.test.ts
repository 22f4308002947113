import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Context } from '../../src/core/events.ts';
import { type LockResult, lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { failureOf } from '../io/server.ts';
import { layoutFiles, writeFolder } from '../support/archives.ts';
import { type FleetImage, makeImage, pushImage } from '../support/fleet.ts';
import {
  type Containerd,
  quietContext,
  type Registry,
  startContainerd,
  startRegistry,
} from '../support/peers.ts';

const NAMESPACE = 'k8s.io';
const HERE = 'linux/amd64';
const OTHER = 'linux/arm64';

/** An image that a real containerd pulled from a registry which is gone since. */
describe.each(['1.6', '2.2'] as const)('a real containerd %s as a mirror', (version) => {
  let dir: string;
  let containerd: Containerd;
  let registry: Registry | undefined;
  let image: FleetImage;
  let ref: string;
  let host: string;
  let packs = 0;
  const manifestPath = (): string => join(dir, 'sealift.yaml');
  const mirror = (): string => `containerd://${containerd.socket}?namespace=${NAMESPACE}`;

  async function manifest(platforms: string, mirrors = [mirror()]): Promise<void> {
    await writeFile(
      manifestPath(),
      `apiVersion: sealift/v1\nname: m\nversion: "1"\nplatforms: [${platforms}]\nimages: ["${ref}"]\n` +
        `registries: {"${host}": {plainHttp: true, mirrors: ${JSON.stringify(mirrors)}}}\n`,
    );
  }

  // Nobody waits between the tries to reach the registry.
  const context = (): Context => ({ ...quietContext(), random: () => 0 });

  function lockNow(): Promise<LockResult> {
    return lock({ manifestPath: manifestPath() }, context());
  }

  async function packed(): Promise<unknown> {
    packs += 1;
    const out = join(dir, `${packs}.tar`);
    await pack({ manifestPath: manifestPath(), out }, context());
    const { images, faults } = await verify({ bundle: out, deep: true }, context());
    return { images, faults };
  }

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'sealift-mirror-'));
    [containerd, registry] = await Promise.all([startContainerd(version), startRegistry()]);
    image = makeImage({ platforms: [HERE, OTHER], kinds: ['oci'], layerSizes: [3_000_000, 10_000] });
    host = registry.url;
    ref = `${host}/${image.name}:${image.tag}`;
    await pushImage(host, image);
    await containerd.ctr('-n', NAMESPACE, 'content', 'fetch', '--plain-http', '--platform', HERE, ref);
    await registry.stop();
    registry = undefined;
    const files = layoutFiles([image], () => ({ 'io.containerd.image.name': ref }));
    await writeFolder(join(dir, 'layout'), files);
  });
  afterAll(async () => {
    await Promise.all([containerd?.stop(), registry?.stop()]);
    await rm(dir, { recursive: true, force: true });
  });

  it('gives the platform that it pulled, by name and by digest', async () => {
    await manifest(HERE);
    const { lock: locked } = await lockNow();
    expect(locked.images.at(0)).toMatchObject({
      digest: image.index.digest,
      platforms: { [HERE]: image.platforms[HERE] },
    });
    expect(await packed()).toEqual({ images: 1, faults: [] });
  });

  it('says what it lacks of another platform, which then comes from the next mirror', async () => {
    await manifest(`${HERE}, ${OTHER}`);
    await lockNow();
    // 1.6 fetches only the manifest of its platform, 2.2 all manifests and only the layers of its platform.
    const failure = await failureOf(packed());
    expect(JSON.stringify([failure, String(failure)])).toMatch(
      version === '1.6'
        ? `${image.name}@${image.platforms[OTHER]}; it has ${image.index.digest}`
        : `containerd ${containerd.socket} ${NAMESPACE}: no sha256:`,
    );
    expect(failure).toMatchObject({
      hint: expect.stringContaining(`ctr -n ${NAMESPACE} content fetch --all-platforms`),
    });
    await manifest(`${HERE}, ${OTHER}`, [mirror(), 'oci:layout']);
    expect(await packed()).toEqual({ images: 1, faults: [] });
  });

  it('says which layer it lacks, and the next mirror gives it', async () => {
    const bytes = image.manifests.find((m) => m.digest === image.platforms[HERE])?.bytes;
    const layer = JSON.parse(String(bytes)).layers.at(-1).digest;
    await containerd.ctr('-n', NAMESPACE, 'content', 'rm', layer);
    await manifest(HERE);
    await lockNow();
    expect(await failureOf(packed())).toMatchObject({
      message: expect.stringContaining(`containerd ${containerd.socket} ${NAMESPACE}: no ${layer}`),
    });
    await manifest(HERE, [mirror(), 'oci:layout']);
    expect(await packed()).toEqual({ images: 1, faults: [] });
  });

  it('has nothing in a namespace that it does not have', async () => {
    await manifest(HERE, [mirror().replace(NAMESPACE, 'nowhere')]);
    await rm(join(dir, 'versions.lock'), { force: true });
    expect(await failureOf(lockNow())).toMatchObject({
      message: expect.stringContaining('nowhere: no image is in this namespace'),
    });
  });
});
