import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import {
  type Described,
  OCI_INDEX,
  OCI_MANIFEST,
  pushBlob,
  pushManifest,
  shaOf,
} from '../support/referrers.ts';

/** Everything that an image can be, from one registry to another (registry.md 1.3). */

const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar';
let site: Site;
let target: RunningRegistry;
let at: string;
let config: Described;

beforeEach(async () => {
  site = await makeSite();
  target = await startRegistry({ storage: 'memory' });
  at = `${site.source.url}/v2/odd/image`;
  const platform = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers' } });
  config = { ...(await pushBlob(at, platform)), mediaType: CONFIG };
});

afterEach(async () => {
  await target.close();
  await site.close();
});

async function layer(text: string, mediaType = LAYER): Promise<Described> {
  return { ...(await pushBlob(at, text)), mediaType };
}

/** Locks, packs, verifies and loads `odd/image:1` and compares its bytes on both sides. */
async function travels(manifest = ''): Promise<void> {
  const ref = `${site.source.host}/odd/image:1`;
  const bundle = await site.bundle('odd', `${manifest}images: ["${ref}"]\n`);
  const lockPath = join(site.dir, 'odd', 'versions.lock');
  expect((await verify({ bundle, lockPath }, testContext())).faults).toEqual([]);
  expect((await load({ bundle, registries: [placeOf(target)] }, testContext())).failed).toBe(0);
  const get = async (url: string): Promise<string> => (await fetch(`${url}/v2/odd/image/manifests/1`)).text();
  expect(await get(target.url)).toBe(await get(site.source.url));
}

describe('an image travels unchanged', () => {
  it.each([
    ['with 120 layers', Array.from({ length: 120 }, (_, i) => [`layer ${i}`, LAYER])],
    ['with zstd layers, which nobody unpacks', [['not really zstd', `${LAYER}+zstd`]]],
  ])('%s', async (_, texts) => {
    const layers = await Promise.all(texts.map(([text = '', type]) => layer(text, type)));
    await pushManifest(at, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }, { tag: '1' });
    await travels();
  });

  it('as an artifact with subject, artifactType and the empty config', async () => {
    const about = await pushManifest(at, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] });
    const empty = { ...(await pushBlob(at, '{}')), mediaType: 'application/vnd.oci.empty.v1+json' };
    const body = { schemaVersion: 2, mediaType: OCI_MANIFEST, artifactType: 'application/x', config: empty };
    await pushManifest(at, { ...body, layers: [await layer('data')], subject: about }, { tag: '1' });
    await travels();
  });

  it('as the withdrawn artifact manifest', async () => {
    const mediaType = 'application/vnd.oci.artifact.manifest.v1+json';
    const body = { mediaType, artifactType: 'application/x', blobs: [await layer('blob')] };
    await pushManifest(at, body, { tag: '1', mediaType });
    await travels();
  });

  it('[1.3-data] with embedded data, which is not fetched', async () => {
    const text = 'embedded layer';
    const data = Buffer.from(text).toString('base64');
    const layers = [{ ...(await layer(text)), data }];
    await pushManifest(at, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }, { tag: '1' });
    await travels();
    const asked = site.source.requests.filter((r) => r.method === 'GET' && r.path.endsWith(shaOf(text)));
    expect(asked).toEqual([]);
  });
});

describe('a foreign layer', () => {
  const mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
  const text = 'a layer of a publisher who wants it fetched elsewhere';

  async function pushForeign(urls = [`${site.source.url}/files/foreign`]): Promise<void> {
    site.source.addFile('foreign', text);
    const foreign = { mediaType, digest: shaOf(text), size: text.length, urls };
    const layers = [foreign, await layer('own')];
    await pushManifest(at, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }, { tag: '1' });
  }

  async function manifest(lines: string): Promise<string> {
    const head = 'apiVersion: sealift/v1\nname: f\nversion: "1"\n';
    return site.put('f/sealift.yaml', `${head}${lines}`);
  }

  it('[1.3-foreign-first] is left out and named with size and address, when locked and when packed', async () => {
    await pushForeign();
    await travels();
    const manifestPath = await manifest(`images: ["${site.source.host}/odd/image:1"]\n`);
    const { warnings } = await lock({ manifestPath }, testContext());
    expect(warnings.map((w) => w.code)).toEqual(['IMAGE_FOREIGN_LAYERS']);
    expect(warnings[0]?.message).toContain(
      `${shaOf(text)} (${text.length} bytes, ${site.source.url}/files/foreign)`,
    );
    const context = testContext();
    await pack({ manifestPath, out: join(site.dir, 'f', 'out.tar') }, context);
    const told = context.events.flatMap((e) => (e.type === 'warning' ? [e.fault.code] : []));
    expect(told).toEqual(['IMAGE_FOREIGN_LAYERS']);
    expect(site.source.requests.filter((r) => r.path === '/files/foreign')).toEqual([]);
  });

  it('[1.3-foreign-first] is fetched with --foreign-layers from a host that the manifest names, after the registry, and carried', async () => {
    await pushForeign();
    const named = `registries: {"${site.source.host}": {plainHttp: true}}\n`;
    const manifestPath = await manifest(`${named}images: ["${site.source.host}/odd/image:1"]\n`);
    const { lock: made } = await lock({ manifestPath, foreignLayers: true }, testContext());
    expect(made.images.at(0)?.foreignLayers).toBe(true);
    const bundle = join(site.dir, 'f', 'out.tar');
    await pack({ manifestPath, out: bundle }, testContext());
    const places = site.source.requests.map((r) => r.path);
    const asked = places.indexOf(`/v2/odd/image/blobs/${shaOf(text)}`);
    expect(asked).toBeGreaterThan(-1);
    expect(places.indexOf('/files/foreign')).toBeGreaterThan(asked);
    await load({ bundle, registries: [placeOf(target)] }, testContext());
    expect((await fetch(`${target.url}/v2/odd/image/blobs/${shaOf(text)}`)).status).toBe(200);
  });

  it('[1.3-foreign-addresses] is never fetched from a private address that nobody named', async () => {
    await pushForeign();
    const ref = `${site.source.host}/odd/image:1`;
    const manifestPath = await manifest(`images: [{ref: "${ref}", foreignLayers: true}]\n`);
    await lock({ manifestPath }, testContext());
    const packed = pack({ manifestPath, out: join(site.dir, 'f', 'out.tar') }, testContext());
    await expect(packed).rejects.toMatchObject({ message: expect.stringContaining('private address') });
  });

  it.each([
    ['ftp://files.example/x', 'only http and https'],
    ['file:///etc/passwd', 'only http and https'],
    ['/etc/passwd', 'only http and https'],
    ['http://localhost/x', 'private address'],
    ['http://[::1]/x', 'private address'],
    ['http://169.254.169.254/latest/meta-data', 'private address'],
    ['http://0x7f.1/x', 'private address'],
  ])('[1.3-foreign-addresses] is never fetched from %s', async (address, said) => {
    await pushForeign([address]);
    const ref = `${site.source.host}/odd/image:1`;
    const manifestPath = await manifest(`images: [{ref: "${ref}", foreignLayers: true}]\n`);
    const made = (async () => {
      await lock({ manifestPath }, testContext());
      await pack({ manifestPath, out: join(site.dir, 'f', 'out.tar') }, testContext());
    })();
    await expect(made).rejects.toMatchObject({ message: expect.stringContaining(said) });
  });
});

describe('what is no image', () => {
  it.each([
    [
      'Docker schema 1',
      { schemaVersion: 1 },
      'application/vnd.docker.distribution.manifest.v1+json',
      'schema 1',
    ],
    [
      'a body of two kinds',
      { schemaVersion: 2, manifests: [], layers: [] },
      OCI_INDEX,
      'both an index and a manifest',
    ],
  ])('is refused by name: %s', async (_, body, type, said) => {
    const odd = await startRegistry({
      storage: 'memory',
      intercept: (request, response) => {
        if (request.url !== '/v2/odd/image/manifests/1') return false;
        response.writeHead(200, { 'content-type': type }).end(JSON.stringify(body));
        return true;
      },
    });
    try {
      const head = 'apiVersion: sealift/v1\nname: o\nversion: "1"\n';
      const manifestPath = await site.put('o/sealift.yaml', `${head}images: ["${odd.host}/odd/image:1"]\n`);
      const refused = lock({ manifestPath }, testContext());
      await expect(refused).rejects.toMatchObject({ message: expect.stringContaining(said) });
    } finally {
      await odd.close();
    }
  });
});
