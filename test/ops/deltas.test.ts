/** Deltas, repairs and merges: what is left out, what proves that it is there, and what makes a whole of them. */
import { copyFile, mkdir, open, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { PlannedEntry } from '../../src/bundle/plan.ts';
import { openBundle } from '../../src/bundle/reader.ts';
import { load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { ls } from '../../src/ops/ls.ts';
import { merge } from '../../src/ops/merge.ts';
import { pack } from '../../src/ops/pack.ts';
import { openGivenBundles } from '../../src/ops/serve-order.ts';
import { verify } from '../../src/ops/verify.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { contextOf, failuresOnEmpty, openSite, placeOf, type Site } from '../bundle/site.ts';
import { pushFleet } from '../support/fleet.ts';

const FLEET = { layerSizes: [40_000, 9000], baseSize: 60_000 } as const;
const SIZE = 80_000;
let site: Site;
/** Full bundles of three deliveries. */
const full = { v1: '', v2: '', v3: '' };
const manifests = { v1: '', v2: '', v3: '' };

async function deliver(version: keyof typeof full, delivery: number): Promise<void> {
  // The later deliveries have two images more.
  const images = await pushFleet(site.source.host, { ...FLEET, images: delivery === 1 ? 6 : 8, delivery });
  const folder = site.path(version);
  await mkdir(folder);
  const manifestPath = join(folder, 'sealift.yaml');
  const lines = images.map((i) => `  - ${site.source.host}/${i.name}:${i.tag}`);
  await writeFile(
    manifestPath,
    [
      'apiVersion: sealift/v1',
      'name: site',
      `version: "${delivery}"`,
      'images:',
      ...lines,
      'charts:',
      `  - {name: web, version: 1.2.3, repo: "${site.source.url}/charts"}`,
      'files:',
      `  - {url: "${site.source.url}/files/tool", name: bin/tool}`,
      '',
    ].join('\n'),
  );
  await lock({ manifestPath }, contextOf());
  manifests[version] = manifestPath;
  full[version] = join(folder, 'full.tar');
  await pack({ manifestPath, out: full[version] }, contextOf());
}

async function delta(of: keyof typeof full, since: readonly string[], name = 'delta.tar'): Promise<string> {
  const out = join(work, name);
  await pack({ manifestPath: manifests[of], out, since }, contextOf());
  return out;
}

async function sizeOf(path: string): Promise<number> {
  return (await readFile(path)).length;
}

async function blobEntries(path: string): Promise<PlannedEntry[]> {
  const bundle = await openBundle(path, { signal: contextOf().signal });
  await bundle.close();
  return [...(bundle.plan?.entries ?? [])].filter((e) => e.kind === 'blob');
}

let work: string;

beforeAll(async () => {
  site = await openSite();
  await deliver('v1', 1);
  await deliver('v2', 2);
  await deliver('v3', 3);
}, 60_000);

afterAll(() => site.close());

beforeEach(async () => {
  work = site.path(`w${Math.random().toString(36).slice(2)}`);
  await mkdir(work);
});

describe('a delta', () => {
  it('carries what the base lacks, says what it leaves out, and is whole by itself', async () => {
    const path = await delta('v2', [full.v1]);
    const had = new Set((await blobEntries(full.v1)).map((e) => e.digest));
    const fresh = (await blobEntries(full.v2)).filter((e) => !had.has(e.digest));
    expect(fresh.length).toBeGreaterThan(0);
    expect((await blobEntries(path)).map((e) => e.digest)).toEqual(fresh.map((e) => e.digest));
    const result = await verify({ bundle: path }, contextOf());
    expect(result.faults).toEqual([]);
    expect(result.leftOut).toMatchObject({ of: [{ name: 'site', version: '1' }], checked: { blobs: 0 } });
    const { base, blobBytes } = await ls(path, contextOf());
    expect((base?.carried.bytes ?? 0) + (base?.leftOut.bytes ?? 0)).toBe(blobBytes);
  });

  it('is the same bytes whichever word stands for its base', async () => {
    const bundle = await openBundle(full.v1, { signal: contextOf().signal });
    const sums = bundle.medium.entries.find('SHA256SUMS');
    await bundle.close();
    if (sums === undefined) throw new Error('a bundle has sums');
    const bytes = (await readFile(full.v1)).subarray(sums.offset, sums.offset + sums.size);
    await writeFile(join(work, 'SHA256SUMS'), bytes);
    const wanted = await readFile(await delta('v2', [full.v1]));
    expect(await readFile(await delta('v2', [join(site.path('v1'), 'versions.lock')], 'l.tar'))).toEqual(
      wanted,
    );
    // The sums alone say neither name nor version, and nothing else is other.
    const fromSums = await delta('v2', [join(work, 'SHA256SUMS')], 's.tar');
    expect((await blobEntries(fromSums)).map((e) => e.digest)).toEqual(
      (await blobEntries(join(work, 'delta.tar'))).map((e) => e.digest),
    );
  });

  it('is not written again when it is there', async () => {
    const out = await delta('v2', [full.v1]);
    const again = await pack({ manifestPath: manifests.v2, out, since: [full.v1] }, contextOf());
    expect(again.outcome).toBe('present');
    expect((await pack({ manifestPath: manifests.v2, out }, contextOf())).outcome).toBe('packed');
    expect(await readFile(out)).toEqual(await readFile(full.v2));
  });

  it('leaves out only what every one of several bases has', async () => {
    const one = await sizeOf(await delta('v3', [full.v2], 'one.tar'));
    const both = await sizeOf(await delta('v3', [full.v1, full.v2], 'both.tar'));
    expect(both).toBeGreaterThanOrEqual(one);
    const has = async (path: string): Promise<Set<unknown>> =>
      new Set((await blobEntries(path)).map((e) => e.digest));
    const [v1, v2] = [await has(full.v1), await has(full.v2)];
    const carried = await has(join(work, 'both.tar'));
    const wanted = (await blobEntries(full.v3)).filter((e) => !(v1.has(e.digest) && v2.has(e.digest)));
    expect([...carried].sort()).toEqual(wanted.map((e) => e.digest as string).sort());
  });

  it('makes the bundle that a full pack gives when it is merged with its base, also in a chain', async () => {
    const first = await delta('v2', [full.v1], 'd2.tar');
    const second = await delta('v3', [first], 'd3.tar');
    const out = join(work, 'merged.tar');
    const result = await merge({ out, bundles: [full.v1, second, first] }, contextOf());
    expect(result).toMatchObject({ outcome: 'merged', version: '3' });
    expect(await readFile(out)).toEqual(await readFile(full.v3));
    expect((await merge({ out, bundles: [first, second, full.v1] }, contextOf())).outcome).toBe('present');
    const missing = merge({ out: join(work, 'no.tar'), bundles: [second, first] }, contextOf());
    await expect(missing).rejects.toMatchObject({ code: 'BUNDLE_BASE_MISSING' });
    await expect(
      merge({ out: full.v2, bundles: [full.v1, second, first] }, contextOf()),
    ).rejects.toMatchObject({
      code: 'TARGET_CONFLICT',
    });
  });
});

describe('what is given', () => {
  it('is not what a delta or a repair is written over', async () => {
    const base = join(work, 'base.tar');
    await copyFile(full.v2, base);
    const before = await readFile(base);
    const since = pack({ manifestPath: manifests.v3, out: base, since: [base] }, contextOf());
    await expect(since).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
    const requestPath = join(work, 'repair.json');
    const damaged = join(work, 'damaged.tar');
    const bytes = Buffer.from(before);
    bytes[bytes.length - 5000] = (bytes[bytes.length - 5000] ?? 0) ^ 1;
    await writeFile(damaged, bytes);
    await verify({ bundle: damaged, requestPath }, contextOf());
    const repair = (out: string) =>
      pack({ manifestPath: manifests.v2, out, repair: requestPath }, contextOf());
    await expect(repair(base)).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
    expect(await readFile(base)).toEqual(before);
    expect((await repair(join(work, 'fix.tar'))).outcome).toBe('packed');
    expect((await repair(join(work, 'fix.tar'))).outcome).toBe('present');
  });

  it('is not what a receipt, a repair request or a merge is written over, by any name of it', async () => {
    const path = await delta('v2', [full.v1]);
    const base = join(work, 'base.tar');
    await copyFile(full.v1, base);
    const before = await readFile(base);
    await symlink(work, join(work, 'link'));
    const target = await startRegistry({ storage: 'memory' });
    try {
      const given = { bundle: path, others: [base] };
      for (const at of [base, join(work, 'link', 'base.tar')]) {
        const loading = load({ ...given, registries: [placeOf(target)], receiptPath: at }, contextOf());
        await expect(loading).rejects.toMatchObject({ code: 'USAGE', message: /--receipt/ });
        const asking = verify({ ...given, requestPath: at }, contextOf());
        await expect(asking).rejects.toMatchObject({ code: 'USAGE', message: /--write-request/ });
        await expect(merge({ out: at, bundles: [path, base] }, contextOf())).rejects.toMatchObject({
          code: 'USAGE',
        });
      }
    } finally {
      await target.close();
    }
    expect(await readFile(base)).toEqual(before);
  });

  it('is merged into the form that is asked for, whatever form of the same bundle is there', async () => {
    const path = await delta('v2', [full.v1]);
    const out = join(work, 'whole.tar');
    const bundles = [path, full.v1];
    expect((await merge({ out, bundles }, contextOf())).outcome).toBe('merged');
    expect((await merge({ out, bundles, volumeSize: SIZE }, contextOf())).outcome).toBe('merged');
    expect((await merge({ out, bundles, volumeSize: SIZE }, contextOf())).outcome).toBe('present');
    const other = merge({ out, bundles, volumeSize: 2 * SIZE }, contextOf());
    await expect(other).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
    expect((await verify({ bundle: `${out}.001` }, contextOf())).faults).toEqual([]);
  });

  it('is not taken for the older one where the newer one does not say what it is', async () => {
    const path = await delta('v2', [full.v1]);
    const bytes = await readFile(path);
    bytes.write('!', bytes.indexOf('{\n  "formatVersion"'));
    await writeFile(path, bytes);
    const given = { bundle: path, others: [full.v1] };
    const target = await startRegistry({ storage: 'memory' });
    try {
      const damaged = { code: expect.stringMatching(/^BUNDLE_/), message: /delta\.tar/ };
      await expect(verify(given, contextOf())).rejects.toMatchObject(damaged);
      const loading = load({ ...given, registries: [placeOf(target)] }, contextOf());
      await expect(loading).rejects.toMatchObject(damaged);
      const merging = merge({ out: join(work, 'out.tar'), bundles: [full.v1, path] }, contextOf());
      await expect(merging).rejects.toMatchObject(damaged);
      expect(target.requests).toEqual([]);
    } finally {
      await target.close();
    }
  });

  it('is not taken for a link of the chain that lacks, where it may be the newest one', async () => {
    const second = await delta('v2', [full.v1], 'd2.tar');
    const third = await delta('v3', [second], 'd3.tar');
    const damage = async (path: string): Promise<void> => {
      const bytes = await readFile(path);
      bytes.write('!', bytes.indexOf('{\n  "formatVersion"'));
      await writeFile(path, bytes);
    };
    const intact = await readFile(third);
    await damage(third);
    const target = await startRegistry({ storage: 'memory' });
    try {
      const registries = [placeOf(target)];
      await load({ bundle: full.v1, registries }, contextOf());
      const before = target.requests.length;
      const loading = load({ bundle: second, others: [third], registries }, contextOf());
      await expect(loading).rejects.toMatchObject({ message: /d3\.tar/ });
      expect(target.requests).toHaveLength(before);
      // A link below is known by its lock, and what it has is used.
      await writeFile(third, intact);
      await damage(second);
      expect((await load({ bundle: third, others: [second], registries }, contextOf())).failed).toBe(0);
    } finally {
      await target.close();
    }
  });

  it('gives its blobs where only what it is cannot be read', async () => {
    const path = await delta('v2', [full.v1]);
    const base = join(work, 'base.tar');
    const bytes = await readFile(full.v1);
    bytes.write('!', bytes.indexOf('{\n  "formatVersion"'));
    bytes.write('!', bytes.indexOf('# ') + 1);
    await writeFile(base, bytes);
    expect((await verify({ bundle: base, others: [path] }, contextOf())).faults).toEqual([]);
    await merge({ out: join(work, 'merged.tar'), bundles: [base, path] }, contextOf());
    expect(await readFile(join(work, 'merged.tar'))).toEqual(await readFile(full.v2));
  });

  it('does not belong together where a link of the chain lacks, which is named', async () => {
    const later = await delta('v3', [full.v2]);
    const failed = await verify({ bundle: later, others: [full.v1] }, contextOf()).catch((e) => e);
    expect(failed).toMatchObject({ code: 'USAGE' });
    expect(failed.hint).toContain('builds on site 2');
  });
});

describe('loading a delta', () => {
  let target: RunningRegistry;

  beforeEach(async () => {
    target = await startRegistry({ storage: 'memory' });
    return () => target.close();
  });

  const writes = (): string[] =>
    target.requests.filter((r) => r.method !== 'GET' && r.method !== 'HEAD').map((r) => r.path);

  it('leads to what a full load leads to where the base was loaded', async () => {
    const path = await delta('v2', [full.v1]);
    await load({ bundle: full.v1, registries: [placeOf(target)] }, contextOf());
    const result = await load({ bundle: path, registries: [placeOf(target)] }, contextOf());
    expect(result.failed).toBe(0);
    const after = await load({ bundle: full.v2, registries: [placeOf(target)], dryRun: true }, contextOf());
    expect(after.targets.flatMap((t) => t.entries).map((e) => e.state)).not.toContain('write');
  });

  it('writes nothing where the base is absent, and says what lacks and what would supply it', async () => {
    const path = await delta('v2', [full.v1]);
    const failed = await load({ bundle: path, registries: [placeOf(target)] }, contextOf()).catch((e) => e);
    expect(failed).toMatchObject({
      code: 'BUNDLE_BASE_MISSING',
      details: { base: [{ name: 'site', version: '1' }] },
    });
    expect(failed.hint).toContain('site 1');
    expect(failed.details.missing.length).toBeGreaterThan(0);
    expect(writes()).toEqual([]);
  });

  it('takes what the target lacks from a base that is given beside it, in any order', async () => {
    const path = await delta('v2', [full.v1]);
    const given = { bundle: full.v1, others: [path] };
    expect((await verify(given, contextOf())).faults).toEqual([]);
    const result = await load({ ...given, registries: [placeOf(target)] }, contextOf());
    expect(result.bundle.version).toBe('2');
    expect(result.failed).toBe(0);
  });

  it('of a later base than the site has is refused with the name of what is needed', async () => {
    await load({ bundle: full.v1, registries: [placeOf(target)] }, contextOf());
    const later = await delta('v3', [full.v2]);
    const before = writes().length;
    const failed = await load({ bundle: later, registries: [placeOf(target)] }, contextOf()).catch((e) => e);
    expect(failed).toMatchObject({ code: 'BUNDLE_BASE_MISSING' });
    expect(failed.hint).toContain('site 2');
    expect(writes()).toHaveLength(before);
  });

  it('is made for a site by its receipt', async () => {
    const receiptPath = join(work, 'receipt.json');
    await load({ bundle: full.v1, registries: [placeOf(target)], receiptPath }, contextOf());
    const path = await delta('v2', [receiptPath]);
    expect(await sizeOf(path)).toBe(await sizeOf(await delta('v2', [full.v1], 'same.tar')));
    const result = await load({ bundle: path, registries: [placeOf(target)] }, contextOf());
    expect(result.failed).toBe(0);
  });

  it('proves charts and files in their folders too', async () => {
    const path = await delta('v2', [full.v1]);
    const folders = { chartTrees: [join(work, 'charts')], files: [join(work, 'files')] };
    await expect(load({ bundle: path, ...folders }, contextOf())).rejects.toMatchObject({
      code: 'BUNDLE_BASE_MISSING',
    });
    await load({ bundle: full.v1, ...folders }, contextOf());
    expect((await load({ bundle: path, ...folders }, contextOf())).failed).toBe(0);
    await rm(join(work, 'files', 'bin', 'tool'));
    await expect(load({ bundle: path, ...folders }, contextOf())).rejects.toMatchObject({
      code: 'BUNDLE_BASE_MISSING',
    });
  });
});

describe('several that have the same', () => {
  it('are asked until one has it whole, by load as by verify', async () => {
    const path = await delta('v2', [full.v1]);
    const carried = new Set((await blobEntries(path)).map((e) => e.digest));
    const wanted = new Set((await blobEntries(full.v2)).map((e) => e.digest));
    const victim = (await blobEntries(full.v1)).find((e) => wanted.has(e.digest) && !carried.has(e.digest));
    if (victim === undefined) throw new Error('the delta leaves something out');
    const bad = join(work, 'bad.tar');
    const bytes = await readFile(full.v1);
    bytes.write('damage', victim.offset + 10);
    await writeFile(bad, bytes);
    const target = await startRegistry({ storage: 'memory' });
    try {
      const given = { bundle: path, others: [bad, full.v1] };
      expect((await verify(given, contextOf())).faults).toEqual([]);
      expect((await load({ ...given, registries: [placeOf(target)] }, contextOf())).failed).toBe(0);
    } finally {
      await target.close();
    }
    await expect(verify({ bundle: path, others: [bad] }, contextOf())).resolves.toMatchObject({
      faults: [{ code: 'BUNDLE_CHECKSUM_MISMATCH', details: { entry: victim.name } }],
    });
  });

  it('is not called merged where the bytes that are there are wrong', async () => {
    const path = await delta('v2', [full.v1]);
    const out = join(work, 'merged.tar');
    await merge({ out, bundles: [full.v1, path] }, contextOf());
    const bytes = await readFile(out);
    const [victim] = (await blobEntries(out)).slice(-1);
    bytes.write('damage', (victim?.offset ?? 0) + 1);
    await writeFile(out, bytes);
    const again = merge({ out, bundles: [full.v1, path] }, contextOf());
    await expect(again).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
  });
});

describe('what a delta is packed over', () => {
  it('is never the complete bundle of its lock', async () => {
    const out = join(work, 'full.tar');
    await pack({ manifestPath: manifests.v2, out }, contextOf());
    const over = pack({ manifestPath: manifests.v2, out, since: [full.v1] }, contextOf());
    await expect(over).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
    expect(await readFile(out)).toEqual(await readFile(full.v2));
  });

  it('needs a word that stands for a bundle', async () => {
    await writeFile(join(work, 'empty'), '');
    await writeFile(join(work, 'null.json'), 'null');
    for (const name of ['empty', 'null.json']) {
      const made = delta('v2', [join(work, name)], 'x.tar');
      await expect(made).rejects.toMatchObject({ code: 'USAGE', message: new RegExp(name) });
    }
  });
});

describe('a repair', () => {
  it('brings exactly what two damaged volumes lack', async () => {
    const out = join(work, 'a.tar');
    await pack({ manifestPath: manifests.v2, out, volumeSize: SIZE }, contextOf());
    const victims = (await blobEntries(full.v2)).filter((e) => e.size > 5000).slice(0, 3);
    for (const { offset, size } of victims) {
      const at = offset + Math.floor(size / 2);
      const handle = await open(`${out}.${String(Math.floor(at / SIZE) + 1).padStart(3, '0')}`, 'r+');
      await handle.write(Buffer.from('damage'), 0, 6, at % SIZE);
      await handle.close();
    }
    const requestPath = join(work, 'repair.json');
    const found = await verify({ bundle: `${out}.001`, requestPath }, contextOf());
    expect(found.request?.blobs).toBe(3);
    const fix = join(work, 'fix.tar');
    await pack({ manifestPath: manifests.v2, out: fix, repair: requestPath }, contextOf());
    expect((await blobEntries(fix)).map((e) => e.digest).sort()).toEqual(victims.map((e) => e.digest).sort());
    const given = { bundle: `${out}.001`, others: [fix] };
    expect((await verify(given, contextOf())).faults).toEqual([]);
    expect(await failuresOnEmpty(given)).toBe(0);
    const whole = join(work, 'whole.tar');
    await merge({ out: whole, bundles: [fix, `${out}.001`] }, contextOf());
    expect(await readFile(whole)).toEqual(await readFile(full.v2));
  });

  it('also repairs manifests, documents and headers, and a volume that is gone', async () => {
    const out = join(work, 'a.tar');
    await pack({ manifestPath: manifests.v2, out, volumeSize: SIZE }, contextOf());
    await rm(`${out}.004`);
    const bundle = await openBundle(full.v2, { signal: contextOf().signal });
    await bundle.close();
    const manifest = [...(bundle.plan?.entries ?? [])].find((e) => e.kind === 'manifest');
    if (manifest === undefined) throw new Error('a bundle has manifests');
    const handle = await open(`${out}.001`, 'r+');
    await handle.write(Buffer.from('damage'), 0, 6, manifest.offset - 300);
    await handle.write(Buffer.from('damage'), 0, 6, manifest.offset + 20);
    await handle.close();
    const requestPath = join(work, 'repair.json');
    const found = await verify({ bundle: `${out}.001`, requestPath }, contextOf());
    expect(found.faults.length).toBeGreaterThan(1);
    const fix = join(work, 'fix.tar');
    await pack({ manifestPath: manifests.v2, out: fix, repair: requestPath }, contextOf());
    const given = { bundle: `${out}.001`, others: [fix] };
    expect((await verify(given, contextOf())).faults).toEqual([]);
    const whole = join(work, 'whole.tar');
    await merge({ out: whole, bundles: [`${out}.001`, fix] }, contextOf());
    expect(await readFile(whole)).toEqual(await readFile(full.v2));
  });

  it('of a delta needs no base to be whole, is named by it where that lacks, and makes a whole with it', async () => {
    const path = await delta('v2', [full.v1]);
    const intact = await readFile(path);
    const [victim] = (await blobEntries(path)).filter((e) => e.size > 5000);
    if (victim === undefined) throw new Error('a delta has layers');
    const bytes = Buffer.from(intact);
    bytes[victim.offset + 100] = (bytes[victim.offset + 100] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const requestPath = join(work, 'repair.json');
    expect((await verify({ bundle: path, requestPath }, contextOf())).request?.blobs).toBe(1);
    const fix = join(work, 'fix.tar');
    await pack({ manifestPath: manifests.v2, out: fix, repair: requestPath }, contextOf());
    const served = await openGivenBundles([full.v1, path, fix]);
    for (const { medium } of served) await medium.close();
    expect(served.map(({ medium }) => medium.path)).toEqual([fix, path, full.v1]);
    const target = await startRegistry({ storage: 'memory' });
    try {
      for (const [bundle, other] of [
        [path, fix],
        [fix, path],
      ] as const) {
        expect((await verify({ bundle, others: [other] }, contextOf())).faults).toEqual([]);
        expect((await verify({ bundle, others: [other, full.v1] }, contextOf())).faults).toEqual([]);
        const registries = [placeOf(target)];
        const failed = await load({ bundle, others: [other], registries }, contextOf()).catch((e) => e);
        expect(failed).toMatchObject({ code: 'BUNDLE_BASE_MISSING', details: { base: [{ version: '1' }] } });
      }
      const given = { bundle: path, others: [fix, full.v1], registries: [placeOf(target)] };
      expect((await load(given, contextOf())).failed).toBe(0);
    } finally {
      await target.close();
    }
    const whole = join(work, 'whole.tar');
    await merge({ out: whole, bundles: [path, full.v1, fix] }, contextOf());
    expect(await readFile(whole)).toEqual(await readFile(full.v2));
  });

  it('is refused for another lock than the request names', async () => {
    const copy = join(work, 'x.tar');
    const bytes = await readFile(full.v1);
    bytes[bytes.length - 5000] = (bytes[bytes.length - 5000] ?? 0) ^ 1;
    await writeFile(copy, bytes);
    const requestPath = join(work, 'repair.json');
    await verify({ bundle: copy, requestPath }, contextOf());
    const options = { manifestPath: manifests.v2, out: join(work, 'fix.tar'), repair: requestPath };
    await expect(pack(options, contextOf())).rejects.toMatchObject({ code: 'LOCK_STALE', message: /site 1/ });
  });
});
