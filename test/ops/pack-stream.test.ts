/** A pack into an output: the same bytes in order, whatever the sources do; and what cannot be saved has no end. */
import { readFile, writeFile } from 'node:fs/promises';
import { Writable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openBundle } from '../../src/bundle/reader.ts';
import { writeStream } from '../../src/bundle/stream-writer.ts';
import { SealiftError } from '../../src/core/errors.ts';
import { pack } from '../../src/ops/pack.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { always, type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';

/** Larger than what is fetched ahead into memory. */
const LAYER = 9_000_000;
const CUT = 1_000_000;

let site: Site;
let good: Packed;
let layer: string;
let mirror: FaultProxy;

beforeEach(async () => {
  site = await openSite({ fleet: { images: 3, layerSizes: [LAYER, 1000], sharedBases: 0 } });
  good = await packSite(site);
  layer = good.entries.toSorted((a, b) => b.size - a.size)[0]?.digest ?? '';
  mirror = await startFaultProxy(site.source.host);
  const text = await readFile(site.manifestPath, 'utf8');
  const mirrors = `registries: {"${site.source.host}": {mirrors: ["http://${mirror.host}"]}}\n`;
  await writeFile(site.manifestPath, text + mirrors);
});

afterEach(async () => {
  await mirror.close();
  await site.close();
});

/** Keeps what it is given; each write may wait. */
function keeper(onWrite: (written: number) => Promise<void> | void = () => {}): {
  output: Writable;
  bytes: () => Buffer;
} {
  const chunks: Buffer[] = [];
  let written = 0;
  const output = new Writable({
    write: (chunk: Buffer, _, done) => {
      // The buffer is the writer's again afterwards.
      chunks.push(Buffer.from(chunk));
      written += chunk.length;
      Promise.resolve(onWrite(written)).then(() => done(), done);
    },
  });
  return { output, bytes: () => Buffer.concat(chunks) };
}

function streamTo(output: Writable, signal?: AbortSignal): ReturnType<typeof pack> {
  const context = contextOf(signal === undefined ? {} : { signal });
  return pack({ manifestPath: site.manifestPath, out: '-', output }, context);
}

/** Nothing takes what was written for a bundle. */
async function refusedAsBundle(bytes: Buffer): Promise<string> {
  await writeFile(site.path('cut.tar'), bytes);
  const error = await openBundle(site.path('cut.tar'), contextOf()).catch((e: { code: string }) => e);
  return 'code' in error ? error.code : 'opened';
}

const isLayer = ({ url, method }: { url: string; method: string }): boolean =>
  method === 'GET' && url.endsWith(`/${layer}`);

describe('a pack into an output', () => {
  it('writes the same bytes as a pack into a file, also to a reader that is slow', async () => {
    const { output, bytes } = keeper(() => new Promise((go) => setImmediate(go)));
    const result = await streamTo(output);
    expect(bytes().equals(good.bytes)).toBe(true);
    expect(result).toMatchObject({ kind: 'stream', outcome: 'packed', size: good.bytes.length });
    const blobs = good.entries.filter((e) => e.digest !== undefined);
    expect(result.stats?.fetched).toEqual({
      blobs: blobs.length,
      bytes: blobs.reduce((sum, e) => sum + e.size, 0),
    });
  });

  it('goes on at the byte where a large blob broke, with the next who has it', async () => {
    mirror.decide = always(isLayer, { kind: 'cut', after: CUT });
    mirror.onFault = () => void mirror.close();
    const { output, bytes } = keeper();
    const before = site.source.requests.length;
    await streamTo(output);
    expect(bytes().equals(good.bytes)).toBe(true);
    const asked = site.source.requests.slice(before).filter((r) => r.path.endsWith(`/${layer}`));
    expect(asked.map((r) => r.range)).toEqual(['', `bytes=${CUT}-`]);
  });

  it('fetches a small blob again that comes wrong, because it is not out yet', async () => {
    const small = good.entries.filter((e) => e.kind === 'blob' && e.size > 900 && e.size < 5000)[0]?.digest;
    mirror.decide = always(({ url }) => url.endsWith(`/${small}`), { kind: 'flip', at: 10 });
    const { output, bytes } = keeper();
    await streamTo(output);
    expect(bytes().equals(good.bytes)).toBe(true);
    expect(mirror.done).toEqual([expect.stringContaining(`/${small}`)]);
  });

  it('ends where a large blob turns out to be wrong, and what was written is no bundle', async () => {
    mirror.decide = always(isLayer, { kind: 'flip', at: CUT });
    const { output, bytes } = keeper();
    await expect(streamTo(output)).rejects.toMatchObject({
      code: 'CONTENT_DIGEST_MISMATCH',
      message: expect.stringContaining('the stream ends here'),
    });
    expect(bytes().length).toBeLessThan(good.bytes.length);
    expect(await refusedAsBundle(bytes())).toMatch(/^BUNDLE_/);
  });

  it('asks for no chart archive that a delta leaves out, in a stream and in a file', async () => {
    const archiveAsked = (): number =>
      site.source.requests.filter(({ path }) => path.endsWith('/web-1.2.3.tgz')).length;
    const before = archiveAsked();
    const { output, bytes } = keeper();
    const options = { manifestPath: site.manifestPath, since: [good.path] };
    await pack({ ...options, out: '-', output }, contextOf());
    const file = await pack({ ...options, out: site.path('delta.tar') }, contextOf());
    expect(file.base?.blobs).toBeGreaterThan(0);
    expect(bytes().equals(await readFile(site.path('delta.tar')))).toBe(true);
    expect(archiveAsked()).toBe(before);
  });

  it('of a delta whose base is not at hand makes what follows from an archive', async () => {
    const sums = site.path('SHA256SUMS');
    const entry = good.entries.find(({ name }) => name === 'SHA256SUMS');
    const from = entry?.offset ?? 0;
    await writeFile(sums, good.bytes.subarray(from, from + (entry?.size ?? 0)));
    const { output, bytes } = keeper();
    const options = { manifestPath: site.manifestPath, since: [sums] };
    await pack({ ...options, out: '-', output }, contextOf());
    await pack({ ...options, out: site.path('delta.tar') }, contextOf());
    expect(bytes().equals(await readFile(site.path('delta.tar')))).toBe(true);
  });

  it('ends when the reader has, and does not wait for what is being fetched ahead', async () => {
    const { plan, close } = await openBundle(good.path, contextOf());
    await close();
    if (plan === undefined) throw new Error('no plan');
    let [given, atEnd] = [0, 0];
    const sourceOf = async () => (failure?: unknown) => {
      if (failure !== undefined) throw failure;
      return async function* () {
        for (;;) {
          await new Promise((go) => setImmediate(go));
          given += 1;
          yield Buffer.alloc(1);
        }
      };
    };
    const write = async (): Promise<void> => {
      while (given === 0) await new Promise((go) => setImmediate(go));
      atEnd = given;
      throw new SealiftError('OUTPUT_CLOSED', 'ended');
    };
    const sink = { write, flush: async () => {} };
    const options = { sink, context: contextOf(), sourceOf, labelOf: () => '' };
    await expect(writeStream(plan, options)).rejects.toMatchObject({ code: 'OUTPUT_CLOSED' });
    // One more of each that is under way.
    expect(given - atEnd).toBeLessThan(20);
  });

  it('says that the reader has ended, and that what it has is no bundle', async () => {
    const { output, bytes } = keeper((written) => {
      if (written > 2_000_000) throw Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
    });
    await expect(streamTo(output)).rejects.toMatchObject({
      code: 'OUTPUT_CLOSED',
      hint: expect.stringContaining('remove it'),
    });
    expect(await refusedAsBundle(bytes())).toMatch(/^BUNDLE_/);
  });

  it('stops while the reader takes nothing', async () => {
    const stop = new AbortController();
    const { output } = keeper((written) => {
      if (written < 2_000_000) return;
      setImmediate(() => stop.abort());
      return new Promise<void>(() => {});
    });
    await expect(streamTo(output, stop.signal)).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('refuses a terminal before it asks anybody', async () => {
    const { output } = keeper();
    const before = site.source.requests.length;
    await expect(streamTo(Object.assign(output, { isTTY: true }))).rejects.toMatchObject({ code: 'USAGE' });
    expect(site.source.requests.length).toBe(before);
  });
});
