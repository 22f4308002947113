import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hexOf } from '../../src/core/digest.ts';
import { MEDIA } from '../../src/core/media.ts';
import { digestOf } from '../../src/io/verify.ts';
import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { ls } from '../../src/ops/ls.ts';
import { verify } from '../../src/ops/verify.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { failureOf } from '../io/server.ts';
import {
  type Files,
  layoutFiles,
  type Naming,
  partsOfFiles,
  savedFiles,
  savedLayout,
  tarOf,
  writeFolder,
} from '../support/archives.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { type FleetImage, makeFleet } from '../support/fleet.ts';

/** What other tools made, loaded, listed and verified. */
let site: Site;
let target: RunningRegistry;
let images: FleetImage[];
let context: ReturnType<typeof testContext>;

const named: Naming = (i) => ({ 'org.opencontainers.image.ref.name': `registry.example/${i.name}:${i.tag}` });
const nameless: Naming = () => ({});

function loadInto(path: string, more: Partial<LoadOptions> = {}): Promise<LoadResult> {
  context = testContext();
  return load({ bundle: join(site.dir, path), registries: [placeOf(target)], ...more }, context);
}

async function digestThere(name: string, tag: string): Promise<string | null> {
  const answer = await fetch(`${target.url}/v2/${name}/manifests/${tag}`, { headers: { accept: '*/*' } });
  return answer.ok ? answer.headers.get('docker-content-digest') : null;
}

async function nothingThere(): Promise<boolean> {
  const answer = await fetch(`${target.url}/v2/_catalog`);
  const catalog = (answer.ok ? await answer.json() : {}) as { repositories?: unknown[] };
  return (catalog.repositories ?? []).length === 0 && !target.requests.some((r) => r.method === 'PUT');
}

function warnings(): string[] {
  return context.events.flatMap((e) => (e.type === 'warning' ? [e.fault.message] : []));
}

async function putTar(name: string, files: Files, pressed = false): Promise<void> {
  const bytes = tarOf(partsOfFiles(files));
  await site.put(name, pressed ? gzipSync(bytes) : bytes);
}

/** The same files with one blob changed. */
function spoiled(
  files: Map<string, Buffer>,
  digest: string,
  change: (bytes: Buffer) => Buffer,
): Map<string, Buffer> {
  const name = `blobs/sha256/${digest.slice(7)}`;
  return files.set(name, change(Buffer.from(files.get(name) ?? '')));
}

function layerOf(image: FleetImage): string {
  const layer = [...image.blobs].find(([, b]) => b.mediaType.includes('tar'));
  return layer?.[0] ?? '';
}

beforeEach(async () => {
  site = await makeSite();
  target = await startRegistry({ storage: 'memory' });
  images = makeFleet({ images: 2 });
});

afterEach(async () => {
  await target.close();
  await site.close();
});

describe('an OCI layout of another tool', () => {
  it.each(['layout', 'layout.tar', 'layout.tar.gz'])(
    '(%s) is listed, verified and loaded with its own digests',
    async (path) => {
      const files = layoutFiles(images, named);
      await writeFolder(join(site.dir, 'layout'), files);
      await putTar('layout.tar', files);
      await putTar('layout.tar.gz', files, true);
      const listed = await ls(join(site.dir, path), testContext());
      expect(listed).toMatchObject({ format: 'oci-layout', lock: null, version: null });
      expect(listed.artifacts.map((a) => [a.name, a.digest, a.sparse])).toEqual(
        images.map((i) => [`registry.example/${i.name}:${i.tag}`, i.index.digest, false]),
      );
      expect(listed.artifacts[0]?.platforms).toEqual(['linux/amd64', 'linux/arm64']);
      const checked = await verify({ bundle: join(site.dir, path) }, testContext());
      expect(checked).toMatchObject({ faults: [], images: 2, chain: 'digests', lock: null });
      const result = await loadInto(path, { verify: true });
      expect(result).toMatchObject({ failed: 0, bundle: { format: 'oci-layout', lock: null } });
      for (const i of images) expect(await digestThere(i.name, i.tag)).toBe(i.index.digest);
      expect(warnings()).toEqual([expect.stringContaining('no lock says what it must hold')]);
      const again = await loadInto(path);
      expect(again.targets[0]?.tally).toMatchObject({ blobsWritten: 0, manifestsWritten: 0 });
    },
  );

  it('of one image without a name needs one, as `crane pull --format=oci` leaves it', async () => {
    const [image] = images.slice(0, 1);
    if (image === undefined) throw new Error('no image');
    await writeFolder(join(site.dir, 'one'), layoutFiles([image], nameless));
    expect(await failureOf(loadInto('one'))).toMatchObject({
      code: 'USAGE',
      hint: expect.stringContaining('--name'),
    });
    expect((await ls(join(site.dir, 'one'), testContext())).artifacts[0]?.name).toBe(
      `(no name) ${image.index.digest}`,
    );
    await loadInto('one', { name: 'registry.example/mine/app:1' });
    expect(await digestThere('mine/app', '1')).toBe(image.index.digest);
    await writeFolder(join(site.dir, 'two'), layoutFiles(images, nameless));
    expect(await failureOf(loadInto('two', { name: 'a:1' }))).toMatchObject({ code: 'USAGE' });
    expect(await failureOf(loadInto('one', { name: 'NO:1' }))).toMatchObject({ code: 'USAGE' });
  });

  it('with only some platforms is loaded with those that it has', async () => {
    const [image] = makeFleet({ images: 1 });
    const files = layoutFiles(image === undefined ? [] : [image], named);
    files.delete(`blobs/sha256/${image?.platforms['linux/arm64']?.slice(7)}`);
    await writeFolder(join(site.dir, 'sparse'), files);
    const [listed] = (await ls(join(site.dir, 'sparse'), testContext())).artifacts;
    expect(listed).toMatchObject({ sparse: true, platforms: ['linux/amd64'] });
    expect((await loadInto('sparse')).failed).toBe(0);
    expect(await digestThere(image?.name ?? '', image?.platforms['linux/amd64'] ?? '')).not.toBeNull();
  });

  it('has each index read once, however often others name it', async () => {
    const files = new Map<string, Buffer>([['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')]]);
    const put = (content: object): { digest: string; size: number } => {
      const bytes = Buffer.from(JSON.stringify(content));
      files.set(`blobs/sha256/${hexOf(digestOf(bytes))}`, bytes);
      return { digest: digestOf(bytes), size: bytes.length };
    };
    const config = { mediaType: MEDIA.ociConfig, ...put({ os: 'linux', architecture: 'amd64' }) };
    const manifest = { schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers: [] };
    let top: object = { mediaType: MEDIA.ociManifest, ...put(manifest) };
    for (let depth = 0; depth < 4; depth += 1) {
      const manifests = Array.from({ length: 100 }, () => top);
      top = { mediaType: MEDIA.ociIndex, ...put({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests }) };
    }
    const annotations = { 'org.opencontainers.image.ref.name': 'registry.example/a:1' };
    const index = { schemaVersion: 2, manifests: [{ ...top, annotations }] };
    files.set('index.json', Buffer.from(JSON.stringify(index)));
    await putTar('often.tar', files);
    expect(await ls(join(site.dir, 'often.tar'), testContext())).toMatchObject({ blobs: 6 });
  });

  it('goes to no tree of charts and has no lock to compare', async () => {
    await writeFolder(join(site.dir, 'layout'), layoutFiles(images, named));
    expect(await failureOf(loadInto('layout', { chartTrees: [site.dir] }))).toMatchObject({ code: 'USAGE' });
    const options = { bundle: join(site.dir, 'layout'), lockPath: join(site.dir, 'x') };
    expect(await failureOf(verify(options, testContext()))).toMatchObject({ code: 'USAGE' });
  });
});

describe('a damaged archive of another tool', () => {
  it.each<[string, (files: Map<string, Buffer>, image: FleetImage) => unknown]>([
    ['lacks a layer', (f, i) => f.delete(`blobs/sha256/${layerOf(i).slice(7)}`)],
    [
      'lacks the manifest that its index.json names',
      (f, i) => f.delete(`blobs/sha256/${i.index.digest.slice(7)}`),
    ],
    ['has a layer of another length', (f, i) => spoiled(f, layerOf(i), (b) => b.subarray(1))],
    [
      'has other bytes in a manifest',
      (f, i) => spoiled(f, i.index.digest, (b) => Buffer.from(b.toString().replace('amd64', 'amd65'))),
    ],
    [
      'has an index.json with an absurd size',
      (f) =>
        f.set('index.json', Buffer.from(String(f.get('index.json')).replace(/"size":\d+/, '"size":1e15'))),
    ],
    [
      'has two images of one name',
      (f) =>
        f.set(
          'index.json',
          Buffer.from(String(f.get('index.json')).replace(/fleet\/\w+:\d[\w.]*/g, 'fleet/same:1')),
        ),
    ],
  ])('that %s writes nothing', async (_, spoil) => {
    const files = layoutFiles(images, named);
    const [first] = images;
    if (first !== undefined) spoil(files, first);
    await putTar('bad.tar', files);
    const failure = await failureOf(loadInto('bad.tar'));
    expect(failure).toMatchObject({ code: expect.stringMatching(/^(BUNDLE|CONTENT|OCI|TARGET_NAME)_/) });
    expect(await nothingThere()).toBe(true);
  });

  it('with a flipped byte in a layer is found by verify, and shows nothing on the target', async () => {
    const [image] = images;
    const files = spoiled(layoutFiles(images, named), layerOf(image as FleetImage), (b) => {
      b[b.length - 1] = (b.at(-1) ?? 0) ^ 1;
      return b;
    });
    await putTar('bad.tar', files);
    const { faults } = await verify({ bundle: join(site.dir, 'bad.tar') }, testContext());
    expect(faults.map((f) => f.code)).toEqual(['BUNDLE_CHECKSUM_MISMATCH']);
    expect(await failureOf(loadInto('bad.tar'))).toMatchObject({ code: 'BUNDLE_CHECKSUM_MISMATCH' });
    for (const i of images) expect(await digestThere(i.name, i.tag)).toBeNull();
  });

  it('is not what a bundle becomes that lost some of its documents', async () => {
    const ref = await site.addImage(images[0] as FleetImage);
    await site.bundle('own', `images: ["${ref}"]\n`);
    const { openArchive } = await import('../../src/io/archive.ts');
    const { collect } = await import('../../src/io/verify.ts');
    const archive = await openArchive(join(site.dir, 'own/bundle.tar'), testContext());
    const parts: { name: string; body: Buffer }[] = [];
    const listed = await ls(join(site.dir, 'own/bundle.tar'), testContext());
    expect(listed.format).toBe('bundle');
    for (const name of ['oci-layout', 'index.json', 'SHA256SUMS']) {
      parts.push({ name, body: await collect(archive.read(name), { limit: 1e6, what: name }) });
    }
    await archive.close();
    await site.put('torn.tar', tarOf(parts));
    expect(await failureOf(loadInto('torn.tar'))).toMatchObject({
      code: expect.stringMatching(/^BUNDLE_/),
    });
  });
});

describe('an archive of docker save', () => {
  it('is loaded with a manifest made for it, and says that digests change', async () => {
    const [image] = images;
    const { files, configDigest, diffIds } = savedFiles(image as FleetImage, [
      'mine/app:1',
      'mine/app:latest',
    ]);
    await putTar('saved.tar.gz', files, true);
    const result = await loadInto('saved.tar.gz');
    expect(result).toMatchObject({ failed: 0, bundle: { format: 'docker-archive' } });
    expect(warnings().join('\n')).toContain('docker save keeps no manifests');
    const answer = await fetch(`${target.url}/v2/mine/app/manifests/1`, { headers: { accept: '*/*' } });
    const manifest = (await answer.json()) as Record<'config', { digest: string }> & {
      layers: { digest: string }[];
    };
    expect(manifest.config.digest).toBe(configDigest);
    expect(manifest.layers.map((l) => l.digest)).toEqual(diffIds);
    expect(await digestThere('mine/app', 'latest')).toBe(result.targets[0]?.entries[0]?.digest);
    expect((await verify({ bundle: join(site.dir, 'saved.tar.gz') }, testContext())).faults).toEqual([]);
  });

  it.each([true, false])(
    'of docker 25 and its own store is loaded whole and says the same (layers in its manifest: %s)',
    async (layers) => {
      const name = 'registry.example/mine/app:1';
      const { files, configDigest, diffIds } = savedLayout(images[0] as FleetImage, { name, layers });
      await putTar('saved.tar', files);
      const result = await loadInto('saved.tar');
      expect(result).toMatchObject({ failed: 0, bundle: { format: 'docker-archive' } });
      expect(warnings().join('\n')).toContain('docker save keeps no manifests');
      const answer = await fetch(`${target.url}/v2/mine/app/manifests/1`, { headers: { accept: '*/*' } });
      expect(await answer.json()).toMatchObject({
        config: { digest: configDigest },
        layers: diffIds.map((digest) => ({ digest })),
      });
    },
  );

  it('gives the same digests every time', async () => {
    const { files } = savedFiles(images[0] as FleetImage, ['a:1']);
    await putTar('one.tar', files);
    await writeFolder(join(site.dir, 'two'), files);
    const [a, b] = [
      await ls(join(site.dir, 'one.tar'), testContext()),
      await ls(join(site.dir, 'two'), testContext()),
    ];
    expect(a.artifacts).toEqual(b.artifacts);
  });

  it('with a layer that is not what its config says is found', async () => {
    const { files } = savedFiles(images[0] as FleetImage, ['a:1']);
    const [layer = ''] = [...files.keys()].filter((n) => n.endsWith('layer.tar'));
    files.set(layer, Buffer.alloc(files.get(layer)?.length ?? 0, 1));
    await putTar('bad.tar', files);
    const { faults } = await verify({ bundle: join(site.dir, 'bad.tar') }, testContext());
    expect(faults.map((f) => f.code)).toEqual(['BUNDLE_CHECKSUM_MISMATCH']);
    expect(await failureOf(loadInto('bad.tar'))).toMatchObject({ code: 'BUNDLE_CHECKSUM_MISMATCH' });
    expect(await digestThere('library/a', '1')).toBeNull();
  });

  it.each([[['../..:1', '', 'UPPER:1']], [null]])('with the tags %j has no name', async (tags) => {
    const { files } = savedFiles(images[0] as FleetImage, tags);
    await putTar('odd.tar', files);
    expect(await failureOf(loadInto('odd.tar'))).toMatchObject({ code: 'USAGE' });
    expect(await nothingThere()).toBe(true);
  });
});

describe('a folder of archives, as kubespray-offline leaves it', () => {
  it('is loaded as a whole, each archive an image', async () => {
    for (const [i, image] of images.entries()) {
      await putTar(
        `images/${i}.tar.gz`,
        savedFiles(image, [`registry.example/${image.name}:${image.tag}`]).files,
        true,
      );
    }
    await putTar('images/layout.tar', layoutFiles(makeFleet({ images: 1, prefix: 'more/', seed: 9 }), named));
    await site.put('images/images.list', 'not an archive');
    const result = await loadInto('images');
    expect(result.failed).toBe(0);
    expect(result.targets[0]?.entries.map((e) => e.state)).toEqual(['written', 'written', 'written']);
    for (const i of images) expect(await digestThere(i.name, i.tag)).not.toBeNull();
  });

  it('with a bad archive names it and writes nothing', async () => {
    await putTar('images/a.tar.gz', savedFiles(images[0] as FleetImage, ['a:1']).files, true);
    await site.put('images/b.tar.gz', 'no gzip');
    expect(await failureOf(loadInto('images'))).toMatchObject({
      code: 'ARCHIVE_INVALID',
      message: expect.stringContaining('b.tar.gz'),
    });
    expect(await nothingThere()).toBe(true);
  });
});
