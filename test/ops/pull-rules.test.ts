import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EMPTY_DIGEST, EMPTY_JSON_DIGEST } from '../../src/core/digest.ts';
import { load } from '../../src/ops/load.ts';
import { ls } from '../../src/ops/ls.ts';
import { verify } from '../../src/ops/verify.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import { failureOf, startServer } from '../io/server.ts';
import { blobOf, client, MANIFEST, manifestOf, source } from '../oci/bench.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { makeImage, pushImage } from '../support/fleet.ts';

let site: Site;

beforeEach(async () => {
  site = await makeSite();
});

afterEach(() => site.close());

describe('pulling', () => {
  it('[1.2-tag-and-digest] takes the digest of a reference that has both, and never asks for its tag', async () => {
    const image = makeImage({ seed: 1, kinds: ['oci'] });
    const ref = await site.addImage(image);
    const other = makeImage({ seed: 2, kinds: ['oci'] });
    await pushImage(site.source.host, { ...other, name: image.name, tag: image.tag });
    const before = site.source.requests.length;
    const bundle = await site.bundle('both', `platforms: all\nimages: ["${ref}@${image.index.digest}"]\n`);
    const { artifacts } = await ls(bundle, testContext());
    expect(artifacts.map((a) => [a.name, a.digest])).toEqual([[ref, image.index.digest]]);
    const paths = site.source.requests.slice(before).map((r) => r.path);
    expect(paths).not.toContain(`/v2/${image.name}/manifests/${image.tag}`);
    expect(paths).toContain(`/v2/${image.name}/manifests/${image.index.digest}`);
  });

  it('[1.3-empty] never asks for the empty blob and the empty config, and sends both', async () => {
    const { registry } = client(site.source.host);
    const config = { ...blobOf('{}').descriptor, mediaType: 'application/vnd.oci.empty.v1+json' };
    const layers = [blobOf('').descriptor, blobOf('content').descriptor];
    for (const text of ['{}', '', 'content']) {
      const { descriptor, bytes } = blobOf(text);
      await registry.writeBlob('app', descriptor, source(bytes).open);
    }
    const artifact = { schemaVersion: 2, mediaType: MANIFEST, artifactType: 'application/x', config, layers };
    await registry.putManifest('app', 'v1', manifestOf(artifact));
    const before = site.source.requests.length;
    const bundle = await site.bundle('empty', `images: ["${site.source.host}/app:v1"]\n`);
    const got = site.source.requests
      .slice(before)
      .flatMap((r) => (r.method === 'GET' && r.path.includes('/blobs/') ? [r.path.split('/').at(-1)] : []));
    expect([config.digest, layers[0]?.digest]).toEqual([EMPTY_JSON_DIGEST, EMPTY_DIGEST]);
    expect(got).toEqual([layers[1]?.digest]);
    expect((await verify({ bundle, deep: true }, testContext())).faults).toEqual([]);
    const target = await startRegistry({ storage: 'memory' });
    try {
      const result = await load({ bundle, registries: [placeOf(target)] }, testContext());
      expect(result.failed).toBe(0);
      for (const digest of [EMPTY_JSON_DIGEST, EMPTY_DIGEST]) {
        expect((await fetch(`${target.url}/v2/app/blobs/${digest}`)).status).toBe(200);
      }
    } finally {
      await target.close();
    }
  });

  it('[1.3-data] refuses content that is embedded in a descriptor and has another digest', async () => {
    const layer = { ...blobOf('layer').descriptor, data: Buffer.from('LAYER').toString('base64') };
    const config = blobOf('{}').descriptor;
    const image = manifestOf({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [layer] });
    const server = await startServer((_, response) =>
      response.writeHead(200, { 'content-type': MANIFEST }).end(image.bytes),
    );
    const failure = await failureOf(site.bundle('data', `images: ["${server.host}/app:v1"]\n`));
    expect(failure).toMatchObject({ message: expect.stringContaining('its data is not the content') });
    expect(server.asked.filter((r) => r.url.includes('/blobs/'))).toEqual([]);
  });

  it('[1.3-digest-algorithm, 1.4-4-sha512] names a digest algorithm that is not carried, before anything is fetched', async () => {
    const layer = { mediaType: 'application/x', digest: `sha512:${'ab'.repeat(64)}`, size: 3 };
    const image = manifestOf({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: blobOf('{}').descriptor,
      layers: [layer],
    });
    const server = await startServer((request, response) => {
      if (request.url?.includes('/manifests/') !== true) response.writeHead(404).end();
      else response.writeHead(200, { 'content-type': MANIFEST }).end(image.bytes);
    });
    const failure = await failureOf(site.bundle('sha512', `images: ["${server.host}/app:v1"]\n`));
    expect(failure).toMatchObject({ message: expect.stringContaining('sha512') });
    expect(server.asked.filter((r) => r.url.includes('/blobs/'))).toEqual([]);
  });
});
