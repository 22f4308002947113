import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { load } from '../../src/ops/load.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { type FleetImage, makeImage } from '../support/fleet.ts';
import { peer, type Registry, run, startRegistry } from '../support/peers.ts';
import { attach, type Described, OCI_INDEX, signByTag } from '../support/referrers.ts';

/** Signatures and referrers on registries without a referrers API (registry.md 1.5); regctl is the judge. */

let site: Site;
let image: FleetImage;
let bundle: string;
let report: Described;
let sig: Described;

beforeAll(async () => {
  site = await makeSite();
  image = makeImage({ platforms: ['linux/amd64', 'linux/arm64'], kinds: ['oci'], seed: 22 });
  const ref = await site.addImage(image);
  const at = `${site.source.url}/v2/${image.name}`;
  const digest = image.index.digest as Digest;
  report = await attach(at, { mediaType: OCI_INDEX, digest, size: image.index.bytes.length });
  sig = await signByTag(at, digest);
  bundle = await site.bundle('signed', `platforms: all\nimages: ["${ref}"]\n`);
});

afterAll(async () => {
  await site?.close();
});

describe.each(['docker-registry', 'registry3'] as const)('%s', (program) => {
  it('lists them for regctl by the fallback tag and by the tag of cosign, and a second load writes nothing', async () => {
    const target: Registry = await startRegistry({ program });
    try {
      const place = placeOf({ url: `http://${target.url}` });
      expect((await load({ bundle, registries: [place] }, testContext())).failed).toBe(0);
      const name = `${target.url}/${image.name}`;
      const host = ['--host', `reg=${target.url},tls=disabled`];
      const listed = await run(peer('regctl'), [...host, 'artifact', 'list', `${name}:${image.tag}`]);
      expect(listed.stdout).toContain(report.digest);
      const tag = `${image.index.digest.replace(':', '-')}.sig`;
      const found = await run(peer('regctl'), [...host, 'manifest', 'head', `${name}:${tag}`]);
      expect(found.stdout.trim()).toBe(sig.digest);
      const before = target.accessLog().length;
      const again = await load({ bundle, registries: [place] }, testContext());
      expect(again.targets[0]?.entries.map((e) => e.state)).toEqual(['present']);
      expect(target.accessLog().slice(before)).not.toMatch(/"(?:PUT|POST|PATCH) /);
    } finally {
      await target.stop();
    }
  });
});
