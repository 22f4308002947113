import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ls } from '../../src/ops/ls.ts';
import type { Serving } from '../../src/ops/serve.ts';
import { requirementsText } from '../../src/python/requirements-text.ts';
import { serveBundles } from '../serve/bundle-site.ts';
import { testContext } from '../support/bundles.ts';
import { makeWheel, packPackages } from '../support/packages.ts';
import { run } from '../support/peers.ts';

/** Python packages of a served bundle, as a real pip sees them: there is no other index and no cache. */

const alpha = makeWheel('alpha', '1.0', { requires: ['beta-lib>=1', 'gamma ; python_version < "3"'] });
const future = makeWheel('alpha', '2.0', { requiresPython: '>=3.99' });
const withdrawn = makeWheel('alpha', '1.5', { yanked: 'broken' });
const beta = makeWheel('beta-lib', '1.2', { requiresPython: '>=3.6' });
const old = makeWheel('gamma', '0.1');

let dir: string;
let bundle: string;
let serving: Serving;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-pip-'));
  bundle = await packPackages(dir, [alpha, future, withdrawn, beta, old]);
  serving = await serveBundles([bundle]);
});

afterAll(async () => {
  await serving.close();
  await rm(dir, { recursive: true, force: true });
});

/** @param verb `download` or `install` */
async function pip(verb: string, to: string, words: readonly string[]): Promise<readonly string[]> {
  const how = ['--isolated', '--no-cache-dir', '--index-url', `${serving.url}/simple/`];
  const into = verb === 'download' ? '--dest' : '--target';
  await run('python3', ['-m', 'pip', verb, ...how, into, to, ...words]);
  return (await readdir(to)).sort();
}

describe('pip', () => {
  it('takes the newest version that its Python runs and nobody took back, with what that needs', async () => {
    const to = join(dir, 'newest');
    expect(await pip('download', to, ['Alpha'])).toEqual([alpha.lock.file, beta.lock.file]);
    expect(await readFile(join(to, alpha.lock.file))).toEqual(alpha.bytes);
  });

  it('takes another version where another Python is asked for', async () => {
    const other = ['--python-version', '3.99', '--only-binary', ':all:', '--no-deps', 'alpha'];
    expect(await pip('download', join(dir, 'other'), other)).toEqual([future.lock.file]);
  });

  it('installs the locked requirements by their hashes, and only where they are wanted', async () => {
    const pins = [
      { name: 'alpha', version: '1.0' },
      { name: 'beta-lib', version: '1.2' },
      { name: 'gamma', version: '0.1', marker: 'python_version < "3"' },
    ];
    const wanted = await packPackages(dir, [alpha, beta, old], { version: '2', python: { pins } });
    const { python } = await ls(wanted, testContext());
    const file = join(dir, 'requirements.txt');
    await writeFile(file, python === null ? '' : requirementsText(python));
    const words = ['--require-hashes', '-r', file];
    const there = await pip('install', join(dir, 'installed'), words);
    expect(there.filter((name) => !name.includes('-'))).toEqual(['alpha', 'beta_lib']);
    const wrong = (await readFile(file, 'utf8')).replace(/sha256:./g, 'sha256:0');
    await writeFile(file, wrong);
    await expect(pip('install', join(dir, 'wrong'), words)).rejects.toThrow(/do not match/i);
  });
});
