/** A bundle as a folder: what may not be in it, and what must. */
import { execFileSync } from 'node:child_process';
import { cp, mkdir, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { checkBytes } from '../../src/bundle/check.ts';
import { openBundle } from '../../src/bundle/reader.ts';
import { exitCodeOf, type Fault, SealiftError } from '../../src/core/errors.ts';
import { load } from '../../src/ops/load.ts';
import { pack } from '../../src/ops/pack.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from './site.ts';

let site: Site;
let good: Packed;
let dir: string;
let blob: string;

beforeAll(async () => {
  site = await openSite();
  good = await packSite(site);
  await pack({ manifestPath: site.manifestPath, out: `${site.path('folder')}/` }, contextOf());
  blob = good.entries.find((e) => e.kind === 'blob')?.name ?? '';
});

afterAll(() => site.close());

beforeEach(async () => {
  dir = site.path('tried');
  await cp(site.path('folder'), dir, { recursive: true });
});

afterEach(() => rm(dir, { recursive: true, force: true }));

async function faultsOf(): Promise<readonly Fault[]> {
  try {
    return (await verify({ bundle: dir }, contextOf())).faults;
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    return error.faults;
  }
}

/** Verify names it and load refuses it. */
async function refused(code: Fault['code'], name: string): Promise<void> {
  const faults = await faultsOf();
  const own = faults.find((f) => f.code === code);
  expect(own?.message).toContain(name);
  expect(own?.message).toContain(dir);
  expect(faults.map((f) => exitCodeOf(f.code))).toEqual(faults.map(() => 5));
  const loading = load({ bundle: dir, chartTrees: [site.path('never')] }, contextOf());
  await expect(loading).rejects.toMatchObject({ code: expect.stringMatching(/^BUNDLE_/) });
}

describe('a bundle in a folder', () => {
  it('has the bytes of the tar entries and is verified without a fault', async () => {
    const result = await verify({ bundle: dir, lockPath: site.lockPath }, contextOf());
    expect(result).toMatchObject({ faults: [], chain: 'lock', entries: good.entries.length });
    const listed = execFileSync('sha256sum', ['-c', '--quiet', 'SHA256SUMS'], { cwd: dir, encoding: 'utf8' });
    expect(listed).toBe('');
    execFileSync('tar', ['-xf', good.path, '-C', site.dir, '--one-top-level=same']);
    expect(execFileSync('diff', ['-r', dir, site.path('same')], { encoding: 'utf8' })).toBe('');
  });

  it('is refused with a link in place of a blob, wherever it points', async () => {
    await rename(join(dir, blob), site.path('blob-elsewhere'));
    await symlink(site.path('blob-elsewhere'), join(dir, blob));
    await refused('BUNDLE_ENTRY_EXTRA', blob);
    expect((await faultsOf()).map((f) => f.code)).toContain('BUNDLE_ENTRY_MISSING');
  });

  it('is refused with a link in place of the folder of blobs', async () => {
    await rename(join(dir, 'blobs'), site.path('blobs-elsewhere'));
    await symlink(site.path('blobs-elsewhere'), join(dir, 'blobs'));
    await refused('BUNDLE_ENTRY_EXTRA', 'blobs');
    await rm(site.path('blobs-elsewhere'), { recursive: true });
  });

  for (const name of [
    'README.md',
    'blobs/x',
    `blobs/sha256/${'F'.repeat(64)}`,
    '.DS_Store',
    'B3SUMS.minisig.tmp',
  ]) {
    it(`is refused with the extra file ${name}`, async () => {
      await writeFile(join(dir, name), 'x');
      await refused('BUNDLE_ENTRY_EXTRA', name);
    });
  }

  it('is refused with a blob that no lock names', async () => {
    const name = `blobs/sha256/${'f'.repeat(64)}`;
    await writeFile(join(dir, name), 'x');
    await refused('BUNDLE_ENTRY_EXTRA', name);
  });

  it('is refused with an extra folder, a pipe, and a folder in place of a document', async () => {
    await mkdir(join(dir, 'blobs/sha512'));
    await refused('BUNDLE_ENTRY_EXTRA', 'blobs/sha512');
    await rm(join(dir, 'blobs/sha512'), { recursive: true });
    execFileSync('mkfifo', [join(dir, 'blobs/sha256/pipe')]);
    await refused('BUNDLE_ENTRY_EXTRA', 'pipe');
    await rm(join(dir, 'blobs/sha256/pipe'));
    await rm(join(dir, 'oci-layout'));
    await mkdir(join(dir, 'oci-layout'));
    await refused('BUNDLE_ENTRY_EXTRA', 'oci-layout');
  });

  for (const name of ['oci-layout', 'index.json', 'versions.lock', 'sealift.json', 'SHA256SUMS', 'B3SUMS']) {
    it(`is refused without ${name}`, async () => {
      await rm(join(dir, name));
      await refused('BUNDLE_ENTRY_MISSING', name);
    });
  }

  it('is refused without one blob, and with one that is cut off or longer', async () => {
    await truncate(join(dir, blob), 10);
    await refused('BUNDLE_NOT_CANONICAL', `${blob}: expected`);
    await truncate(join(dir, blob), 100_000);
    await refused('BUNDLE_NOT_CANONICAL', `${blob}: expected`);
    await rm(join(dir, blob));
    await refused('BUNDLE_ENTRY_MISSING', blob);
  });

  it('is found damaged in a blob with the same length', async () => {
    const entry = good.entries.find((e) => e.name === blob);
    await writeFile(join(dir, blob), Buffer.alloc(entry?.size ?? 0, 7));
    expect(await faultsOf()).toEqual([
      expect.objectContaining({
        code: 'BUNDLE_CHECKSUM_MISMATCH',
        details: expect.objectContaining({ entry: blob }),
      }),
    ]);
  });

  it('tells of an entry that the disk cannot read any more, and judges the others', async () => {
    const bundle = await openBundle(dir, { signal: contextOf().signal });
    await rm(join(dir, blob));
    await mkdir(join(dir, blob)); // Reading a folder fails as a bad sector does: in the middle of things.
    const { faults, entries } = await checkBytes(bundle, { sha256: true, context: contextOf() });
    expect(entries).toBe(good.entries.length);
    expect(faults).toEqual([
      expect.objectContaining({
        code: 'BUNDLE_CHECKSUM_MISMATCH',
        details: expect.objectContaining({ entry: blob }),
        message: expect.stringContaining('cannot be read'),
      }),
    ]);
    const reading = async (): Promise<void> => {
      const found = good.entries.find((e) => e.name === blob);
      if (found?.digest === undefined) throw new Error('a blob has a digest');
      const about = { mediaType: 'x/y', digest: found.digest, size: found.size };
      for await (const _ of bundle.open(about, { signal: contextOf().signal }));
    };
    await expect(reading()).rejects.toMatchObject({ code: 'BUNDLE_CHECKSUM_MISMATCH', side: 'source' });
    await bundle.close();
  });
});
