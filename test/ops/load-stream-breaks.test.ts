/** A load from a pipe when targets break or are slow, when the sender is, and when it is stopped. */
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, type Packed, packSite, placeOf } from '../bundle/site.ts';
import { type FaultProxy, inTurn, type Seen, startFaultProxy } from '../support/fault-proxy.ts';
import { type Fake, startFake } from '../target/containerd-fake.ts';

/** Both larger than the window in which a blob that passes can be begun again. */
const LAYER = 24_000_000;
const BASE = 18_000_000;

const site = await openSite({
  fleet: { images: 2, layerSizes: [LAYER], sharedBases: 1, baseSize: BASE, kinds: ['oci'] },
});
const good = await packSite(site);
const layers = good.entries.filter((e) => e.size > BASE + 1_000_000).map((e) => e.digest as string);
const lastLayer = layers.at(-1) ?? '';
/** For the containerd of the tests, which is slow: one blob passes by itself. */
const less = await openSite({ fleet: { images: 1, layerSizes: [6_000_000], kinds: ['oci'] } });
const goodLess = await packSite(less);
afterAll(async () => {
  await site.close();
  await less.close();
});

let target: RunningRegistry;
let proxy: FaultProxy;

beforeEach(async () => {
  target = await startRegistry({ storage: 'memory' });
  proxy = await startFaultProxy(target.host);
});

afterEach(async () => {
  await proxy.close();
  await target.close();
});

function pipe({ bytes }: Packed = good): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
    })(),
    { objectMode: false },
  );
}

const place = (url: string): NonNullable<LoadOptions['registries']>[number] => ({
  ...parseRegistryUrl(url),
  naming: 'drop-host',
  indexPolicy: 'auto',
});

const isUploadOf =
  (digest: string) =>
  ({ method, url }: Seen): boolean =>
    method === 'PUT' && url.includes(encodeURIComponent(digest));

const written = (result: LoadResult, of: number): number | undefined =>
  result.targets[of]?.tally.blobsWritten;
const states = (result: LoadResult, of: number): string[] =>
  (result.targets[of]?.entries ?? []).filter((e) => e.kind === 'image').map((e) => e.state);

describe('an upload that breaks', () => {
  it('is begun again where the beginning of the blob is still held', async () => {
    proxy.decide = inTurn(isUploadOf(lastLayer), [{ kind: 'upload-reset', at: 1_000_000 }]);
    const registries = [place(proxy.url)];
    const result = await load({ bundle: '-', input: pipe(), registries }, contextOf());
    expect(proxy.done).toHaveLength(1);
    expect(result.failed).toBe(0);
    expect(states(result, 0)).toEqual(['written', 'written']);
  });

  it('fails what needs the blob, on this target alone, where it has passed; sending again goes on', async () => {
    const other = await startRegistry({ storage: 'memory' });
    proxy.decide = inTurn(isUploadOf(lastLayer), [{ kind: 'upload-reset', at: LAYER - 1_000_000 }]);
    const options = { bundle: '-', registries: [place(proxy.url), placeOf(other)] };
    const first = await load({ ...options, input: pipe() }, contextOf());
    expect(states(first, 0).toSorted()).toEqual(['failed', 'written']);
    expect(states(first, 1)).toEqual(['written', 'written']);
    const [fault] = first.targets[0]?.entries.flatMap((e) => e.fault ?? []) ?? [];
    expect(fault).toMatchObject({
      message: expect.stringContaining('the stream has passed it'),
      hint: expect.stringContaining('send the bundle once more'),
    });
    const second = await load({ ...options, input: pipe() }, contextOf());
    expect(second.failed).toBe(0);
    expect([written(second, 0), written(second, 1)]).toEqual([1, 0]);
    await other.close();
  });

  it('of one target does not keep a fast one from the end', async () => {
    const fake = await startFake();
    const slow = await startRegistry({
      storage: 'memory',
      intercept: async ({ method, url }) => {
        if (method === 'POST' && url?.includes('/blobs/uploads/') === true)
          await new Promise((go) => setImmediate(go));
        return false;
      },
    });
    const containerd = [{ socket: fake.socket, namespaces: ['a', 'b'] }];
    const registries = [placeOf(slow), placeOf(target)];
    const result = await load({ bundle: '-', input: pipe(goodLess), registries, containerd }, contextOf());
    expect(result.failed).toBe(0);
    expect(result.targets.map((t) => t.entries.map((e) => e.state))).not.toContain('failed');
    await slow.close();
    await fake.stop();
  });
});

describe('a registry that dies in the middle', () => {
  it.each([['from a pipe'], ['from a file']])('fails as a whole, and keeps nobody else (%s)', async (how) => {
    let left = 25;
    const dying = await startRegistry({
      storage: 'memory',
      intercept: (request) => {
        left -= 1;
        if (left >= 0) return false;
        request.socket.destroy();
        return true;
      },
    });
    const registries = [placeOf(dying), placeOf(target)];
    const from = how === 'from a file' ? { bundle: good.path } : { bundle: '-', input: pipe() };
    const result = await load({ ...from, registries }, contextOf());
    expect(left).toBeLessThan(0);
    expect(result.targets[0]?.fault).toMatchObject({ code: 'TARGET_UNREACHABLE' });
    expect(states(result, 0)).not.toContain('written');
    expect(result.targets[1]?.fault).toBeNull();
    expect(states(result, 1)).toEqual(['written', 'written']);
    await dying.close();
  });
});

describe('a stream that nobody needs any more', () => {
  /** A whole bundle, and how much of it was taken. */
  function watched(): { input: Readable; taken: () => number } {
    let taken = 0;
    const pieces = function* (): Generator<Buffer> {
      for (; taken < good.bytes.length; taken += 65_536) yield good.bytes.subarray(taken, taken + 65_536);
    };
    return { input: Readable.from(pieces(), { objectMode: false }), taken: () => taken };
  }

  it('is not read on where no target answers', async () => {
    const gone = placeOf(target);
    await target.close();
    const { input, taken } = watched();
    const result = await load({ bundle: '-', input, registries: [gone] }, contextOf());
    expect(result.targets[0]?.fault).toMatchObject({ code: 'TARGET_UNREACHABLE' });
    expect(result.verified).toBe(false);
    expect(input.destroyed).toBe(true);
    expect(taken()).toBeLessThan(LAYER);
  });

  it('leaves a tree alone whose charts are there, because nothing of it is proved', async () => {
    const trees = site.path('proved', 'trees');
    await load({ bundle: good.path, chartTrees: [trees] }, contextOf());
    await rm(join(trees, 'web-1.2.3'), { recursive: true });
    await writeFile(join(trees, 'web-1.2.3'), 'in the way');
    await rm(join(trees, 'versions.lock'));
    const { input, taken } = watched();
    const result = await load({ bundle: '-', input, chartTrees: [trees] }, contextOf());
    expect(result.targets[0]?.entries[0]?.fault?.code).toBe('TARGET_CONFLICT');
    expect(taken()).toBeLessThan(LAYER);
    expect(await readdir(trees)).toEqual(['web-1.2.3']);
  });
});

describe('a registry while a bundle comes', () => {
  it('gets blobs only, and manifests when the last byte of the bundle is there', async () => {
    const early: string[] = [];
    let [hasEnded, later] = [false, 0];
    const observed = await startRegistry({
      storage: 'memory',
      intercept: ({ method, url = '' }) => {
        if (method !== 'PUT' || !url.includes('/manifests/')) return false;
        if (hasEnded) later += 1;
        else early.push(url);
        return false;
      },
    });
    const input = Readable.from(
      (async function* () {
        for (let at = 0; at < goodLess.bytes.length; at += 65_536) {
          const isLast = at + 65_536 >= goodLess.bytes.length;
          // What came before must have had all the time that it wants.
          if (isLast) for (let i = 0; i < 200; i++) await new Promise((go) => setImmediate(go));
          if (isLast) hasEnded = true;
          yield goodLess.bytes.subarray(at, at + 65_536);
        }
      })(),
      { objectMode: false },
    );
    const result = await load({ bundle: '-', input, registries: [placeOf(observed)] }, contextOf());
    expect(result.failed).toBe(0);
    expect(early).toEqual([]);
    expect(later).toBeGreaterThan(0);
    await observed.close();
  });
});

describe('a registry that does not mount', () => {
  it('gets a large blob of several repositories from itself, without the stream', async () => {
    const reads: string[] = [];
    const stubborn = await startRegistry({
      storage: 'memory',
      intercept: ({ method, url = '' }, response) => {
        if (method === 'GET' && url.includes('/blobs/sha256:')) reads.push(url);
        if (!url.includes('mount=')) return false;
        response.writeHead(405).end();
        return true;
      },
    });
    const result = await load({ bundle: '-', input: pipe(), registries: [placeOf(stubborn)] }, contextOf());
    expect(result.failed).toBe(0);
    expect(states(result, 0)).toEqual(['written', 'written']);
    expect(result.targets[0]?.tally.blobsMounted).toBe(0);
    // Only the base, which is of both: it is larger than what is held.
    expect(reads).toEqual([expect.stringContaining('/blobs/sha256:')]);
    await stubborn.close();
  });
});

describe('a sender that is slow, or stops', () => {
  let fake: Fake;

  beforeEach(async () => {
    fake = await startFake();
  });

  afterEach(() => fake.stop());

  /** Sends a part and then nothing more. */
  function stalled(until: number): Readable {
    let at = 0;
    return new Readable({
      read() {
        if (at >= until) return;
        const next = Math.min(until, at + 65_536);
        this.push(goodLess.bytes.subarray(at, next));
        at = next;
      },
    });
  }

  it.each([
    ['in the documents', 700],
    ['in a small blob', (goodLess.entries.find((e) => e.kind === 'config')?.offset ?? 0) + 10],
    ['in a large blob', (goodLess.entries.find((e) => e.size > 4_500_000)?.offset ?? 0) + 3_000_000],
    ['before the last zeros', goodLess.bytes.length - 600],
  ])('and a stop %s end at once, with nothing visible and what came kept', async (_, until) => {
    const stop = new AbortController();
    const input = stalled(until);
    const context = contextOf({ signal: stop.signal });
    const options = {
      registries: [placeOf(target)],
      containerd: [{ socket: fake.socket, namespaces: ['k8s.io'] }],
      files: [site.path('stalled', 'files')],
    };
    const loading = load({ bundle: '-', input, ...options }, context);
    const ended = loading.catch((error: unknown) => error);
    await vi.waitFor(() => expect(input.readableLength).toBe(0), 5000);
    setTimeout(() => stop.abort(), 50);
    expect(await ended).toMatchObject({ code: 'ABORTED' });
    expect(input.destroyed).toBe(true);
    expect(fake.images.size).toBe(0);
    const again = await load({ bundle: '-', input: pipe(goodLess), ...options }, contextOf());
    expect(again.failed).toBe(0);
  });

  it('that breaks in a large blob leaves what came under its lease', async () => {
    const large = goodLess.entries.find((e) => e.size > 4_500_000);
    const until = (large?.offset ?? 0) + 1_000_000;
    const input = Readable.from(
      (async function* () {
        for (let at = 0; at < until; at += 65_536) yield goodLess.bytes.subarray(at, at + 65_536);
        throw Object.assign(new Error('read EIO'), { code: 'EIO' });
      })(),
    );
    const containerd = [{ socket: fake.socket, namespaces: ['k8s.io'] }];
    await expect(load({ bundle: '-', input, containerd }, contextOf())).rejects.toMatchObject({
      code: 'FILE_UNREADABLE',
      message: expect.stringContaining('stdin'),
    });
    expect(fake.leases.size).toBe(1);
    expect(fake.images.size).toBe(0);
  });

  it('that breaks in the middle is an error of the bundle', async () => {
    const input = Readable.from(
      (async function* () {
        yield goodLess.bytes.subarray(0, goodLess.bytes.length / 2);
        throw Object.assign(new Error('read EIO'), { code: 'EIO' });
      })(),
    );
    const options = { bundle: '-', input, registries: [placeOf(target)] };
    await expect(load(options, contextOf())).rejects.toMatchObject({
      code: expect.stringMatching(/^BUNDLE_|^FILE_/),
    });
    const catalog = await (await fetch(`${target.url}/v2/_catalog`)).json();
    for (const repository of (catalog as { repositories: string[] }).repositories) {
      const { tags } = (await (await fetch(`${target.url}/v2/${repository}/tags/list`)).json()) as {
        tags: unknown;
      };
      expect(tags ?? []).toEqual([]);
    }
  });
});
