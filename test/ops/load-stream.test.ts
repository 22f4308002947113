/** A load from a pipe: the same targets as from a file, in one pass; and nothing visible of a stream that is not right. */
import { readFile, writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, packSite, placeOf, SEED, seeded } from '../bundle/site.ts';
import { changedHeader, END, joined, type Part, partsOf, withBody } from '../bundle/tar-parts.ts';
import { type Fake, startFake } from '../target/containerd-fake.ts';
import { describePlace, expectRefused, openTargets, placeAt } from './damaged.ts';

/** More than what is taken whole, and more than what is held of one that passes. */
const LAYER = 9_500_000;

const site = await openSite({
  fleet: { images: 2, layerSizes: [LAYER, 1000], sharedBases: 1, baseSize: 5_000_000 },
});
const good = await packSite(site);
/** A small one, for what is tried very often. */
const small = await openSite();
const goodSmall = await packSite(small);
afterAll(async () => {
  await site.close();
  await small.close();
});

const MANIFESTS_END = goodSmall.entries.findLast((e) => e.kind === 'manifest')?.index ?? 0;

/** A pipe that gives bytes in pieces of a size. */
function pipeOf(bytes: Buffer, piece = 65_536): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece);
    })(),
    { objectMode: false },
  );
}

/** What a load told that must be the same from a file and from a pipe. */
function told({ targets, failed, bundle }: LoadResult): unknown {
  return { bundle, failed, entries: targets.map((t) => t.entries), faults: targets.map((t) => t.fault) };
}

async function allTargets(name: string): Promise<{
  readonly options: Omit<LoadOptions, 'bundle'>;
  readonly fake: Fake;
  readonly registry: RunningRegistry;
  readonly close: () => Promise<void>;
}> {
  const fake = await startFake();
  const registry = await startRegistry({ storage: 'memory' });
  return {
    fake,
    registry,
    options: {
      registries: [placeOf(registry)],
      containerd: [{ socket: fake.socket, namespaces: ['k8s.io', 'other'] }],
      chartTrees: [site.path(name, 'trees')],
      files: [site.path(name, 'files')],
    },
    close: async () => {
      await fake.stop();
      await registry.close();
    },
  };
}

describe('a load from a pipe', () => {
  it('brings to every target what a load from the file brings', async () => {
    const [a, b] = [await allTargets('a'), await allTargets('b')];
    const fromFile = await load({ bundle: good.path, ...a.options }, contextOf());
    const fromPipe = await load(
      { bundle: '-', input: pipeOf(good.bytes, 10_007), ...b.options },
      contextOf(),
    );
    const neutral = (result: LoadResult, name: string, host: string): string =>
      JSON.stringify(told(result)).replaceAll(site.path(name), 'DIR').replaceAll(host, 'HOST');
    expect(neutral(fromPipe, 'b', b.registry.host)).toBe(neutral(fromFile, 'a', a.registry.host));
    expect(fromPipe.failed).toBe(0);
    expect(fromPipe.verified).toBe(true);
    expect([...b.fake.blobs.keys()].sort()).toEqual([...a.fake.blobs.keys()].sort());
    expect([...b.fake.images]).toEqual([...a.fake.images]);
    expect(b.fake.leases.size).toBe(0);
    const sent = (r: LoadResult): unknown => r.targets.map((t) => t.tally);
    expect(sent(fromPipe)).toEqual(sent(fromFile));
    await a.close();
    await b.close();
  });

  it('sends nothing that is there, and reads to the end', async () => {
    const at = await allTargets('again');
    await load({ bundle: good.path, ...at.options }, contextOf());
    const input = pipeOf(good.bytes);
    const again = await load({ bundle: '-', input, ...at.options }, contextOf());
    expect(again.targets.map((t) => t.tally.bytesWritten)).toEqual([0, 0, 0, 0, 0]);
    expect(again.targets.flatMap((t) => t.entries.map((e) => e.state))).not.toContain('written');
    expect(input.readableEnded).toBe(true);
    await at.close();
  });

  it('loads what --only names, and writes a lock beside the trees that is that of the bundle', async () => {
    const at = await allTargets('only');
    const input = pipeOf(good.bytes);
    const result = await load({ bundle: '-', input, ...at.options, only: ['web-1.2.3'] }, contextOf());
    expect(result.failed).toBe(0);
    expect(at.fake.images.size).toBe(0);
    expect(await readFile(site.path('only', 'trees', 'versions.lock'))).toEqual(
      await readFile(site.lockPath),
    );
    await at.close();
  });

  it('brings files that have the very bytes of a manifest or of a config', async () => {
    const own = await openSite();
    const [image] = own.images;
    const config = [...(image?.blobs.values() ?? [])].find((b) => b.mediaType.includes('config'))?.bytes();
    const bytes = { manifest: image?.index.bytes ?? '', config: config ?? '' };
    for (const [name, of] of Object.entries(bytes)) await writeFile(own.path(name), of);
    const files = ['manifest', 'config'].map((name) => `  - {path: ${name}, name: ${name}}\n`).join('');
    const text = await readFile(own.manifestPath, 'utf8');
    await writeFile(own.manifestPath, text.replace('files:\n', `files:\n${files}`));
    await lock({ manifestPath: own.manifestPath }, contextOf());
    const packed = await packSite(own);
    const at = await allTargets('equal');
    const result = await load({ bundle: '-', input: pipeOf(packed.bytes), ...at.options }, contextOf());
    expect(result.targets.flatMap((t) => t.entries.flatMap((e) => e.fault ?? []))).toEqual([]);
    for (const [name, of] of Object.entries(bytes)) {
      expect(await readFile(site.path('equal', 'files', name), 'utf8'), name).toBe(of.toString());
    }
    await at.close();
    await own.close();
  });

  it('plans with --dry-run from the beginning alone, and writes nothing', async () => {
    const at = await allTargets('dry');
    const manifests = good.entries.filter((e) => e.kind === 'manifest').at(-1);
    const until = Math.ceil(((manifests?.offset ?? 0) + (manifests?.size ?? 0)) / 512) * 512;
    const input = pipeOf(good.bytes.subarray(0, until));
    const plan = await load({ bundle: '-', input, ...at.options, dryRun: true }, contextOf());
    const same = await load({ bundle: good.path, ...at.options, dryRun: true }, contextOf());
    expect(told(plan)).toEqual(told(same));
    expect(plan.verified).toBe(false);
    expect(at.fake.writes()).toEqual([]);
    expect(input.destroyed).toBe(true);
    await at.close();
  });

  it.each([
    ['--verify', { verify: true }],
    ['--name', { name: 'x:1' }],
    ['read alone', { others: ['other.tar'] }],
  ])('refuses %s', async (flag, more) => {
    const at = { bundle: '-', input: pipeOf(good.bytes), files: [site.path('refused')], ...more };
    await expect(load(at, contextOf())).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining(flag),
    });
  });

  it('takes a terminal for a slip', async () => {
    const input = Object.assign(pipeOf(good.bytes), { isTTY: true });
    const options = { bundle: '-', input, files: [site.path('refused')] };
    await expect(load(options, contextOf())).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('says what came instead of a bundle', async () => {
    const options = (bytes: Buffer): LoadOptions => ({
      bundle: '-',
      input: pipeOf(bytes),
      files: [site.path('x')],
    });
    const nothing = await expectRefused(options(Buffer.alloc(0)), 'nothing');
    expect([nothing.code, nothing.message]).toEqual([
      'BUNDLE_TRUNCATED',
      'stdin: ended before anything came',
    ]);
    const other = await expectRefused(options(Buffer.alloc(5000, 'ssh: no such host\n')), 'a message');
    expect(other.message).toBe('stdin: does not begin as a bundle of sealift');
  });
});

describe('a stream that is not right', () => {
  let targets: Awaited<ReturnType<typeof openTargets>>;
  let fake: Fake;
  let count = 0;

  beforeEach(async () => {
    count += 1;
    targets = await openTargets(small, `hostile-${count}`);
    fake = await startFake();
  });

  afterEach(async () => {
    await targets.close();
    await fake.stop();
  });

  /** A load of these bytes must be refused, and nothing may be seen of it afterwards. */
  async function refused(bytes: Buffer, what: string, piece?: number): Promise<SealiftError> {
    const containerd = [{ socket: fake.socket, namespaces: ['k8s.io'] }];
    const options = { ...targets.options('-'), input: pipeOf(bytes, piece), containerd };
    const error = await expectRefused(options, what);
    expect(fake.images.size, what).toBe(0);
    return error;
  }

  /** The blobs that somebody has by digest are harmless; manifests would be seen. */
  function manifestsThere(): string[] {
    const names = new Set(
      goodSmall.entries.filter((e) => e.kind === 'manifest').map((e) => e.digest as string),
    );
    return [...fake.blobs.keys()].filter((digest) => names.has(digest));
  }

  it('is refused wherever it ends early, and a whole one goes on from there', async () => {
    const before = await targets.seen();
    const random = seeded(SEED + 11);
    // What ends in its first entry may be anything.
    for (const entry of goodSmall.entries.slice(1)) {
      const within = Math.floor(random() * entry.size);
      for (const at of [entry.offset - 512, entry.offset - 100, entry.offset + within]) {
        const error = await refused(goodSmall.bytes.subarray(0, at), `ends at ${at}`);
        expect(error.code).toBe('BUNDLE_TRUNCATED');
      }
    }
    for (const back of [1, 512, 1024]) {
      await refused(goodSmall.bytes.subarray(0, goodSmall.bytes.length - back), `lacks ${back}`);
    }
    expect(await targets.seen()).toEqual(before);
    expect(manifestsThere()).toEqual([]);
    // What came before a break is kept for the next run, under a lease that ends by itself.
    expect(fake.leases.size).toBeGreaterThan(0);
    const containerd = [{ socket: fake.socket, namespaces: ['k8s.io'] }];
    const options = { ...targets.options('-'), input: pipeOf(goodSmall.bytes), containerd };
    const done = await load(options, contextOf());
    expect(done.failed).toBe(0);
    expect(
      done.targets
        .filter((t) => t.kind !== 'files' && t.kind !== 'chart-tree')
        .map((t) => t.tally.blobsWritten),
    ).toEqual([0, 0, 0]);
    expect(fake.images.size).toBeGreaterThan(0);
  });

  it(`is refused for a byte flipped anywhere (seed ${SEED})`, async () => {
    const before = await targets.seen();
    const random = seeded(SEED + 12);
    for (const entry of goodSmall.entries) {
      const places = [
        entry.offset + Math.floor(random() * Math.max(1, entry.size)),
        entry.offset - 512 + Math.floor(random() * 512),
      ];
      for (const at of places) {
        const bytes = Buffer.from(goodSmall.bytes);
        bytes[at] = (bytes[at] ?? 0) ^ (1 + Math.floor(random() * 255));
        await refused(bytes, describePlace(placeAt(goodSmall, at)), 1 + Math.floor(random() * 4000));
      }
    }
    expect(await targets.seen()).toEqual(before);
    expect(manifestsThere()).toEqual([]);
  });

  it('leaves no lease where the content itself was wrong', async () => {
    const layer = goodSmall.entries.findLast((e) => e.kind === 'blob');
    const bytes = Buffer.from(goodSmall.bytes);
    const at = (layer?.offset ?? 0) + 3;
    bytes[at] = 255 - (bytes[at] ?? 0);
    const error = await refused(bytes, 'a wrong layer');
    expect(error.code).toBe('BUNDLE_CHECKSUM_MISMATCH');
    expect(fake.leases.size).toBe(0);
  });

  const parts = partsOf(goodSmall);
  const swapped = (a: number, b: number): Part[] =>
    parts.map((p, i) => (i === a ? parts[b] : i === b ? parts[a] : p)).filter((p) => p !== undefined);
  const without = (at: number): Part[] => parts.filter((_, i) => i !== at);
  const last = parts.length - 1;
  const sums = parts[last];
  const anyBlob = parts.findLastIndex((_, i) => goodSmall.entries[i]?.kind === 'blob');

  it.each<[string, () => Buffer]>([
    ['bytes behind the end', () => Buffer.concat([goodSmall.bytes, Buffer.from('x')])],
    ['zeros behind the end', () => Buffer.concat([goodSmall.bytes, Buffer.alloc(8192)])],
    ['two documents swapped', () => joined(swapped(1, 3))],
    ['two manifests swapped', () => joined(swapped(MANIFESTS_END - 1, MANIFESTS_END))],
    ['two blobs swapped', () => joined(swapped(anyBlob - 1, anyBlob))],
    ['a manifest twice', () => joined(parts.toSpliced(MANIFESTS_END, 0, parts[MANIFESTS_END] as Part))],
    ['a manifest missing', () => joined(without(MANIFESTS_END))],
    ['a blob missing', () => joined(without(anyBlob))],
    ['B3SUMS missing', () => joined(without(last))],
    [
      'B3SUMS of another order',
      () => {
        const lines = sums?.body.toString().trimEnd().split('\n') ?? [];
        return joined([
          ...parts.slice(0, last),
          withBody(sums as Part, Buffer.from(`${lines.toReversed().join('\n')}\n`)),
        ]);
      },
    ],
    [
      'a line of B3SUMS for an entry that is not there',
      () => {
        const text = sums?.body.toString() ?? '';
        const body = Buffer.from(
          text.replace(/[^ ]*$/m, `blobs/sha256/${'0'.repeat(64)}`).slice(0, text.length),
        );
        return joined([...parts.slice(0, last), { ...(sums as Part), body }]);
      },
    ],
    ['an entry behind B3SUMS', () => joined([...parts, parts[0] as Part])],
    [
      'a signature of nobody',
      () =>
        joined([
          ...parts,
          {
            ...withBody(parts[0] as Part, Buffer.from('no')),
            header: changedHeader(withBody(parts[0] as Part, Buffer.from('no')).header, {
              0: 'B3SUMS.minisig',
            }),
          },
          parts[0] as Part,
        ]),
    ],
    [
      'a link',
      () =>
        joined(
          parts.map((p, i) => (i === anyBlob ? { ...p, header: changedHeader(p.header, { 156: '2' }) } : p)),
        ),
    ],
    [
      'a name that leads out',
      () =>
        joined(
          parts.map((p, i) =>
            i === anyBlob ? { ...p, header: changedHeader(p.header, { 0: `../${p.name}\0` }) } : p,
          ),
        ),
    ],
    [
      'one zero block in the middle',
      () => Buffer.concat([joined(parts.slice(0, anyBlob), Buffer.alloc(512)), joined(parts.slice(anyBlob))]),
    ],
    ['only one zero block at the end', () => joined(parts, END.subarray(512))],
  ])('is refused with %s, and nothing becomes visible', async (what, make) => {
    const before = await targets.seen();
    await refused(make(), what);
    expect(await targets.seen()).toEqual(before);
    expect(manifestsThere()).toEqual([]);
  });
});
