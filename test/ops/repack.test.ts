/** A pack that finds something at its path: an older bundle, an interrupted one, something else, or no room. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { openJournal, readJournal } from '../../src/bundle/journal.ts';
import { openBundle } from '../../src/bundle/reader.ts';
import type { Event } from '../../src/core/events.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf } from '../bundle/site.ts';
import { blobGets, change, openPackBench, type PackBench, wholeBlobs } from './interrupted.ts';

let bench: PackBench;

beforeEach(async () => {
  bench = await openPackBench();
});

afterEach(() => bench.close());

/** Fills a disk as soon as a pack has got its first bytes. */
function fillerOf(disk: string): { readonly emit: (event: Event) => void; readonly isFull: () => boolean } {
  let filled = false;
  return {
    isFull: () => filled,
    emit: (event) => {
      if (event.type !== 'progress' || filled) return;
      filled = true;
      try {
        for (let i = 0; ; i++) writeFileSync(join(disk, `filler-${i}`), Buffer.alloc(64 * 1024));
      } catch {
        // Full now.
      }
    },
  };
}

describe('a pack after the lock changed', () => {
  it('takes every blob that the interrupted one had, and the older bundle', async () => {
    await bench.site.lockFor(bench.site.images.slice(0, 2));
    expect(await bench.packUntil({ blobs: 8 })).toBe(true);
    const state = await readJournal(`${bench.out}.partial.journal`);
    const had = [...(state?.done.keys() ?? [])];
    expect(had.length).toBeGreaterThan(2);
    await bench.site.lockFor();
    // A stop in between: what was set aside serves the third run too.
    expect(await bench.packUntil({ bytes: 1 })).toBe(true);
    const { asked, result } = await bench.finished();
    expect(asked.filter((d) => had.includes(d as never))).toEqual([]);
    expect((result.stats?.reused.blobs ?? 0) + (result.stats?.resumed.blobs ?? 0)).toBeGreaterThanOrEqual(
      had.length,
    );
  });

  it('goes on when a kill came between the two renames that set the older run aside', async () => {
    await bench.site.lockFor(bench.site.images.slice(0, 2));
    expect(await bench.packUntil({ blobs: 8 })).toBe(true);
    const had = [...((await readJournal(`${bench.out}.partial.journal`))?.done.keys() ?? [])];
    await rename(`${bench.out}.partial.journal`, `${bench.out}.partial-old.journal`);
    await bench.site.lockFor();
    const { asked } = await bench.finished();
    expect(had.length).toBeGreaterThan(2);
    expect(asked.filter((d) => had.includes(d as never))).toEqual([]);
  });

  it('fetches only what the finished bundle at the same path does not have', async () => {
    await bench.site.lockFor(bench.site.images.slice(0, 2));
    await bench.packTo(bench.out);
    const old = await openBundle(bench.out, { signal: contextOf().signal });
    const had = [...(old.plan?.entries ?? [])].flatMap((e) => e.digest ?? []);
    await old.close();
    await bench.site.lockFor();
    const { asked, result } = await bench.finished();
    expect(asked.filter((d) => had.includes(d as never))).toEqual([]);
    expect(asked.length).toBeGreaterThan(0);
    expect(result.stats?.fetched.blobs).toBe(
      bench.good.entries.filter((e) => e.digest !== undefined && !had.includes(e.digest)).length,
    );
  });

  it('fetches a blob again that is damaged in the older bundle, and says so', async () => {
    await bench.site.lockFor(bench.site.images.slice(0, 2));
    await bench.packTo(bench.out);
    const old = await openBundle(bench.out, { signal: contextOf().signal });
    const victim = [...(old.plan?.entries ?? [])]
      .filter((e) => e.kind === 'blob')
      .toSorted((a, b) => b.size - a.size)[0];
    await old.close();
    if (victim === undefined) throw new Error('a bundle has layers');
    await change(bench.out, victim.offset + 10, Buffer.from('bad'));
    await bench.site.lockFor();
    const events: Event[] = [];
    const from = bench.site.source.requests.length;
    await bench.packTo(bench.out, contextOf({ events }));
    expect((await readFile(bench.out)).equals(bench.good.bytes)).toBe(true);
    expect(blobGets(bench.site.source, from)).toContain(victim.digest);
    const notes = events.flatMap((e) => (e.type === 'note' ? [e.message] : []));
    expect(notes.join('\n')).toContain(`${victim.name} is damaged there and is fetched again`);
  });
});

describe('a pack over a finished bundle', () => {
  it('does nothing, and says that it compared headers', async () => {
    await bench.packTo(bench.out);
    const before = await stat(bench.out);
    const from = bench.site.source.requests.length;
    const again = await bench.packTo(bench.out);
    expect([again.outcome, again.compared, again.stats]).toEqual(['present', 'headers', null]);
    expect(bench.site.source.requests.length).toBe(from);
    const after = await stat(bench.out);
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);
  });

  it('finds a wrong blob byte only with verify, and then fetches just that blob', async () => {
    await bench.packTo(bench.out);
    const layer = bench.largest();
    await change(bench.out, layer.offset, Buffer.from('x'));
    expect((await bench.packTo(bench.out)).compared).toBe('headers');
    const from = bench.site.source.requests.length;
    const mended = await pack(
      { manifestPath: bench.site.manifestPath, out: bench.out, verify: true },
      contextOf(),
    );
    expect(mended.outcome).toBe('packed');
    expect(blobGets(bench.site.source, from)).toEqual([layer.digest]);
    expect((await readFile(bench.out)).equals(bench.good.bytes)).toBe(true);
    const checked = await pack(
      { manifestPath: bench.site.manifestPath, out: bench.out, verify: true },
      contextOf(),
    );
    expect([checked.outcome, checked.compared]).toEqual(['present', 'bytes']);
  });

  it('mends one whose headers are damaged or that was cut off', async () => {
    await bench.packTo(bench.out);
    await change(bench.out, bench.largest().offset - 512, Buffer.alloc(512, 1));
    const { asked } = await bench.finished();
    expect(asked).toEqual([bench.largest().digest]);
    const handle = await open(bench.out, 'r+');
    await handle.truncate(bench.good.bytes.length - 100_000);
    await handle.close();
    const second = await bench.finished();
    expect(second.asked.length).toBeLessThan(bench.good.entries.length / 2);
  });

  it('never overwrites something that is no bundle', async () => {
    for (const text of ['', 'my thesis', '\0'.repeat(2048)]) {
      await writeFile(bench.out, text);
      await expect(bench.packTo(bench.out)).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
      expect(await readFile(bench.out, 'utf8')).toBe(text);
    }
    await rm(bench.out);
    await mkdir(join(bench.out, 'photos'), { recursive: true });
    await writeFile(join(bench.out, 'photos', 'a'), 'a');
    await expect(bench.packTo(`${bench.out}/`)).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
    await expect(bench.packTo(bench.out)).rejects.toMatchObject({ code: 'USAGE' });
    expect(await readFile(join(bench.out, 'photos', 'a'), 'utf8')).toBe('a');
    expect(await readdir(bench.out)).toEqual(['photos']);
  });
});

describe('a pack into a folder', () => {
  it('goes on after stops, and holds exactly the entries of the tar', async () => {
    const folder = bench.site.path('folder');
    let stops = 0;
    for (let i = 0; i < 5; i++) {
      const already = await wholeBlobs(`${folder}.partial`, bench.good.entries);
      const from = bench.site.source.requests.length;
      if (await bench.packUntil({ bytes: bench.total() / 6 }, `${folder}/`)) stops += 1;
      expect(blobGets(bench.site.source, from).filter((d) => already.has(d))).toEqual([]);
    }
    expect(stops).toBeGreaterThan(2);
    await bench.packTo(`${folder}/`);
    expect((await verify({ bundle: folder, lockPath: bench.site.lockPath }, contextOf())).faults).toEqual([]);
    for (const e of bench.good.entries) {
      const bytes = await readFile(join(folder, e.name));
      expect(bytes.equals(bench.good.bytes.subarray(e.offset, e.offset + e.size)), e.name).toBe(true);
    }
    expect((await bench.packTo(`${folder}/`)).outcome).toBe('present');
  });

  it('recovers when a kill came between the two renames at its end', async () => {
    const folder = bench.site.path('folder');
    await bench.site.lockFor(bench.site.images.slice(0, 1));
    await bench.packTo(`${folder}/`);
    await bench.site.lockFor();
    await bench.packTo(`${bench.site.path('new')}/`);
    const made = await openBundle(bench.site.path('new'), { signal: contextOf().signal });
    await made.close();
    // The older one is away, the new one is complete and not yet there.
    await rename(folder, `${folder}.partial-replaced`);
    await rename(bench.site.path('new'), `${folder}.partial`);
    const journal = await openJournal(`${folder}.partial.journal`, {
      plan: made.plan?.id ?? '',
      kind: 'folder',
      fresh: true,
    });
    for (const e of made.plan?.entries ?? []) if (e.digest !== undefined) journal.done(e.digest, e);
    await journal.close();

    const from = bench.site.source.requests.length;
    await bench.packTo(`${folder}/`);
    expect(blobGets(bench.site.source, from)).toEqual([]);
    expect((await verify({ bundle: folder, lockPath: bench.site.lockPath }, contextOf())).faults).toEqual([]);
    const left = (await readdir(bench.site.dir)).filter((n) => n.startsWith('folder'));
    expect(left).toEqual(['folder']);
  });

  it('cleans up when a kill came after the renames', async () => {
    const folder = bench.site.path('folder');
    await bench.packTo(`${folder}/`);
    await mkdir(`${folder}.partial-replaced`);
    await writeFile(`${folder}.partial.journal`, 'old');
    expect((await bench.packTo(`${folder}/`)).outcome).toBe('present');
    expect((await readdir(bench.site.dir)).filter((n) => n.startsWith('folder'))).toEqual(['folder']);
  });

  it('takes up nothing of an interrupted tar at the same path but its blobs', async () => {
    expect(await bench.packUntil({ blobs: 8 }, bench.site.path('same'))).toBe(true);
    const had = [...((await readJournal(`${bench.site.path('same')}.partial.journal`))?.done.keys() ?? [])];
    const from = bench.site.source.requests.length;
    await bench.packTo(`${bench.site.path('same')}/`);
    expect((await verify({ bundle: bench.site.path('same'), deep: true }, contextOf())).faults).toEqual([]);
    expect(had.length).toBeGreaterThan(0);
    expect(blobGets(bench.site.source, from).filter((d) => had.includes(d as never))).toEqual([]);
  });
});

describe('a disk that is full', () => {
  const canMount = process.platform === 'linux' && process.getuid?.() === 0;

  async function onSmallDisk(name: string, work: (disk: string) => Promise<void>): Promise<void> {
    const disk = bench.site.path(name);
    await mkdir(disk);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', disk]);
    try {
      await work(disk);
    } finally {
      execFileSync('umount', [disk]);
    }
  }

  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) is told before the first byte when that is known',
    async () => {
      await onSmallDisk('small', async (disk) => {
        const from = bench.site.source.requests.length;
        const error: unknown = await bench.packTo(join(disk, 'b.tar')).catch((e: unknown) => e);
        expect(error).toMatchObject({
          code: 'DISK_FULL',
          message: expect.stringMatching(/\d+ bytes are needed, \d+ are free/),
        });
        expect(blobGets(bench.site.source, from)).toEqual([]);
        expect(await readdir(disk)).toEqual([]);
      });
    },
  );

  it('is told before the first byte also where only what comes beside the bundle has no room', async () => {
    const from = bench.site.source.requests.length;
    const manifestPath = bench.site.path('sealift.yaml');
    await mkdir(bench.site.path('out'));
    const packed = pack({ manifestPath, out: bench.site.path('out', 'b.tar'), beside: 2 ** 52 }, contextOf());
    await expect(packed).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(blobGets(bench.site.source, from)).toEqual([]);
    expect(await readdir(bench.site.path('out'))).toEqual([]);
  });

  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) does not concern a folder for temporary files that has room for manifests',
    async () => {
      await onSmallDisk('temporary', async (disk) => {
        vi.stubEnv('TMPDIR', disk);
        try {
          await bench.packTo(bench.site.path('anew', 'b.tar'));
          expect((await readFile(bench.site.path('anew', 'b.tar'))).equals(bench.good.bytes)).toBe(true);
        } finally {
          vi.unstubAllEnvs();
        }
      });
    },
  );

  it('is told once where the folder for temporary files is not there', async () => {
    vi.stubEnv('TMPDIR', bench.site.path('none'));
    try {
      const error: unknown = await bench.packTo(bench.site.path('x.tar')).catch((e: unknown) => e);
      expect(error).toMatchObject({
        code: 'FILE_UNREADABLE',
        message: expect.stringContaining('needed for the manifests of this pack'),
        faults: [],
      });
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) in the middle is told clearly, and it goes on when there is room',
    async () => {
      const disk = bench.site.path('small');
      await mkdir(disk);
      const size = Math.ceil(bench.good.bytes.length / 4096) * 4 + 400;
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}k`, 'tmpfs', disk]);
      try {
        const filler = fillerOf(disk);
        const { emit } = filler;
        const to = join(disk, 'b.tar');
        const error: unknown = await bench.packTo(to, { ...contextOf(), emit }).catch((e: unknown) => e);
        expect(error).toMatchObject({
          code: 'DISK_FULL',
          hint: expect.stringContaining('goes on where it stopped'),
        });
        expect(filler.isFull()).toBe(true);
        const there = await wholeBlobs(`${to}.partial`, bench.good.entries);
        for (const name of await readdir(disk)) if (name.startsWith('filler')) await rm(join(disk, name));
        const { asked } = await bench.finished(to);
        expect(asked.filter((d) => there.has(d))).toEqual([]);
      } finally {
        execFileSync('umount', [disk]);
      }
    },
  );

  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) is told for a folder too, whose files take whole blocks, and it goes on after',
    async () => {
      const disk = bench.site.path('small');
      await mkdir(disk);
      const need = bench.good.entries.reduce((sum, e) => sum + Math.ceil(e.size / 4096) * 4096, 0);
      const to = `${join(disk, 'b')}/`;
      const resize = (bytes: number): void => {
        execFileSync('mount', ['-o', `remount,size=${bytes}`, disk]);
      };
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${need - 4096}`, 'tmpfs', disk]);
      try {
        const before: unknown = await bench.packTo(to).catch((e: unknown) => e);
        expect(before).toMatchObject({ code: 'DISK_FULL', details: { need, free: need - 4096 } });
        expect(await readdir(disk)).toEqual([]);
        resize(need + 400 * 1024);
        const filler = fillerOf(disk);
        const { emit } = filler;
        const error: unknown = await bench.packTo(to, { ...contextOf(), emit }).catch((e: unknown) => e);
        expect(error).toMatchObject({
          code: 'DISK_FULL',
          hint: expect.stringContaining('goes on where it stopped'),
        });
        for (const name of await readdir(disk)) if (name.startsWith('filler')) await rm(join(disk, name));
        await bench.packTo(to);
        expect(await readdir(disk)).toEqual(['b']);
        expect((await verify({ bundle: to, deep: true }, contextOf())).faults).toEqual([]);
      } finally {
        execFileSync('umount', [disk]);
      }
    },
  );
});
