/** Every trap of Nexus's docker format by its name (registry.md 2.8): what a load makes of it. */
import { describe, expect, it } from 'vitest';
import { selfSigned } from '../io/certificate.ts';
import { failureOf } from '../io/server.ts';
import { basicAuth, blobOf, client, loggedIn, source } from '../oci/bench.ts';
import { type FleetImage, makeFleet, makeImage } from '../support/fleet.ts';
import { dockerRepository, type Trap } from '../support/nexus-stand-in.ts';
import {
  type Bench,
  bundleOf,
  digestBehind,
  faultsOf,
  loadInto,
  runNexus,
  runSite,
  writesOf,
} from './nexus-bench.ts';

const PLATFORMS = ['linux/amd64', 'linux/arm64'];

/** Images of several kinds over one base. */
const images = makeFleet({
  images: 4,
  platforms: PLATFORMS,
  kinds: ['oci', 'docker', 'attested', 'single'],
  seed: 61,
});

/** All of them in a bundle. */
async function bundle(options: { readonly platforms?: string } = {}): Promise<string> {
  return bundleOf(await runSite(), images, options);
}

async function expectAll(bench: Bench, prefix = ''): Promise<void> {
  for (const { name, tag, index } of images) {
    expect(await digestBehind(bench, `${prefix}${name}`, tag)).toBe(index.digest);
  }
}

/** Loads twice with these traps: all is there as it was, and the second load writes nothing. */
async function expectLoads(bench: Bench, path: string): Promise<void> {
  expect(faultsOf(await loadInto(bench, path))).toEqual([]);
  await expectAll(bench);
  const again = await loadInto(bench, path);
  expect(again.entries.map(({ state }) => state)).toEqual(images.map(() => 'present'));
  expect(writesOf(again)).toEqual([]);
}

describe('the ports of Nexus', () => {
  it('[main port] that answers a page is told with the port that is meant', async () => {
    const bench = await runNexus();
    const { targets } = await loadInto(bench, await bundle(), { url: bench.nexus.main.url });
    expect(targets[0]?.fault).toMatchObject({
      code: 'TARGET_UNREACHABLE',
      message: expect.stringContaining('HTTP 404 with a web page'),
      hint: expect.stringContaining('connector'),
    });
  });

  it('[path-routing] takes images below the name of the repository', async () => {
    const bench = await runNexus({ traps: ['path-routing'] });
    const url = `${bench.nexus.main.url}/docker-hosted`;
    expect(faultsOf(await loadInto(bench, await bundle(), { url }))).toEqual([]);
    await expectAll(bench);
    expect(bench.nexus.requests.filter(({ port }) => port === 'connector')).toEqual([]);
  });

  it('[path-routing] of a repository that is not there is told before anything is sent', async () => {
    const bench = await runNexus({ traps: ['path-routing'] });
    const loaded = await loadInto(bench, await bundle(), { url: `${bench.nexus.main.url}/docker-other` });
    expect(loaded.failed).toBeGreaterThan(0);
    expect(loaded.entries[0]?.fault?.hint).toContain('hosted repository');
    expect(writesOf(loaded).filter((w) => !w.startsWith('POST'))).toEqual([]);
  });
});

describe('the login of Nexus', () => {
  const users = { admin: 'right horse' };

  async function env(bench: Bench, password: string): Promise<Record<string, string>> {
    const auth = basicAuth('admin', password);
    return loggedIn({ [bench.nexus.connector.host]: { auth } });
  }

  for (const trap of ['realm-null', 'realm-port', 'realm-http'] as const) {
    it(`[${trap}] leads to its own token server`, async () => {
      const tls = trap === 'realm-http' ? { tls: selfSigned() } : {};
      const bench = await runNexus({ traps: [trap], users, ...tls });
      const loaded = await loadInto(bench, await bundle(), { env: await env(bench, users.admin) });
      expect(faultsOf(loaded)).toEqual([]);
      expect(loaded.asked.some(({ url }) => url.startsWith('/v2/token'))).toBe(true);
      const plain = loaded.asked.filter(
        ({ login, url }) => login === 'Basic' && !url.startsWith('/v2/token'),
      );
      expect(plain).toEqual([]);
    });
  }

  it('[401] is not sent before it is asked for, and a wrong one is told as such', async () => {
    const bench = await runNexus({ users });
    const loaded = await loadInto(bench, await bundle(), { env: await env(bench, 'wrong') });
    expect(loaded.asked[0]).toMatchObject({ url: '/v2/', login: '', status: 401 });
    expect(faultsOf(loaded)).toMatchObject([
      { code: 'AUTH_DENIED', hint: expect.stringContaining('sealift login') },
    ]);
  });

  it('[401] by Basic alone does where the realm for tokens is not active', async () => {
    const bench = await runNexus({ users });
    bench.nexus.admin.realms = ['NexusAuthenticatingRealm'];
    expect(faultsOf(await loadInto(bench, await bundle(), { env: await env(bench, users.admin) }))).toEqual(
      [],
    );
  });
});

describe('blobs, which Nexus keeps once for all images', () => {
  const blob = blobOf(Buffer.alloc(100_000, 7));

  it('[one-upload] are sent by one upload at a time, whatever images they are for', async () => {
    const { nexus } = await runNexus({ traps: ['one-upload', 'blob-once', 'late-commit'] });
    const { registry } = client(nexus.connector.host);
    const data = source(blob.bytes);
    const names = ['one', 'two', 'three'];
    const ours = await Promise.all(names.map((name) => registry.writeBlob(name, blob.descriptor, data.open)));
    expect(ours.filter((sent) => sent)).toHaveLength(1);
    expect(data.opened).toBe(1);
    for (const name of names) expect(await registry.hasBlob(name, blob.descriptor.digest)).toBe(true);
    expect(nexus.requests.filter(({ status }) => status >= 400)).toEqual([]);
  });

  it('[one-upload] that somebody else sends at the same time are waited for, and are there', async () => {
    const { nexus } = await runNexus({ traps: ['one-upload', 'blob-once', 'late-commit'] });
    const both = [client(nexus.connector.host), client(nexus.connector.host)];
    const ours = await Promise.all(
      both.map(({ registry }, i) => registry.writeBlob(`app${i}`, blob.descriptor, source(blob.bytes).open)),
    );
    expect(ours.filter((sent) => sent)).toHaveLength(1);
    expect(nexus.requests.filter(({ status }) => status === 400)).toHaveLength(1);
  });

  it('[blob-once] that are there already are no failure when they are sent again', async () => {
    const { nexus } = await runNexus({ traps: ['blob-once'] });
    const { registry } = client(nexus.connector.host);
    expect(await registry.writeBlob('one', blob.descriptor, source(blob.bytes).open)).toBe(true);
    expect(await registry.writeBlob('two', blob.descriptor, source(blob.bytes).open)).toBe(false);
    expect(nexus.requests.at(-1)).toMatchObject({ method: 'HEAD', status: 200 });
  });

  it('[one-upload, blob-once, no-mount] of several images are each sent once by a load', async () => {
    const bench = await runNexus({ traps: ['one-upload', 'blob-once', 'no-mount'] });
    await expectLoads(bench, await bundle());
    const sent = bench.nexus.requests.filter(
      ({ method, url }) => method === 'PUT' && url.includes('/uploads/'),
    );
    const blobs = new Set(images.flatMap((image) => [...image.blobs.keys()]));
    expect(sent).toHaveLength(blobs.size);
    expect(sent.filter(({ status }) => status >= 400)).toEqual([]);
  });

  it('[head-lies] that are there only for HEAD are sent again', async () => {
    const bench = await runNexus({ traps: ['head-lies', 'blob-once'] });
    const lost = images.flatMap((image) => [...image.blobs.keys()].slice(0, 2));
    for (const digest of lost) bench.nexus.docker.lost.add(digest);
    const loaded = await loadInto(bench, await bundle());
    expect(faultsOf(loaded)).toEqual([]);
    expect(loaded.entries.flatMap(({ notes }) => notes).join()).toContain('had lost blobs');
    await expectAll(bench);
  });

  it('[head-lies] that stay lost are told with what repairs Nexus', async () => {
    const bench = await runNexus({ traps: ['head-lies'] });
    const [digest = ''] = images[0]?.blobs.keys() ?? [];
    bench.nexus.docker.lost.delete = () => false;
    bench.nexus.docker.lost.add(digest);
    const loaded = await loadInto(bench, await bundle());
    const faults = loaded.entries.filter(({ state }) => state === 'failed').map(({ fault }) => fault);
    expect(faults.length).toBeGreaterThan(0);
    for (const fault of faults) expect(fault?.hint).toContain('Reconcile');
    expect(loaded.entries.some(({ state }) => state === 'written')).toBe(true);
  });

  it('[late-commit] are waited for', async () => {
    const bench = await runNexus({ traps: ['late-commit'] });
    await expectLoads(bench, await bundle());
  });

  it('[slow-commit] are taken with 202, looked for, and sent once', async () => {
    const bench = await runNexus({ traps: ['slow-commit', 'blob-once'] });
    await expectLoads(bench, await bundle());
    const sent = bench.nexus.requests.filter(
      ({ method, url }) => method === 'PUT' && url.includes('/uploads/'),
    );
    expect(new Set(sent.map(({ status }) => status))).toEqual(new Set([202]));
  });

  it('[slow-commit] that never come are a failure after some questions', async () => {
    const { nexus } = await runNexus({ traps: ['slow-commit'] });
    nexus.docker.commitAsks = 1000;
    const work = client(nexus.connector.host).registry.writeBlob(
      'app',
      blob.descriptor,
      source(blob.bytes).open,
    );
    expect(await failureOf(work)).toMatchObject({ code: 'REGISTRY_FAILED', details: { status: 202 } });
  });

  it('[no-uuid] need no Docker-Upload-UUID', async () => {
    const bench = await runNexus({ traps: ['no-uuid'] });
    await expectLoads(bench, await bundle());
  });

  it('[http-location] go by TLS although their addresses say http, with one warning', async () => {
    const bench = await runNexus({ traps: ['http-location'], tls: selfSigned() });
    const loaded = await loadInto(bench, await bundle());
    expect(faultsOf(loaded)).toEqual([]);
    await expectAll(bench);
    const warnings = loaded.events.flatMap((e) => (e.type === 'warning' ? [e.fault.message] : []));
    expect(warnings).toEqual([expect.stringContaining('say http:// although')]);
  });

  it('[body-limit] go in chunks where a proxy limits bodies', async () => {
    const bench = await runNexus({ traps: ['body-limit', 'blob-once'] });
    bench.nexus.docker.bodyLimit = 70_000;
    await expectLoads(bench, await bundle());
    expect(bench.nexus.requests.some(({ method }) => method === 'PATCH')).toBe(true);
  });

  it('[body-limit] that are refused in any size are told with the setting of the proxy', async () => {
    const bench = await runNexus({ traps: ['body-limit'] });
    bench.nexus.docker.bodyLimit = 100;
    const loaded = await loadInto(bench, await bundle());
    expect(loaded.entries[0]?.fault).toMatchObject({
      code: 'REGISTRY_FAILED',
      details: { status: 413 },
      hint: expect.stringContaining('client_max_body_size'),
    });
  });
});

describe('manifests and tags of Nexus', () => {
  it('[sparse-refused] become what is carried, with one refusal in all', async () => {
    const bench = await runNexus({ traps: ['sparse-refused'] });
    const path = await bundle({ platforms: '[linux/amd64]' });
    const loaded = await loadInto(bench, path);
    expect(faultsOf(loaded)).toEqual([]);
    const [first] = images;
    expect(await digestBehind(bench, first?.name ?? '', first?.tag ?? '')).toBe(
      first?.platforms['linux/amd64'],
    );
    const again = await loadInto(bench, path);
    expect([again.failed, writesOf(again)]).toEqual([0, []]);
  });

  it('[head-digest-500] are asked for by GET, and HEAD is not tried for each', async () => {
    const bench = await runNexus({ traps: ['head-digest-500'] });
    await expectLoads(bench, await bundle());
    const { registry } = client(bench.nexus.connector.host);
    const before = bench.nexus.requests.length;
    for (const { name, index } of images)
      expect(await registry.resolve(name, index.digest)).toBe(index.digest);
    const asked = bench.nexus.requests.slice(before).map(({ method, status }) => `${method} ${status}`);
    expect(asked).toEqual(['HEAD 500', 'HEAD 500', ...images.map(() => 'GET 200')]);
  });

  for (const trap of ['bad-link', 'no-paging'] as const) {
    it(`[${trap}] tags are all listed`, async () => {
      const { nexus, behind } = await runNexus();
      const { registry } = client(nexus.connector.host);
      const { bytes, mediaType } = makeImage({ kinds: ['single'], seed: 62 }).index;
      const body = JSON.parse(bytes.toString('utf8'));
      const bare = JSON.stringify({ ...body, config: blobOf('{}').descriptor, layers: [] });
      await registry.writeBlob('app', blobOf('{}').descriptor, source(Buffer.from('{}')).open);
      const tags = Array.from({ length: 1001 }, (_, i) => `v${i}`);
      for (const tag of tags) {
        const url = `${behind.url}/v2/app/manifests/${tag}`;
        const put = await fetch(url, { method: 'PUT', body: bare, headers: { 'content-type': mediaType } });
        await put.arrayBuffer();
      }
      nexus.traps.add(trap);
      expect((await registry.listTags('app')).sort()).toEqual(tags.sort());
    });
  }

  it('[ALLOW_ONCE] are there already where two tags of an image are the same', async () => {
    const bench = await runNexus({ traps: ['blob-once', 'one-upload', 'sparse-refused'] });
    const image = makeImage({ platforms: PLATFORMS, kinds: ['oci'], seed: 63 });
    const tags = ['1.27', 'stable', 'latest'].map((tag): FleetImage => ({ ...image, tag }));
    const path = await bundleOf(await runSite(), tags);
    expect(faultsOf(await loadInto(bench, path))).toEqual([]);
    for (const { name, tag } of tags) expect(await digestBehind(bench, name, tag)).toBe(image.index.digest);
    expect(writesOf(await loadInto(bench, path))).toEqual([]);
  });

  describe('[ALLOW_ONCE] a tag that is something else there', () => {
    const old = makeImage({ kinds: ['single'], seed: 64 });
    const own: FleetImage = { ...makeImage({ kinds: ['single'], seed: 65 }), name: old.name, tag: old.tag };
    const other = makeImage({ kinds: ['single'], seed: 66, prefix: 'other/' });

    async function lived(
      tag = old.tag,
      settings: { readonly latestPolicy?: boolean; readonly writePolicy?: 'ALLOW' } = {},
    ): Promise<{ readonly bench: Bench; readonly path: string }> {
      const once = dockerRepository('docker-hosted', { writePolicy: 'ALLOW_ONCE', ...settings });
      const bench = await runNexus({ repositories: [once] });
      const site = await runSite();
      expect(
        faultsOf(await loadInto(bench, await bundleOf(site, [{ ...old, tag }], { name: 'old' }))),
      ).toEqual([]);
      return { bench, path: await bundleOf(site, [{ ...own, tag }, other], { name: 'new' }) };
    }

    const conflict = {
      state: 'failed',
      found: old.index.digest,
      fault: {
        code: 'TARGET_CONFLICT',
        message: expect.stringMatching(new RegExp(`${old.index.digest} .*${own.index.digest}`)),
        details: { found: old.index.digest, expected: own.index.digest },
      },
    };

    it('is a conflict with both digests, nothing of it is sent, and the others go on', async () => {
      const { bench, path } = await lived();
      const loaded = await loadInto(bench, path, { onConflict: 'fail' });
      expect(loaded.entries).toMatchObject([conflict, { state: 'written' }]);
      expect(writesOf(loaded).filter((w) => w.includes(`/v2/${old.name}/`))).toEqual([]);
      expect(await digestBehind(bench, old.name, old.tag)).toBe(old.index.digest);
    });

    it('is kept where that is asked for', async () => {
      const { bench, path } = await lived();
      const loaded = await loadInto(bench, path, { onConflict: 'keep' });
      expect(loaded.failed).toBe(0);
      expect(loaded.entries).toMatchObject([
        { state: 'kept', found: old.index.digest },
        { state: 'written' },
      ]);
      expect(await digestBehind(bench, old.name, old.tag)).toBe(old.index.digest);
    });

    for (const onConflict of ['replace', undefined] as const) {
      it(`is a conflict too where it may be replaced and Nexus refuses (${onConflict ?? 'default'})`, async () => {
        const { bench, path } = await lived();
        const loaded = await loadInto(bench, path, onConflict === undefined ? {} : { onConflict });
        expect(loaded.entries).toMatchObject([conflict, { state: 'written' }]);
        expect(loaded.entries[0]?.fault?.hint).toContain('Disable redeploy');
      });
    }

    it('is replaced where Nexus allows it, and what was there is told', async () => {
      const { bench, path } = await lived(old.tag, { writePolicy: 'ALLOW' });
      const loaded = await loadInto(bench, path, { onConflict: 'replace' });
      expect(loaded.entries[0]).toMatchObject({ state: 'written', found: old.index.digest });
      expect(await digestBehind(bench, old.name, old.tag)).toBe(own.index.digest);
    });

    it('named latest moves where the repository lets just that one move', async () => {
      const { bench, path } = await lived('latest', { latestPolicy: true });
      expect((await loadInto(bench, path, { onConflict: 'fail' })).entries[0]).toMatchObject(conflict);
      const loaded = await loadInto(bench, path, { onConflict: 'fail', movesLatest: true });
      expect(loaded.entries[0]).toMatchObject({ state: 'written', found: old.index.digest });
      expect(await digestBehind(bench, old.name, 'latest')).toBe(own.index.digest);
    });

    it('named latest stays where the repository lets none move', async () => {
      const { bench, path } = await lived('latest', { latestPolicy: false });
      const loaded = await loadInto(bench, path, { onConflict: 'fail', movesLatest: true });
      expect(loaded.entries).toMatchObject([conflict, { state: 'written' }]);
      expect(loaded.entries[0]?.fault?.hint).toContain('latest');
    });
  });
});

describe('a Nexus that takes no writes', () => {
  it.each(['proxy', 'group'] as const)(
    '[%s] because its repository is none to push to tells which to take',
    async (type) => {
      const bench = await runNexus({ repositories: [dockerRepository('docker-hub', { type })] });
      const loaded = await loadInto(bench, await bundle());
      expect(loaded.failed).toBe(images.length);
      expect(loaded.entries[0]?.fault).toMatchObject({
        code: 'REGISTRY_FAILED',
        hint: expect.stringContaining('a proxy and a group take no uploads'),
      });
      expect(bench.nexus.requests.filter(({ method }) => method === 'PUT')).toEqual([]);
    },
  );

  it('[DENY] because its policy is read-only tells so at once, for all images', async () => {
    const bench = await runNexus({
      repositories: [dockerRepository('docker-hosted', { writePolicy: 'DENY' })],
    });
    const loaded = await loadInto(bench, await bundle(), { parallel: 1 });
    expect(loaded.targets[0]?.fault).toMatchObject({
      code: 'TARGET_READ_ONLY',
      message: expect.stringContaining('is read-only'),
      hint: expect.stringContaining('policy "Read-only"'),
    });
    expect(bench.nexus.requests.filter(({ method }) => method === 'PUT')).toHaveLength(1);
  });

  it('[read-only mode] in the middle is asked again some times, and then told', async () => {
    const bench = await runNexus();
    bench.nexus.admin.readOnly = true;
    const loaded = await loadInto(bench, await bundle(), { parallel: 1 });
    expect(loaded.targets[0]?.fault).toMatchObject({
      code: 'TARGET_READ_ONLY',
      message: expect.stringContaining('read-only mode'),
      hint: expect.stringContaining('end the read-only mode'),
    });
  });

  describe('[read-only mode] that it states', () => {
    async function askedOf(
      after: number | undefined,
    ): Promise<{ loaded: Awaited<ReturnType<typeof loadInto>>; asks: number }> {
      const bench = await runNexus();
      bench.nexus.admin.readOnly = true;
      bench.nexus.admin.writableAfter = after;
      const url = `${bench.nexus.main.url}/service/rest/v1/status/writable`;
      const loaded = await loadInto(bench, await bundle(), { writable: async () => (await fetch(url)).ok });
      return { loaded, asks: loaded.asked.filter((r) => r.url.endsWith('/status/writable')).length };
    }

    it('is waited for before anything is sent', async () => {
      const { loaded, asks } = await askedOf(2);
      expect([faultsOf(loaded), asks]).toEqual([[], 3]);
      expect(loaded.asked.filter(({ status }) => status === 503 && loaded.asked.length > 0).length).toBe(2);
    });

    it('and does not end is a fault of the whole target, with nothing sent', async () => {
      const { loaded, asks } = await askedOf(undefined);
      expect(loaded.targets[0]?.fault).toMatchObject({
        code: 'TARGET_READ_ONLY',
        hint: expect.stringContaining('backup'),
      });
      expect([asks, writesOf(loaded)]).toEqual([10, []]);
    });
  });
});

describe('how much is sent to a Nexus at once', () => {
  it.each([
    [1, 1],
    [3, 3],
    [500, 20],
  ])('is what is asked for (%i), and never more than 20 uploads', async (parallel, most) => {
    const bench = await runNexus({ traps: ['late-commit'] });
    const many = makeFleet({
      images: 12,
      kinds: ['single'],
      layerSizes: [2000, 2000, 2000],
      sharedBases: 0,
      seed: 67,
    });
    const loaded = await loadInto(bench, await bundleOf(await runSite(), many), { parallel });
    expect(faultsOf(loaded)).toEqual([]);
    expect(bench.nexus.docker.mostRunning).toBeLessThanOrEqual(most);
    expect(bench.nexus.docker.mostRunning).toBeGreaterThan(most === 1 ? 0 : 1);
  });
});

/** Every trap that a load can live with, at once. */
const ALL: readonly Trap[] = [
  'one-upload',
  'blob-once',
  'sparse-refused',
  'head-lies',
  'head-digest-500',
  'bad-link',
  'late-commit',
  'no-uuid',
  'http-location',
  'body-limit',
  'no-referrers',
  'no-mount',
  'realm-null',
];

describe('all traps at once', () => {
  it.each([[[]], [['slow-commit']]] as const)(
    'let every image arrive, and a second load write nothing (%j)',
    async (more) => {
      const users = { admin: 'right horse' };
      const bench = await runNexus({ traps: [...ALL, ...more], users, tls: selfSigned() });
      bench.nexus.docker.bodyLimit = 70_000;
      for (const image of images) bench.nexus.docker.lost.add([...image.blobs.keys()].at(-1) ?? '');
      const env = await loggedIn({ [bench.nexus.connector.host]: { auth: basicAuth('admin', users.admin) } });
      const path = await bundle();
      expect(faultsOf(await loadInto(bench, path, { env, onConflict: 'fail' }))).toEqual([]);
      await expectAll(bench);
      const again = await loadInto(bench, path, { env, onConflict: 'fail' });
      expect([again.failed, writesOf(again)]).toEqual([0, []]);
    },
  );
});
