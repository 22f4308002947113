import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import { type LoadOptions, load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { verify } from '../../src/ops/verify.ts';
import { type FleetImage, makeBigFleet, pushImage } from '../support/fleet.ts';
import { peer, quietContext, type Registry, run, startRegistry } from '../support/peers.ts';

/** The main job on real programs: docker-registry on both sides; skopeo, regctl and crane as judges. */

/** Twelve in OCI types; two more in Docker types, which skopeo 1.9.3 cannot read out of any OCI layout (newer ones can). */
const KINDS = ['oci', 'oci', 'oci', 'oci', 'oci', 'oci', 'docker'] as const;
const IMAGES = 14;
const MINIMUM_BYTES = 300_000_000;

let dir: string;
let bundle: string;
let manifestPath: string;
let source: Registry;
let target: Registry;
const images: { name: string; tag: string; digest: string; isDocker: boolean }[] = [];

const context = quietContext();

function place(registry: Registry): NonNullable<LoadOptions['registries']>[number] {
  return { ...parseRegistryUrl(registry.url), naming: 'drop-host', indexPolicy: 'auto' };
}

function facts(image: FleetImage): (typeof images)[number] {
  const { name, tag } = image;
  return { name, tag, digest: image.index.digest, isDocker: image.kind === 'docker' };
}

/** Requests of a kind in a registry's access log. */
function count(log: string, pattern: RegExp): number {
  return log.split('\n').filter((line) => pattern.test(line)).length;
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-peers-'));
  source = await startRegistry();
  target = await startRegistry();
  for (const image of makeBigFleet({ images: IMAGES, kinds: KINDS })) {
    await pushImage(source.url, image);
    images.push(facts(image));
  }
  manifestPath = join(dir, 'sealift.yaml');
  const refs = images.map((i) => `  - ${source.url}/${i.name}:${i.tag}\n`).join('');
  await writeFile(
    manifestPath,
    `apiVersion: sealift/v1\nname: fleet\nversion: "1"\nplatforms: all\nimages:\n${refs}`,
  );
  bundle = join(dir, 'fleet.tar');
});

afterAll(async () => {
  await source?.stop();
  await target?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('twelve multi-platform images on a real docker-registry', () => {
  it('are locked, packed and verified', async () => {
    const { lock: locked } = await lock({ manifestPath }, context);
    expect(Array.from(locked.images, (i) => i.digest).sort()).toEqual(images.map((i) => i.digest).sort());
    expect(images).toHaveLength(IMAGES);
    const packed = await pack({ manifestPath, out: bundle }, context);
    expect(packed.size).toBeGreaterThan(MINIMUM_BYTES);
    const checked = await verify({ bundle, lockPath: join(dir, 'versions.lock') }, context);
    expect(checked.faults).toEqual([]);
  });

  it('unpack with tar, and both lists of checksums agree', async () => {
    const out = join(dir, 'extracted');
    await mkdir(out);
    await run('tar', ['-x', '-f', bundle, '-C', out]);
    const sha = await run('sha256sum', ['-c', '--strict', 'SHA256SUMS'], { cwd: out });
    const b3 = await run(peer('b3sum'), ['-c', 'B3SUMS'], { cwd: out });
    const blobs = (await readdir(join(out, 'blobs', 'sha256'))).length;
    expect(sha.stdout.trim().split('\n')).toHaveLength(blobs + 4);
    expect(b3.stdout.trim().split('\n')).toHaveLength(blobs + 5);
  });

  it('are read by skopeo out of the tar and by regctl out of the layout', async () => {
    expect(images.filter((i) => !i.isDocker)).toHaveLength(12);
    for (const image of images) {
      const name = `${source.url}/${image.name}:${image.tag}`;
      const layout = `ocidir://${join(dir, 'extracted')}@${image.digest}`;
      const read = await run(peer('regctl'), ['manifest', 'get', '--format', 'raw-body', layout]);
      expect(digestOf(read.stdout)).toBe(image.digest);
      if (image.isDocker) continue;
      const raw = await run(peer('skopeo'), ['inspect', '--raw', `oci-archive:${bundle}:${name}`]);
      expect(digestOf(raw.stdout)).toBe(image.digest);
      const config = await run(peer('skopeo'), ['inspect', '--config', `oci-archive:${bundle}:${name}`]);
      expect(config.stdout).toContain('"amd64"');
    }
  });

  it('arrive on an empty docker-registry with the same digests, and crane finds each complete', async () => {
    const loaded = await load({ bundle, registries: [place(target)] }, context);
    expect(loaded.failed).toBe(0);
    for (const image of images) {
      const at = `${target.url}/${image.name}:${image.tag}`;
      const found = await run(peer('crane'), ['digest', '--insecure', at]);
      expect(found.stdout.trim()).toBe(image.digest);
      const validated = await run(peer('crane'), ['validate', '--insecure', '--remote', at]);
      expect(validated.stdout + validated.stderr).toContain('PASS');
    }
  });

  it('send no blob bytes when they are loaded again', async () => {
    const before = target.accessLog();
    const again = await load({ bundle, registries: [place(target)] }, context);
    expect(again.targets[0]?.tally.bytesWritten).toBe(0);
    expect(again.targets[0]?.entries.every((e) => e.state === 'present')).toBe(true);
    const after = target.accessLog().slice(before.length);
    expect(count(after, /"(?:PUT|POST|PATCH) /)).toBe(0);
    expect(count(after, /"(?:GET|HEAD) /)).toBeGreaterThan(0);
  });
});
