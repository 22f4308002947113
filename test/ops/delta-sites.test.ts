/** Deltas at sites that are not quite what their base left there: images under other names, a target that was not reached. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { digestOf } from '../../src/io/verify.ts';
import { Registry } from '../../src/oci/registry.ts';
import { load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { type RegistryOptions, type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { findElsewhere } from '../../src/target/registry-elsewhere.ts';
import { contextOf, openSite, placeOf, type Site } from '../bundle/site.ts';
import { startServer, testClient, testContext } from '../io/server.ts';
import { makeFleet, pushImage } from '../support/fleet.ts';

let site: Site;
let work: string;
/** The manifest of each delivery, and the full bundle of the first. */
const manifests = new Map<number, string>();
let base: string;

/** What moved between two deliveries: the same images below another path, with one more layer. */
async function deliver(delivery: number, folder: string): Promise<void> {
  const images = makeFleet({ images: 3, layerSizes: [20_000, 3000], baseSize: 30_000, delivery });
  const refs: string[] = [];
  for (const image of images) {
    const moved = { ...image, name: `${folder}/${image.name}` };
    await pushImage(site.source.host, moved);
    refs.push(`${site.source.host}/${moved.name}:${moved.tag}`);
  }
  const dir = site.path(`delivery-${delivery}`);
  await mkdir(dir);
  const manifestPath = join(dir, 'sealift.yaml');
  const text = `apiVersion: sealift/v1\nname: site\nversion: "${delivery}"\nimages: [${refs.join(', ')}]\n`;
  await writeFile(manifestPath, text);
  await lock({ manifestPath }, contextOf());
  manifests.set(delivery, manifestPath);
}

async function packed(delivery: number, since: readonly string[] = []): Promise<string> {
  const out = join(work, `${delivery}-${since.length}.tar`);
  const manifestPath = manifests.get(delivery) ?? '';
  await pack({ manifestPath, out, ...(since.length === 0 ? {} : { since }) }, contextOf());
  return out;
}

beforeAll(async () => {
  site = await openSite();
  await deliver(1, 'old');
  await deliver(2, 'new/place');
  work = site.path('base');
  await mkdir(work);
  base = await packed(1);
}, 60_000);

afterAll(() => site.close());

beforeEach(async () => {
  work = site.path(`w${Math.random().toString(36).slice(2)}`);
  await mkdir(work);
});

describe('a delta whose images have other names than in its base', () => {
  async function target(options: Partial<RegistryOptions> = {}): Promise<RunningRegistry> {
    const started = await startRegistry({ storage: 'memory', ...options });
    await load({ bundle: base, registries: [placeOf(started)] }, contextOf());
    return started;
  }

  it('is loaded: what it leaves out is found under the old names', async () => {
    const registry = await target();
    try {
      const bundle = await packed(2, [base]);
      const registries = [placeOf(registry)];
      const result = await load({ bundle, registries }, contextOf());
      expect(result.failed).toBe(0);
      expect(result.targets[0]?.tally.blobsMounted).toBeGreaterThan(0);
      const again = await load({ bundle: await packed(2), registries, dryRun: true }, contextOf());
      const states = again.targets.flatMap((t) => t.entries).map((e) => e.state);
      expect(states).toEqual(states.map(() => 'present'));
    } finally {
      await registry.close();
    }
  });

  it('is loaded where the registry mounts nothing: then its blobs are read and sent', async () => {
    const registry = await target({
      intercept: (request, response) => {
        if (request.method !== 'POST' || !/[?&]mount=/.test(request.url ?? '')) return false;
        response.writeHead(405).end();
        return true;
      },
    });
    try {
      const result = await load(
        { bundle: await packed(2, [base]), registries: [placeOf(registry)] },
        contextOf(),
      );
      expect(result.failed).toBe(0);
      expect(result.targets[0]?.tally.blobsMounted).toBe(0);
    } finally {
      await registry.close();
    }
  });

  it('is refused where the registry does not tell its repositories, and nothing is written', async () => {
    let isClosed = false;
    const registry = await target({
      intercept: (request, response) => {
        if (!isClosed || !request.url?.startsWith('/v2/_catalog')) return false;
        response.writeHead(403).end();
        return true;
      },
    });
    try {
      isClosed = true;
      const before = registry.requests.length;
      const loading = load({ bundle: await packed(2, [base]), registries: [placeOf(registry)] }, contextOf());
      await expect(loading).rejects.toMatchObject({ code: 'BUNDLE_BASE_MISSING' });
      const methods = registry.requests.slice(before).map(({ method }) => method);
      expect(methods.filter((method) => method !== 'GET' && method !== 'HEAD')).toEqual([]);
    } finally {
      await registry.close();
    }
  });
});

it('asks a registry of many repositories only so often', async () => {
  const names = Array.from({ length: LIMITS.repositories }, (_, i) => `team/app-${i}`);
  let asked = 0;
  const server = await startServer((request, response) => {
    if (request.url?.startsWith('/v2/_catalog')) return response.end(JSON.stringify({ repositories: names }));
    asked += 1;
    return response.writeHead(404).end();
  });
  const context = testContext();
  const registry = new Registry(server.host, { http: testClient(context), context });
  const digests = [digestOf(Buffer.from('a')), digestOf(Buffer.from('b'))];
  const usersOf = (): string[] => ['new/app-7'];
  const { signal } = context;
  const most = 50;
  const found = await findElsewhere(digests, { registry, signal, own: ['new/app-7'], usersOf, most });
  expect(found.size).toBe(0);
  expect(asked).toBe(most);
  // What has the same last part of its name is asked first.
  expect(server.asked.filter(({ url }) => url.includes('/blobs/'))[0]?.url).toContain('/team/app-7/');
});

describe('a receipt', () => {
  const blobsIn = async (path: string): Promise<string[]> =>
    (JSON.parse(await readFile(path, 'utf8')) as { blobs: string[] }).blobs;

  it('claims nothing for a target that could not be reached', async () => {
    const [one, other] = [
      await startRegistry({ storage: 'memory' }),
      await startRegistry({ storage: 'memory' }),
    ];
    await other.close();
    try {
      const receiptPath = join(work, 'receipt.json');
      const registries = [placeOf(one), placeOf(other)];
      const result = await load({ bundle: base, registries, receiptPath }, contextOf());
      expect(result.failed).toBe(1);
      expect(await blobsIn(receiptPath)).toEqual([]);
      await load({ bundle: base, registries: [placeOf(one)], receiptPath }, contextOf());
      expect((await blobsIn(receiptPath)).length).toBeGreaterThan(0);
    } finally {
      await one.close();
    }
  });

  it('claims only what was loaded, and a delta since it brings the rest', async () => {
    const registry = await startRegistry({ storage: 'memory' });
    try {
      const receiptPath = join(work, 'receipt.json');
      const [first] = makeFleet({ images: 1, layerSizes: [20_000, 3000], baseSize: 30_000, delivery: 1 });
      const only = [`${site.source.host}/old/${first?.name}:${first?.tag}`];
      const registries = [placeOf(registry)];
      await load({ bundle: base, registries, only, receiptPath }, contextOf());
      const all = join(work, 'all.json');
      const full = await startRegistry({ storage: 'memory' });
      await load({ bundle: base, registries: [placeOf(full)], receiptPath: all }, contextOf());
      await full.close();
      expect((await blobsIn(receiptPath)).length).toBeLessThan((await blobsIn(all)).length);
      const result = await load({ bundle: await packed(2, [receiptPath]), registries }, contextOf());
      expect(result.failed).toBe(0);
    } finally {
      await registry.close();
    }
  });
});
