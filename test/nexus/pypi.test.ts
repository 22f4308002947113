import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import { pipSettings } from '../../src/python/pip-conf.ts';
import type { OnConflict, Target } from '../../src/target/target.ts';
import { pypiIndexUrl, pypiTarget } from '../../src/target/web/pypi.ts';
import { onEachNexus } from '../support/nexus.ts';
import { askNexus, listAssets, makeRepository, type TestRepository } from '../support/nexus-server.ts';
import { peer, run as runProgram } from '../support/peers.ts';
import { packages } from '../support/python-items.ts';
import { type OpenServer, openServer, runTarget, statesOf } from '../support/web-servers.ts';
import { sdist, wheel } from '../support/wheels.ts';

onEachNexus(['pypi'], (nexus) => {
  let repository: TestRepository;
  let open: OpenServer;
  let dir: string;
  const target = (onConflict: OnConflict = 'fail', name = repository.name): Target =>
    pypiTarget({ server: open.server, repository: name, onConflict });

  beforeEach(async () => {
    repository = await makeRepository(nexus, 'pypi');
    open = openServer(nexus);
    dir = await mkdtemp(join(tmpdir(), 'sealift-pypi-'));
  });
  afterEach(async () => {
    await open.close();
    await repository.remove();
    await rm(dir, { recursive: true, force: true });
  });

  /** An application, its library in a wheel for each Python, and an sdist. */
  async function application(): Promise<ReturnType<typeof packages>> {
    const app = { name: 'Ship.App', version: '1.2.0', requires: ['ship-lib>=2'], requiresPython: '>=3.8' };
    const lib = { name: 'ship-lib', version: '2.0', requiresPython: '>=3.8' };
    const tool = { name: 'ship_tool', version: '3.0.post1', requiresPython: '>=3.6' };
    return packages([
      { ...app, ...wheel(app) },
      { ...lib, ...wheel(lib) },
      { ...tool, ...(await sdist(tool)) },
    ]);
  }

  it('gives pip the same bytes, and a second load writes nothing', async () => {
    const { items, source } = await application();
    const { context } = open;
    const first = await runTarget(target(), { items, source, context });
    expect(first.entries.map(({ fault }) => fault)).toEqual([undefined, undefined, undefined]);
    expect(new Set(first.entries.map(({ state }) => state))).toEqual(new Set(['written']));
    expect(first.entries.flatMap(({ notes }) => notes)).toEqual([]);
    const before = await listAssets(nexus, repository.name);

    const second = await runTarget(target(), { items, source, context });
    expect(new Set(second.entries.map(({ state }) => state))).toEqual(new Set(['present']));
    expect(second.tally).toMatchObject({ blobsWritten: 0, bytesWritten: 0, blobsPresent: 3 });
    const files = (all: string[]): string[] => all.filter((line) => line.startsWith('packages/'));
    expect(files(await listAssets(nexus, repository.name))).toEqual(files(before));

    const { env } = pipSettings(pypiIndexUrl(new URL(nexus.url), repository.name));
    const args = ['download', '--no-cache-dir', '--only-binary=:all:', '--python-version', '3.9', '-d', dir];
    await runProgram(peer('pip'), [...args, 'ship-app==1.2.0'], { env });
    expect(await readdir(dir)).toEqual(['Ship.App-1.2.0-py3-none-any.whl', 'ship_lib-2.0-py3-none-any.whl']);
    for (const name of await readdir(dir)) {
      const item = items.find((one) => one.name === name);
      expect(digestOf(await readFile(join(dir, name)))).toBe(item?.content.digest);
    }
    for (const { as, item } of first.entries) {
      const bytes = Buffer.from(await (await fetch(as)).arrayBuffer());
      expect(digestOf(bytes), as).toBe(item.kind === 'package' ? item.content.digest : '');
    }
  });

  it('tells pip which Python a file is for', async () => {
    const { items, source } = await application();
    await runTarget(target(), { items, source, context: open.context });
    const page = await (await fetch(`${repository.url}/simple/ship-app/`)).text();
    expect(page).toContain('data-requires-python="&gt;=3.8"');
  });

  it('reports other bytes of one name with both digests, keeps or replaces them as asked, and goes on', async () => {
    const lib = { name: 'ship-lib', version: '2.0' };
    const more = { name: 'ship-more', version: '1.0' };
    const old = packages([{ ...lib, ...wheel({ ...lib, says: 'old' }) }]);
    const fresh = packages([
      { ...lib, ...wheel({ ...lib, says: 'new' }) },
      { ...more, ...wheel(more) },
    ]);
    const { context } = open;
    await runTarget(target(), { ...old, context });
    const failed = await runTarget(target('fail'), { ...fresh, context });
    expect(statesOf(failed)).toEqual([`${fresh.items[0]?.name} failed`, `${fresh.items[1]?.name} written`]);
    const [was, is] = [old.items[0]?.content.digest, fresh.items[0]?.content.digest];
    expect(failed.entries[0]).toMatchObject({
      found: was,
      fault: { code: 'TARGET_CONFLICT', details: { expected: is, found: was } },
    });
    const kept = await runTarget(target('keep'), { ...fresh, context });
    expect(kept.entries.map(({ state }) => state)).toEqual(['kept', 'present']);
    // The repository does not let anything be replaced, and says so in words that differ between versions.
    const refused = await runTarget(target('replace'), { ...fresh, context });
    expect(refused.entries[0]).toMatchObject({ state: 'failed', fault: { code: 'TARGET_CONFLICT' } });
    expect(refused.entries[0]?.fault?.hint).toContain('deployment policy');

    const lenient = await makeRepository(nexus, 'pypi', 'ALLOW');
    try {
      await runTarget(target('fail', lenient.name), { ...old, context });
      const replaced = await runTarget(target('replace', lenient.name), { ...fresh, context });
      expect(replaced.entries[0]).toMatchObject({ state: 'written', found: was });
      const bytes = Buffer.from(await (await fetch(replaced.entries[0]?.as ?? '')).arrayBuffer());
      expect(digestOf(bytes)).toBe(is);
    } finally {
      await lenient.remove();
    }
  });

  it('says what is wrong with the repository: a read-only one, one of another format, none, a wrong password', async () => {
    const { items, source } = await application();
    const { context } = open;
    const readOnly = await makeRepository(nexus, 'pypi', 'DENY');
    const raw = await makeRepository(nexus, 'raw');
    try {
      const run = await runTarget(target('fail', readOnly.name), { items, source, context });
      expect(run.entries.map(({ state }) => state)).toEqual(['failed', 'failed', 'failed']);
      expect(run.entries[0]?.fault?.message).toContain(`Repository is read only: ${readOnly.name}`);
      await expect(runTarget(target('fail', raw.name), { items, source, context })).rejects.toMatchObject({
        code: 'TARGET_FAILED',
        hint: expect.stringContaining(repository.name),
      });
      await expect(runTarget(target('fail', 'nobody'), { items, source, context })).rejects.toMatchObject({
        code: 'TARGET_FAILED',
        message: expect.stringContaining('no such repository'),
      });
    } finally {
      await readOnly.remove();
      await raw.remove();
    }
    const wrong = openServer({ ...nexus, password: 'wrong' });
    try {
      const other = pypiTarget({ server: wrong.server, repository: repository.name, onConflict: 'fail' });
      await expect(runTarget(other, { items, source, context })).rejects.toMatchObject({
        code: 'AUTH_DENIED',
      });
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
      const run = await target().plan(items, { source, context, passing: true });
      const { takersOf } = await run.intake();
      if (item !== undefined) for (const take of takersOf(item.content.digest)) await take(passing);
      await run.writeManifests();
      if (!isBad) await run.commit();
      expect(run.entries[0]?.fault).toBeUndefined();
      await run.close({ isBad });
    };
    const files = async (): Promise<string[]> =>
      (await listAssets(nexus, repository.name)).filter((line) => line.startsWith('packages/'));
    await load(true);
    expect(await files()).toEqual([]);
    await load(false);
    expect(await files()).toHaveLength(1);
    const page = await (await fetch(`${repository.url}/simple/ship-big/`)).text();
    expect(page).toContain('data-requires-python="&gt;=3.7"');
    const { text } = await askNexus(nexus, { path: `v1/components?repository=${repository.name}` });
    expect(text).toContain('ship-big');
  });
});
