import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { openBundle } from '../../src/bundle/reader.ts';
import type { Digest } from '../../src/core/digest.ts';
import { load } from '../../src/ops/load.ts';
import { type RegistryOptions, type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { gather } from '../io/server.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { type FleetImage, makeFleet, makeImage } from '../support/fleet.ts';

let site: Site;

beforeEach(async () => {
  site = await makeSite();
});

afterEach(() => site.close());

/** A registry in memory that ends with the test. */
async function target(options: Omit<RegistryOptions, 'storage'> = {}): Promise<RunningRegistry> {
  const running = await startRegistry({ storage: 'memory', ...options });
  onTestFinished(() => running.close());
  return running;
}

/** A bundle of images, all their platforms unless some are named. */
async function bundleOf(images: readonly FleetImage[], platforms = 'all'): Promise<string> {
  const refs: string[] = [];
  for (const image of images) refs.push(await site.addImage(image));
  const list = refs.map((ref) => `  - {ref: "${ref}", platforms: ${platforms}}\n`);
  return site.bundle('images', `images:\n${list.join('')}`);
}

/** What was put where, in order: `blob app sha256:…`, `manifest app v1`. Mounts count as blobs. */
function written(registry: RunningRegistry): string[] {
  return registry.requests.flatMap(({ method, path, query, status }) => {
    if (status !== 201) return [];
    const [, repository = '', kind = '', rest = ''] =
      /^\/v2\/(.+)\/(blobs|manifests)\/(.*)$/.exec(path) ?? [];
    if (kind === 'manifests' && method === 'PUT') return [`manifest ${repository} ${rest}`];
    const digest = new URLSearchParams(query).get(method === 'POST' ? 'mount' : 'digest');
    return kind === 'blobs' && digest !== null ? [`blob ${repository} ${digest}`] : [];
  });
}

async function digestAt(
  registry: RunningRegistry,
  image: FleetImage,
  reference = image.tag,
): Promise<unknown> {
  const url = `${registry.url}/v2/${image.name}/manifests/${reference}`;
  const response = await fetch(url, { method: 'HEAD', headers: { accept: '*/*' } });
  return response.headers.get('docker-content-digest');
}

describe('what is sent to a registry', () => {
  it('[1.4-order, 1.6-same-repository, 1.6-all] goes blobs first, children before parents in one repository, tags last', async () => {
    const images = makeFleet({ images: 4, kinds: ['oci', 'nested', 'attested', 'docker'], seed: 31 });
    const bundle = await bundleOf(images);
    const registry = await target();
    expect((await load({ bundle, registries: [placeOf(registry)] }, testContext())).failed).toBe(0);
    const order = written(registry);
    const firstManifest = order.findIndex((w) => w.startsWith('manifest'));
    const tags = images.map((i) => `manifest ${i.name} ${i.tag}`);
    expect(order.filter((w) => w.startsWith('blob')).every((w) => order.indexOf(w) < firstManifest)).toBe(
      true,
    );
    expect([...order.slice(-tags.length)].sort()).toEqual([...tags].sort());
    for (const image of images) {
      const places = [...image.manifests, image.index].map((m) =>
        order.indexOf(`manifest ${image.name} ${m.digest}`),
      );
      expect(places).not.toContain(-1);
      expect(places).toEqual([...places].sort((a, b) => a - b));
      for (const digest of image.blobs.keys()) expect(order).toContain(`blob ${image.name} ${digest}`);
      expect(await digestAt(registry, image)).toBe(image.index.digest);
    }
  });

  it('is not asked for one by one in a repository that is not there', async () => {
    const images = makeFleet({ images: 6, kinds: ['oci'], seed: 41 });
    const bundle = await bundleOf(images);
    const registry = await target();
    expect((await load({ bundle, registries: [placeOf(registry)] }, testContext())).failed).toBe(0);
    const count = (method: string, path: RegExp): number =>
      registry.requests.filter((r) => r.method === method && path.test(r.path)).length;
    const blobs = images.reduce((sum, image) => sum + image.blobs.size, 0);
    expect(blobs).toBeGreaterThan(10);
    expect(count('HEAD', /\/blobs\//)).toBe(10);
    expect(count('GET', /\/tags\/list$/)).toBe(images.length);
    // Of each image the root alone: some registries know no repository of which they have only untagged manifests.
    expect(count('HEAD', /\/manifests\/sha256:/)).toBe(images.length);
    expect(count('GET', /\/manifests\//)).toBe(0);
    // The tags before and after the push, and that.
    expect(count('HEAD', /\/manifests\//)).toBe(3 * images.length);
  });

  it('[1.4-1-skip] is not sent when it is there', async () => {
    const images = makeFleet({ images: 2, kinds: ['oci', 'docker'], seed: 32 });
    const bundle = await bundleOf(images);
    const registry = await target();
    const [first] = images;
    for (const [digest, blob] of first?.blobs ?? []) {
      const start = await fetch(`${registry.url}/v2/${first?.name}/blobs/uploads/?digest=${digest}`, {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
        body: new Uint8Array(blob.bytes()),
      });
      expect(start.status).toBe(201);
    }
    const before = registry.requests.length;
    const result = await load({ bundle, registries: [placeOf(registry)] }, testContext());
    expect(result.failed).toBe(0);
    const sent = registry.requests.slice(before).filter((r) => r.method === 'POST' || r.method === 'PATCH');
    expect(sent.filter((r) => r.path.startsWith(`/v2/${first?.name}/`))).toEqual([]);
    expect(result.targets[0]?.tally.blobsPresent).toBeGreaterThanOrEqual(first?.blobs.size ?? 0);
    const again = registry.requests.length;
    await load({ bundle, registries: [placeOf(registry)] }, testContext());
    expect(registry.requests.slice(again).filter((r) => r.method !== 'HEAD' && r.method !== 'GET')).toEqual(
      [],
    );
  });

  it('[1.4-8-verify] is asked for again by its tag, and another digest there is a failure', async () => {
    const image = makeImage({ kinds: ['single'], seed: 33 });
    const bundle = await bundleOf([image]);
    const other = makeImage({ kinds: ['single'], seed: 34 });
    let pushed = false;
    const stale = await target({
      intercept: (request, response) => {
        if (request.url !== `/v2/${image.name}/manifests/${image.tag}`) return false;
        if (request.method === 'PUT') pushed = true;
        if (request.method !== 'HEAD' || !pushed) return false;
        response.writeHead(200, { 'docker-content-digest': other.index.digest }).end();
        return true;
      },
    });
    const result = await load({ bundle, registries: [placeOf(stale)] }, testContext());
    expect(pushed).toBe(true);
    expect(result.targets[0]?.entries[0]).toMatchObject({
      state: 'failed',
      fault: {
        code: 'TARGET_FAILED',
        message: expect.stringContaining(other.index.digest),
        hint: expect.stringContaining('run the load again'),
      },
    });
  });

  it('[1.4-8-verify] is asked for by its digest where it has no tag', async () => {
    const image = makeImage({ kinds: ['single'], seed: 39 });
    const ref = await site.addImage(image);
    const pinned = `${ref.slice(0, ref.lastIndexOf(':'))}@${image.index.digest}`;
    const bundle = await site.bundle('untagged', `platforms: all\nimages: ["${pinned}"]\n`);
    const forgetful = await target({
      intercept: async (request, response) => {
        if (request.method !== 'PUT' || request.url?.includes('/manifests/') !== true) return false;
        await gather(request);
        response.writeHead(201).end();
        return true;
      },
    });
    const result = await load({ bundle, registries: [placeOf(forgetful)] }, testContext());
    expect(result.targets[0]?.entries[0]?.fault).toMatchObject({
      code: 'TARGET_FAILED',
      message: expect.stringContaining('is absent after the push'),
    });
    const good = await target();
    const second = await load({ bundle, registries: [placeOf(good)] }, testContext());
    expect(second.failed).toBe(0);
    expect(await digestAt(good, image, image.index.digest)).toBe(image.index.digest);
  });

  it('[1.4-5-digest] is refused by us when the registry stores other bytes than it was sent', async () => {
    const image = makeImage({ kinds: ['single'], seed: 35 });
    const bundle = await bundleOf([image]);
    const rewriting = await target({
      intercept: async (request, response) => {
        if (request.method !== 'PUT' || request.url?.includes('/manifests/') !== true) return false;
        await gather(request);
        response.writeHead(201, { 'docker-content-digest': `sha256:${'1'.repeat(64)}` }).end();
        return true;
      },
    });
    const result = await load({ bundle, registries: [placeOf(rewriting)] }, testContext());
    expect(result.targets[0]?.entries[0]?.fault).toMatchObject({
      code: 'TARGET_FAILED',
      hint: expect.stringContaining('rewrites'),
    });
  });
});

describe('an index of which some platforms are carried', () => {
  const platforms = ['linux/amd64', 'linux/arm64', 'linux/s390x'];

  it('[1.6-original] is in the bundle as it was published, with only the wanted children', async () => {
    const image = makeImage({ platforms, kinds: ['oci'], seed: 36 });
    const bundle = await openBundle(await bundleOf([image], '[linux/arm64]'), {
      signal: new AbortController().signal,
    });
    onTestFinished(() => bundle.close());
    const { index } = image;
    const descriptor = {
      mediaType: index.mediaType,
      digest: index.digest as Digest,
      size: index.bytes.length,
    };
    const bytes = await gather(bundle.open(descriptor, { signal: new AbortController().signal }));
    expect(bytes.equals(index.bytes)).toBe(true);
    const carried = image.manifests.filter((m) => bundle.has(m.digest as Digest)).map((m) => m.platform);
    expect(carried).toEqual(['linux/arm64']);
  });

  it('[1.6-receipt, 1.5-rewritten] that is replaced has both digests in the receipt, and what no longer counts', async () => {
    const image = makeImage({ platforms, kinds: ['oci'], seed: 37 });
    const bundle = await bundleOf([image], '[linux/amd64, linux/arm64]');
    const registry = await target();
    const receiptPath = join(site.dir, 'receipt.json');
    await load({ bundle, registries: [placeOf(registry)], receiptPath }, testContext());
    const receipt: unknown = JSON.parse(await readFile(receiptPath, 'utf8'));
    const pushed = await digestAt(registry, image);
    expect(pushed).not.toBe(image.index.digest);
    expect(receipt).toMatchObject({
      targets: [
        {
          entries: [
            {
              digest: image.index.digest,
              pushedDigest: pushed,
              notes: [
                `stands there as ${pushed}: signatures and pins of ${image.index.digest} do not count for it`,
              ],
            },
          ],
        },
      ],
    });
  });

  it('[1.6-pinned] and to which a reference is pinned is warned about when the registry gets another', async () => {
    const image = makeImage({ platforms, kinds: ['oci'], seed: 38 });
    const ref = await site.addImage(image);
    const pinned = `${ref.slice(0, ref.lastIndexOf(':'))}@${image.index.digest}`;
    const bundle = await site.bundle('pinned', `images:\n  - {ref: "${pinned}", platforms: [linux/amd64]}\n`);
    const warnings = async (registry: RunningRegistry): Promise<unknown[]> => {
      const context = testContext();
      const result = await load({ bundle, registries: [placeOf(registry)] }, context);
      expect(result.failed).toBe(0);
      return context.events.flatMap((e) => (e.type === 'warning' ? [e.fault] : []));
    };
    expect(await warnings(await target())).toMatchObject([
      {
        message: expect.stringContaining(`@${image.index.digest}: is pinned`),
        hint: expect.stringContaining('all'),
      },
    ]);
    expect(await warnings(await target({ acceptSparse: true }))).toEqual([]);
  });
});
