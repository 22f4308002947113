import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { load } from '../../src/ops/load.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { type UnloadResult, unload } from '../../src/ops/unload.ts';
import { openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { peer, quietContext, run, startContainerd, startRegistry } from '../support/peers.ts';

/** Taking back from a real containerd and from real registries what a load added there. */

const context = quietContext();
let site: Site;
let all: Packed;
let first: Packed;

beforeAll(async () => {
  site = await openSite();
  all = await packSite(site);
  await site.lockFor(site.images.slice(0, 1));
  first = await packSite(site, 'first.tar');
});
afterAll(() => site?.close());

const states = (result: UnloadResult): Set<string> =>
  new Set(result.targets.flatMap((target) => target.items.map(({ state }) => state)));

describe.each(['docker-registry', 'registry3'] as const)('unload from %s', (program) => {
  it('leaves what another load put there, pullable as before', async () => {
    const target = await startRegistry({ program });
    try {
      const places = [
        {
          ...parseRegistryUrl(target.url),
          naming: 'drop-host' as const,
          indexPolicy: 'auto' as const,
        },
      ];
      const receiptPath = site.path(`${program}.json`);
      await load({ bundle: first.path, registries: places }, context);
      const loaded = await load({ bundle: all.path, registries: places, receiptPath }, context);
      expect(loaded.failed).toBe(0);
      const done = await unload({ receiptPath }, context);
      expect(done.targets.map(({ fault }) => fault)).toEqual([null]);
      expect(states(done)).toEqual(new Set(['removed']));
      const left = await Promise.all(
        site.images.map(async ({ name, tag }) => {
          const { stdout } = await run(peer('crane'), ['ls', '--insecure', `${target.url}/${name}`]).catch(
            () => ({ stdout: '' }),
          );
          return stdout.split('\n').includes(tag);
        }),
      );
      expect(left).toEqual([true, false, false]);
      const [kept] = site.images;
      const from = `docker://${target.url}/${kept?.name}:${kept?.tag}`;
      const out = `dir:${site.path(`pulled-${program}`)}`;
      await run(peer('skopeo'), ['copy', '--src-tls-verify=false', from, out]);
      const again = await load({ bundle: all.path, registries: places }, context);
      expect(again.failed).toBe(0);
    } finally {
      await target.stop();
    }
  });
});

describe.each(['1.6', '2.2'] as const)('unload from containerd %s', (version) => {
  it('removes the image records of the load, and leaves those of another', async () => {
    const containerd = await startContainerd(version);
    try {
      const into = { containerd: [{ socket: containerd.socket, namespaces: ['k8s.io'] }] };
      const receiptPath = site.path(`containerd-${version}.json`);
      await load({ bundle: first.path, ...into }, context);
      const before = (await containerd.ctr('-n', 'k8s.io', 'images', 'ls', '-q')).stdout;
      const held = (await containerd.ctr('-n', 'k8s.io', 'content', 'ls', '-q')).stdout;
      await load({ bundle: all.path, ...into, receiptPath }, context);
      const done = await unload({ receiptPath }, context);
      expect(done.failed).toBe(0);
      expect(states(done)).toEqual(new Set(['removed']));
      expect((await containerd.ctr('-n', 'k8s.io', 'images', 'ls', '-q')).stdout).toBe(before);
      const content = (await containerd.ctr('-n', 'k8s.io', 'content', 'ls', '-q')).stdout;
      for (const digest of held.trim().split('\n')) expect(content).toContain(digest);
      expect(states(await unload({ receiptPath }, context))).toEqual(new Set());
    } finally {
      await containerd.stop();
    }
  });
});
