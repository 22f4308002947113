import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseMirror } from '../../src/core/mirror.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { failureOf } from '../io/server.ts';
import {
  type Files,
  layoutFiles,
  partsOfFiles,
  savedFiles,
  savedLayout,
  tarOf,
  writeFolder,
} from '../support/archives.ts';
import { makeRuns, makeSite, type Runs, type Site, testContext } from '../support/bundles.ts';
import { type FleetImage, makeImage } from '../support/fleet.ts';

/** Images of a registry that nobody can reach any more, from places that still have them. */
const HOST = '127.0.0.1:1';
const NAME = 'fleet/web';

let site: Site;
let image: FleetImage;
let manifestPath: string;
let runs: Runs;

const full = (i: FleetImage): Record<string, string> => ({
  'io.containerd.image.name': `${HOST}/${i.name}:${i.tag}`,
});
const bare = (i: FleetImage): Record<string, string> => ({ 'org.opencontainers.image.ref.name': i.tag });

async function manifest(
  mirrors: readonly string[],
  options: { readonly host?: string; readonly platforms?: string; readonly ref?: string } = {},
): Promise<void> {
  const { host = HOST, platforms = 'all', ref = `${host}/${NAME}:${image.tag}` } = options;
  manifestPath = await site.put(
    'sealift.yaml',
    `apiVersion: sealift/v1\nname: a\nversion: "1"\nplatforms: ${platforms}\nimages: ["${ref}"]\n` +
      `registries: {"${host}": {mirrors: ${JSON.stringify(mirrors)}}}\n`,
  );
}

async function putTar(name: string, files: Files, pressed = false): Promise<void> {
  const bytes = tarOf(partsOfFiles(files));
  await site.put(name, pressed ? gzipSync(bytes) : bytes);
}

beforeEach(async () => {
  site = await makeSite();
  runs = makeRuns(site);
  image = makeImage({ prefix: 'fleet/' });
});

afterEach(async () => {
  await site.close();
});

describe('an image of a registry out of reach', () => {
  it.each([
    ['an OCI layout in a folder', 'oci:media/layout'],
    ['an OCI layout in a tar', 'oci-archive:media/layout.tar'],
    ['an OCI layout in a tar in gzip', 'oci-archive:media/layout.tar.gz'],
    ['what docker 25 saves, by its OCI layout', 'docker-archive:media/layout.tar'],
  ])('is locked and packed out of %s', async (_, mirror) => {
    const files = layoutFiles([image], full);
    files.set('manifest.json', Buffer.from('[]'));
    await writeFolder(join(site.dir, 'media/layout'), files);
    await putTar('media/layout.tar', files);
    await putTar('media/layout.tar.gz', files, true);
    await manifest([mirror]);
    expect((await runs.lock(manifestPath))?.digest).toBe(image.index.digest);
    const { faults, images } = await verify(
      { bundle: await runs.pack(manifestPath), deep: true },
      testContext(),
    );
    expect([faults, images]).toEqual([[], 1]);
  });

  it.each(['bundle.tar', 'bundle/'])('is locked and packed out of another bundle (%s)', async (form) => {
    await site.addImage(image);
    await manifest([], { host: site.source.host });
    const digest = (await runs.lock(manifestPath))?.digest;
    const other = join(site.dir, 'other', form);
    await site.put('other/keep', '');
    await pack({ manifestPath, out: other }, testContext());
    const asked = site.source.requests.length;
    await manifest([`bundle:other/${form}`], { host: site.source.host });
    expect((await runs.lock(manifestPath))?.digest).toBe(digest);
    const out = await runs.pack(manifestPath);
    expect(site.source.requests.length).toBe(asked);
    expect((await verify({ bundle: out, deep: true }, testContext())).faults).toEqual([]);
  });

  it('is found by its digest in a layout that names no repository, and not by a bare tag', async () => {
    await writeFolder(join(site.dir, 'layout'), layoutFiles([image], bare));
    await manifest(['oci:layout']);
    const failure = await failureOf(runs.lock(manifestPath));
    expect(failure).toMatchObject({ message: expect.stringContaining(`layout: no ${HOST}/${NAME}:`) });
    await manifest(['oci:layout'], { ref: `${HOST}/${NAME}@${image.index.digest}` });
    expect((await runs.lock(manifestPath))?.digest).toBe(image.index.digest);
  });

  it('is not taken from a layout in which two images have its name', async () => {
    const two = makeImage({ prefix: 'fleet/', seed: 2 });
    await writeFolder(
      join(site.dir, 'layout'),
      layoutFiles([image, two], () => full(image)),
    );
    await manifest(['oci:layout']);
    expect(await failureOf(runs.lock(manifestPath))).toMatchObject({
      message: expect.stringContaining('2 images are called'),
    });
  });
});

describe('a wrong archive as a mirror', () => {
  async function locked(): Promise<void> {
    await site.addImage(image);
    await manifest([], { host: site.source.host });
    await runs.lock(manifestPath);
  }

  it('is detected by its bytes, named, and not asked again; the original has the last word', async () => {
    await locked();
    const files = layoutFiles([image], full);
    for (const digest of image.blobs.keys()) {
      const name = `blobs/sha256/${digest.slice(7)}`;
      const bytes = Buffer.from(files.get(name) ?? '');
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
      files.set(name, bytes);
    }
    await putTar('bad.tar', files);
    await manifest(['oci-archive:bad.tar'], { host: site.source.host });
    expect(
      (await verify({ bundle: await runs.pack(manifestPath), deep: true }, testContext())).faults,
    ).toEqual([]);
    const said = runs.notes().filter((n) => n.includes('bad.tar'));
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/^mirror oci-archive:.*bad\.tar: .*expected sha256.*it is not asked again$/);
  });

  it.each<[string, (files: Map<string, Buffer>) => unknown]>([
    ['lacks blobs', (f) => [...f.keys()].filter((n) => n.startsWith('blobs')).map((n) => f.delete(n))],
    [
      'has shorter blobs',
      (f) => [...f.keys()].filter((n) => n.startsWith('blobs')).map((n) => f.set(n, Buffer.from('x'))),
    ],
    ['has no index.json', (f) => f.delete('index.json')],
    ['has an index.json that is not JSON', (f) => f.set('index.json', Buffer.from('no'))],
    [
      'has an index.json that is a manifest',
      (f) => f.set('index.json', Buffer.from('{"layers":[],"config":{}}')),
    ],
  ])('that %s does not hinder the original', async (_, spoil) => {
    await locked();
    const files = layoutFiles([image], full);
    spoil(files);
    await putTar('bad.tar', files);
    await manifest(['oci-archive:absent.tar', 'oci-archive:bad.tar'], { host: site.source.host });
    expect(
      (await verify({ bundle: await runs.pack(manifestPath), deep: true }, testContext())).faults,
    ).toEqual([]);
    expect(runs.notes().some((n) => n.includes('absent.tar') && n.endsWith('it is not asked again'))).toBe(
      true,
    );
    expect(runs.notes().some((n) => n.includes('bad.tar'))).toBe(true);
  });
});

describe('an archive of docker save as a mirror', () => {
  it('of docker 25 gives the manifest that docker made to who asks for its digest', async () => {
    const { files } = savedLayout(image, { name: `${HOST}/${NAME}:${image.tag}`, layers: true });
    await putTar('saved.tar', files);
    const [{ digest }] = JSON.parse(String(files.get('index.json'))).manifests;
    await manifest(['docker-archive:saved.tar'], {
      platforms: '[linux/amd64]',
      ref: `${HOST}/${NAME}@${digest}`,
    });
    expect((await runs.lock(manifestPath))?.digest).toBe(digest);
    const { faults } = await verify({ bundle: await runs.pack(manifestPath), deep: true }, testContext());
    expect(faults).toEqual([]);
  });

  it('gives no image to a lock that does not know it: its manifest is lost', async () => {
    const { files, configDigest } = savedFiles(image, [`${HOST}/${NAME}:${image.tag}`]);
    await putTar('saved.tar', files);
    await manifest(['docker-archive:saved.tar'], { platforms: '[linux/amd64]' });
    const failure = await failureOf(runs.lock(manifestPath));
    expect(failure).toMatchObject({
      message: expect.stringContaining(`config ${configDigest}`),
      hint: expect.stringContaining('oci-archive'),
    });
  });

  it('says what it has instead where the lock knows the image', async () => {
    await site.addImage(image);
    const { host } = site.source;
    await manifest([], { host, platforms: '[linux/amd64]' });
    await runs.lock(manifestPath);
    const tag = `${host}/${NAME}:${image.tag}`;
    const { files, configDigest, diffIds } = savedFiles(image, [tag]);
    await putTar('saved.tar', files);
    await manifest(['docker-archive:saved.tar'], { host, platforms: '[linux/amd64]' });
    await site.source.close();
    const failure = await failureOf(runs.pack(manifestPath));
    expect(failure).toMatchObject({ code: 'NETWORK_FAILED' });
    for (const text of [tag, configDigest, diffIds[0] ?? '', image.index.digest])
      expect((failure as Error).message).toContain(text);
  });

  it('serves the blobs that it has by their locked digests: the config, and layers that crane left compressed', async () => {
    const single = makeImage({ prefix: 'fleet/', kinds: ['docker-single'] });
    image = single;
    await site.addImage(single);
    const { host } = site.source;
    await manifest([], { host });
    await runs.lock(manifestPath);
    const { files } = savedFiles(single, [`${host}/${NAME}:${single.tag}`]);
    const [entry] = JSON.parse(String(files.get('manifest.json')));
    for (const [i, name] of entry.Layers.entries()) {
      const layer = JSON.parse(String(single.index.bytes)).layers[i];
      files.set(name, single.blobs.get(layer.digest)?.bytes() ?? Buffer.alloc(0));
    }
    await putTar('saved.tar', files);
    await manifest(['docker-archive:saved.tar'], { host });
    const before = site.source.requests.length;
    expect(
      (await verify({ bundle: await runs.pack(manifestPath), deep: true }, testContext())).faults,
    ).toEqual([]);
    const asked = site.source.requests.slice(before).map((r) => r.path);
    expect(asked.filter((p) => p.includes('/blobs/'))).toEqual([]);
    expect(asked.filter((p) => p.includes('/manifests/'))).not.toEqual([]);
  });

  it.each<[string, unknown]>([
    ['names files that are not in it', [{ Config: '../../etc/passwd', RepoTags: ['a:1'], Layers: [] }]],
    ['names no files', [{ RepoTags: ['a:1'] }]],
    ['is no list', { Config: 'x' }],
    ['has more layers than its config', 'layers'],
    ['has tags that are nonsense', 'tags'],
  ])('whose manifest.json %s is said to be wrong, and nothing else happens', async (_, json) => {
    const { files } = savedFiles(image, ['../..:\u0000', '', 'UPPER:1', 'a'.repeat(400)]);
    const [entry] = JSON.parse(String(files.get('manifest.json')));
    const bad =
      json === 'tags' ? [entry] : json === 'layers' ? [{ ...entry, Layers: [...entry.Layers, 'x'] }] : json;
    files.set('manifest.json', Buffer.from(JSON.stringify(bad)));
    await putTar('saved.tar', files);
    await manifest(['docker-archive:saved.tar']);
    expect(await failureOf(runs.lock(manifestPath))).toMatchObject({
      message: expect.stringMatching(json === 'tags' ? /saved.tar: no 127/ : /mirrors: .*saved\.tar: /),
    });
  });
});

describe('the words of a mirror', () => {
  it.each([
    ['bundle:a b/c.tar', { kind: 'archive', scheme: 'bundle', path: 'a b/c.tar' }],
    ['oci:/x', { kind: 'archive', scheme: 'oci', path: '/x' }],
    ['http://h:1/p/q', { kind: 'registry', scheme: 'http', host: 'h:1', prefix: 'p/q' }],
    [
      'containerd:///run/c.sock?namespace=k8s.io',
      { kind: 'containerd', socket: '/run/c.sock', namespace: 'k8s.io' },
    ],
    ['containerd:///run/c.sock', undefined],
    ['containerd:///run/c.sock?namespace=', undefined],
    ['containerd:///run/c.sock?namespace=a&x=b', undefined],
    ['containerd:///run/c.sock?namespace=../a', undefined],
    ['containerd://host/run/c.sock?namespace=a', undefined],
    ['oci:', undefined],
    ['ftp://h/x', undefined],
    ['user:pw@h/x', undefined],
  ])('%s', (text, expected) => {
    expect(parseMirror(text)).toEqual(expected);
  });

  it('may hold an absolute path and one beside the manifest, and no control characters', async () => {
    await writeFolder(join(site.dir, 'layout'), layoutFiles([image], full));
    await manifest([`oci:${join(site.dir, 'layout')}`]);
    expect((await runs.lock(manifestPath))?.digest).toBe(image.index.digest);
    expect(await readFile(join(site.dir, 'versions.lock'), 'utf8')).not.toContain(site.dir);
    await manifest(['oci:a\u0007']);
    expect(await failureOf(runs.lock(manifestPath))).toMatchObject({ code: 'MANIFEST_INVALID' });
    await writeFile(manifestPath, '');
  });
});
