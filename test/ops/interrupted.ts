/** Looking at an interrupted pack from outside: what it holds, and what was asked of the source. */
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { expect } from 'vitest';
import type { PlannedEntry } from '../../src/bundle/plan.ts';
import type { Context, Event } from '../../src/core/events.ts';
import { kindOf, readRange } from '../../src/io/files.ts';
import { digestStream } from '../../src/io/verify.ts';
import { type PackResult, pack } from '../../src/ops/pack.ts';
import type { RunningRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';

/** The blobs whose bytes are wholly there, whatever any journal says. */
export async function wholeBlobs(partial: string, entries: Packed['entries']): Promise<Set<string>> {
  const whole = new Set<string>();
  const kind = await kindOf(partial);
  if (kind === undefined) return whole;
  for (const entry of entries) {
    if (entry.digest === undefined) continue;
    const path = kind === 'file' ? partial : `${partial}/${entry.name}`;
    if ((await kindOf(path)) === undefined) continue;
    const handle = await open(path, 'r');
    const position = kind === 'file' ? entry.offset : 0;
    const { digest } = await digestStream(readRange(handle, { position, length: entry.size }));
    await handle.close();
    if (digest === entry.digest) whole.add(entry.digest);
  }
  return whole;
}

/** How many bytes from its beginning a blob's slot in a tar agrees with what it shall be. */
export async function rightBytes(partial: string, entry: PlannedEntry, good: Packed): Promise<number> {
  const handle = await open(partial, 'r');
  let at = 0;
  try {
    for await (const part of readRange(handle, { position: entry.offset, length: entry.size })) {
      const expected = good.bytes.subarray(entry.offset + at, entry.offset + at + part.length);
      if (!part.equals(expected)) {
        let same = 0;
        while (part[same] === expected[same]) same += 1;
        return at + same;
      }
      at += part.length;
    }
  } finally {
    await handle.close();
  }
  return at;
}

/** Digests of the blobs that were asked for since the `from`th request, each as often as it was. */
export function blobGets(source: RunningRegistry, from = 0): string[] {
  return source.requests
    .slice(from)
    .filter((r) => r.method === 'GET')
    .map((r) => /\/blobs\/(sha256:[0-9a-f]{64})$/.exec(r.path)?.[1])
    .filter((d) => d !== undefined);
}

/** Bytes that a file takes up on the disk: an unfinished tar has holes where nothing was received. */
export async function bytesOnDisk(path: string): Promise<number> {
  try {
    return (await stat(path)).blocks * 512;
  } catch {
    return 0;
  }
}

/** Writes into the middle of a file. */
export async function change(path: string, at: number, bytes: Buffer): Promise<void> {
  const handle = await open(path, 'r+');
  await handle.write(bytes, 0, bytes.length, at);
  await handle.close();
}

type Entry = Packed['entries'][number];

/** A site whose packs are interrupted, and the bundle that must come out in the end. */
export interface PackBench {
  readonly site: Site;
  readonly good: Packed;
  /** Where the tests pack to. */
  readonly out: string;
  packTo(path: string, context?: Context): Promise<PackResult>;
  /**
   * Packs until `bytes` of blobs came in, or `blobs` were done, then stops as Ctrl-C does. Returns whether it was stopped.
   */
  packUntil(limit: { readonly bytes?: number; readonly blobs?: number }, path?: string): Promise<boolean>;
  /** Runs a pack to its end: the bytes are right, nothing is left beside them. Tells which blobs it asked for. */
  finished(path?: string): Promise<{ readonly asked: string[]; readonly result: PackResult }>;
  /** By name or digest. */
  entryOf(name: string): Entry;
  /** A layer. */
  largest(): Entry;
  /** Bytes of all layers, configs and files. */
  total(): number;
  close(): Promise<void>;
}

export async function openPackBench(): Promise<PackBench> {
  const site = await openSite({ fleet: { layerSizes: [200_000, 30_000], baseSize: 300_000 } });
  const good = await packSite(site);
  const out = site.path('b.tar');
  const packTo = (path: string, context: Context = contextOf()): Promise<PackResult> =>
    pack({ manifestPath: site.manifestPath, out: path }, context);
  const entryOf = (name: string): Entry => {
    const entry = good.entries.find((e) => e.name === name || e.digest === name);
    if (entry === undefined) throw new Error(`no entry ${name}`);
    return entry;
  };
  return {
    site,
    good,
    out,
    packTo,
    entryOf,
    packUntil: async (limit, path = out) => {
      const stop = new AbortController();
      let { bytes = Number.POSITIVE_INFINITY, blobs = Number.POSITIVE_INFINITY } = limit;
      const emit = (event: Event): void => {
        if (event.type === 'progress' && event.bytes > 0) bytes -= event.bytes;
        if (event.type === 'end' && event.outcome === 'done') blobs -= 1;
        if (bytes <= 0 || blobs <= 0) stop.abort();
      };
      try {
        await packTo(path, { ...contextOf(), signal: stop.signal, emit });
        return false;
      } catch (error) {
        expect(error).toMatchObject({ code: 'ABORTED' });
        return true;
      }
    },
    finished: async (path = out) => {
      const from = site.source.requests.length;
      const result = await packTo(path);
      expect((await readFile(path)).equals(good.bytes)).toBe(true);
      expect((await readdir(dirname(path))).filter((n) => n.includes('.partial'))).toEqual([]);
      return { asked: blobGets(site.source, from), result };
    },
    largest: () => good.entries.toSorted((a, b) => b.size - a.size)[0] ?? entryOf('none'),
    total: () =>
      good.entries.reduce((sum, e) => sum + (e.kind === 'blob' || e.kind === 'config' ? e.size : 0), 0),
    close: site.close,
  };
}
