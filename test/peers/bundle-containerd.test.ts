import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { type FleetImage, makeFleet, pushImage } from '../support/fleet.ts';
import { type Containerd, listCriImages, quietContext, run, startContainerd } from '../support/peers.ts';

/** A bundle with images, a chart and a file, on a real containerd: by Sealift, and by containerd's own import. */

const HOST = process.arch === 'arm64' ? 'linux/arm64' : 'linux/amd64';

let dir: string;
let source: RunningRegistry;
let images: FleetImage[];

const context = quietContext();

async function makeBundle(name: string, platforms: string): Promise<string> {
  const manifestPath = join(dir, `${name}.yaml`);
  const refs = images.map((i) => `  - ${source.host}/${i.name}:${i.tag}\n`).join('');
  await writeFile(
    manifestPath,
    `apiVersion: sealift/v1\nname: ${name}\nversion: "1"\nplatforms: ${platforms}\nimages:\n${refs}` +
      `charts:\n  - {name: web, version: 1.2.3, repo: "${source.url}/charts"}\n` +
      `files:\n  - {url: "${source.url}/files/tool", name: bin/tool}\n`,
  );
  const lockPath = join(dir, `${name}.lock`);
  await lock({ manifestPath, lockPath }, context);
  const out = join(dir, `${name}.tar`);
  await pack({ manifestPath, lockPath, out }, context);
  return out;
}

function nameOf(image: FleetImage): string {
  return `${source.host}/${image.name}:${image.tag}`;
}

/** First column of `ctr images ls`, without the names by config digest that CRI adds. */
async function namesOf(containerd: Containerd): Promise<string[]> {
  const { stdout } = await containerd.ctr('-n', 'k8s.io', 'images', 'ls', '-q');
  return stdout
    .split('\n')
    .filter((n) => n !== '' && !n.startsWith('sha256:'))
    .sort();
}

async function isComplete(containerd: Containerd, name: string): Promise<boolean> {
  const { stdout } = await containerd.ctr('-n', 'k8s.io', 'images', 'check', `name==${name}`);
  return stdout.includes('complete (');
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-ctr-'));
  source = await startRegistry({ storage: 'memory' });
  images = makeFleet({
    images: 5,
    platforms: ['linux/amd64', 'linux/arm64'],
    seed: 11,
    kinds: ['oci', 'docker', 'oci', 'nested', 'single'],
  });
  for (const image of images) await pushImage(source.host, image);
  await source.addChart('web-1.2.3.tgz', await chartArchive(demoFiles('web', '1.2.3'), 'web'));
  source.addFile('tool', 'a tool\n');
});

afterAll(async () => {
  await source?.close();
  await rm(dir, { recursive: true, force: true });
});

describe.each(['1.6', '2.2'] as const)('containerd %s', (version) => {
  it.each([
    ['one', `[${HOST}]`],
    ['every', 'all'],
  ])(
    'gets %s platform of each image from a bundle, and the second load writes nothing',
    async (name, platforms) => {
      const containerd = await startContainerd(version);
      try {
        const bundle = await makeBundle(`load-${name}`, platforms);
        const options = {
          bundle,
          containerd: [{ socket: containerd.socket, namespaces: ['k8s.io'] }],
          pin: true,
        };
        const first = await load(options, context);
        expect(first.failed).toBe(0);
        const expected = images
          .flatMap((i) => [nameOf(i), `${source.host}/${i.name}@${i.index.digest}`])
          .sort();
        expect(await namesOf(containerd)).toEqual(expected);
        for (const image of images)
          expect(await isComplete(containerd, nameOf(image)), nameOf(image)).toBe(true);
        const second = await load(options, context);
        const tally = second.targets[0]?.tally;
        expect([tally?.blobsWritten, tally?.bytesWritten, tally?.manifestsWritten]).toEqual([0, 0, 0]);
        expect(second.targets[0]?.entries.map((e) => e.state)).toEqual(images.map(() => 'present'));
        if (version === '2.2') {
          const tags = (await listCriImages(containerd.socket)).flatMap((i) => i.repoTags).sort();
          expect(tags).toEqual(images.map(nameOf).sort());
        }
      } finally {
        await containerd.stop();
      }
    },
  );

  it('imports the bundle itself with ctr, and lists exactly the images', async () => {
    const containerd = await startContainerd(version);
    try {
      const bundle = await makeBundle('import', `[${HOST}]`);
      await run(containerd.program, [
        '--address',
        containerd.socket,
        '-n',
        'k8s.io',
        'images',
        'import',
        '--no-unpack',
        bundle,
      ]);
      expect(await namesOf(containerd)).toEqual(images.map(nameOf).sort());
      for (const image of images)
        expect(await isComplete(containerd, nameOf(image)), nameOf(image)).toBe(true);
    } finally {
      await containerd.stop();
    }
  });
});
