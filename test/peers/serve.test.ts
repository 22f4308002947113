import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { type FleetImage, makeFleet, pushImage } from '../support/fleet.ts';
import { peer, run, startContainerd, startRegistry as startPeer } from '../support/peers.ts';

/** The embedded registry as the usual tools see it, and the generated images as they judge them. */

let dir: string;
let registry: RunningRegistry;
let images: FleetImage[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-serve-peers-'));
  registry = await startRegistry({ storage: { dir: join(dir, 'registry') } });
  images = makeFleet({
    images: 7,
    kinds: ['oci', 'docker', 'attested', 'nested', 'single', 'docker-single', 'artifact'],
    platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'],
    layerSizes: [3_000_000, 20_000],
  });
  for (const image of images) await pushImage(registry.host, image);
});
afterAll(async () => {
  await registry.close();
  await rm(dir, { recursive: true, force: true });
});

const nameOf = (image: FleetImage, host = registry.host) => `${host}/${image.name}:${image.tag}`;
function firstImage(): FleetImage {
  const [image] = images;
  if (image === undefined) throw new Error('no image');
  return image;
}
const isRunnable = (image: FleetImage) => image.kind !== 'artifact';

async function expectSame(reference: string, image: FleetImage): Promise<void> {
  const { stdout } = await run(peer('crane'), ['digest', reference]);
  expect(stdout.trim()).toBe(image.index.digest);
}

describe('crane', () => {
  it('reads every digest and validates every layer', async () => {
    for (const image of images) {
      await expectSame(nameOf(image), image);
      // Crane counts no in-toto layer, so it finds fault with every attestation that BuildKit makes.
      const only = image.kind === 'attested' ? ['--platform', 'linux/arm64'] : [];
      if (isRunnable(image)) await run(peer('crane'), ['validate', ...only, '--remote', nameOf(image)]);
    }
  });

  it('copies inside the registry by mounting, and from here to distribution', async () => {
    const distribution = await startPeer();
    try {
      for (const image of images) {
        const copy = `${registry.host}/crane/${image.name}:copy`;
        await run(peer('crane'), ['copy', nameOf(image), copy]);
        await expectSame(copy, image);
        const there = `${distribution.url}/${image.name}:${image.tag}`;
        await run(peer('crane'), ['copy', nameOf(image), there]);
        await expectSame(there, image);
      }
      const mounted = registry.requests.filter((r) => r.query.includes('mount=') && r.status === 201);
      expect(mounted.length).toBeGreaterThan(0);
    } finally {
      await distribution.stop();
    }
  });

  it('pulls, pushes, lists, tags and deletes', async () => {
    const image = firstImage();
    const tar = join(dir, 'crane.tar');
    await run(peer('crane'), ['pull', '--platform', 'linux/arm64', nameOf(image), tar]);
    await run(peer('crane'), ['push', tar, `${registry.host}/crane/pushed:1`]);
    await run(peer('crane'), ['validate', '--remote', `${registry.host}/crane/pushed:1`]);
    await run(peer('crane'), ['tag', `${registry.host}/crane/pushed:1`, 'two']);
    expect((await run(peer('crane'), ['ls', `${registry.host}/crane/pushed`])).stdout).toBe('1\ntwo\n');
    expect((await run(peer('crane'), ['catalog', registry.host])).stdout).toContain('crane/pushed\n');
    const { stdout: digest } = await run(peer('crane'), ['digest', `${registry.host}/crane/pushed:1`]);
    await run(peer('crane'), ['delete', `${registry.host}/crane/pushed@${digest.trim()}`]);
    expect(
      (await run(peer('crane'), ['ls', `${registry.host}/crane/pushed`], { check: false })).code,
    ).not.toBe(0);
  });
});

describe('skopeo', () => {
  it('copies every image from here, to here and into an archive with all its platforms', async () => {
    for (const image of images.filter(isRunnable)) {
      const copy = `${registry.host}/skopeo/${image.name}:copy`;
      const tls = ['--src-tls-verify=false', '--dest-tls-verify=false'];
      // The old skopeo of Debian cannot read an index inside an index.
      const all = image.kind === 'nested' ? [] : ['--all'];
      const platform = ['--override-os', 'linux', '--override-arch', 'amd64'];
      await run(peer('skopeo'), [
        ...platform,
        'copy',
        ...all,
        ...tls,
        `docker://${nameOf(image)}`,
        `docker://${copy}`,
      ]);
      if (image.kind !== 'nested') await expectSame(copy, image);
      const archive = `oci-archive:${join(dir, `${image.kind}.tar`)}:x`;
      await run(peer('skopeo'), [
        ...platform,
        'copy',
        ...all,
        '--src-tls-verify=false',
        `docker://${copy}`,
        archive,
      ]);
    }
  });
});

describe('regctl', () => {
  const regctl = (...args: string[]) =>
    run(peer('regctl'), ['--host', `reg=${registry.host},tls=disabled`, ...args]);

  it('copies every image and artifact with referrers and digest tags', async () => {
    for (const image of images) {
      const copy = `${registry.host}/regctl/${image.name}:copy`;
      await regctl('image', 'copy', '--referrers', '--digest-tags', nameOf(image), copy);
      await expectSame(copy, image);
    }
  });

  it('attaches a referrer and finds it through the API', async () => {
    const image = firstImage();
    const file = join(dir, 'sbom.json');
    await writeFile(file, '{"sbom":true}');
    const subject = ['--subject', nameOf(image), '--artifact-type', 'text/sbom'];
    await regctl('artifact', 'put', ...subject, '-f', file);
    const { stdout } = await regctl('artifact', 'list', nameOf(image), '--filter-artifact-type', 'text/sbom');
    expect(stdout).toContain('text/sbom');
    expect(registry.requests.some((r) => r.path.includes('/referrers/') && r.status === 200)).toBe(true);
    expect((await regctl('tag', 'ls', `${registry.host}/${image.name}`)).stdout).not.toContain('sha256-');
  });

  it('pushes a blob in chunks', async () => {
    const layout = join(dir, 'layout');
    await regctl('image', 'copy', nameOf(firstImage()), `ocidir://${layout}:x`);
    const env = { REGCTL_CONFIG: join(dir, 'regctl.json') };
    const sizes = ['--blob-chunk', '100000', '--blob-max', '200000'];
    await run(peer('regctl'), ['registry', 'set', registry.host, '--tls', 'disabled', ...sizes], { env });
    const copy = `${registry.host}/regctl/chunks:x`;
    await run(peer('regctl'), ['image', 'copy', `ocidir://${layout}:x`, copy], { env });
    await expectSame(copy, firstImage());
    expect(
      registry.requests.filter((r) => r.method === 'PATCH' && r.path.includes('/chunks/')).length,
    ).toBeGreaterThan(5);
  });
});

describe('helm', () => {
  it('pushes and pulls a chart, and reads the chart repository', async () => {
    const home = {
      HELM_CACHE_HOME: join(dir, 'hc'),
      HELM_CONFIG_HOME: join(dir, 'hf'),
      HELM_DATA_HOME: join(dir, 'hd'),
    };
    const helm = (...args: string[]) => run(peer('helm'), args, { cwd: dir, env: home });
    await helm('create', 'demo');
    await helm('package', 'demo');
    const archive = await readFile(join(dir, 'demo-0.1.0.tgz'));
    await helm('push', 'demo-0.1.0.tgz', `oci://${registry.host}/charts`, '--plain-http');
    const pulled = join(dir, 'pulled');
    await mkdir(join(pulled, 'repo'), { recursive: true });
    const chart = `oci://${registry.host}/charts/demo`;
    await helm('pull', chart, '--version', '0.1.0', '--plain-http', '-d', pulled);
    expect(await readFile(join(pulled, 'demo-0.1.0.tgz'))).toEqual(archive);
    await registry.addChart('demo-0.1.0.tgz', archive);
    await helm('repo', 'add', 'here', `${registry.url}/charts`);
    expect((await helm('search', 'repo', 'here/demo', '-o', 'json')).stdout).toContain('"version":"0.1.0"');
    await helm('pull', 'here/demo', '--version', '0.1.0', '-d', join(pulled, 'repo'));
    expect(await readFile(join(pulled, 'repo', 'demo-0.1.0.tgz'))).toEqual(archive);
  });
});

describe('authentication', () => {
  it.each(['basic', 'bearer'] as const)('%s is understood by crane, skopeo and regctl', async (kind) => {
    const own = await startRegistry({
      storage: 'memory',
      auth: { kind, users: { ann: 'secret' }, anonymousPull: true },
    });
    try {
      const [image] = images;
      if (image === undefined) throw new Error('no image');
      const config = join(dir, `auth-${kind}`);
      const env = { DOCKER_CONFIG: config, REGISTRY_AUTH_FILE: join(config, 'config.json') };
      const reference = `${own.host}/app:1`;
      expect(
        (await run(peer('crane'), ['copy', nameOf(image), reference], { env, check: false })).code,
      ).not.toBe(0);
      await run(peer('crane'), ['auth', 'login', own.host, '-u', 'ann', '-p', 'secret'], { env });
      await run(peer('crane'), ['copy', nameOf(image), reference], { env });
      await run(peer('crane'), ['copy', reference, `${own.host}/mounted:1`], { env });
      const tls = ['--all', '--src-tls-verify=false', '--dest-tls-verify=false'];
      await run(peer('skopeo'), ['copy', ...tls, `docker://${reference}`, `docker://${own.host}/skopeo:1`], {
        env,
      });
      const host = ['--host', `reg=${own.host},tls=disabled`];
      await run(peer('regctl'), [...host, 'image', 'copy', reference, `${own.host}/regctl:1`], { env });
      for (const name of ['app', 'mounted', 'skopeo', 'regctl'])
        await expectSame(`${own.host}/${name}:1`, image);
    } finally {
      await own.close();
    }
  });
});

describe('containerd', () => {
  it('imports every generated image and finds its platform complete', async () => {
    const containerd = await startContainerd('1.6');
    try {
      for (const image of images.filter((i) => isRunnable(i) && i.kind !== 'nested')) {
        const archive = join(dir, `ctr-${image.kind}.tar`);
        const name = `example.test/${image.name}:${image.tag}`;
        const from = `docker://${nameOf(image)}`;
        await run(peer('skopeo'), [
          'copy',
          '--all',
          '--src-tls-verify=false',
          from,
          `oci-archive:${archive}:${name}`,
        ]);
        await containerd.ctr('images', 'import', '--platform', 'linux/amd64', archive);
        expect((await containerd.ctr('images', 'check', `name==${name}`)).stdout).toContain('complete');
      }
    } finally {
      await containerd.stop();
    }
  });
});
