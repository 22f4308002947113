import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import type { OnConflict } from '../../src/target/target.ts';
import { rawTarget } from '../../src/target/web/raw.ts';
import { someBytes, testContext } from '../io/server.ts';
import { onEachNexus } from '../support/nexus.ts';
import { listAssets, makeRepository, type NexusLogin } from '../support/nexus-server.ts';
import { contentOf, fileItem, runAll, webServer } from '../target/small-nexus.ts';

const sha1 = (bytes: Uint8Array): string => createHash('sha1').update(bytes).digest('hex');

function rawOf(nexus: NexusLogin, repository: { readonly name: string }, onConflict: OnConflict = 'fail') {
  const context = testContext();
  const server = webServer(nexus, context);
  return rawTarget({ server, repository: repository.name, onConflict });
}

const TOOL = Buffer.from('#!/bin/sh\n');
const EMPTY = Buffer.alloc(0);
const MIDDLE = someBytes(200_000);
const LARGE = someBytes(3_000_000, 2);

onEachNexus(['raw'], (nexus) => {
  it('gets files of any size and name, and nothing the second time', async () => {
    const repository = await makeRepository(nexus, 'raw');
    const names = ['bin/tool', 'etc/ä b+c%25;#?@(1).bin', 'empty', 'middle.bin', 'deep/er/large.bin'];
    const bytes = [TOOL, TOOL, EMPTY, MIDDLE, LARGE];
    const items = names.map((name, at) => fileItem(name, bytes[at] ?? EMPTY));
    const options = { context: testContext(), source: contentOf(...bytes) };
    const first = await runAll(rawOf(nexus, repository), items, options);
    expect(first.entries.map(({ state, fault }) => fault?.message ?? state)).toEqual(
      names.map(() => 'written'),
    );
    expect(await listAssets(nexus, repository.name)).toEqual(
      names.map((name, at) => `${name} ${sha1(bytes[at] ?? EMPTY)}`).sort(),
    );
    const second = await runAll(rawOf(nexus, repository), items, options);
    expect(second.entries.map(({ state }) => state)).toEqual(names.map(() => 'present'));
    expect(second.tally.blobsWritten).toBe(0);
    await repository.remove();
  });

  it('keeps other files and shows both digests, whatever the write policy and their size', async () => {
    const repository = await makeRepository(nexus, 'raw');
    const other = someBytes(LARGE.length, 3);
    const options = { context: testContext(), source: contentOf(TOOL, MIDDLE, LARGE, other) };
    await runAll(rawOf(nexus, repository), [fileItem('tool', MIDDLE), fileItem('large', other)], options);
    const items = [fileItem('tool', TOOL), fileItem('large', LARGE), fileItem('new', TOOL)];
    const run = await runAll(rawOf(nexus, repository), items, options);
    expect(run.entries.map(({ state }) => state)).toEqual(['failed', 'failed', 'written']);
    const [small, large] = run.entries.map(({ fault }) => fault?.message);
    expect(small).toContain(`expected ${digestOf(TOOL)}, found ${digestOf(MIDDLE)}`);
    expect(large).toMatch(
      new RegExp(`expected ${digestOf(LARGE)}, found (${digestOf(other)}|sha1:${sha1(other)})`),
    );
    const replacing = await runAll(rawOf(nexus, repository, 'replace'), items, options);
    expect(replacing.entries.map(({ state }) => state)).toEqual(['failed', 'failed', 'present']);
    expect(replacing.entries[0]?.fault?.hint).toContain('Allow redeploy');
    expect(await listAssets(nexus, repository.name)).toContain(`tool ${sha1(MIDDLE)}`);
    await repository.remove();
  });

  it('replaces where that is asked for and allowed', async () => {
    const repository = await makeRepository(nexus, 'raw', 'ALLOW');
    const options = { context: testContext(), source: contentOf(TOOL, MIDDLE) };
    await runAll(rawOf(nexus, repository), [fileItem('tool', MIDDLE)], options);
    const run = await runAll(rawOf(nexus, repository, 'replace'), [fileItem('tool', TOOL)], options);
    expect(run.entries[0]).toMatchObject({ state: 'written', found: digestOf(MIDDLE) });
    expect(await listAssets(nexus, repository.name)).toEqual([`tool ${sha1(TOOL)}`]);
    await repository.remove();
  });

  it('says that it is read-only', async () => {
    const repository = await makeRepository(nexus, 'raw', 'DENY');
    const options = { context: testContext(), source: contentOf(TOOL) };
    const run = await runAll(rawOf(nexus, repository), [fileItem('tool', TOOL)], options);
    expect(run.entries[0]?.fault).toMatchObject({ code: 'TARGET_FAILED' });
    expect(run.entries[0]?.fault?.hint).toContain('Read-only');
    await repository.remove();
  });

  it('refuses a wrong password and an unknown repository before anything is sent', async () => {
    const repository = await makeRepository(nexus, 'raw');
    const options = { context: testContext(), source: contentOf(TOOL) };
    const wrong = rawOf({ ...nexus, password: 'wrong' }, repository);
    await expect(wrong.plan([fileItem('tool', TOOL)], options)).rejects.toMatchObject({
      code: 'AUTH_DENIED',
    });
    const unknown = rawOf(nexus, { name: `${repository.name}-not` });
    await expect(unknown.plan([fileItem('tool', TOOL)], options)).rejects.toThrow(/there is no repository/);
    expect(await listAssets(nexus, repository.name)).toEqual([]);
    await repository.remove();
  });
});
