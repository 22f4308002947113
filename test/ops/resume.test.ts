/** A pack that was stopped goes on, and asks only for what is not there. */
import { appendFile, cp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Event } from '../../src/core/events.ts';
import { kindOf } from '../../src/io/files.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, packSite, SEED, seeded } from '../bundle/site.ts';
import { blobGets, change, openPackBench, type PackBench, rightBytes, wholeBlobs } from './interrupted.ts';

let bench: PackBench;

beforeEach(async () => {
  bench = await openPackBench();
});

afterEach(() => bench.close());

describe(`a pack that was stopped (seed ${SEED})`, () => {
  it('goes on each time, ends with the same bytes, and never asks again for a blob that was there', async () => {
    const random = seeded(SEED);
    let stopped = 0;
    for (let i = 0; i < 15; i++) {
      const already = await wholeBlobs(`${bench.out}.partial`, bench.good.entries);
      const from = bench.site.source.requests.length;
      const wasStopped = await bench.packUntil({ bytes: 1 + Math.floor((random() * bench.total()) / 4) });
      expect(blobGets(bench.site.source, from).filter((d) => already.has(d))).toEqual([]);
      if (wasStopped) stopped += 1;
      else {
        expect((await readFile(bench.out)).equals(bench.good.bytes)).toBe(true);
        await rm(bench.out);
      }
    }
    expect(stopped).toBeGreaterThan(5);
    const already = await wholeBlobs(`${bench.out}.partial`, bench.good.entries);
    const { asked } = await bench.finished();
    expect(asked.filter((d) => already.has(d))).toEqual([]);
  });

  it('leaves nothing at the path of the bundle until it is finished', async () => {
    expect(await bench.packUntil({ blobs: 6 })).toBe(true);
    expect(await kindOf(bench.out)).toBeUndefined();
    expect(await kindOf(`${bench.out}.partial`)).toBe('file');
    await expect(verify({ bundle: `${bench.out}.partial` }, contextOf())).rejects.toMatchObject({
      code: expect.stringMatching(/^BUNDLE_/),
    });
  });

  it('says how much it found, took and fetched', async () => {
    expect(await bench.packUntil({ blobs: 6 })).toBe(true);
    const there = await wholeBlobs(`${bench.out}.partial`, bench.good.entries);
    const { result } = await bench.finished();
    const { resumed, reused, fetched } = result.stats ?? { resumed: null, reused: null, fetched: null };
    expect(resumed?.blobs).toBe(there.size);
    expect(reused).toEqual({ blobs: 0, bytes: 0 });
    expect((resumed?.blobs ?? 0) + (fetched?.blobs ?? 0)).toBe(result.blobs);
    const blobBytes = bench.good.entries.reduce((sum, e) => sum + (e.digest === undefined ? 0 : e.size), 0);
    expect((resumed?.bytes ?? 0) + (fetched?.bytes ?? 0)).toBe(blobBytes);
  });

  it('finds a blob whose last byte came and whose line in the journal did not', async () => {
    expect(await bench.packUntil({ blobs: 6 })).toBe(true);
    const there = await wholeBlobs(`${bench.out}.partial`, bench.good.entries);
    const journal = `${bench.out}.partial.journal`;
    const lines = (await readFile(journal, 'utf8')).split('\n');
    await writeFile(journal, lines.filter((l) => !l.includes('"s":')).join('\n'));
    const { asked } = await bench.finished();
    expect(there.size).toBeGreaterThan(0);
    expect(asked.filter((d) => there.has(d))).toEqual([]);
  });
});

describe('what an interrupted pack left behind', () => {
  it('[1.3-resume-disk] is not believed: a blob that was changed between the runs is fetched again, and only that one', async () => {
    expect(await bench.packUntil({ blobs: 10 })).toBe(true);
    const there = [...(await wholeBlobs(`${bench.out}.partial`, bench.good.entries))].map(bench.entryOf);
    const victim = there.find((e) => e.kind === 'blob' && e.size > 1000);
    if (victim === undefined) throw new Error('a layer was complete');
    await change(`${bench.out}.partial`, victim.offset + 500, Buffer.from('changed'));
    const { asked } = await bench.finished();
    expect(asked).toContain(victim.digest);
    const others = there.filter((e) => e !== victim).map((e) => e.digest);
    expect(asked.filter((d) => others.includes(d as never))).toEqual([]);
  });

  it('may have wrong bytes between the blobs and in the places of documents: the result is the same', async () => {
    expect(await bench.packUntil({ blobs: 10 })).toBe(true);
    for (const e of bench.good.entries) {
      const end = e.offset + e.size;
      await change(`${bench.out}.partial`, e.offset - 512, Buffer.alloc(512, 0xff));
      await change(`${bench.out}.partial`, end, Buffer.alloc(Math.ceil(end / 512) * 512 - end, 0xff));
      if (e.digest === undefined) await change(`${bench.out}.partial`, e.offset, Buffer.alloc(e.size, 0xff));
    }
    await change(`${bench.out}.partial`, bench.good.bytes.length - 1024, Buffer.alloc(5000, 0xff));
    await bench.finished();
  });

  it('may be shorter than it was: what was lost is fetched again', async () => {
    expect(await bench.packUntil({ blobs: 10 })).toBe(true);
    const handle = await open(`${bench.out}.partial`, 'r+');
    await handle.truncate(Math.floor(bench.good.bytes.length / 3));
    await handle.close();
    await bench.finished();
  });

  it('may have a journal of garbage, of another plan, cut off anywhere, or none', async () => {
    const journal = `${bench.out}.partial.journal`;
    expect(await bench.packUntil({ blobs: 8 })).toBe(true);
    await cp(journal, bench.site.path('journal'));
    await cp(`${bench.out}.partial`, bench.site.path('partial'));
    const text = await readFile(journal);
    const random = seeded(SEED + 1);
    const journals: (Buffer | undefined)[] = [
      undefined,
      Buffer.alloc(0),
      Buffer.alloc(3000, 0xff),
      Buffer.from(text.toString().replace(/"plan":"sha256:./, '"plan":"sha256:_')),
      Buffer.from(text.toString().replaceAll(/"o":\d+/g, '"o":9007199254740991')),
      Buffer.from(text.toString().replaceAll(/"s":\d+/g, '"s":1')),
      Buffer.from(text.toString().replaceAll(/"p":\d+/g, '"p":7')),
      ...Array.from({ length: 6 }, () => text.subarray(0, Math.floor(random() * text.length))),
    ];
    for (const bytes of journals) {
      await rm(bench.out, { force: true });
      await cp(bench.site.path('partial'), `${bench.out}.partial`);
      if (bytes === undefined) await rm(journal, { force: true });
      else await writeFile(journal, bytes);
      await bench.finished();
    }
  });

  it('is not trusted in what a journal says is there although it never came', async () => {
    expect(await bench.packUntil({ bytes: 1 })).toBe(true);
    const journal = `${bench.out}.partial.journal`;
    for (const e of bench.good.entries) {
      if (e.digest === undefined) continue;
      await appendFile(journal, `${JSON.stringify({ d: e.digest, o: e.offset, s: e.size })}\n`);
    }
    await bench.finished();
  });

  it('[1.3-resume-mismatch] continues a beginning that turns bench.out wrong from its start', async () => {
    const layer = bench.largest();
    expect(await bench.packUntil({ bytes: 1 })).toBe(true);
    const journal = `${bench.out}.partial.journal`;
    const begun = Math.floor(layer.size / 2);
    const partial = await open(`${bench.out}.partial`, 'r+');
    await partial.write(Buffer.alloc(layer.size, 0xee), 0, layer.size, layer.offset);
    await partial.close();
    await appendFile(journal, `${JSON.stringify({ d: layer.digest, o: layer.offset, p: begun })}\n`);
    const from = bench.site.source.requests.length;
    await bench.finished();
    const gets = bench.site.source.requests.slice(from).filter((r) => r.path.endsWith(`/${layer.digest}`));
    expect(gets.map((r) => [r.range, r.bytes])).toEqual([
      [`bytes=${begun}-`, layer.size - begun],
      ['', layer.size],
    ]);
  });
});

describe('a large blob', () => {
  it('[1.3-resume-disk] is continued inside by Range after a stop, from at most a few MiB before', async () => {
    const big = await openSite({ fleet: { images: 1, layerSizes: [40 * 1024 * 1024], sharedBases: 0 } });
    try {
      const whole = await packSite(big);
      const layer = whole.entries.toSorted((a, b) => b.size - a.size)[0];
      if (layer === undefined) throw new Error('a bundle has layers');
      expect(layer.size).toBeGreaterThan(32 * 1024 * 1024);
      const to = big.path('b.tar');
      const stop = new AbortController();
      let left = 21 * 1024 * 1024;
      const emit = (event: Event): void => {
        if (event.type === 'progress') left -= event.bytes;
        if (left <= 0) stop.abort();
      };
      const first = pack(
        { manifestPath: big.manifestPath, out: to },
        { ...contextOf(), signal: stop.signal, emit },
      );
      await expect(first).rejects.toMatchObject({ code: 'ABORTED' });
      // As after a kill: the last note of this blob is the one that was written while it came.
      const journal = `${to}.partial.journal`;
      const lines = (await readFile(journal, 'utf8')).trimEnd().split('\n');
      const own = lines.filter((l) => l.includes(layer.digest ?? '-'));
      await writeFile(journal, `${lines.filter((l) => l !== own.at(-1)).join('\n')}\n`);
      const right = await rightBytes(`${to}.partial`, layer, whole);
      expect(right).toBeGreaterThan(16 * 1024 * 1024);

      const from = big.source.requests.length;
      await pack({ manifestPath: big.manifestPath, out: to }, contextOf());
      expect((await readFile(to)).equals(whole.bytes)).toBe(true);
      const gets = big.source.requests.slice(from).filter((r) => r.path.endsWith(`/${layer.digest}`));
      expect(gets).toHaveLength(1);
      const start = Number(/^bytes=(\d+)-$/.exec(gets[0]?.range ?? '')?.[1]);
      expect(gets[0]?.status).toBe(206);
      expect(gets[0]?.bytes).toBe(layer.size - start);
      expect(start).toBeLessThanOrEqual(right);
      expect(right - start).toBeLessThanOrEqual(5 * 1024 * 1024);
    } finally {
      await big.close();
    }
  });
});
