/** The writer by itself: wrong sources, two at once, and pools that cannot be read. */
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { open as openFile, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { readJournal } from '../../src/bundle/journal.ts';
import { pathsOf, removePartial } from '../../src/bundle/partial.ts';
import type { BundlePlan, PlannedEntry } from '../../src/bundle/plan.ts';
import type { BlobPool } from '../../src/bundle/pool.ts';
import { openBundle } from '../../src/bundle/reader.ts';
import { tarSink } from '../../src/bundle/sink.ts';
import { type BundleWriter, openWriter } from '../../src/bundle/writer.ts';
import { SealiftError } from '../../src/core/errors.ts';
import type { Event } from '../../src/core/events.ts';
import { kindOf } from '../../src/io/files.ts';
import type { BlobStream, NextStream } from '../../src/oci/content.ts';
import { askInTurn, type Supply } from '../../src/source/in-turn.ts';
import { failureOf, startServer, testClient } from '../io/server.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from './site.ts';

let site: Site;
let good: Packed;
let plan: BundlePlan;
let out: string;
let turn = 0;

beforeAll(async () => {
  site = await openSite({ fleet: { images: 1 } });
  good = await packSite(site);
  const bundle = await openBundle(good.path, { signal: contextOf().signal });
  await bundle.close();
  if (bundle.plan === undefined) throw new Error('a good bundle has a plan');
  plan = bundle.plan;
});

afterAll(() => site.close());

beforeEach(() => {
  turn += 1;
  out = site.path(`writer-${turn}`, 'b.tar');
});

function open(pools: readonly BlobPool[] = [], kind: 'tar' | 'folder' = 'tar'): Promise<BundleWriter> {
  return openWriter(out, { plan, kind, context: contextOf(), pools });
}

function contentOf(entry: PlannedEntry): Buffer {
  return good.bytes.subarray(entry.offset, entry.offset + entry.size);
}

async function* chunks(bytes: Buffer, size = 700): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** One stream, and nobody else when it fails. */
/** Gives these bytes, and then the connection ends. */
function cutAfter(bytes: Buffer): BlobStream {
  return async function* () {
    yield bytes;
    throw new SealiftError('NETWORK_FAILED', 'cut');
  };
}

function largestMissing(writer: BundleWriter): PlannedEntry {
  const entry = [...writer.missing()].toSorted((a, b) => b.size - a.size)[0];
  if (entry === undefined) throw new Error('there are blobs');
  return entry;
}

function once(stream: BlobStream): NextStream {
  return (failure) => {
    if (failure !== undefined) throw failure;
    return stream;
  };
}

async function fillAll(writer: BundleWriter): Promise<void> {
  for (const entry of writer.missing()) {
    await writer.fill(
      entry,
      once((offset) => chunks(contentOf(entry).subarray(offset))),
    );
  }
}

describe('a bundle writer', () => {
  it('writes the planned bytes, whatever the order in which the blobs come', async () => {
    const writer = await open();
    for (const entry of [...writer.missing()].reverse()) {
      await writer.fill(
        entry,
        once((offset) => chunks(contentOf(entry).subarray(offset), 1)),
      );
    }
    await writer.finish();
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
    expect(await readdir(site.path(`writer-${turn}`))).toEqual(['b.tar']);
  });

  it('is not finished while a blob lacks', async () => {
    const writer = await open();
    await expect(writer.finish()).rejects.toThrow('blobs were never filled');
    await writer.close();
    expect(await kindOf(out)).toBeUndefined();
  });

  it('counts nothing as done that is shorter, longer or other than planned', async () => {
    const writer = await open();
    const entry = [...writer.missing()].at(-1);
    if (entry === undefined) throw new Error('there are blobs');
    const content = contentOf(entry);
    const other = Buffer.from(content);
    other[0] = (other[0] ?? 0) ^ 1;
    for (const [bytes, code] of [
      [content.subarray(1), 'CONTENT_SIZE_MISMATCH'],
      [Buffer.concat([content, Buffer.from('x')]), 'CONTENT_SIZE_MISMATCH'],
      [other, 'CONTENT_DIGEST_MISMATCH'],
      [Buffer.alloc(0), 'CONTENT_SIZE_MISMATCH'],
    ] as const) {
      await expect(
        writer.fill(
          entry,
          once(() => chunks(bytes)),
        ),
      ).rejects.toMatchObject({ code });
      expect([...writer.missing()]).toContainEqual(entry);
    }
    expect((await readJournal(`${out}.partial.journal`))?.done.size).toBe(0);
    await fillAll(writer);
    await writer.finish();
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  });

  it('never writes beyond the place of a blob, however long its source is', async () => {
    const writer = await open();
    const [first, second] = writer.missing();
    if (first === undefined || second === undefined) throw new Error('there are blobs');
    await writer.fill(
      second,
      once(() => chunks(contentOf(second))),
    );
    const flood = chunks(Buffer.alloc(100_000, 0xff), 100_000);
    await expect(
      writer.fill(
        first,
        once(() => flood),
      ),
    ).rejects.toMatchObject({ code: 'CONTENT_SIZE_MISMATCH' });
    await fillAll(writer);
    await writer.finish();
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  });

  it('goes on behind the bytes that came, and after wrong content from the start, in one filling', async () => {
    const events: Event[] = [];
    const writer = await openWriter(out, { plan, kind: 'tar', context: contextOf({ events }), pools: [] });
    const entry = largestMissing(writer);
    const content = contentOf(entry);
    const asked: [number, string | undefined][] = [];
    const streams: BlobStream[] = [
      cutAfter(content.subarray(0, 1000)),
      async function* () {
        yield* [];
        throw new SealiftError('CONTENT_NOT_FOUND', 'a mirror that lacks it');
      },
      (offset) => chunks(Buffer.alloc(content.length - offset, 1)),
      (offset) => chunks(content.subarray(offset)),
    ];
    await writer.fill(entry, (failure) => (offset) => {
      asked.push([offset, failure instanceof SealiftError ? failure.code : undefined]);
      return streams[asked.length - 1]?.(offset) ?? chunks(Buffer.alloc(0));
    });
    expect(asked).toEqual([
      [0, undefined],
      [1000, 'NETWORK_FAILED'],
      [1000, 'CONTENT_NOT_FOUND'],
      [0, 'CONTENT_DIGEST_MISMATCH'],
    ]);
    expect(writer.stats.resumed.bytes).toBe(0);
    expect(writer.stats.fetched).toEqual({ blobs: 1, bytes: content.length });
    const told = events.map((e) => (e.type === 'progress' && e.id === entry.name ? e.bytes : 0));
    expect(told.reduce((sum, bytes) => sum + bytes, 0)).toBe(content.length);
    await fillAll(writer);
    await writer.finish();
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  });

  it('keeps what came when another source has something else from its first byte on, of which nothing came', async () => {
    const writer = await open();
    const entry = largestMissing(writer);
    const content = contentOf(entry);
    const asked: number[] = [];
    const streams: BlobStream[] = [
      cutAfter(content.subarray(0, 1000)),
      async function* () {
        yield* [];
        throw new SealiftError('CONTENT_SIZE_MISMATCH', 'a page of a proxy, which announces its own length');
      },
      (offset) => chunks(content.subarray(offset)),
    ];
    await writer.fill(entry, () => (offset) => {
      asked.push(offset);
      return streams[asked.length - 1]?.(offset) ?? chunks(Buffer.alloc(0));
    });
    expect(asked).toEqual([0, 1000, 1000]);
    await fillAll(writer);
    await writer.finish();
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  });

  it('takes up in a later filling what one left that nobody could end', async () => {
    const writer = await open();
    const entry = largestMissing(writer);
    const broken = async function* (): AsyncGenerator<Uint8Array> {
      yield contentOf(entry).subarray(0, 1000);
      throw new SealiftError('NETWORK_FAILED', 'cut');
    };
    await expect(writer.fill(entry, once(broken))).rejects.toMatchObject({ code: 'NETWORK_FAILED' });
    const offsets: number[] = [];
    const rest: BlobStream = (offset) => {
      offsets.push(offset);
      return chunks(contentOf(entry).subarray(offset));
    };
    await writer.fill(entry, once(rest));
    expect(offsets).toEqual([1000]);
    expect(writer.stats.resumed.bytes).toBe(1000);
    await writer.close();
  });

  it('keeps a second one away from the same path, and lets it in afterwards', async () => {
    const first = await open();
    const entry = [...first.missing()][0];
    if (entry === undefined) throw new Error('there are blobs');
    await first.fill(
      entry,
      once(() => chunks(contentOf(entry))),
    );
    if (process.platform === 'linux') {
      await expect(open()).rejects.toMatchObject({ code: 'PACK_BUSY' });
      await removePartial(out);
      expect(await kindOf(`${out}.partial`)).toBe('file');
    }
    await first.close();
    const second = await open();
    expect(second.stats.resumed).toEqual({ blobs: 1, bytes: entry.size });
    await fillAll(second);
    await second.finish();
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  });

  it('gives the path free and closes its pools when it cannot be opened', async () => {
    let closed = 0;
    const pool: BlobPool = {
      what: 'a pool',
      range: () => undefined,
      close: async () => {
        closed += 1;
      },
    };
    const stopped = { ...contextOf(), signal: AbortSignal.abort() };
    const opening = openWriter(out, { plan, kind: 'tar', context: stopped, pools: [pool] });
    await expect(opening).rejects.toMatchObject({ code: 'ABORTED' });
    expect(closed).toBe(1);
    const writer = await open();
    await writer.close();
  });

  it('fetches what a pool has damaged or cannot read, and takes the rest', async () => {
    const [damaged, unreadable, short] = [...plan.entries]
      .filter((e) => e.kind === 'blob')
      .map((e) => e.digest);
    const old = site.path(`writer-${turn}-old.tar`);
    const bytes = Buffer.from(good.bytes);
    const entry = [...plan.entries].find((e) => e.digest === damaged);
    bytes.fill(1, entry?.offset, (entry?.offset ?? 0) + (entry?.size ?? 0));
    await writeFile(old, bytes);
    const pool: BlobPool = {
      what: 'an old bundle',
      range: (digest) => {
        const entry = plan.entries.findBlob(digest);
        if (entry === undefined) return undefined;
        const at = { position: entry.offset, length: entry.size, what: entry.name };
        if (digest === short) return { ...at, file: old, position: bytes.length - 1 };
        return { ...at, file: digest === unreadable ? `${old}.gone` : old };
      },
      close: async () => {},
    };
    const writer = await open([pool]);
    expect([...writer.missing()].map((e) => e.digest)).toEqual([damaged, unreadable, short]);
    expect(writer.stats.reused.blobs).toBe(plan.blobs - 3);
    await fillAll(writer);
    await writer.finish();
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  });

  it('asks nobody else, and names its own file, where the disk that it writes to gives errors', async () => {
    const writer = await open([], 'folder');
    const entry = largestMissing(writer);
    const file = `${out}.partial/${entry.name}`;
    // The memory of this process at 0, where nothing is: every write is EIO.
    await symlink('/proc/self/mem', file);
    const server = await startServer((_, response) => response.end(contentOf(entry)));
    const http = testClient(contextOf());
    const asked: string[] = [];
    const supply = (name: string): Supply => ({
      name,
      open: async function* (_, into) {
        asked.push(name);
        if (into === undefined) throw new Error('nowhere to pour to');
        const answer = await http.request({ method: 'GET', url: new URL(server.url), into });
        for await (const arrived of answer.body.pour?.(0) ?? []) yield arrived ?? Buffer.alloc(0);
      },
    });
    const next = askInTurn([supply('mirror'), supply('origin')], contextOf());
    expect(await failureOf(writer.fill(entry, next))).toMatchObject({
      code: 'FILE_UNREADABLE',
      message: expect.stringContaining(`${file}: EIO`),
    });
    expect(asked).toEqual(['mirror']);
    await writer.close();
  });

  it('believes nothing that a disk took and could not keep: neither now nor in a later run', async () => {
    const writer = await open();
    const [entry] = writer.missing();
    if (entry === undefined) throw new Error('there are blobs');
    await writer.fill(
      entry,
      once(() => chunks(contentOf(entry))),
    );
    const paths = pathsOf(out);
    const probe = await openFile(good.path, 'r');
    const proto: { datasync(): Promise<void> } = Object.getPrototypeOf(probe);
    await probe.close();
    const sync = vi
      .spyOn(proto, 'datasync')
      .mockRejectedValueOnce(Object.assign(new Error('EIO: lost'), { code: 'EIO' }));
    const sink = await tarSink(paths, plan);
    try {
      // More than may wait: it is synced in the background, and only that sync is told of what was lost.
      sink.wrote(64 * 1024 * 1024);
      expect(sync).toHaveBeenCalledOnce();
      expect(await failureOf(sink.finish())).toMatchObject({
        code: 'FILE_UNREADABLE',
        message: expect.stringContaining(`${paths.partial}: EIO: lost`),
      });
      expect(await kindOf(out)).toBeUndefined();
      expect(await kindOf(paths.journal)).toBe('file');
    } finally {
      await sink.close();
      sync.mockRestore();
    }
    expect(await kindOf(paths.journal)).toBeUndefined();
    await writer.close();
  });

  it('does not call a pool damaged where its own disk gives errors', async () => {
    const entry = [...plan.entries].find((e) => e.digest !== undefined && e.size > 0);
    if (entry === undefined) throw new Error('there are blobs');
    const file = `${out}.partial/${entry.name}`;
    const pool: BlobPool = {
      what: 'an old bundle',
      range: (digest) => {
        if (digest !== entry.digest) return undefined;
        mkdirSync(dirname(file), { recursive: true });
        if (!existsSync(file)) symlinkSync('/proc/self/mem', file);
        return { file: good.path, position: entry.offset, length: entry.size, what: entry.name };
      },
      close: async () => {},
    };
    expect(await failureOf(open([pool], 'folder'))).toMatchObject({ side: 'destination' });
  });

  it('makes a folder with the same content, and no file is longer than planned', async () => {
    const first = await open([], 'folder');
    const entry = [...first.missing()][0];
    if (entry === undefined) throw new Error('there are blobs');
    await first.close();
    await writeFile(`${out}.partial/${entry.name}`, Buffer.alloc(entry.size + 5000, 1));
    await writeFile(`${out}.partial/index.json`, Buffer.alloc(50_000, 1));
    const writer = await open([], 'folder');
    await fillAll(writer);
    await writer.finish();
    for (const e of good.entries) {
      expect((await readFile(`${out}/${e.name}`)).equals(contentOf(e)), e.name).toBe(true);
    }
  });
});
