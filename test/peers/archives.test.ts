import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { verify } from '../../src/ops/verify.ts';
import { type FleetImage, makeFleet, pushImage } from '../support/fleet.ts';
import {
  type Containerd,
  peer,
  quietContext,
  type Registry,
  run,
  startContainerd,
  startRegistry,
} from '../support/peers.ts';

/** What skopeo, crane and regctl write, loaded into docker-registry and containerd, and used as mirrors. */
let dir: string;
let source: Registry;
let target: Registry;
let containerd: Containerd;
let image: FleetImage;
let docker: FleetImage;

const context = quietContext();
const at = (path: string): string => join(dir, path);
const ref = (i: FleetImage): string => `${source.url}/${i.name}:${i.tag}`;
const INSECURE = '--src-tls-verify=false';

/** Has skopeo copy an image out of the source. @param flags for example `--all` */
async function copyTo(i: FleetImage, to: string, ...flags: string[]): Promise<void> {
  await run('skopeo', ['copy', ...flags, INSECURE, `docker://${ref(i)}`, to]);
}

function loadInto(path: string, more: Partial<LoadOptions> = {}): Promise<LoadResult> {
  const place = { ...parseRegistryUrl(target.url), naming: 'drop-host', indexPolicy: 'auto' } as const;
  return load({ bundle: at(path), registries: [place], verify: true, ...more }, context);
}

async function digestThere(name: string): Promise<string> {
  return (await run(peer('crane'), ['digest', '--insecure', `${target.url}/${name}`])).stdout.trim();
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-archives-'));
  [source, target, containerd] = await Promise.all([
    startRegistry(),
    startRegistry(),
    startContainerd('1.6'),
  ]);
  const fleet = makeFleet({ images: 2, kinds: ['oci', 'docker'] });
  for (const i of fleet) await pushImage(source.url, i);
  [image, docker] = fleet as [FleetImage, FleetImage];
});

afterAll(async () => {
  await Promise.all([source?.stop(), target?.stop(), containerd?.stop()]);
  await rm(dir, { recursive: true, force: true });
});

describe('an image that another tool saved', () => {
  it.each([
    [
      'skopeo into oci:',
      (to: string) => [
        'skopeo',
        'copy',
        '--all',
        INSECURE,
        `docker://${ref(image)}`,
        `oci:${to}:x.example/a/skopeo:1`,
      ],
      'a/skopeo',
    ],
    [
      'skopeo into oci-archive:',
      (to: string) => [
        'skopeo',
        'copy',
        '--all',
        INSECURE,
        `docker://${ref(image)}`,
        `oci-archive:${to}:x.example/a/archive:1`,
      ],
      'a/archive',
    ],
    [
      'regctl',
      (to: string) => [
        'regctl',
        'image',
        'export',
        '--host',
        `reg=${source.url},tls=disabled`,
        '--name',
        'x.example/a/regctl:1',
        ref(image),
        to,
      ],
      'a/regctl',
    ],
    ['crane', (to: string) => ['crane', 'pull', '--insecure', '--format=oci', ref(image), to], 'a/crane'],
  ] as const)('by %s is loaded with its own digest', async (tool, command, name) => {
    const path = name.replace('/', '-');
    const [program, ...args] = command(at(path));
    await run(peer(program ?? ''), args);
    const named = tool === 'crane' ? { name: 'x.example/a/crane:1' } : {};
    expect((await verify({ bundle: at(path) }, context)).faults).toEqual([]);
    const result = await loadInto(path, named);
    expect(result).toMatchObject({ failed: 0, bundle: { format: 'oci-layout' } });
    expect(await digestThere(`${name}:1`)).toBe(image.index.digest);
    await run('skopeo', [
      'copy',
      '--all',
      INSECURE,
      `docker://${target.url}/${name}:1`,
      `oci:${at(`${path}-back`)}`,
    ]);
  });

  it('by skopeo into docker-archive: is loaded under its tag, into containerd too, where it can be exported again', async () => {
    const tag = 'x.example/a/saved:1';
    await copyTo(image, `docker-archive:${at('saved.tar')}:${tag}`);
    const result = await loadInto('saved.tar', {
      containerd: [{ socket: containerd.socket, namespaces: ['default'] }],
    });
    expect(result).toMatchObject({ failed: 0, bundle: { format: 'docker-archive' } });
    const { stdout } = await containerd.ctr('images', 'check', `name==${tag}`);
    expect(stdout).toContain('complete');
    await containerd.ctr('images', 'export', at('again.tar'), tag);
    await run('skopeo', ['copy', INSECURE, `docker://${target.url}/a/saved:1`, `oci:${at('saved-back')}`]);
    const before = await run('skopeo', [
      'inspect',
      '--config',
      '--tls-verify=false',
      `docker://${ref(image)}`,
    ]);
    const after = await run('skopeo', [
      'inspect',
      '--config',
      '--tls-verify=false',
      `docker://${target.url}/a/saved:1`,
    ]);
    expect(JSON.parse(after.stdout).rootfs).toEqual(JSON.parse(before.stdout).rootfs);
  });

  it('by crane into a tarball keeps its compressed layers', async () => {
    await run(peer('crane'), [
      'pull',
      '--insecure',
      '--platform',
      'linux/amd64',
      ref(docker),
      at('crane.tar'),
    ]);
    expect((await verify({ bundle: at('crane.tar') }, context)).faults).toEqual([]);
    expect((await loadInto('crane.tar')).failed).toBe(0);
    const { stdout } = await run(peer('crane'), [
      'manifest',
      '--insecure',
      `${target.url}/${docker.name}:${docker.tag}`,
    ]);
    for (const { digest } of JSON.parse(stdout).layers) expect(docker.blobs.has(digest)).toBe(true);
  });

  it('in a folder of docker save archives in gzip, as kubespray-offline makes them, is loaded', async () => {
    await mkdir(at('images'), { recursive: true });
    for (const [i, one] of [image, docker].entries()) {
      const to = at(`images/${i}.tar`);
      await copyTo(one, `docker-archive:${to}:x.example/k/${i}:1`);
      await run('gzip', [to]);
    }
    expect((await loadInto('images')).failed).toBe(0);
    for (const i of [0, 1]) expect(await digestThere(`k/${i}:1`)).toMatch(/^sha256:/);
  });

  it('is packed out of the layout that skopeo wrote when its registry is gone', async () => {
    const host = '127.0.0.1:1';
    const name = `${host}/${image.name}:${image.tag}`;
    await copyTo(image, `oci-archive:${at('mirror.tar')}:${name}`, '--all');
    const manifestPath = at('sealift.yaml');
    await writeFile(
      manifestPath,
      `apiVersion: sealift/v1\nname: m\nversion: "1"\nplatforms: all\nimages: ["${name}"]\nregistries: {"${host}": {mirrors: ["oci-archive:mirror.tar"]}}\n`,
    );
    const { lock: locked } = await lock({ manifestPath }, context);
    expect(locked.images.at(0)?.digest).toBe(image.index.digest);
    await pack({ manifestPath, out: at('bundle.tar') }, context);
    expect((await verify({ bundle: at('bundle.tar'), deep: true }, context)).faults).toEqual([]);
  });

  it('as docker saves it is packed with layers compressed anew when its registry is gone, and other tools find it valid', async () => {
    const name = '127.0.0.1:1/a/anew:1';
    await copyTo(image, `docker-archive:${at('anew.tar')}:${name}`);
    await mkdir(at('anew'), { recursive: true });
    const manifestPath = at('anew/sealift.yaml');
    await writeFile(
      manifestPath,
      `apiVersion: sealift/v1\nname: m\nversion: "1"\ninclude: []\nimages: ["${name}"]\nregistries: {"127.0.0.1:1": {mirrors: ["docker-archive:../anew.tar"]}}\n`,
    );
    const { lock: locked } = await lock({ manifestPath, recompress: true }, context);
    await pack({ manifestPath, out: at('anew/bundle.tar') }, context);
    const place = { socket: containerd.socket, namespaces: ['anew'] };
    expect((await loadInto('anew/bundle.tar', { containerd: [place] })).failed).toBe(0);
    expect(await digestThere('a/anew:1')).toBe(locked.images.at(0)?.digest);
    const { stdout } = await run(peer('crane'), [
      'validate',
      '--insecure',
      '--remote',
      `${target.url}/a/anew:1`,
    ]);
    expect(stdout).toContain('PASS');
    const checked = await containerd.ctr('-n', 'anew', 'images', 'check');
    expect(checked.stdout).toContain('complete');
  });
});
