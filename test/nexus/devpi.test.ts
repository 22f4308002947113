import { createReadStream } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { load } from '../../src/ops/load.ts';
import { unload } from '../../src/ops/unload.ts';
import { pipSettings } from '../../src/python/pip-conf.ts';
import type { OnConflict, Target } from '../../src/target/target.ts';
import { devpiIndexUrl, devpiTarget } from '../../src/target/web/devpi.ts';
import { testContext } from '../support/bundles.ts';
import { type Devpi, startDevpi } from '../support/nexus.ts';
import { makeWheel, packPackages } from '../support/packages.ts';
import { peer, run as runProgram } from '../support/peers.ts';
import { packages } from '../support/python-items.ts';
import { type OpenServer, openServer, runTarget, statesOf } from '../support/web-servers.ts';
import { sdist, wheel } from '../support/wheels.ts';

let devpi: Devpi;
let open: OpenServer;
let dir: string;

beforeAll(async () => {
  devpi = await startDevpi();
});
afterAll(() => devpi.close());
beforeEach(async () => {
  open = openServer({ url: devpi.url, username: devpi.user, password: devpi.password });
  dir = await mkdtemp(join(tmpdir(), 'sealift-devpi-'));
});
afterEach(async () => {
  await open.close();
  await rm(dir, { recursive: true, force: true });
});

function target(
  index: string,
  of: { readonly create?: boolean; readonly onConflict?: OnConflict } = {},
): Target {
  const { create = true, onConflict = 'fail' } = of;
  return devpiTarget({ server: open.server, index, create, onConflict });
}

async function json(path: string, init: RequestInit = {}): Promise<unknown> {
  const login = Buffer.from(`${devpi.user}:${devpi.password}`).toString('base64');
  const headers = {
    accept: 'application/json',
    authorization: `Basic ${login}`,
    'content-type': 'application/json',
  };
  return (await fetch(`${devpi.url}${path}`, { ...init, headers })).json();
}

/** The serial of the last change of the whole server. */
async function serial(): Promise<string | null> {
  return (await fetch(`${devpi.url}+api`)).headers.get('x-devpi-serial');
}

/** What pip sees: this index, and behind it nobody. */
function alone(index: string): Record<string, string> {
  const { env } = pipSettings(devpiIndexUrl(new URL(devpi.url), index));
  const nobody = 'http://127.0.0.1:9';
  return {
    ...env,
    PIP_CONFIG_FILE: '/dev/null',
    PIP_NO_CACHE_DIR: '1',
    PIP_DISABLE_PIP_VERSION_CHECK: '1',
    HTTP_PROXY: nobody,
    HTTPS_PROXY: nobody,
    http_proxy: nobody,
    https_proxy: nobody,
    NO_PROXY: '127.0.0.1',
    no_proxy: '127.0.0.1',
  };
}

/** An application whose library is another file for older Pythons. */
async function application(): Promise<ReturnType<typeof packages>> {
  const app = {
    name: 'Ship.App',
    version: '1.2.0',
    requires: ['ship-lib[extra]>=2', "ship-never ; python_version < '3'"],
    requiresPython: '>=3.8',
  };
  const lib = { name: 'ship-lib', version: '2.0', requiresPython: '>=3.8' };
  const newer = {
    name: 'ship-lib',
    version: '2.1',
    requiresPython: '>=3.10',
    lines: ['Provides-Extra: extra'],
  };
  const old = {
    name: 'ship_old',
    version: '0.1',
    description: 'Only for older ones.\n\nMit Umlauten: äöü\n',
  };
  const tool = { name: 'ship_tool', version: '3.0', requiresPython: '>=3.6' };
  return packages([
    { ...app, ...wheel(app) },
    { ...lib, ...wheel(lib) },
    { ...newer, ...wheel(newer) },
    { ...old, ...wheel(old) },
    { ...tool, ...(await sdist(tool)) },
  ]);
}

describe('an index of devpi', () => {
  it('is made, loaded, and enough for pip of two Pythons; a second load writes nothing', async () => {
    const { items, source } = await application();
    const { context } = open;
    const index = 'root/pods';
    const first = await runTarget(target(index), { items, source, context });
    expect(first.entries.map(({ fault, notes }) => [fault, notes])).toEqual(items.map(() => [undefined, []]));
    expect(await json(`${index}?no_projects=`)).toMatchObject({
      result: { type: 'stage', bases: [], volatile: false },
    });

    const requirements = join(dir, 'requirements.txt');
    const needed: Readonly<Record<string, readonly string[]>> = {
      '3.9': ['ship-app 1.2.0', 'ship-lib 2.0', 'ship-old 0.1'],
      '3.12': ['ship-app 1.2.0', 'ship-lib 2.1'],
    };
    const locked = (python: string): string[] =>
      items
        .filter(({ project, version }) => needed[python]?.includes(`${project} ${version}`))
        .map(({ project, version, content }) => `${project}==${version} --hash=${content.digest}`);
    for (const python of ['3.9', '3.12']) {
      const to = join(dir, python);
      await writeFile(requirements, `${locked(python).join('\n')}\n`);
      const platform = ['--python-version', python, '--only-binary=:all:', '--target', to];
      await runProgram(peer('pip'), ['install', '--require-hashes', ...platform, '-r', requirements], {
        env: alone(index),
      });
      const modules = (await readdir(to)).filter((name) => name.endsWith('.py')).sort();
      expect(modules).toEqual(['ship_app.py', 'ship_lib.py', ...(python === '3.9' ? ['ship_old.py'] : [])]);
      // The same without a lock: the index itself says which file is for whom.
      const free = join(dir, `${python}-free`);
      const args = [
        'install',
        '--python-version',
        python,
        '--only-binary=:all:',
        '--target',
        free,
        'ship-app',
      ];
      await runProgram(peer('pip'), args, { env: alone(index) });
      const version = python === '3.9' ? '2.0' : '2.1';
      expect(await readdir(free)).toContain(`ship_lib-${version}.dist-info`);
    }
    const none = ['download', '--no-deps', '-d', dir, 'requests'];
    expect((await runProgram(peer('pip'), none, { env: alone(index), check: false })).code).not.toBe(0);

    const before = await serial();
    const second = await runTarget(target(index), { items, source, context });
    expect(new Set(second.entries.map(({ state }) => state))).toEqual(new Set(['present']));
    expect(second.tally).toMatchObject({ blobsWritten: 0, bytesWritten: 0 });
    expect(await serial()).toBe(before);
  });

  it('knows everything that a file says of itself', async () => {
    const { items, source } = await application();
    await runTarget(target('root/facts'), { items, source, context: open.context });
    expect(await json('root/facts/ship-app')).toMatchObject({
      result: {
        '1.2.0': {
          name: 'ship-app',
          summary: 'Ship.App of the tests',
          requires_python: '>=3.8',
          requires_dist: ['ship-lib[extra]>=2', "ship-never ; python_version < '3'"],
        },
      },
    });
    expect(await json('root/facts/ship-old')).toMatchObject({
      result: { '0.1': { description: expect.stringContaining('Mit Umlauten: äöü') } },
    });
  });

  it('counts what a base shows as not there, and says that there are bases', async () => {
    const lib = { name: 'ship-lib', version: '2.0' };
    const { items, source } = packages([{ ...lib, ...wheel(lib) }]);
    const { context } = open;
    await runTarget(target('root/base'), { items, source, context });
    const body = JSON.stringify({ type: 'stage', bases: ['root/base'], volatile: false });
    await json('root/above', { method: 'PUT', body });
    const run = await runTarget(target('root/above'), { items, source, context });
    expect(run.entries[0]?.state).toBe('written');
    expect(context.events).toContainEqual({
      type: 'note',
      message: expect.stringContaining('it also shows what root/base has'),
    });
    await json('root/base/ship-lib/2.0?force=', { method: 'DELETE' });
    expect(JSON.stringify(await json('root/above/ship-lib'))).toContain(items[0]?.name);
  });

  it('reports other bytes of one name with both digests, and replaces them where the index is volatile', async () => {
    const lib = { name: 'ship-lib', version: '2.0' };
    const old = packages([{ ...lib, ...wheel({ ...lib, says: 'old' }) }]);
    const fresh = packages([{ ...lib, ...wheel({ ...lib, says: 'new' }) }]);
    const { context } = open;
    const [was, is] = [old.items[0]?.content.digest, fresh.items[0]?.content.digest];
    await runTarget(target('root/kept'), { ...old, context });
    const failed = await runTarget(target('root/kept'), { ...fresh, context });
    expect(failed.entries[0]).toMatchObject({
      state: 'failed',
      found: was,
      fault: { code: 'TARGET_CONFLICT', details: { expected: is, found: was } },
    });
    const kept = await runTarget(target('root/kept', { onConflict: 'keep' }), { ...fresh, context });
    expect(statesOf(kept)).toEqual([`${old.items[0]?.name} kept`]);
    const refused = await runTarget(target('root/kept', { onConflict: 'replace' }), { ...fresh, context });
    expect(refused.entries[0]).toMatchObject({ state: 'failed', fault: { code: 'TARGET_CONFLICT' } });
    expect(refused.entries[0]?.fault?.hint).toContain('volatile');

    await json('root/loose', {
      method: 'PUT',
      body: JSON.stringify({ type: 'stage', bases: [], volatile: true }),
    });
    await runTarget(target('root/loose'), { ...old, context });
    const replaced = await runTarget(target('root/loose', { onConflict: 'replace' }), { ...fresh, context });
    expect(replaced.entries[0]).toMatchObject({ state: 'written', found: was });
    expect(JSON.stringify(await json('root/loose/ship-lib'))).toContain(is?.slice('sha256:'.length));
  });

  it('says what is wrong: no index, a mirror, no such user, a wrong password, a server that is no devpi', async () => {
    const { items, source } = await application();
    const { context } = open;
    const load = (to: Target): Promise<unknown> => runTarget(to, { items, source, context });
    await expect(load(target('root/none', { create: false }))).rejects.toMatchObject({
      code: 'TARGET_FAILED',
      hint: expect.stringContaining('create: true'),
    });
    const mirror = { type: 'mirror', mirror_url: 'http://127.0.0.1:9/simple/', volatile: false };
    await json('root/mirror', { method: 'PUT', body: JSON.stringify(mirror) });
    await expect(load(target('root/mirror'))).rejects.toMatchObject({
      code: 'TARGET_FAILED',
      message: expect.stringContaining('mirror'),
    });
    const run = load(target('carol/dev'));
    await expect(run).rejects.toMatchObject({ message: expect.stringContaining('there is no user carol') });
    const wrong = openServer({ url: devpi.url, username: 'root', password: 'wrong' });
    try {
      const other = devpiTarget({
        server: wrong.server,
        index: 'root/prod',
        create: false,
        onConflict: 'fail',
      });
      await expect(load(other)).rejects.toMatchObject({ code: 'AUTH_DENIED' });
    } finally {
      await wrong.close();
    }
  });

  it('brings a large wheel through a pipe with all that it says of itself, and takes it back from a bad bundle', async () => {
    const big = { name: 'ship-big', version: '1.0', requiresPython: '>=3.7', padding: 6_000_000 };
    const { items, source } = packages([{ ...big, ...wheel(big) }]);
    const { context } = open;
    const [item] = items;
    const passing = { ...source, has: () => true };
    const load = async (isBad: boolean): Promise<void> => {
      const run = await target('root/pipe').plan(items, { source, context, passing: true });
      const { takersOf } = await run.intake();
      if (item !== undefined) for (const take of takersOf(item.content.digest)) await take(passing);
      await run.writeManifests();
      if (!isBad) await run.commit();
      expect(run.entries[0]?.fault).toBeUndefined();
      await run.close({ isBad });
    };
    await load(true);
    expect(await json('root/pipe?')).toMatchObject({ result: { projects: [] } });
    await load(false);
    expect(await json('root/pipe/ship-big')).toMatchObject({
      result: { '1.0': { requires_python: '>=3.7', summary: 'ship-big of the tests' } },
    });
  });

  it('says how devpi takes a file that is too large for it', async () => {
    const big = { name: 'ship-big', version: '1.0' };
    const { items } = packages([{ ...big, ...wheel(big) }]);
    const [item] = items;
    if (item === undefined) throw new Error('no item');
    const large = { ...item, content: { ...item.content, size: 18_000 * 65_536 } };
    const zeros = Buffer.alloc(65_536);
    const passing = {
      has: () => true,
      async *open() {
        for (let at = 0; at < large.content.size; at += zeros.length) yield zeros;
      },
    };
    const { context } = open;
    const run = await target('root/large').plan([large], { source: passing, context, passing: true });
    const { takersOf } = await run.intake();
    for (const take of takersOf(item.content.digest)) await take(passing);
    await run.close();
    // Its 413 gets lost where it ends the connection at once.
    expect(run.entries[0]?.fault?.hint).toContain('--max-request-body-size');
  });

  it('is loaded by site.yaml from a file and from a pipe, and gives everything back', async () => {
    const bundle = await packPackages(dir, [
      makeWheel('ship-lib', '2.0', { requiresPython: '>=3.8' }),
      makeWheel('ship-app', '1.0', { requires: ['ship-lib'] }),
    ]);
    const host = new URL(devpi.url).host.replaceAll(/[.:]/g, '_');
    const env = {
      DEVPI_USERNAME: devpi.user,
      DEVPI_PASSWORD: devpi.password,
      [`SEALIFT_CREDENTIALS_${host}_USERNAME`]: devpi.user,
      [`SEALIFT_CREDENTIALS_${host}_PASSWORD`]: devpi.password,
    };
    const sitePath = join(dir, 'site.yaml');
    const siteOf = (index: string): Promise<void> =>
      writeFile(
        sitePath,
        `apiVersion: sealift-site/v1\ntargets:\n  - {type: devpi, name: pip, url: "${devpi.url}${index}", create: true, credentials: {env: DEVPI}}\n`,
      );
    for (const how of ['file', 'pipe']) {
      const index = `root/site-${how}`;
      await siteOf(index);
      const context = { ...testContext(), env };
      const receiptPath = join(dir, `${how}.json`);
      const input = (): object => (how === 'pipe' ? { input: createReadStream(bundle) } : {});
      const first = await load({ bundle, sitePath, receiptPath, ...input() }, context);
      expect(first.targets.map(({ fault, entries }) => [fault, entries.map((e) => e.fault)])).toEqual([
        [null, [null, null]],
      ]);
      expect(first.targets[0]?.tally.blobsWritten).toBe(2);
      const second = await load({ bundle, sitePath, ...input() }, context);
      expect(second.targets[0]?.tally).toMatchObject({ blobsWritten: 0, blobsPresent: 2 });
      const to = join(dir, how);
      const args = ['install', '--only-binary=:all:', '--target', to, 'ship-app'];
      await runProgram(peer('pip'), args, { env: alone(index) });
      expect(await readdir(to)).toContain('ship_lib');
      const back = await unload({ receiptPath }, context);
      expect(back.failed).toBe(0);
      expect(await json(index)).toMatchObject({ result: { projects: [] } });
    }
  });
});
