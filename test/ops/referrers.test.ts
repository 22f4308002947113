import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { type LoadResult, load } from '../../src/ops/load.ts';
import { checkLockFile, lock } from '../../src/ops/lock.ts';
import { ls } from '../../src/ops/ls.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { type RegistryOptions, type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { type FleetImage, makeImage, pushImage } from '../support/fleet.ts';
import { attach, type Described, OCI_INDEX, pushManifest, signByTag } from '../support/referrers.ts';

/** Signatures, attestations and referrers from one registry to another (registry.md 1.5). */

let site: Site;
let image: FleetImage;
let ref: string;
let at: string;
const running: RunningRegistry[] = [];

async function registry(options: Partial<RegistryOptions> = {}): Promise<RunningRegistry> {
  const made = await startRegistry({ storage: 'memory', ...options });
  running.push(made);
  return made;
}

const top = (): Described => ({
  mediaType: OCI_INDEX,
  digest: image.index.digest as Digest,
  size: image.index.bytes.length,
});

function entriesOf(result: LoadResult): LoadResult['targets'][number]['entries'] {
  return result.targets.flatMap((t) => t.entries);
}

async function digestAt(where: RunningRegistry, reference: string): Promise<string | null> {
  const url = `${where.url}/v2/${image.name}/manifests/${reference}`;
  return (await fetch(url, { method: 'HEAD' })).headers.get('docker-content-digest');
}

/** What a client without knowledge of the API finds: the list of the API, or the index of the fallback tag. */
async function entriesAbout(
  where: RunningRegistry,
  subject: string,
): Promise<{ digest: string; artifactType?: string }[]> {
  const base = `${where.url}/v2/${image.name}`;
  const api = await fetch(`${base}/referrers/${subject}`);
  const answer = api.status === 200 ? api : await fetch(`${base}/manifests/${subject.replace(':', '-')}`);
  if (answer.status !== 200) return [];
  const body: { manifests: { digest: string; artifactType?: string }[] } = JSON.parse(await answer.text());
  return body.manifests;
}

async function listed(where: RunningRegistry, subject: string): Promise<string[]> {
  return (await entriesAbout(where, subject)).map((m) => m.digest);
}

async function listedTypes(where: RunningRegistry, subject: string): Promise<Record<string, unknown>> {
  const entries = await entriesAbout(where, subject);
  return Object.fromEntries(entries.map((m) => [m.digest, m.artifactType]));
}

beforeEach(async () => {
  site = await makeSite();
  image = makeImage({ platforms: ['linux/amd64', 'linux/arm64'], kinds: ['oci'], seed: 21 });
  ref = await site.addImage(image);
  at = `${site.source.url}/v2/${image.name}`;
});

afterEach(async () => {
  for (const one of running.splice(0)) await one.close();
  await site.close();
});

interface Signed {
  readonly sig: Described;
  readonly childSig: Described;
  readonly attestation: Described;
  readonly sbom: Described;
  readonly report: Described;
  readonly signedReport: Described;
  readonly reportTag: Described;
}

/** The index signed by tag, a child signed and attested by tag, a report by subject, which is itself signed both ways. */
async function signAll(base = at): Promise<Signed> {
  const child = image.platforms['linux/amd64'] as Digest;
  const report = await attach(base, top());
  return {
    sig: await signByTag(base, image.index.digest as Digest),
    childSig: await signByTag(base, child),
    attestation: await signByTag(base, child, 'att'),
    sbom: await signByTag(base, child, 'sbom'),
    report,
    signedReport: await attach(base, report, { type: 'application/vnd.example.signature' }),
    reportTag: await signByTag(base, report.digest),
  };
}

describe('what is about an image', () => {
  it('[1.5-api, 1.5-cosign-tags, 1.5-cosign-each] is found when the lock is made: by the tags of cosign and by subject, for the index, its children and in turn', async () => {
    const signed = await signAll();
    const bundle = await site.bundle('found', `platforms: all\nimages: ["${ref}"]\n`);
    const text = await readFile(join(site.dir, 'found', 'versions.lock'), 'utf8');
    for (const one of Object.values(signed)) expect(text).toContain(one.digest);
    const checked = await verify(
      { bundle, lockPath: join(site.dir, 'found', 'versions.lock') },
      testContext(),
    );
    expect(checked.faults).toEqual([]);
    const kinds = (await ls(bundle, testContext())).artifacts.map((a) => a.kind);
    expect(kinds).toEqual(['image', ...Object.values(signed).map(() => 'referrer')]);
    const manifestPath = join(site.dir, 'found', 'sealift.yaml');
    expect((await checkLockFile({ manifestPath, online: true }, testContext())).faults).toEqual([]);
    expect((await lock({ manifestPath, updateAll: true }, testContext())).written).toBe(false);
  });

  it.each([
    ['with the referrers API', true],
    ['without it, by the fallback tag', false],
  ])(
    '[1.4-6-subject, 1.5-cosign-tags] is found by the same two ways on a target %s, and a second load writes nothing',
    async (_, referrers) => {
      const signed = await signAll();
      const bundle = await site.bundle('loaded', `platforms: all\nimages: ["${ref}"]\n`);
      const target = await registry({ referrers });
      const result = await load({ bundle, registries: [placeOf(target)] }, testContext());
      expect(result.failed).toBe(0);
      expect(entriesOf(result)[0]?.notes).toEqual([]);
      const tag = (digest: string | undefined, suffix: string): string =>
        `${digest?.replace(':', '-')}.${suffix}`;
      const child = image.platforms['linux/amd64'];
      expect(await digestAt(target, tag(image.index.digest, 'sig'))).toBe(signed.sig.digest);
      expect(await digestAt(target, tag(child, 'sig'))).toBe(signed.childSig.digest);
      expect(await digestAt(target, tag(child, 'att'))).toBe(signed.attestation.digest);
      expect(await digestAt(target, tag(child, 'sbom'))).toBe(signed.sbom.digest);
      expect(await digestAt(target, tag(signed.report.digest, 'sig'))).toBe(signed.reportTag.digest);
      expect(await listed(target, image.index.digest)).toEqual([signed.report.digest]);
      expect(await listed(target, signed.report.digest)).toEqual([signed.signedReport.digest]);
      const before = target.requests.length;
      const again = await load({ bundle, registries: [placeOf(target)] }, testContext());
      expect(entriesOf(again).map((e) => e.state)).toEqual(['present']);
      const writes = target.requests.slice(before).filter((r) => r.method !== 'GET' && r.method !== 'HEAD');
      expect(writes).toEqual([]);
    },
  );

  describe.each([
    ['with the referrers API', true],
    ['without it', false],
  ])('signed in every form of cosign, from and to a registry %s', (_, referrers) => {
    const COSIGN = 'application/vnd.dev.cosign.artifact.sig.v1+json';
    const SIGSTORE = 'application/vnd.dev.sigstore.bundle.v0.3+json';

    it('[1.5-cosign-forms] is loaded with all of them: tag, subject with a config type, subject with an artifact type', async () => {
      const source = await registry({ referrers });
      await pushImage(source.host, image);
      const base = `${source.url}/v2/${image.name}`;
      const byTag = await signByTag(base, image.index.digest as Digest);
      const byConfig = await attach(base, top(), { configType: COSIGN, text: 'signature' });
      const byType = await attach(base, top(), { type: SIGSTORE, text: 'bundle' });
      const types = { [byConfig.digest]: COSIGN, [byType.digest]: SIGSTORE };
      if (!referrers) {
        const manifests = [byConfig, byType].map((d) => ({ ...d, artifactType: types[d.digest] }));
        const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
        const tag = image.index.digest.replace(':', '-');
        await pushManifest(base, index, { tag, mediaType: OCI_INDEX });
      }
      const manifest = `platforms: all\nimages: ["${source.host}/${image.name}:${image.tag}"]\n`;
      const bundle = await site.bundle('forms', manifest);
      const target = await registry({ referrers });
      const result = await load({ bundle, registries: [placeOf(target)] }, testContext());
      expect(entriesOf(result).flatMap((e) => e.notes)).toEqual([]);
      expect(await digestAt(target, `${image.index.digest.replace(':', '-')}.sig`)).toBe(byTag.digest);
      expect(await listedTypes(target, image.index.digest)).toEqual(types);
      for (const { digest } of [byTag, byConfig, byType]) {
        const [there, here] = [target, source].map((r) => `${r.url}/v2/${image.name}/manifests/${digest}`);
        expect(await (await fetch(there ?? '')).text()).toBe(await (await fetch(here ?? '')).text());
      }
    });
  });

  it('[1.5-fallback] is found at a source without the referrers API, which is asked for it once only', async () => {
    const old = await registry({ referrers: false });
    await pushImage(old.host, image);
    const base = `${old.url}/v2/${image.name}`;
    const report = await attach(base, top());
    const index = {
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [{ ...report, artifactType: 'application/vnd.example.report' }],
    };
    const fallback = image.index.digest.replace(':', '-');
    await pushManifest(base, index, { tag: fallback, mediaType: OCI_INDEX });
    const manifest = `platforms: [linux/amd64]\nimages: ["${old.host}/${image.name}:${image.tag}"]\n`;
    const bundle = await site.bundle('old', manifest);
    const target = await registry({ acceptSparse: true });
    await load({ bundle, registries: [placeOf(target)] }, testContext());
    expect(await listed(target, image.index.digest)).toEqual([report.digest]);
    const asked = old.requests.filter((r) => r.path.includes('/referrers/')).length;
    // The first questions run at the same time; after an answer nobody asks again.
    expect(asked).toBeLessThanOrEqual(2);
  });

  it.each([
    ['that has the API and does not say that it lists what is put', false],
    ['that says it lists what is put and has no API (ECR once did)', true],
  ])('[1.4-6-subject] is named by the fallback tag on a registry %s', async (_, referrers) => {
    const signed = await signAll();
    const bundle = await site.bundle('unlisted', `platforms: all\nimages: ["${ref}"]\n`);
    const target = await registry({
      referrers,
      intercept: (request, response) => {
        if (request.url?.includes('/referrers/') !== true) return false;
        const list = JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] });
        if (referrers) response.writeHead(404).end();
        else response.writeHead(200, { 'content-type': OCI_INDEX }).end(list);
        return true;
      },
    });
    const result = await load({ bundle, registries: [placeOf(target)] }, testContext());
    expect(result.failed).toBe(0);
    const tag = image.index.digest.replace(':', '-');
    const index = await fetch(`${target.url}/v2/${image.name}/manifests/${tag}`);
    const body: { manifests: { digest: string }[] } = JSON.parse(await index.text());
    expect(body.manifests.map((m) => m.digest)).toEqual([signed.report.digest]);
  });

  it.each([
    ['with', true],
    ['without', false],
  ])(
    '[1.4-order] is put after what it is about, and the tag of the image last, on a registry %s the API',
    async (_, referrers) => {
      const signed = await signAll();
      const bundle = await site.bundle('order', `platforms: all\nimages: ["${ref}"]\n`);
      const target = await registry({ referrers });
      await load({ bundle, registries: [placeOf(target)] }, testContext());
      const order = target.requests.flatMap((r) =>
        r.method === 'PUT' && r.status === 201 && r.path.includes('/manifests/')
          ? [r.path.split('/').at(-1) ?? '']
          : [],
      );
      const tagOf = (digest: string | undefined): string => digest?.replace(':', '-') ?? '';
      const child = image.platforms['linux/amd64'] ?? '';
      const chains = [
        [child, image.index.digest, signed.report.digest, signed.signedReport.digest],
        [child, signed.childSig.digest, `${tagOf(child)}.sig`],
        [image.index.digest, signed.sig.digest, `${tagOf(image.index.digest)}.sig`],
        [signed.report.digest, signed.reportTag.digest, `${tagOf(signed.report.digest)}.sig`],
        ...(referrers ? [] : [[signed.report.digest, tagOf(image.index.digest)]]),
      ];
      for (const chain of chains) {
        const places = chain.map((reference) => order.indexOf(reference));
        expect(places, chain.join()).not.toContain(-1);
        expect(places, chain.join()).toEqual([...places].sort((a, b) => a - b));
      }
      expect(order.at(-1)).toBe(image.tag);
    },
  );

  it('[1.3-head-broken, 1.5-cosign-tags] is found at a source whose HEAD never finds anything (old Nexus)', async () => {
    const old = await registry({
      referrers: false,
      intercept: (request, response) => {
        if (request.method !== 'HEAD') return false;
        response.writeHead(404).end();
        return true;
      },
    });
    await pushImage(old.host, image);
    const sig = await signByTag(`${old.url}/v2/${image.name}`, image.index.digest as Digest);
    const manifest = `platforms: all\nimages: ["${old.host}/${image.name}:${image.tag}"]\n`;
    const bundle = await site.bundle('nexus', manifest);
    const carried = (await ls(bundle, testContext())).artifacts.filter((a) => a.kind === 'referrer');
    expect(carried.map((a) => a.digest)).toEqual([sig.digest]);
  });

  it('[1.5-push-fallback] is added to the fallback tag beside what others put there', async () => {
    const signed = await signAll();
    const bundle = await site.bundle('beside', `platforms: all\nimages: ["${ref}"]\n`);
    const target = await registry({ referrers: false });
    await pushImage(target.host, image);
    const base = `${target.url}/v2/${image.name}`;
    const foreign = await attach(base, top(), { text: 'put by somebody at the site' });
    const index = {
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [foreign],
      annotations: { kept: 'yes' },
    };
    const tag = image.index.digest.replace(':', '-');
    await pushManifest(base, index, { tag, mediaType: OCI_INDEX });
    await load({ bundle, registries: [placeOf(target)] }, testContext());
    expect(await listed(target, image.index.digest)).toEqual([foreign.digest, signed.report.digest]);
    expect(await (await fetch(`${base}/manifests/${tag}`)).json()).toMatchObject({
      annotations: { kept: 'yes' },
    });
  });

  /** A registry without the API where somebody overwrites the fallback tag with his list, right after ours was put. */
  async function contested(
    tag: string,
    times: number,
  ): Promise<{ target: RunningRegistry; foreign: () => string | undefined }> {
    let foreign: string | undefined;
    let left = times;
    let isOurs = false;
    const target: RunningRegistry = await registry({
      referrers: false,
      intercept: async (request) => {
        if (request.url !== `/v2/${image.name}/manifests/${tag}`) return false;
        if (request.method === 'PUT') isOurs = true;
        if (request.method !== 'HEAD' || !isOurs || left === 0) return false;
        left -= 1;
        const base = `${target.url}/v2/${image.name}`;
        const other = await attach(base, top(), { text: 'put by somebody at the site' });
        foreign = other.digest;
        const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [other] };
        await pushManifest(base, index, { tag, mediaType: OCI_INDEX });
        isOurs = false;
        return false;
      },
    });
    return { target, foreign: () => foreign };
  }

  it('[1.5-push-race] is added again to the fallback tag that somebody else wrote at the same time', async () => {
    const signed = await signAll();
    const bundle = await site.bundle('race', `platforms: all\nimages: ["${ref}"]\n`);
    const { target, foreign } = await contested(image.index.digest.replace(':', '-'), 2);
    const result = await load({ bundle, registries: [placeOf(target)] }, testContext());
    expect(result.failed).toBe(0);
    expect(await listed(target, image.index.digest)).toEqual([foreign(), signed.report.digest]);
  });

  it('[1.5-push-race] is a failure of the image when that never ends', async () => {
    await signAll();
    const bundle = await site.bundle('endless', `platforms: all\nimages: ["${ref}"]\n`);
    const { target } = await contested(image.index.digest.replace(':', '-'), 1000);
    const [entry] = entriesOf(await load({ bundle, registries: [placeOf(target)] }, testContext()));
    expect(entry).toMatchObject({ state: 'failed', fault: { code: 'TARGET_FAILED' } });
    expect(entry?.fault?.hint).toContain('run the load again');
  });

  it('[1.6-signatures] stays behind, and this is told, where the registry has the index in another form (registry.md 1.6)', async () => {
    const signed = await signAll();
    const manifest = `platforms: [linux/amd64]\nimages: ["${ref}"]\n`;
    const bundle = await site.bundle('sparse', manifest);
    const target = await registry();
    const [entry] = entriesOf(await load({ bundle, registries: [placeOf(target)] }, testContext()));
    expect(entry?.state).toBe('written');
    expect(entry?.notes.join()).toContain('not transferable');
    expect(await digestAt(target, `${image.index.digest.replace(':', '-')}.sig`)).toBeNull();
    const child = image.platforms['linux/amd64'] ?? '';
    expect(await digestAt(target, `${child.replace(':', '-')}.sig`)).toBe(signed.childSig.digest);
    const again = await load({ bundle, registries: [placeOf(target)] }, testContext());
    expect(entriesOf(again).map((e) => e.state)).toEqual(['present']);
  });

  it.each([
    ['nothing', '[]', []],
    ['signatures only', '[signatures]', ['sig', 'childSig', 'attestation', 'sbom']],
    ['referrers only', '[referrers]', ['report', 'signedReport']],
  ] as const)('is chosen by `include`: %s', async (_, include, expected) => {
    const signed = await signAll();
    const bundle = await site.bundle('chosen', `platforms: all\ninclude: ${include}\nimages: ["${ref}"]\n`);
    const carried = (await ls(bundle, testContext())).artifacts.flatMap((a) =>
      a.kind === 'referrer' ? [a.digest] : [],
    );
    expect(carried.sort()).toEqual(expected.map((name) => signed[name].digest).sort());
  });

  it('is asked for anew when `include` of the image changes, and the pin stays', async () => {
    await signAll();
    const bundle = await site.bundle('changed', `include: []\nimages: ["${ref}"]\n`);
    const manifestPath = join(site.dir, 'changed', 'sealift.yaml');
    const head = 'apiVersion: sealift/v1\nname: changed\nversion: "1"\ninclude: []\n';
    await site.put('changed/sealift.yaml', `${head}images: [{ref: "${ref}", include: [referrers]}]\n`);
    const { faults } = await checkLockFile({ manifestPath }, testContext());
    expect(faults.map((f) => f.message).join()).toContain('asks to include referrers, the lock has nothing');
    const { diff } = await lock({ manifestPath }, testContext());
    const facts = diff.changed.flatMap((c) => c.changes.map((x) => x.fact));
    expect(facts.sort()).toEqual(['include', 'referrers']);
    await pack({ manifestPath, out: bundle }, testContext());
    expect((await ls(bundle, testContext())).artifacts.filter((a) => a.kind === 'referrer')).toHaveLength(2);
  });

  it('that came since is a difference for `--check --online`', async () => {
    await site.bundle('since', `platforms: all\nimages: ["${ref}"]\n`);
    const manifestPath = join(site.dir, 'since', 'sealift.yaml');
    await signByTag(at, image.index.digest as Digest);
    const { faults } = await checkLockFile({ manifestPath, online: true }, testContext());
    expect(faults.map((f) => f.code)).toEqual(['DRIFT_FOUND']);
    expect(faults[0]?.message).toContain('1 signature or referrer new');
  });
});

describe('a source that says wrong or too much about an image', () => {
  async function lockOf(options: Partial<RegistryOptions>): Promise<Awaited<ReturnType<typeof lock>>> {
    const source = await registry(options);
    await pushImage(source.host, image);
    const head = 'apiVersion: sealift/v1\nname: odd\nversion: "1"\nplatforms: all\n';
    const manifestPath = await site.put(
      'odd/sealift.yaml',
      `${head}images: ["${source.host}/${image.name}:${image.tag}"]\n`,
    );
    return lock({ manifestPath }, testContext());
  }

  /** Answers every question for referrers with these entries. */
  function lists(manifests: readonly unknown[], type = OCI_INDEX): Partial<RegistryOptions> {
    return {
      intercept: (request, response) => {
        if (request.url?.includes('/referrers/') !== true) return false;
        const body = JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests });
        response.writeHead(200, { 'content-type': type }).end(body);
        return true;
      },
    };
  }

  it('is not believed when what it lists is about something else', async () => {
    const { lock: made, warnings } = await lockOf(lists([top()]));
    expect(made.images.at(0)?.referrers).toBeUndefined();
    expect(warnings.map((w) => w.code)).toContain('OCI_MANIFEST_INVALID');
    expect(warnings[0]?.message).toContain('is about nothing');
  });

  it('is told when it lists what it does not have', async () => {
    const { warnings } = await lockOf(
      lists([{ mediaType: OCI_INDEX, digest: `sha256:${'0'.repeat(64)}`, size: 1 }]),
    );
    expect(warnings.map((w) => w.code)).toContain('CONTENT_NOT_FOUND');
  });

  it('[1.5-api-type] has no referrers API when it answers with a web page', async () => {
    const { lock: made, warnings } = await lockOf(lists([], 'text/html'));
    expect([made.images.length, warnings]).toEqual([1, []]);
  });

  it('ends the lock when it lists more than the limit, and the override is named', async () => {
    const many = Array.from({ length: 1001 }, (_, i) => ({
      mediaType: OCI_INDEX,
      digest: `sha256:${i.toString(16).padStart(64, '0')}`,
      size: 1,
    }));
    await expect(lockOf(lists(many))).rejects.toMatchObject({ code: 'CONTENT_TOO_LARGE', hint: /include/ });
  });

  it.each([401, 403, 500])('is a warning when it refuses with %i, never a failure', async (status) => {
    const { lock: made, warnings } = await lockOf({
      intercept: (request, response) => {
        const url = request.url ?? '';
        if (!url.includes('/referrers/') && !url.includes('/manifests/sha256-')) return false;
        response.writeHead(status).end();
        return true;
      },
    });
    expect(made.images.at(0)?.referrers).toBeUndefined();
    const codes = { 401: 'AUTH_REQUIRED', 403: 'AUTH_DENIED', 500: 'REGISTRY_FAILED' };
    expect([...new Set(warnings.map((w) => w.code))]).toEqual([codes[status as keyof typeof codes]]);
    expect(warnings[0]?.hint).toContain('--update');
  });

  it('cannot lead in circles: tags that point back to the image or to each other end there', async () => {
    const source = await registry();
    await pushImage(source.host, image);
    const base = `${source.url}/v2/${image.name}`;
    const sig = await signByTag(base, image.index.digest as Digest);
    const original = await (await fetch(`${base}/manifests/${sig.digest}`)).text();
    const index = await (await fetch(`${base}/manifests/${image.index.digest}`)).text();
    await pushManifest(base, original, { tag: `${sig.digest.replace(':', '-')}.sig` });
    await pushManifest(base, index, { tag: `${sig.digest.replace(':', '-')}.att`, mediaType: OCI_INDEX });
    const bundle = await site.bundle(
      'circle',
      `platforms: all\nimages: ["${source.host}/${image.name}:${image.tag}"]\n`,
    );
    const kinds = (await ls(bundle, testContext())).artifacts.map((a) => a.kind);
    expect(kinds).toEqual(['image', 'referrer']);
  });
});
