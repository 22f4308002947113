import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { forNoneWarnings } from '../../src/cli/render-load.ts';
import type { SealiftError } from '../../src/core/errors.ts';
import { parseBundlePlace } from '../../src/ops/bundle-place.ts';
import { diff } from '../../src/ops/diff.ts';
import { load } from '../../src/ops/load.ts';
import { openSource } from '../../src/ops/load-source.ts';
import { ls } from '../../src/ops/ls.ts';
import { merge } from '../../src/ops/merge.ts';
import { matchNames } from '../../src/ops/names.ts';
import { pull } from '../../src/ops/pull.ts';
import { push } from '../../src/ops/push.ts';
import { verify } from '../../src/ops/verify.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import { placeOf, testContext } from '../support/bundles.ts';
import { makeWheel, packPackages } from '../support/packages.ts';

const alpha = makeWheel('alpha', '1.0', { requiresPython: '>=3.8', requires: ['beta-lib'] });
const beta = makeWheel('beta-lib', '2.1.post1', { yanked: 'broken' });
const betaMac = makeWheel('beta-lib', '2.1.post1', { tag: 'cp311-cp311-macosx_11_0_arm64' });
const newer = makeWheel('alpha', '1.1');

let dir: string;
let bundle: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-packages-'));
  bundle = await packPackages(dir, [betaMac, beta, alpha]);
});

afterAll(() => rm(dir, { recursive: true, force: true }));

const sha256 = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex');

describe('a bundle of Python packages', () => {
  it('has one file artifact for each, under the name of the file', async () => {
    const result = await ls(bundle, testContext());
    expect(result.artifacts.map(({ kind, name, size }) => [kind, name, size > 0])).toEqual([
      ['package', 'alpha-1.0-py3-none-any.whl', true],
      ['package', 'beta_lib-2.1.post1-cp311-cp311-macosx_11_0_arm64.whl', true],
      ['package', 'beta_lib-2.1.post1-py3-none-any.whl', true],
    ]);
    expect(result.python?.files.map((f) => [f.name, f.version, f.requiresPython, f.yanked])).toEqual([
      ['alpha', '1.0', '>=3.8', undefined],
      ['beta-lib', '2.1.post1', undefined, undefined],
      ['beta-lib', '2.1.post1', undefined, 'broken'],
    ]);
    const index = (await readFile(bundle)).toString('latin1');
    expect(index).toContain('"annotations":{"dev.sealift.name":"alpha-1.0-py3-none-any.whl"}');
    expect(index).toContain('"org.opencontainers.image.title":"alpha-1.0-py3-none-any.whl"');
  });

  it('is whole, from a file and through a pipe, and counted', async () => {
    const facts = { images: 0, charts: 0, files: 0, packages: 3, faults: [] };
    expect(await verify({ bundle, deep: true }, testContext())).toMatchObject(facts);
    const piped = { bundle: '-', input: createReadStream(bundle) };
    expect(await verify(piped, testContext())).toMatchObject(facts);
  });

  it('with a damaged package is told, and a repair brings that package alone', async () => {
    const bytes = await readFile(bundle);
    bytes[bytes.indexOf(alpha.bytes) + 3] = 0;
    const bad = join(dir, 'bad.tar');
    await writeFile(bad, bytes);
    const requestPath = join(dir, 'repair.json');
    const { faults } = await verify({ bundle: bad, requestPath }, testContext());
    expect(faults.map((f) => f.code)).toEqual(['BUNDLE_CHECKSUM_MISMATCH']);
    const repair = await packPackages(dir, [betaMac, beta, alpha], {
      repair: requestPath,
      out: join(dir, 'repair.tar'),
    });
    const out = join(dir, 'merged.tar');
    const merged = await merge({ out, bundles: [bad, repair] }, testContext());
    expect(merged.artifacts).toEqual({ images: 0, charts: 0, files: 0, packages: 3 });
    expect(await sha256(out)).toBe(await sha256(bundle));
  });

  it('whose package says another version than the lock is refused', async () => {
    const bytes = (await readFile(bundle)).toString('latin1');
    const [lock = ''] = /# @generated[^\0]*/.exec(bytes) ?? [];
    const other = lock.replaceAll('version: "1.0"', 'version: "1.2"');
    const hex = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');
    const text = bytes.replace(lock, other).replaceAll(hex(lock), hex(other));
    const forged = join(dir, 'forged.tar');
    await writeFile(forged, Buffer.from(text, 'latin1'));
    const error = await verify({ bundle: forged }, testContext()).catch((e: SealiftError) => e);
    const faults = error instanceof Error ? error.faults : error.faults;
    expect(faults.map((f) => f.message).join('\n')).toContain(
      'python.files[0].file: not the name of a wheel or source archive of this project and version',
    );
  });

  it('of a newer version is a delta that leaves out what stayed', async () => {
    const out = join(dir, 'delta.tar');
    await packPackages(dir, [betaMac, beta, newer], { version: '2', since: [bundle], out });
    const result = await ls(out, testContext());
    expect(result.base?.leftOut.blobs).toBeGreaterThanOrEqual(2);
    const whole = join(dir, 'whole.tar');
    await merge({ out: whole, bundles: [out, bundle] }, testContext());
    const plain = await packPackages(dir, [betaMac, beta, newer], {
      version: '2',
      out: join(dir, 'plain.tar'),
    });
    expect(await sha256(whole)).toBe(await sha256(plain));
    const { changed, sizes } = await diff(bundle, whole, testContext());
    expect(changed.map((c) => `${c.kind} ${c.name}`)).toEqual(['bundle wheels', 'package alpha==1.1']);
    expect(sizes).toMatchObject([{ kind: 'package', name: 'alpha==1.1' }]);
    expect(sizes[0]?.from).toBeGreaterThan(alpha.bytes.length);
    expect(sizes[0]?.to).toBeGreaterThan(newer.bytes.length);
  });

  it('goes through a registry and comes back byte for byte', async () => {
    const registry = await startRegistry({ storage: 'memory' });
    try {
      const to = parseBundlePlace(`http://${registry.host}/bundles/wheels:1`);
      await push({ bundle, to }, testContext());
      const out = join(dir, 'pulled.tar');
      await pull({ from: to, out }, testContext());
      expect(await sha256(out)).toBe(await sha256(bundle));
    } finally {
      await registry.close();
    }
  });
});

describe('packages in a load', () => {
  it('are items with project, version and the bytes of the file', async () => {
    const source = await openSource({ bundle }, testContext());
    try {
      expect(source.items[0]).toMatchObject({
        kind: 'package',
        name: alpha.lock.file,
        project: 'alpha',
        version: '1.0',
        requiresPython: '>=3.8',
        content: { digest: alpha.lock.sha256, size: alpha.bytes.length },
      });
      const names = (only: string): string[] => matchNames(source.items, [only]).map((item) => item.name);
      expect(names('beta-lib')).toHaveLength(2);
      expect(names(beta.lock.file)).toEqual([beta.lock.file]);
      expect(() => names('gamma')).toThrow('nothing in the bundle is called gamma');
    } finally {
      await source.close();
    }
  });

  it('that no target takes are told at the end', async () => {
    const registry = await startRegistry({ storage: 'memory' });
    try {
      const options = { bundle, registries: [placeOf(registry)], files: [join(dir, 'files')] };
      const result = await load(options, testContext());
      expect([result.failed, result.forNone]).toEqual([0, [{ kind: 'package', count: 3 }]]);
      const [warning, ...others] = forNoneWarnings(result);
      expect(others).toEqual([]);
      expect(warning?.message).toBe('3 Python packages are for none of the targets');
      expect(warning?.hint).toContain('pypi');
    } finally {
      await registry.close();
    }
  });
});
