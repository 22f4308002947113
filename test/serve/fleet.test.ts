import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import { extract } from 'tar-stream';
import { describe, expect, it } from 'vitest';
import { startRegistry } from '../../src/serve/registry.ts';
import {
  blobBytes,
  eachImage,
  type FleetImage,
  type FleetKind,
  makeBigFleet,
  makeFleet,
  makeImage,
  pushFleet,
  pushImage,
} from '../support/fleet.ts';
import { digestOf } from './client.ts';

const KINDS: readonly FleetKind[] = [
  'oci',
  'docker',
  'attested',
  'nested',
  'single',
  'docker-single',
  'artifact',
];
const PLATFORMS = ['linux/amd64', 'linux/arm64', 'linux/arm/v7'];

interface Described {
  readonly mediaType: string;
  readonly digest: `sha256:${string}`;
  readonly size: number;
  readonly platform?: Readonly<Record<string, string>>;
}

interface Body {
  readonly mediaType: string;
  readonly manifests?: readonly Described[];
  readonly config?: Described;
  readonly layers?: readonly Described[];
}

/** Follows every pointer from the root; gives all manifests that were met. */
function walk(image: FleetImage): Map<string, Body> {
  const known = new Map([image.index, ...image.manifests].map((m) => [m.digest, m]));
  const met = new Map<string, Body>();
  const visit = (digest: `sha256:${string}`, pointer?: Described): void => {
    const manifest = known.get(digest);
    if (manifest === undefined) throw new Error(`${digest} is named but not there`);
    expect(digestOf(manifest.bytes)).toBe(digest);
    if (pointer !== undefined) expect(manifest.bytes.length).toBe(pointer.size);
    const body: Body = JSON.parse(manifest.bytes.toString());
    expect(body.mediaType).toBe(manifest.mediaType);
    if (pointer !== undefined) expect(body.mediaType).toBe(pointer.mediaType);
    met.set(digest, body);
    for (const child of body.manifests ?? []) visit(child.digest, child);
  };
  visit(image.index.digest);
  expect([...met.keys()].sort()).toEqual([...known.keys()].sort());
  return met;
}

async function tarNames(tar: Buffer): Promise<string[]> {
  const names: string[] = [];
  const reader = extract();
  reader.end(tar);
  for await (const entry of reader) {
    names.push(entry.header.name);
    entry.resume();
  }
  return names;
}

describe('generated images', () => {
  it.each(KINDS)(
    'of kind %s point only to what is there, with right digests, sizes and diff_ids',
    async (kind) => {
      const image = makeImage({ kinds: [kind], platforms: PLATFORMS });
      const used = new Set<string>();
      for (const body of walk(image).values()) {
        const { config, layers = [] } = body;
        if (config === undefined) continue;
        for (const pointer of [config, ...layers]) {
          used.add(pointer.digest);
          const blob = image.blobs.get(pointer.digest);
          expect(blob?.size).toBe(pointer.size);
          expect(blob?.mediaType).toBe(pointer.mediaType);
          const bytes = blob?.bytes() ?? Buffer.alloc(0);
          expect(bytes.length).toBe(pointer.size);
          expect(digestOf(bytes)).toBe(pointer.digest);
        }
        if (!/image\.(config\.)?v1\+json$/.test(config.mediaType)) continue;
        const parsed = JSON.parse(image.blobs.get(config.digest)?.bytes().toString() ?? '');
        const diffIds: string[] = [];
        for (const { digest, mediaType } of layers) {
          const bytes = image.blobs.get(digest)?.bytes() ?? Buffer.alloc(0);
          if (!mediaType.endsWith('gzip')) {
            diffIds.push(digest);
            continue;
          }
          const tar = gunzipSync(bytes);
          expect((await tarNames(tar)).length).toBeGreaterThan(5);
          diffIds.push(`sha256:${createHash('sha256').update(tar).digest('hex')}`);
        }
        expect(parsed.rootfs).toEqual({ type: 'layers', diff_ids: diffIds });
      }
      expect([...used].sort()).toEqual([...image.blobs.keys()].sort());
    },
  );

  it('have the platforms that were asked for, with variants apart', () => {
    const image = makeImage({ platforms: PLATFORMS });
    expect(Object.keys(image.platforms)).toEqual(PLATFORMS);
    const { manifests = [] } = JSON.parse(image.index.bytes.toString()) as Body;
    expect(manifests.map((m) => m.platform)).toEqual([
      { architecture: 'amd64', os: 'linux' },
      { architecture: 'arm64', os: 'linux' },
      { architecture: 'arm', os: 'linux', variant: 'v7' },
    ]);
  });

  it('carry attestations as unknown/unknown beside each platform', () => {
    const image = makeImage({ kinds: ['attested'] });
    const { manifests = [] } = JSON.parse(image.index.bytes.toString()) as Body;
    expect(manifests.map((m) => m.platform?.os)).toEqual(['linux', 'linux', 'unknown', 'unknown']);
    expect(Object.keys(image.platforms)).toEqual(['linux/amd64', 'linux/arm64']);
  });

  it('are the same for one seed and different for another', () => {
    const digests = (seed: number) => makeFleet({ images: 4, seed }).map((image) => image.index.digest);
    expect(digests(7)).toEqual(digests(7));
    expect(new Set([...digests(7), ...digests(8)]).size).toBe(8);
  });

  it('share base layers between images of one base and with no others', () => {
    const [a, b, c] = makeFleet({ images: 3, sharedBases: 2, kinds: ['oci'] });
    const shared = (x: FleetImage | undefined, y: FleetImage | undefined) =>
      [...(x?.blobs.keys() ?? [])].filter((digest) => y?.blobs.has(digest)).length;
    expect(shared(a, c)).toBe(2);
    expect(shared(a, b)).toBe(0);
  });

  it('make a big fleet of 12 images for two platforms and more than 300 MB, pushed without holding it', async () => {
    const images = [...makeBigFleet()];
    expect(images).toHaveLength(12);
    for (const image of images) expect(Object.keys(image.platforms)).toHaveLength(2);
    expect(blobBytes(images)).toBeGreaterThan(300_000_000);
    const memory = process.memoryUsage.rss();
    let made = 0;
    for (const image of images) for (const blob of image.blobs.values()) made += blob.bytes().length;
    expect(made).toBeGreaterThan(300_000_000);
    expect(process.memoryUsage.rss() - memory).toBeLessThan(200_000_000);
  });
});

describe('pushing generated images', () => {
  it('gives every kind to a registry that checks everything, and sends nothing the second time', async () => {
    const registry = await startRegistry({ storage: 'memory' });
    try {
      const images = await pushFleet(registry.host, {
        images: KINDS.length,
        kinds: KINDS,
        platforms: PLATFORMS,
      });
      for (const image of images) {
        const got = await fetch(`${registry.url}/v2/${image.name}/manifests/${image.tag}`);
        expect(got.headers.get('docker-content-digest')).toBe(image.index.digest);
        const again = await pushImage(registry.host, image);
        expect(again).toEqual({ blobsSent: 0, blobsPresent: image.blobs.size, bytesSent: 0 });
      }
      const [first] = images;
      if (first === undefined) throw new Error('no image');
      await pushImage(registry.host, first, { repository: 'other/place', tag: 'v9' });
      expect((await fetch(`${registry.url}/v2/other/place/manifests/v9`)).status).toBe(200);
    } finally {
      await registry.close();
    }
  });

  it('says what a registry answered when it fails', async () => {
    const registry = await startRegistry({ storage: 'memory', auth: { kind: 'basic', users: { a: 'b' } } });
    try {
      const [image] = [...eachImage({ images: 1 })];
      if (image === undefined) throw new Error('no image');
      await expect(pushImage(registry.host, image)).rejects.toThrow(/HTTP 401/);
      const headers = { authorization: `Basic ${Buffer.from('a:b').toString('base64')}` };
      expect((await pushImage(registry.host, image, { headers })).blobsSent).toBe(image.blobs.size);
    } finally {
      await registry.close();
    }
  });
});
