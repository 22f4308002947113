import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openBundle } from '../../src/bundle/reader.ts';
import { lsOutcome } from '../../src/cli/commands/ls.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { Graph } from '../../src/oci/graph.ts';
import { load } from '../../src/ops/load.ts';
import { checkLockFile, type LockOptions, lock } from '../../src/ops/lock.ts';
import { ls } from '../../src/ops/ls.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { failureOf, gather } from '../io/server.ts';
import { partsOfFiles, type SavedImage, savedFiles, savedLayout, tarOf } from '../support/archives.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { type FleetImage, makeImage } from '../support/fleet.ts';

/** Images of a registry that nobody can reach, of which only what `docker save` wrote is left. */
const HOST = '127.0.0.1:1';

let site: Site;
let image: FleetImage;
let saved: SavedImage;
let ref: string;
let manifestPath: string;
let temp: string;
const tempBefore = process.env.TMPDIR;

async function manifest(host = HOST): Promise<void> {
  ref = `${host}/${image.name}:${image.tag}`;
  manifestPath = await site.put(
    'sealift.yaml',
    `apiVersion: sealift/v1\nname: a\nversion: "1"\nplatforms: [linux/amd64]\ninclude: []\nimages: ["${ref}"]\n` +
      `registries: {"${host}": {mirrors: ["docker-archive:saved.tar"]}}\n`,
  );
}

async function save(spoil: (files: Map<string, Buffer>) => void = () => {}): Promise<void> {
  saved = savedFiles(image, [ref]);
  spoil(saved.files);
  await site.put('saved.tar', tarOf(partsOfFiles(saved.files)));
}

async function lockNow(more: Partial<LockOptions> = {}) {
  const { lock: locked } = await lock({ manifestPath, recompress: true, ...more }, testContext());
  return locked.images.at(0);
}

async function packNow(dir = site.dir): Promise<string> {
  const out = join(dir, 'out.tar');
  await pack({ manifestPath: join(dir, 'sealift.yaml'), out }, testContext());
  return out;
}

beforeEach(async () => {
  site = await makeSite();
  image = makeImage({ prefix: 'fleet/', kinds: ['oci'] });
  temp = await mkdtemp(join(tmpdir(), 'sealift-temp-'));
  process.env.TMPDIR = temp;
  await manifest();
  await save();
});

afterEach(async () => {
  if (tempBefore === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = tempBefore;
  await rm(temp, { recursive: true });
  await site.close();
});

describe('lock --recompress', () => {
  it('locks what docker saved under a new digest and says why; pack makes the same bytes, on another machine too', async () => {
    const entry = await lockNow();
    expect(entry?.digest).not.toBe(image.index.digest);
    expect(entry?.recompressed).toBe(
      'docker save keeps neither the manifest nor compressed layers; gzip by fflate 0.8.3, level 6',
    );
    expect(await readFile(join(site.dir, 'versions.lock'), 'utf8')).toContain('recompressed: "docker save');
    const out = await packNow();
    expect((await verify({ bundle: out, deep: true }, testContext())).faults).toEqual([]);
    const { recompressed = '' } = entry ?? {};
    const listed = await ls(out, testContext());
    expect(listed.artifacts).toMatchObject([{ recompressed, replacedBy: null }]);
    expect(lsOutcome(listed, out).summary).toContain(`${ref} was made anew: ${recompressed}`);
    const loaded = await load({ bundle: out, registries: [placeOf(site.source)] }, testContext());
    expect(loaded.targets[0]?.entries).toMatchObject([{ recompressed, state: 'written' }]);
    expect(await readdir(temp)).toEqual([]);
    const other = await makeSite();
    try {
      for (const name of ['sealift.yaml', 'versions.lock', 'saved.tar']) {
        await copyFile(join(site.dir, name), join(other.dir, name));
      }
      expect((await readFile(await packNow(other.dir))).equals(await readFile(out))).toBe(true);
    } finally {
      await other.close();
    }
    expect((await checkLockFile({ manifestPath, online: true }, testContext())).faults).toEqual([]);
  });

  it.each([true, false])(
    'takes what docker 25 saves out of its own store as older archives, with the same result (layers in its manifest: %s)',
    async (layers) => {
      const old = await lockNow();
      await rm(join(site.dir, 'versions.lock'));
      await site.put('saved.tar', tarOf(partsOfFiles(savedLayout(image, { name: ref, layers }).files)));
      expect(await failureOf(lockNow({ recompress: false }))).toMatchObject({
        hint: expect.stringContaining('sealift lock --recompress'),
      });
      expect(await lockNow()).toEqual(old);
      expect((await verify({ bundle: await packNow(), deep: true }, testContext())).faults).toEqual([]);
    },
  );

  it('carries the config as it was, and layers that unpack to what it names', async () => {
    const entry = await lockNow();
    const { signal } = testContext();
    const graphs: Graph[] = [];
    const tell = (artifact: { readonly graph: Graph }): unknown => graphs.push(artifact.graph);
    const bundle = await openBundle(await packNow(), { signal, tell });
    try {
      const [graph] = graphs;
      expect(graph?.root.digest).toBe(entry?.digest);
      const nodes = [...(graph?.nodes.values() ?? [])];
      const blobs = nodes.filter((n) => n.kind === 'blob').map((n) => n.descriptor);
      const layers = blobs.filter((d) => d.mediaType === 'application/vnd.oci.image.layer.v1.tar+gzip');
      const plain: string[] = [];
      for (const layer of layers)
        plain.push(digestOf(gunzipSync(await gather(bundle.open(layer, { signal })))));
      expect(plain.toSorted()).toEqual(saved.diffIds.toSorted());
      expect(nodes.map((n) => n.descriptor.digest)).toContain(saved.configDigest);
    } finally {
      await bundle.close();
    }
  });

  it('is needed, and named, where an image is to be taken so; once locked it stays', async () => {
    expect(await failureOf(lockNow({ recompress: false }))).toMatchObject({
      hint: expect.stringContaining('sealift lock --recompress'),
    });
    const first = await lockNow();
    expect(await lockNow({ recompress: false, updateAll: true })).toEqual(first);
  });

  it('does not move the pin of an image that the lock knows, and pack then takes only the locked bytes', async () => {
    await site.addImage(image);
    await manifest(site.source.host);
    await rm(join(site.dir, 'saved.tar'));
    const known = await lockNow({ recompress: false });
    await save();
    expect(await lockNow()).toEqual(known);
    await site.source.close();
    const failure = await failureOf(packNow());
    for (const text of [saved.configDigest, saved.diffIds[0] ?? '', known?.digest ?? '']) {
      expect(String(failure)).toContain(text);
    }
  });

  it('is not fooled by another image under the same name at the time of pack', async () => {
    const entry = await lockNow();
    const other = makeImage({ prefix: 'fleet/', kinds: ['oci'], seed: 9 });
    const files = savedFiles(other, [ref]).files;
    await site.put('saved.tar', tarOf(partsOfFiles(files)));
    const failure = await failureOf(packNow());
    expect(String(failure)).toContain(`no ${HOST}/${image.name}@${entry?.digest}; it has ${ref}`);
  });

  it('takes no layer that is not what the config says', async () => {
    await save((files) => {
      for (const [name, bytes] of files) {
        if (name.endsWith('layer.tar')) bytes.writeUInt8(bytes.readUInt8(20) ^ 1, 20);
      }
    });
    expect(String(await failureOf(lockNow()))).toMatch(
      /saved\.tar: sha256:\w+: expected sha256:\w+, found sha256:/,
    );
    expect(await readdir(temp)).toEqual([]);
    await writeFile(manifestPath, '');
  });
});
