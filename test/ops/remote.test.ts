/** A bundle on a server, read in place: the same as from a file, and only what is needed of it. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import type { Context, Event } from '../../src/core/events.ts';
import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { ls } from '../../src/ops/ls.ts';
import { pack } from '../../src/ops/pack.ts';
import { sign } from '../../src/ops/sign.ts';
import { verify } from '../../src/ops/verify.ts';
import { publicKeyFile } from '../../src/trust/public-key.ts';
import { contextOf, openSite, packSite, SEED, seeded } from '../bundle/site.ts';
import { always, type FaultProxy, inTurn, type Seen, startFaultProxy } from '../support/fault-proxy.ts';
import { startFake } from '../target/containerd-fake.ts';
import { keyOf } from '../trust/keys.ts';
import { damagedAt, describePlace, openTargets, placeAt, type Targets } from './damaged.ts';

const site = await openSite({ fleet: { images: 3, layerSizes: [400_000, 1000], baseSize: 300_000 } });
const good = await packSite(site);
site.source.addFile('good.tar', good.bytes);
const lastManifest = good.entries.findLast((e) => e.kind === 'manifest');
const beginning = (lastManifest?.offset ?? 0) + (lastManifest?.size ?? 0);

let proxy: FaultProxy;
let targets: Targets;
let count = 0;

beforeEach(async () => {
  proxy = await startFaultProxy(site.source.host);
  count += 1;
  targets = await openTargets(site, `t${count}`);
});

afterEach(async () => {
  await targets.close();
  await proxy.close();
});

afterAll(() => site.close());

const address = (name = 'good.tar', query = ''): string => `${proxy.url}/files/${name}${query}`;

/** Bytes of files that the server sent since, and how often it was asked. */
function sentSince(start: number): { readonly bytes: number; readonly requests: number } {
  const asked = site.source.requests.slice(start).filter((r) => r.path.startsWith('/files/'));
  return { bytes: asked.reduce((sum, r) => sum + r.bytes, 0), requests: asked.length };
}

/** Requests for parts that lie behind the documents and manifests, and before B3SUMS. */
function isBlob({ headers }: Seen): boolean {
  const [, from] = /^bytes=(\d+)-/.exec(headers.range ?? '') ?? [];
  const place = placeAt(good, Number(from ?? 0));
  return Number(from) > 0 && place.part === 'content' && place.entry?.kind === 'blob';
}

/** What a load told that must be the same from a file and from a server. */
function told({ targets: all, failed, bundle }: LoadResult): unknown {
  return { bundle, failed, entries: all.map((t) => t.entries), tallies: all.map((t) => t.tally) };
}

function neutral(result: unknown, options: LoadOptions): string {
  const hosts = (options.registries ?? []).map((place) => place.host);
  const text = JSON.stringify(result).replaceAll(/t\d+\/(files|trees)/g, '$1');
  return hosts.reduce((all, host, i) => all.replaceAll(host, `HOST${i}`), text);
}

describe('a bundle on a server', () => {
  it('is listed from its beginning and its end', async () => {
    const start = site.source.requests.length;
    const { path, ...listed } = await ls(address('good.tar', '?sig=hunter2'), contextOf());
    const { path: _, ...same } = await ls(good.path, contextOf());
    expect(listed).toEqual(same);
    expect(path).toBe(address());
    expect(sentSince(start).bytes).toBeLessThan(good.bytes.length / 2);
  });

  it.each<[string, { deep?: boolean; lockPath?: string }]>([
    ['by BLAKE3', {}],
    ['by SHA-256', { deep: true }],
    ['with a lock from elsewhere', { lockPath: site.lockPath }],
  ])('is verified %s as a file is, and read once', async (_, how) => {
    const start = site.source.requests.length;
    const { path, ...found } = await verify({ bundle: address(), ...how }, contextOf());
    const { path: __, ...same } = await verify({ bundle: good.path, ...how }, contextOf());
    expect(found).toEqual(same);
    expect(path).toBe(address());
    expect(sentSince(start).bytes).toBeLessThan(good.bytes.length + 100);
  });

  it('is loaded as a file is, and then nothing of its blobs is fetched', async () => {
    const other = await openTargets(site, `o${count}`);
    const fromFile = await load(other.options(good.path), contextOf());
    const fromServer = await load(targets.options(address()), contextOf());
    expect(fromServer.failed).toBe(0);
    const wanted = neutral(told(fromFile), other.options('')).replaceAll(`/o${count}/`, '/');
    expect(neutral(told(fromServer), targets.options('')).replaceAll(`/t${count}/`, '/')).toBe(wanted);
    const start = site.source.requests.length;
    const again = await load({ ...targets.options(address()), chartTrees: [], files: [] }, contextOf());
    expect(again.targets.map((t) => t.tally.bytesWritten)).toEqual([0, 0]);
    expect(sentSince(start).bytes).toBeLessThan(beginning + 300_000);
    await other.close();
  });

  it('gives only the blobs of what --only names', async () => {
    const start = site.source.requests.length;
    const options = { ...targets.options(address()), registries: [], chartTrees: [], only: ['notes.txt'] };
    expect((await load(options, contextOf())).failed).toBe(0);
    const small = good.entries.filter((e) => e.kind === 'blob').reduce((sum, e) => sum + e.size, 0);
    expect(sentSince(start).bytes).toBeLessThan(good.bytes.length - small / 2);
  });

  it('goes on where a connection breaks', async () => {
    proxy.decide = inTurn(isBlob, [
      { kind: 'cut', after: 100_000 },
      { kind: 'reset', after: 50_000 },
      { kind: 'answer', status: 503 },
    ]);
    const events: Event[] = [];
    const result = await load({ ...targets.options(address()), files: [] }, contextOf({ events }));
    expect(result.failed).toBe(0);
    expect(proxy.done).toHaveLength(3);
    expect(events.filter((e) => e.type === 'retry').length).toBeGreaterThanOrEqual(3);
  });

  it('with one other byte, anywhere, is never verified', async () => {
    const random = seeded(SEED);
    for (let i = 0; i < 25; i += 1) {
      const at = Math.floor(random() * good.bytes.length);
      site.source.addFile('damaged.tar', { path: await damagedAt(site, good, { at, mask: 1 << (i % 8) }) });
      const work = verify({ bundle: address('damaged.tar'), deep: i % 2 === 0 }, contextOf());
      // What ends the reading is told alone.
      const codes = await work.then(
        ({ faults }) => faults.map((f) => f.code),
        (error: unknown) => [error instanceof SealiftError ? error.code : String(error)],
      );
      expect(codes.join(' '), describePlace(placeAt(good, at))).toMatch(/^(BUNDLE_\w+ ?)+$/);
    }
  });

  it('whose blob is wrong ends the load, with nothing visible', async () => {
    const before = await targets.seen();
    const blob = good.entries.find((e) => e.kind === 'blob' && e.size > 100_000);
    const at = (blob?.offset ?? 0) + 5000;
    site.source.addFile('damaged.tar', { path: await damagedAt(site, good, { at, mask: 4 }) });
    await expect(load(targets.options(address('damaged.tar')), contextOf())).rejects.toMatchObject({
      code: 'BUNDLE_CHECKSUM_MISMATCH',
      details: { entry: blob?.name },
    });
    expect(await targets.seen()).toEqual(before);
    const checked = { ...targets.options(address('damaged.tar')), verify: true };
    await expect(load(checked, contextOf())).rejects.toMatchObject({ code: 'BUNDLE_CHECKSUM_MISMATCH' });
  });

  it('that cannot be reached any more is no failure of a target', async () => {
    const before = await targets.seen();
    proxy.decide = always(isBlob, { kind: 'answer', status: 503 });
    const outcome: unknown = await load(targets.options(address()), contextOf()).catch((e: unknown) => e);
    expect(outcome).toMatchObject({
      code: 'BUNDLE_UNREACHABLE',
      message: expect.stringContaining(address()),
    });
    expect(await targets.seen()).toEqual(before);
  });

  it('that cannot be reached any more leaves in containerd what came, under its lease', async () => {
    const fake = await startFake();
    try {
      let blobs = 0;
      proxy.decide = (seen) => (isBlob(seen) && ++blobs > 1 ? { kind: 'answer', status: 503 } : undefined);
      const to = { containerd: [{ socket: fake.socket, namespaces: ['k8s.io'] }] };
      await expect(load({ bundle: address(), ...to }, contextOf())).rejects.toMatchObject({
        code: 'BUNDLE_UNREACHABLE',
      });
      expect([fake.images.size, fake.leases.size]).toEqual([0, 1]);
    } finally {
      await fake.stop();
    }
  });

  it('that became another file in between is refused', async () => {
    proxy.decide = always(isBlob, { kind: 'rewrite', headers: { 'content-range': 'bytes 0-9/10' } });
    await expect(load(targets.options(address()), contextOf())).rejects.toMatchObject({
      code: 'BUNDLE_UNREACHABLE',
      message: expect.stringMatching(/asked for bytes \d+ to \d+ of \d+, got/),
    });
  });

  it('that is not whole yet is refused by its length', async () => {
    site.source.addFile('short.tar', good.bytes.subarray(0, beginning + 2048));
    for (const work of [
      () => ls(address('short.tar'), contextOf()),
      () => verify({ bundle: address('short.tar') }, contextOf()),
      () => load(targets.options(address('short.tar')), contextOf()),
    ]) {
      await expect(work()).rejects.toMatchObject({ code: 'BUNDLE_TRUNCATED' });
    }
  });

  it('of a server that gives no parts is refused, and the pipe is named', async () => {
    proxy.decide = always(() => true, { kind: 'rewrite', status: 200, headers: { 'content-range': null } });
    await expect(load(targets.options(address()), contextOf())).rejects.toMatchObject({
      code: 'NETWORK_FAILED',
      hint: expect.stringContaining('| sealift load -'),
    });
  });

  it.each([
    [401, 'AUTH_REQUIRED'],
    [403, 'AUTH_DENIED'],
    [404, 'CONTENT_NOT_FOUND'],
  ])('that answers HTTP %i is %s, and its query is not shown', async (status, code) => {
    proxy.decide = always(() => true, { kind: 'answer', status });
    const events: Event[] = [];
    const work = verify({ bundle: address('good.tar', '?sig=hunter2') }, contextOf({ events }));
    const failure: unknown = await work.catch((e: unknown) => e);
    expect(failure).toMatchObject({ code, message: expect.stringContaining(address()) });
    if (!(failure instanceof SealiftError)) throw new Error('not refused');
    const { message, hint, details } = failure;
    expect(JSON.stringify([message, hint, details, events])).not.toContain('hunter2');
  });

  it('is asked for with the login that the environment has for its host, and for no other', async () => {
    const prefix = `SEALIFT_CREDENTIALS_${proxy.host.replaceAll(/[.:]/g, '_')}`;
    const env = { [`${prefix}_USERNAME`]: 'kim', [`${prefix}_PASSWORD`]: 'hunter2' };
    const context: Context = { ...contextOf(), env };
    await ls(address(), context);
    expect([...proxy.secrets]).toEqual([Buffer.from('kim:hunter2').toString('base64')]);
    proxy.secrets.clear();
    const to = `${site.source.url}/files/good.tar`;
    proxy.decide = always(() => true, { kind: 'answer', status: 302, headers: { location: to } });
    expect((await ls(address(), context)).name).toBe('site');
  });

  it.each<[string, () => Promise<unknown>]>([
    ['beside another', () => load({ ...targets.options(address()), others: [good.path] }, contextOf())],
    ['beside another', () => verify({ bundle: good.path, others: [address()] }, contextOf())],
    ['beside another', () => ls([address(), address()], contextOf())],
    ['with a login inside', () => ls(address().replace('//', '//kim:hunter2@'), contextOf())],
    ['with --name', () => load({ ...targets.options(address()), name: 'x:1' }, contextOf())],
    [
      'with --write-request',
      () => verify({ bundle: address(), requestPath: site.path('r.json') }, contextOf()),
    ],
  ])('%s is USAGE', async (_, work) => {
    const failure: unknown = await work().catch((e: unknown) => e);
    expect(failure).toMatchObject({ code: 'USAGE' });
    expect(String(failure)).not.toContain('hunter2');
  });
});

describe('a delta on a server', () => {
  it('is loaded where the target has the base, and refused where not, with nothing written', async () => {
    const out = site.path('delta.tar');
    await pack({ manifestPath: site.manifestPath, out, since: [good.path] }, contextOf());
    site.source.addFile('delta.tar', { path: out });
    const options = targets.options(address('delta.tar'));
    const before = await targets.seen();
    await expect(load(options, contextOf())).rejects.toMatchObject({
      code: 'BUNDLE_BASE_MISSING',
      hint: expect.stringContaining('copy both here'),
    });
    expect(await targets.seen()).toEqual(before);
    await load(targets.options(good.path), contextOf());
    expect((await load(options, contextOf())).failed).toBe(0);
    const { leftOut, faults } = await verify({ bundle: address('delta.tar') }, contextOf());
    expect(faults).toEqual([]);
    expect(leftOut).toMatchObject({ of: [{ name: 'site' }], checked: { blobs: 0 } });
    const [{ base }, same] = [await ls(address('delta.tar'), contextOf()), await ls(out, contextOf())];
    expect(base).toEqual(same.base);
  });
});

describe('a signed bundle on a server', async () => {
  const keys = await Promise.all(
    ['a', 'b'].map(async (word) => {
      const { secret, file } = await keyOf(word);
      const [path, pub] = [site.path(`${word}.key`), site.path(`${word}.pub`)];
      await writeFile(path, file);
      await writeFile(pub, publicKeyFile(secret.public));
      return { path, pub, id: secret.public.id };
    }),
  );
  const [ours = { path: '', pub: '', id: '' }, foreign = ours] = keys;
  const password = async (): Promise<string> => Promise.reject(new Error('it has none'));
  await mkdir(site.path('signed'));

  it.each([
    ['inside', false],
    ['beside it', true],
  ])('is judged by the signature %s, before anything is written', async (_, detached) => {
    const path = site.path('signed', `${detached}.tar`);
    await writeFile(path, good.bytes);
    await sign({ path, key: { path: ours.path, password }, detached }, contextOf());
    site.source.addFile('signed.tar', await readFile(path));
    if (detached) site.source.addFile('signed.tar.minisig', await readFile(`${path}.minisig`));
    const bundle = address('signed.tar');
    const before = await targets.seen();
    const refused = load({ ...targets.options(bundle), keys: [foreign.pub] }, contextOf());
    await expect(refused).rejects.toMatchObject({ code: 'SIGNATURE_KEY_UNKNOWN' });
    expect(await targets.seen()).toEqual(before);
    const { chain, faults } = await verify({ bundle, keys: [ours.pub] }, contextOf());
    expect([chain, faults]).toEqual(['signature', []]);
    const loaded = await load({ ...targets.options(bundle), keys: [ours.pub] }, contextOf());
    expect([loaded.failed, loaded.bundle.signedBy]).toEqual([0, ours.id]);
    expect((await ls(bundle, contextOf())).signedBy).toBe(ours.id);
  });

  it('is trusted by the signature beside it, where the one inside is of a key that is not', async () => {
    const path = site.path('signed', 'both.tar');
    await writeFile(path, good.bytes);
    await sign({ path, key: { path: ours.path, password }, detached: true }, contextOf());
    await sign({ path, key: { path: foreign.path, password } }, contextOf());
    site.source.addFile('signed.tar', await readFile(path));
    site.source.addFile('signed.tar.minisig', await readFile(`${path}.minisig`));
    const told = await verify({ bundle: address('signed.tar'), keys: [ours.pub] }, contextOf());
    expect([told.chain, told.faults, told.signature.keyId]).toEqual(['signature', [], ours.id]);
  });

  it('is refused without one, where one is required', async () => {
    const before = await targets.seen();
    const refused = load({ ...targets.options(address()), keys: [ours.pub] }, contextOf());
    await expect(refused).rejects.toMatchObject({ code: 'SIGNATURE_MISSING' });
    expect(await targets.seen()).toEqual(before);
    const { faults } = await verify({ bundle: address(), keys: [ours.pub] }, contextOf());
    expect(faults.map((f) => f.code)).toEqual(['SIGNATURE_MISSING']);
  });
});
