/** A stream has the bytes of the file for every kind of content. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterAll, expect, it } from 'vitest';
import { pack } from '../../src/ops/pack.ts';
import { makeSite, testContext } from '../support/bundles.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { makeImage } from '../support/fleet.ts';
import { attach, pushBlob, pushManifest, signByTag } from '../support/referrers.ts';

const site = await makeSite();
afterAll(() => site.close());

/** Larger than what is fetched ahead, and than what is kept of archives. */
const LARGE = 9_000_000;
const noise = (name: string): string =>
  createHash('shake256', { outputLength: LARGE }).update(name).digest().toString('latin1');

it('writes images, what is about them, charts of each source and files as a file has them', async () => {
  const image = makeImage({ layerSizes: [LARGE, 500] });
  const ref = await site.addImage(image);
  const at = `${site.source.url}/v2/${image.name}`;
  await signByTag(at, image.index.digest);
  await attach(at, { ...image.index, size: image.index.bytes.length });
  await site.addChart('web', '1.0.0', demoFiles('web', '1.0.0'));
  await site.addChart('fat', '1.0.0', { ...demoFiles('fat', '1.0.0'), 'files/a': noise('fat') });
  for (const [path, text] of Object.entries(demoFiles('own', '1.0.0'))) {
    await site.put(`all/own/${path}`, text);
  }
  const charts = `${site.source.url}/v2/charts/pub`;
  const mediaType = 'application/vnd.cncf.helm.config.v1+json';
  const config = { ...(await pushBlob(charts, '{"name":"pub","version":"1.0.0"}')), mediaType };
  const archive = await chartArchive(demoFiles('pub', '1.0.0'), 'pub');
  const layer = {
    ...(await pushBlob(charts, archive)),
    mediaType: 'application/vnd.cncf.helm.chart.content.v1.tar+gzip',
  };
  await pushManifest(charts, { schemaVersion: 2, config, layers: [layer] }, { tag: '1.0.0' });
  site.source.addFile('tool', noise('tool'));
  await site.put('all/notes.txt', 'read me');
  const bundle = await site.bundle(
    'all',
    [
      'platforms: all',
      `images: ["${ref}"]`,
      'charts:',
      `  - {name: web, version: 1.0.0, repo: "${site.source.url}/charts"}`,
      `  - {name: fat, version: 1.0.0, repo: "${site.source.url}/charts"}`,
      `  - {name: pub, version: 1.0.0, oci: "oci://${site.source.host}/charts/pub"}`,
      '  - {path: own}',
      'files:',
      `  - {url: "${site.source.url}/files/tool", name: bin/tool}`,
      '  - {path: notes.txt, name: notes.txt}',
      '',
    ].join('\n'),
  );
  const chunks: Buffer[] = [];
  const output = new Writable({
    write: (chunk: Buffer, _, done) => {
      chunks.push(Buffer.from(chunk));
      done();
    },
  });
  const manifestPath = join(site.dir, 'all/sealift.yaml');
  const result = await pack({ manifestPath, out: '-', output }, testContext());
  expect(result.artifacts).toEqual({ images: 1, charts: 4, files: 2, packages: 0 });
  const text = await readFile(join(site.dir, 'all/versions.lock'), 'utf8');
  for (const kind of ['type: "http"', 'type: "oci"', 'type: "path"', 'referrers:'])
    expect(text).toContain(kind);
  expect(Buffer.concat(chunks).equals(await readFile(bundle))).toBe(true);
});
