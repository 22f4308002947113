import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { ContentReader } from '../../src/oci/content.ts';
import { additionOf, type OnConflict, type Target } from '../../src/target/target.ts';
import { devpiTarget } from '../../src/target/web/devpi.ts';
import { pypiTarget } from '../../src/target/web/pypi.ts';
import { type IndexServer, startIndexServer } from '../support/index-server.ts';
import { type Packages, packages } from '../support/python-items.ts';
import { type OpenServer, openServer, runTarget, statesOf } from '../support/web-servers.ts';
import { type PackageText, sdist, wheel } from '../support/wheels.ts';

const PASSWORD = 'swordfish-1';
let there: IndexServer;
let open: OpenServer;

beforeEach(async () => {
  there = await startIndexServer();
  open = openServer({ url: there.url, username: 'anna', password: PASSWORD });
});
afterEach(async () => {
  await open.close();
  await there.close();
});

function target(onConflict: OnConflict = 'fail', repository = 'pypi-hosted'): Target {
  return pypiTarget({ server: open.server, repository, onConflict });
}

function wheels(...all: readonly PackageText[]): Packages {
  return packages(all.map((of) => ({ ...of, ...wheel(of) })));
}

function load({ items, source }: Packages, to = target()): ReturnType<typeof runTarget> {
  return runTarget(to, { items, source, context: open.context });
}

const LIB: PackageText = {
  name: 'Ship.Lib',
  version: '1.0',
  requires: ['a', 'b>1'],
  requiresPython: '>=3.9',
};
const APP: PackageText = { name: 'ship-app', version: '1.0' };
const LIB_FILE = 'Ship.Lib-1.0-py3-none-any.whl';
const APP_FILE = 'ship_app-1.0-py3-none-any.whl';
const posts = (): string[] => there.requests.filter((line) => line.startsWith('POST'));

describe('a PyPI repository of Nexus', () => {
  it('gets each file with everything that it says of itself', async () => {
    const tool = { name: 'ship-tool', version: '2.0' };
    const source = await sdist(tool);
    const made = packages([
      { ...LIB, ...wheel(LIB) },
      { ...tool, ...source, requiresPython: '>=3.7' },
    ]);
    const run = await load(made);
    expect(statesOf(run)).toEqual([`${LIB_FILE} written`, 'ship_tool-2.0.tar.gz written']);
    expect(Object.fromEntries(there.forms.get(LIB_FILE) ?? [])).toMatchObject({
      ':action': ['file_upload'],
      protocol_version: ['1'],
      metadata_version: ['2.1'],
      name: ['ship-lib'],
      version: ['1.0'],
      filetype: ['bdist_wheel'],
      pyversion: ['py3'],
      requires_dist: ['a', 'b>1'],
      requires_python: ['>=3.9'],
      sha256_digest: [made.items[0]?.content.digest.slice('sha256:'.length)],
    });
    expect(Object.fromEntries(there.forms.get('ship_tool-2.0.tar.gz') ?? [])).toMatchObject({
      filetype: ['sdist'],
      pyversion: ['source'],
      requires_python: ['>=3.7'],
    });
    expect(run.entries.map((entry) => additionOf(entry)?.names)).toEqual([
      [`${there.url}repository/pypi-hosted/packages/ship-lib/1.0/${LIB_FILE}`],
      [`${there.url}repository/pypi-hosted/packages/ship-tool/2.0/ship_tool-2.0.tar.gz`],
    ]);
    expect(JSON.stringify([open.context.events, run.entries])).not.toContain(PASSWORD);
  });

  it('has a file that an earlier try brought, whatever the server said to it', async () => {
    there.faults.storedButRefused = 1;
    const run = await load(wheels(APP));
    expect(statesOf(run)).toEqual([`${APP_FILE} written`]);
    expect(posts()).toHaveLength(2);
  });

  it('gets a file again whose upload was cut', async () => {
    there.faults.cut = 2;
    const run = await load(wheels(APP));
    expect(statesOf(run)).toEqual([`${APP_FILE} written`]);
    expect(posts()).toHaveLength(3);
  });

  it('does not count as added what somebody else brought in between', async () => {
    const made = wheels(APP);
    const bytes = wheel(APP).bytes;
    there.faults.before = (name) => void there.files.set(name, bytes);
    const run = await load(made);
    expect(statesOf(run)).toEqual([`${APP_FILE} present`]);
    expect(run.entries.map(additionOf)).toEqual([undefined]);
    expect(run.tally).toMatchObject({ blobsWritten: 0, blobsPresent: 1 });
  });

  it('shows both digests when somebody else brought other bytes in between, and the others arrive', async () => {
    const other = Buffer.from('other');
    there.faults.before = (name) => {
      if (name === APP_FILE) there.files.set(name, other);
    };
    const run = await load(wheels(APP, LIB));
    expect(statesOf(run)).toEqual([`${APP_FILE} failed`, `${LIB_FILE} written`]);
    expect(run.entries[0]).toMatchObject({
      found: digestOf(other),
      fault: { code: 'TARGET_CONFLICT', details: { found: digestOf(other) } },
    });
  });

  it('fails for a file that arrived changed', async () => {
    there.faults.changes = true;
    const run = await load(wheels(APP));
    expect(run.entries[0]).toMatchObject({ state: 'failed', fault: { code: 'TARGET_FAILED' } });
    expect(run.entries[0]?.fault?.message).toContain('other bytes arrived than were sent');
  });

  it('is waited for until it lists what it took', async () => {
    const made = wheels(APP);
    there.faults.stalePages = 2;
    const run = await load(made);
    expect(statesOf(run)).toEqual([`${APP_FILE} written`]);
    expect(run.entries[0]?.notes).toEqual([]);
  });

  it('that lists MD5 only is compared by the bytes, or by a search that is not behind', async () => {
    there.faults.md5Only = true;
    const big = { ...LIB, name: 'ship-big', padding: 4_500_000 };
    const made = wheels(APP, big);
    expect(new Set((await load(made)).entries.map(({ state }) => state))).toEqual(new Set(['written']));
    const [small, large] = made.items;
    const file = 'ship_big-1.0-py3-none-any.whl';
    const gets = (): string[] => there.requests.filter((line) => line.includes('/packages/'));
    const asset = (md5: string): unknown => ({
      id: '1',
      path: `/packages/ship-big/1.0/${file}`,
      repository: 'pypi-hosted',
      format: 'pypi',
      checksum: { md5, sha256: large?.content.digest.slice('sha256:'.length) },
    });
    const { createHash } = await import('node:crypto');
    const md5 = createHash('md5')
      .update(there.files.get(file) ?? '')
      .digest('hex');
    there.faults.search = [asset(md5)];
    expect((await load(made)).tally).toMatchObject({ blobsWritten: 0, blobsPresent: 2 });
    expect(gets()).toEqual([expect.stringContaining(small?.name ?? '')]);
    // Something else has come meanwhile, and the search still has what was before.
    there.files.set(file, Buffer.from('something else'));
    const run = await load(made);
    expect(run.entries[1]).toMatchObject({ state: 'failed', found: digestOf('something else') });
  });

  it('gets nothing of a file whose metadata is of something else, and the others arrive', async () => {
    const wrong = { ...LIB, version: '1.0' };
    const { bytes } = wheel({ ...LIB, name: 'evil' });
    const made = packages([
      { ...wrong, fileName: LIB_FILE, bytes },
      { ...APP, ...wheel(APP) },
    ]);
    const run = await load(made);
    expect(statesOf(run)).toEqual([`${LIB_FILE} failed`, `${APP_FILE} written`]);
    expect(run.entries[0]?.fault).toMatchObject({
      code: 'PACKAGE_INVALID',
      message: expect.stringContaining('evil 1.0'),
    });
    expect(posts()).toHaveLength(1);
  });

  it('gets nothing at all where two files have one name', async () => {
    const made = packages([
      { ...APP, ...wheel(APP) },
      { ...APP, ...wheel({ ...APP, says: 'x' }) },
    ]);
    await expect(load(made)).rejects.toMatchObject({ code: 'TARGET_NAME_COLLISION' });
    expect(there.requests).toEqual([]);
  });

  it('is not asked to take what is nowhere at hand', async () => {
    const { items, source } = wheels(APP);
    const isAbsent = (): boolean => true;
    const run = await target().plan(items, { source, context: open.context, isAbsent });
    expect([...(await run.needs(isAbsent))]).toEqual([items[0]?.content.digest]);
    expect(run.entries[0]?.fault).toBeUndefined();
    await run.close();
  });

  it('gets nothing that counts from a damaged bundle, whose fault it is', async () => {
    const { items } = wheels(APP);
    const { bytes } = wheel(APP);
    const damage = new SealiftError('BUNDLE_CHECKSUM_MISMATCH', 'damaged', { side: 'source' });
    const source: ContentReader = {
      async *open(_, { offset = 0 }) {
        if (offset > 0) return void (yield bytes.subarray(offset));
        yield bytes.subarray(0, bytes.length - 10);
        throw damage;
      },
    };
    await expect(load({ items, source, reads: () => 0 })).rejects.toBe(damage);
    // Broken parts look like a broken package, until the whole is read.
    const broken: ContentReader = {
      async *open(_, { offset = 0 }) {
        yield Buffer.alloc(bytes.length - offset);
        if (offset === 0) throw damage;
      },
    };
    await expect(load({ items, source: broken, reads: () => 0 })).rejects.toBe(damage);
    expect(there.files.size).toBe(0);
  });

  it('that refuses the login is left at once', async () => {
    there.faults.refuse = { status: 401 };
    const many = Array.from({ length: 30 }, (_, i) => ({ name: `ship-${i}`, version: '1.0' }));
    await expect(load(wheels(...many))).rejects.toMatchObject({ code: 'AUTH_DENIED' });
    expect(posts().length).toBeLessThanOrEqual(4);
  });

  it('that refuses an upload for another reason is quoted', async () => {
    there.faults.refuse = {
      status: 400,
      reason: 'Repository is read only: pypi-hosted',
      body: '<html></html>',
    };
    const run = await load(wheels(APP));
    expect(run.entries[0]?.fault).toMatchObject({
      code: 'TARGET_FAILED',
      message: expect.stringContaining('Repository is read only'),
    });
    there.faults.refuse = { status: 413, body: '<html>nginx</html>' };
    const large = await load(wheels(APP));
    expect(large.entries[0]?.fault?.hint).toContain('client_max_body_size');
  });

  it('that is no hosted one, or none, is refused with the right name', async () => {
    for (const name of ['pypi-group', 'nobody']) {
      await expect(load(wheels(APP), target('fail', name))).rejects.toMatchObject({
        code: 'TARGET_FAILED',
        hint: expect.stringContaining('pypi-hosted'),
      });
    }
  });

  it('whose page is hostile stops nobody', async () => {
    there.faults.page = `<a href="${'x'.repeat(100_000)}"><a href='javascript:1'>${'<a '.repeat(50_000)}`;
    const run = await target().plan(wheels(APP).items, { source: wheels(APP).source, context: open.context });
    expect(run.entries[0]?.state).toBe('write');
    await run.close();
  });

  it('gets from a pipe what agrees with its name only, large or small, and tries again while it is held', async () => {
    const big = { ...LIB, padding: 5_000_000 };
    const good = wheels(big, APP);
    const evil = packages([
      {
        ...APP,
        name: 'ship-evil',
        fileName: 'ship_evil-1.0-py3-none-any.whl',
        bytes: wheel({ ...big, name: 'x' }).bytes,
      },
    ]);
    there.faults.cut = 1;
    for (const { items, source } of [good, evil]) {
      const run = await target().plan(items, { source, context: open.context, passing: true });
      const { takersOf } = await run.intake();
      const passing = { ...source, has: () => true };
      for (const item of items) for (const take of takersOf(item.content.digest)) await take(passing);
      await run.commit();
      await run.close();
      const isGood = items === good.items;
      expect(run.entries.map(({ state }) => state)).toEqual(isGood ? ['written', 'written'] : ['failed']);
      if (!isGood) expect(run.entries[0]?.fault?.code).toBe('PACKAGE_INVALID');
    }
    expect([...there.files.keys()].sort()).toEqual([LIB_FILE, APP_FILE].sort());
    expect(there.forms.get(LIB_FILE)?.get('requires_dist')).toEqual(['a', 'b>1']);
  });
});

describe('an index of devpi', () => {
  it('is USER/INDEX and nothing else', () => {
    for (const index of ['prod', 'a/b/c', '../x', 'a/+simple', '']) {
      const of = { server: open.server, index, create: true, onConflict: 'fail' } as const;
      expect(() => devpiTarget(of), index).toThrow(/USER\/INDEX/);
    }
  });

  it('is not taken for one where something else answers', async () => {
    const to = devpiTarget({ server: open.server, index: 'root/prod', create: true, onConflict: 'fail' });
    await expect(load(wheels(APP), to)).rejects.toMatchObject({
      code: 'TARGET_UNREACHABLE',
      message: expect.stringContaining('no devpi'),
    });
  });
});
