import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { digestOf } from '../../src/io/verify.ts';
import { type LoadResult, load } from '../../src/ops/load.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { selfSigned } from '../io/certificate.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import { type FleetImage, makeFleet } from '../support/fleet.ts';
import {
  dockerRepository,
  type NexusStandIn,
  startNexusStandIn,
  type Trap,
} from '../support/nexus-stand-in.ts';
import { peer, run, startRegistry } from '../support/peers.ts';
import { attach, OCI_INDEX, signByTag } from '../support/referrers.ts';

/**
 * The image set of a main job through the stand-in for Nexus with all traps on, before real registries: shared bases,
 * several tags of one image, `latest`, signatures and referrers, whole and sparse indexes. skopeo and crane are the judges.
 */

const TRAPS: readonly Trap[] = [
  'one-upload',
  'blob-once',
  'sparse-refused',
  'head-lies',
  'head-digest-500',
  'bad-link',
  'late-commit',
  'slow-commit',
  'no-uuid',
  'http-location',
  'body-limit',
  'no-referrers',
  'no-mount',
  'realm-null',
];
const USERS = { admin: 'right horse' };
const BODY_LIMIT = 600_000;

let site: Site;
let dir: string;
let bundle: string;
let images: FleetImage[];

beforeAll(async () => {
  site = await makeSite();
  dir = await mkdtemp(join(tmpdir(), 'sealift-nexus-'));
  const fleet = makeFleet({
    images: 12,
    platforms: ['linux/amd64', 'linux/arm64', 'linux/s390x'],
    kinds: ['oci', 'oci', 'attested', 'docker', 'single', 'nested'],
    layerSizes: [300_000, 900_000],
    sharedBases: 3,
    baseSize: 1_500_000,
    seed: 71,
  });
  // Every third image has further tags, as products deliver them.
  images = fleet.flatMap((image, i) => (i % 3 === 0 ? [image, { ...image, tag: 'latest' }] : [image]));
  const lines: string[] = [];
  for (const [i, image] of images.entries()) {
    const ref = await site.addImage(image);
    if (image.kind === 'oci' && image.tag !== 'latest') {
      const at = `${site.source.url}/v2/${image.name}`;
      const digest = image.index.digest as Digest;
      await attach(at, { mediaType: OCI_INDEX, digest, size: image.index.bytes.length });
      await signByTag(at, digest);
    }
    const hasTags = images.filter(({ name }) => name === image.name).length > 1;
    const some = i % 2 === 1 ? '[linux/amd64]' : '[linux/amd64, linux/arm64]';
    const own = hasTags || image.kind === 'single' ? 'all' : some;
    lines.push(`  - {ref: "${ref}", platforms: ${own}}\n`);
  }
  bundle = await site.bundle('main', `images:\n${lines.join('')}`);
});

afterAll(async () => {
  await site?.close();
  if (dir !== undefined) await rm(dir, { recursive: true, force: true });
});

async function startBefore(program: 'docker-registry' | 'registry3'): Promise<NexusStandIn> {
  const behind = await startRegistry({ program });
  onTestFinished(() => behind.stop());
  const once = dockerRepository('docker-hosted', { writePolicy: 'ALLOW_ONCE', latestPolicy: true });
  const nexus = await startNexusStandIn({
    upstream: behind.url,
    traps: TRAPS,
    users: USERS,
    tls: selfSigned(),
    repositories: [once],
  });
  onTestFinished(() => nexus.close());
  nexus.docker.bodyLimit = BODY_LIMIT;
  for (const image of images.filter((_, i) => i % 5 === 0)) {
    nexus.docker.lost.add([...image.blobs.keys()].at(-1) ?? '');
  }
  return nexus;
}

/** The home of somebody who has logged in. */
async function loggedIn(nexus: NexusStandIn): Promise<string> {
  const home = await mkdtemp(join(dir, 'home-'));
  const auth = Buffer.from(`admin:${USERS.admin}`).toString('base64');
  await writeFile(join(home, 'config.json'), JSON.stringify({ auths: { [nexus.connector.host]: { auth } } }));
  return home;
}

async function loadOnce(nexus: NexusStandIn, home: string): Promise<LoadResult> {
  const at = parseRegistryUrl(nexus.connector.url);
  const config = { ...at.config, insecure: true };
  const place = { ...at, config, naming: 'drop-host', indexPolicy: 'auto', onConflict: 'fail' } as const;
  return load({ bundle, registries: [place] }, { ...testContext(), env: { DOCKER_CONFIG: home } });
}

function faultsOf({ targets }: LoadResult): unknown[] {
  return targets.flatMap((t) => [t.fault, ...t.entries.map((e) => e.fault)]).filter((f) => f !== null);
}

/** Pulls an image with both tools: its own digest, all its content, and the manifest of one platform. */
async function pull(
  at: string,
  want: { readonly digest: string; readonly image: FleetImage; readonly home: string },
): Promise<void> {
  const { digest, image, home } = want;
  const env = { DOCKER_CONFIG: home, REGISTRY_AUTH_FILE: join(home, 'config.json') };
  const crane = await run(peer('crane'), ['digest', '--insecure', at], { env });
  expect(crane.stdout.trim()).toBe(digest);
  const whole = await run(peer('crane'), ['validate', '--insecure', '--remote', at], { env });
  expect(whole.stdout + whole.stderr).toContain('PASS');
  const raw = await run(peer('skopeo'), ['inspect', '--raw', '--tls-verify=false', `docker://${at}`], {
    env,
  });
  expect(digestOf(raw.stdout)).toBe(digest);
  const out = await mkdtemp(join(dir, 'pulled-'));
  const platform = ['--override-os', 'linux', '--override-arch', 'amd64'];
  const copy = ['copy', '--src-tls-verify=false', `docker://${at}`, `dir:${out}`];
  await run(peer('skopeo'), [...platform, ...copy], { env });
  const manifest = await readFile(join(out, 'manifest.json'));
  expect(digestOf(manifest)).toBe(image.platforms['linux/amd64']);
  await rm(out, { recursive: true });
}

describe.each(['docker-registry', 'registry3'] as const)('%s behind all traps of Nexus', (program) => {
  it('gets every image of a main job, nothing the second time, and skopeo and crane pull them all', async () => {
    const nexus = await startBefore(program);
    const home = await loggedIn(nexus);
    const loaded = await loadOnce(nexus, home);
    expect(faultsOf(loaded)).toEqual([]);
    const before = nexus.requests.length;
    const again = await loadOnce(nexus, home);
    expect(again.targets[0]?.entries.map(({ state }) => state)).toEqual(images.map(() => 'present'));
    const writes = nexus.requests.slice(before).filter(({ method }) => method !== 'GET' && method !== 'HEAD');
    expect(writes).toEqual([]);
    // A realm that is no URL stops these tools; everything else is as it was.
    nexus.traps.delete('realm-null');
    const entries = again.targets[0]?.entries ?? [];
    expect(entries).toHaveLength(images.length);
    for (const entry of entries) {
      const image = images.find(({ name, tag }) => entry.as.endsWith(`/${name}:${tag}`));
      if (image === undefined) throw new Error(`${entry.as} is not of the fleet`);
      await pull(entry.as, { digest: entry.pushedDigest ?? image.index.digest, image, home });
    }
  });
});
