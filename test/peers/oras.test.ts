import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import { type LoadResult, load } from '../../src/ops/load.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { type FleetImage, makeImage } from '../support/fleet.ts';
import { peer, type Registry, run, startRegistry } from '../support/peers.ts';

/** The ORAS library (scripts/oras) fetches what Sealift loaded into docker-registry, and Sealift carries what it pushed. */

const TOOL = Buffer.from('#!/bin/sh\necho tool\n');
const POLICY = Buffer.from('{"policy":"strict"}\n');
/** More than what the library keeps in memory. */
const MODEL = Buffer.alloc(6_000_000, 'weights ');

let site: Site;
let pushed: Registry;
let target: Registry;
let image: FleetImage;
let artifact: string;
let loaded: LoadResult;

async function oras(...args: string[]): Promise<string> {
  return (await run(peer('oras'), args)).stdout.trim();
}

/** What one item of the bundle is called on the target. */
function nameOf(kind: string, name: string): string {
  const entry = loaded.targets[0]?.entries.find((e) => e.kind === kind && e.name.includes(name));
  return `${target.url}/${entry?.as.replace(/^[^/]*\//, '')}`;
}

beforeAll(async () => {
  site = await makeSite();
  [pushed, target] = await Promise.all([startRegistry(), startRegistry()]);
  image = makeImage({ platforms: ['linux/amd64', 'linux/arm64'], kinds: ['oci'], seed: 31 });
  const ref = await site.addImage(image);
  await site.addChart('demo', '1.2.3', demoFiles());
  site.source.addFile('tool', TOOL);
  const folder = join(site.dir, 'push');
  await mkdir(folder);
  await writeFile(join(folder, 'policy.json'), POLICY);
  await writeFile(join(folder, 'model.bin'), MODEL);
  const name = `${pushed.url}/team/policy:v1`;
  const types = ['application/vnd.example.policy', 'application/vnd.example.part'];
  const args = ['push', name, ...types, 'policy.json', 'model.bin'];
  artifact = (await run(peer('oras'), args, { cwd: folder })).stdout.trim();
  const bundle = await site.bundle(
    'mixed',
    `platforms: all
images: ["${ref}", "${name}"]
charts:
  - {name: demo, version: 1.2.3, repo: "http://${site.source.host}/charts"}
files:
  - {url: "http://${site.source.host}/files/tool", name: bin/tool, mode: "0755"}
`,
  );
  loaded = await load({ bundle, registries: [placeOf({ url: `http://${target.url}` })] }, testContext());
  expect(loaded.failed).toBe(0);
});

afterAll(async () => {
  await Promise.all([site?.close(), pushed?.stop(), target?.stop()]);
});

function inLayout(layout: string, digest: string): Promise<Buffer> {
  return readFile(join(site.dir, layout, 'blobs', 'sha256', digest.slice(7)));
}

describe('the ORAS client', () => {
  it('copies an image that Sealift loaded with every byte of every platform', async () => {
    const copied = await oras('copy', nameOf('image', image.name), join(site.dir, 'image'));
    expect(copied).toBe(image.index.digest);
    expect((await inLayout('image', image.index.digest)).equals(image.index.bytes)).toBe(true);
    for (const { digest, bytes } of image.manifests) {
      expect((await inLayout('image', digest)).equals(bytes)).toBe(true);
    }
    for (const [digest, blob] of image.blobs) {
      expect((await inLayout('image', digest)).equals(blob.bytes())).toBe(true);
    }
  });

  it("copies a chart whose layer is the publisher's archive", async () => {
    await oras('copy', nameOf('chart', 'demo'), join(site.dir, 'chart'));
    const archive = await chartArchive();
    expect((await inLayout('chart', digestOf(archive))).equals(archive)).toBe(true);
  });

  it('pulls a file under its name', async () => {
    const folder = join(site.dir, 'file');
    await oras('pull', nameOf('file', 'tool'), folder);
    const [only, ...more] = await readdir(folder, { recursive: true, withFileTypes: true }).then((all) =>
      all.filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name)),
    );
    expect(more).toEqual([]);
    expect((await readFile(only ?? '')).equals(TOOL)).toBe(true);
  });

  it('finds the artifact that it pushed itself, with the same digest and files', async () => {
    const folder = join(site.dir, 'artifact');
    expect(await oras('pull', nameOf('image', 'team/policy'), folder)).toBe(artifact);
    expect((await readFile(join(folder, 'policy.json'))).equals(POLICY)).toBe(true);
    expect((await readFile(join(folder, 'model.bin'))).equals(MODEL)).toBe(true);
  });
});
