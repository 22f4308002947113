import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, createReadStream } from 'node:fs';
import { mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Event } from '../../src/core/events.ts';
import { freeSpace, spaceOf } from '../../src/io/files.ts';
import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import { demoFiles } from '../support/charts.ts';

/** Small file systems, each a tmpfs of its own. */
const canMount = process.platform === 'linux' && process.getuid?.() === 0;
const KIB = 1024;

/** What a file system says of itself, where that is not what it is. */
const told: { statfs: undefined | { blocks: number; bavail: number; bsize: number } } = vi.hoisted(() => ({
  statfs: undefined,
}));
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  return { ...real, statfs: (path: string) => told.statfs ?? real.statfs(path) };
});

let site: Site;
let bundle: string;
const mounted: string[] = [];

async function disk(name: string, kib: number): Promise<string> {
  const path = join(site.dir, name);
  await mkdir(path);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${kib}k`, 'tmpfs', path]);
  mounted.push(path);
  return path;
}

/** A chart of 600 KiB that is a few KiB in its archive, and a file of 300 KiB. */
beforeEach(async () => {
  site = await makeSite();
  const files = Object.fromEntries(
    Array.from({ length: 60 }, (_, i) => [`files/f${i}.txt`, `${i}`.repeat(5_000)]),
  );
  await site.addChart('big', '1.0.0', { ...demoFiles('big', '1.0.0'), ...files });
  await site.put('tools/tool', Buffer.alloc(300 * KIB, 7));
  const charts = `charts: [{name: big, version: 1.0.0, repo: "${site.source.url}/charts"}]\n`;
  bundle = await site.bundle('shop', `${charts}files: [{path: ../tools/tool, name: tool}]\n`);
});

afterEach(async () => {
  told.statfs = undefined;
  for (const path of mounted.splice(0)) execFileSync('umount', [path]);
  await site.close();
});

function loadInto(options: Partial<LoadOptions>, emit: (e: Event) => void = () => {}): Promise<LoadResult> {
  return load({ bundle, ...options }, { ...testContext(), emit });
}

const faultsOf = (result: LoadResult) => result.targets.map((t) => t.fault);

describe('the space that a load needs', () => {
  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) is that of what stopped loads left there',
    async () => {
      const small = await disk('left', 420);
      await mkdir(join(small, 'bin'));
      const left = join(small, '.tool.0123456789ab.tmp');
      await writeFile(left, Buffer.alloc(200 * KIB));
      const others = ['.tool.0123456789a.tmp', '.other.0123456789ab.tmp', 'tool.0123456789ab.tmp'];
      for (const name of others) await writeFile(join(small, name), 'mine');
      const plan = await loadInto({ files: [small], dryRun: true });
      expect(faultsOf(plan)).toMatchObject([{ code: 'DISK_FULL' }]);
      expect(await readdir(small)).toContain('.tool.0123456789ab.tmp');
      expect(faultsOf(await loadInto({ files: [small] }))).toEqual([null]);
      expect((await readdir(small)).sort()).toEqual([...others, 'bin', 'tool'].sort());
    },
  );

  it('is given free where a chart was being unpacked, and nowhere behind a link', async () => {
    const [trees, files, away] = ['trees', 'files', 'away'].map((name) => join(site.dir, name));
    if (trees === undefined || files === undefined || away === undefined) throw new Error('three folders');
    for (const folder of [trees, files, away]) await mkdir(folder);
    await mkdir(join(trees, '.big-1.0.0.0123456789ab.tmp', 'templates'), { recursive: true });
    await writeFile(join(away, '.tool.0123456789ab.tmp'), 'of somebody else');
    await symlink(away, join(files, 'in'));
    const charts = `charts: [{name: big, version: 1.0.0, repo: "${site.source.url}/charts"}]\n`;
    const inside = await site.bundle('linked', `${charts}files: [{path: ../tools/tool, name: in/tool}]\n`);
    const result = await loadInto({ bundle: inside, chartTrees: [trees], files: [files] });
    expect(result.targets[1]?.entries[0]?.fault?.code).toBe('TARGET_CONFLICT');
    expect(await readdir(trees)).not.toContain('.big-1.0.0.0123456789ab.tmp');
    expect(await readdir(away)).toEqual(['.tool.0123456789ab.tmp']);
  });

  it.skipIf(!canMount)('(needs root for a small tmpfs) is looked at before anything is written', async () => {
    const small = await disk('small', 400);
    const result = await loadInto({ chartTrees: [small] });
    const [fault] = faultsOf(result);
    expect(fault).toMatchObject({
      code: 'DISK_FULL',
      message: expect.stringMatching(/small: \d+ bytes are needed, \d+ are free: \d+ too few/),
    });
    expect(fault?.details?.need).toBeGreaterThan(500 * KIB);
    expect(fault?.details?.free).toBeLessThanOrEqual(400 * KIB);
    expect(result.targets[0]?.entries.map((e) => e.state)).toEqual(['failed']);
    expect(await readdir(small)).toEqual([]);
  });

  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) is at least that of what comes through a pipe',
    async () => {
      const noise = createHash('shake256', { outputLength: 100 * KIB }).digest('hex');
      await site.addChart('noise', '1.0.0', { ...demoFiles('noise', '1.0.0'), 'files/a': noise });
      const charts = `charts: [{name: noise, version: 1.0.0, repo: "${site.source.url}/charts"}]\n`;
      bundle = await site.bundle('shop', `${charts}files: [{path: ../tools/tool, name: tool}]\n`);
      const [trees, files] = [await disk('trees', 20), await disk('files', 200)];
      const piped = { bundle: '-', input: createReadStream(bundle) };
      const [a, b] = faultsOf(await loadInto({ ...piped, chartTrees: [trees], files: [files] }));
      expect(a).toMatchObject({ code: 'DISK_FULL', details: { free: 20 * KIB } });
      expect(b).toMatchObject({ code: 'DISK_FULL', details: { need: 300 * KIB } });
      expect([await readdir(trees), await readdir(files)]).toEqual([[], []]);
    },
  );

  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) may turn out too little when a chart has come through a pipe, and nothing is left of it',
    async () => {
      const small = await disk('small', 400);
      const result = await loadInto({ bundle: '-', input: createReadStream(bundle), chartTrees: [small] });
      const [entry] = result.targets[0]?.entries ?? [];
      expect(entry).toMatchObject({ state: 'failed', fault: { code: 'DISK_FULL' } });
      expect(await readdir(small)).toEqual([]);
    },
  );

  it.skipIf(!canMount)('(needs root for a small tmpfs) is told by a dry run too', async () => {
    const small = await disk('small', 200);
    const [fault] = faultsOf(await loadInto({ files: [small], dryRun: true }));
    expect(fault).toMatchObject({ code: 'DISK_FULL', details: { need: 300 * KIB } });
  });

  it.skipIf(!canMount)('(needs root for a small tmpfs) counts what goes to one disk together', async () => {
    const small = await disk('small', 800);
    const targets = { chartTrees: [join(small, 'charts')], files: [join(small, 'files')] };
    const both = await loadInto(targets);
    expect(faultsOf(both).map((f) => f?.code)).toEqual(['DISK_FULL', 'DISK_FULL']);
    expect(await readdir(small)).toEqual([]);
    for (const one of [{ chartTrees: targets.chartTrees }, { files: targets.files }]) {
      expect((await loadInto({ ...one, dryRun: true })).failed).toBe(0);
    }
  });

  it.skipIf(!canMount)('(needs root for a small tmpfs) concerns only targets on the full disk', async () => {
    const small = await disk('small', 200);
    const other = join(site.dir, 'roomy');
    const result = await loadInto({ chartTrees: [other], files: [small] });
    expect(faultsOf(result).map((f) => f?.code)).toEqual([undefined, 'DISK_FULL']);
    expect((await readdir(other)).sort()).toEqual(['big-1.0.0', 'versions.lock']);
    expect(await readdir(small)).toEqual([]);
  });

  it.skipIf(!canMount)('(needs root for a small tmpfs) is that of the disk behind a link', async () => {
    const small = await disk('small', 200);
    const link = join(site.dir, 'link');
    await symlink(small, link);
    const [fault] = faultsOf(await loadInto({ files: [join(link, 'deep', 'er')] }));
    expect(fault).toMatchObject({ code: 'DISK_FULL' });
    expect(await spaceOf(join(link, 'deep'))).toEqual(await spaceOf(small));
    expect((await spaceOf(small)).device).not.toBe((await spaceOf(site.dir)).device);
  });

  it('is not needed for what is there already', async () => {
    const dirs = { chartTrees: [join(site.dir, 'charts')], files: [join(site.dir, 'files')] };
    expect((await loadInto(dirs)).failed).toBe(0);
    told.statfs = { blocks: 1000, bavail: 0, bsize: 4096 };
    expect((await loadInto(dirs)).failed).toBe(0);
    await rm(join(site.dir, 'files', 'tool'));
    expect(faultsOf(await loadInto(dirs)).map((f) => f?.code)).toEqual([undefined, 'DISK_FULL']);
  });

  it('is not asked of a file system that does not know how large it is', async () => {
    told.statfs = { blocks: 0, bavail: 0, bsize: 4096 };
    expect(await freeSpace(site.dir)).toBe(Number.POSITIVE_INFINITY);
    expect((await loadInto({ files: [join(site.dir, 'files')] })).failed).toBe(0);
    told.statfs = { blocks: 1000, bavail: 0, bsize: 4096 };
    expect(await freeSpace(site.dir)).toBe(0);
    expect(faultsOf(await loadInto({ files: [join(site.dir, 'more')] }))[0]).toMatchObject({
      code: 'DISK_FULL',
      details: { need: 300 * KIB, free: 0 },
    });
  });

  it.skipIf(!canMount)(
    '(needs root for a small tmpfs) that somebody else takes meanwhile leaves nothing half there, and the load goes on after',
    async () => {
      const small = await disk('small', 2_000);
      const fill = (): void => {
        try {
          for (;;) appendFileSync(join(small, 'filler'), Buffer.alloc(16 * KIB));
        } catch {
          // Full now.
        }
      };
      let filled = false;
      const targets = { chartTrees: [join(small, 'charts')], files: [join(small, 'files')] };
      const full = await loadInto(targets, (event) => {
        if (filled || event.type !== 'phase' || event.name !== 'blobs') return;
        filled = true;
        fill();
      });
      expect(filled).toBe(true);
      const faults = full.targets.flatMap((t) => t.entries.map((e) => e.fault));
      expect(faults.map((f) => f?.code)).toEqual(['DISK_FULL', 'DISK_FULL']);
      expect(faults[0]?.hint).toContain('goes on where it stopped');
      const left = await readdir(small, { recursive: true });
      expect(left.filter((name) => !['filler', 'charts', 'files'].includes(name))).toEqual([]);
      await rm(join(small, 'filler'));
      await writeFile(join(small, 'note'), '');
      expect((await loadInto(targets)).failed).toBe(0);
      expect((await readdir(join(small, 'charts'))).sort()).toEqual(['big-1.0.0', 'versions.lock']);
    },
  );
});
