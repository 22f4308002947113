import { readdirSync, readlinkSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import type { Event } from '../../src/core/events.ts';
import { type BundlePlace, parseBundlePlace } from '../../src/ops/bundle-place.ts';
import { lock } from '../../src/ops/lock.ts';
import { merge } from '../../src/ops/merge.ts';
import { pack } from '../../src/ops/pack.ts';
import { pull } from '../../src/ops/pull.ts';
import { push } from '../../src/ops/push.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import { failureOf, someBytes } from '../io/server.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';

/** What a push leaves out, and what a pull does with the files at its paths. */

let site: Site;
let bundle: string;
let bytes: Buffer;

beforeAll(async () => {
  site = await makeSite();
  site.source.addFile('weights', someBytes(950_000));
  bundle = await site.bundle(
    'astrago',
    `files: [{url: "http://${site.source.host}/files/weights", name: weights.bin}]\n`,
  );
  bytes = await readFile(bundle);
});

afterAll(() => site?.close());

async function openPlace(): Promise<BundlePlace> {
  const registry = await startRegistry({ storage: 'memory' });
  onTestFinished(() => registry.close());
  return parseBundlePlace(`oci://${registry.host}/bundles/astrago:v1`);
}

async function folder(name: string): Promise<string> {
  const at = join(site.dir, name);
  await mkdir(at);
  return at;
}

/** A context that tells each event, and what it heard. */
function listening(hear: (event: Event) => void): ReturnType<typeof testContext> {
  return { ...testContext(), emit: hear };
}

/** Unfinished files of a pull that this process has open. */
function openPulls(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).endsWith('.pull');
    } catch {
      return false;
    }
  }).length;
}

describe('a pull', () => {
  it.runIf(process.platform === 'linux')('has only the volumes open that it writes to', async () => {
    const to = await openPlace();
    const { sent } = await push({ bundle, to, chunkSize: 10_000 }, testContext());
    expect(sent.chunks).toBeGreaterThan(90);
    const dir = await folder('many');
    let most = 0;
    const context = listening(({ type }) => {
      if (type === 'progress') most = Math.max(most, openPulls());
    });
    const { volumes } = await pull({ from: to, out: `${dir}/` }, context);
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(4);
    const parts = await Promise.all((volumes ?? []).map((name) => readFile(join(dir, name))));
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    expect((await readdir(dir)).sort()).toEqual([...(volumes ?? [])].sort());
  });

  it('into a folder fetches only the volumes that lack, and overwrites none', async () => {
    const to = await openPlace();
    await push({ bundle, to, chunkSize: 100_000 }, testContext());
    const dir = await folder('some');
    const out = `${dir}/`;
    const { volumes } = await pull({ from: to, out }, testContext());
    // As a kill between two renames leaves it.
    const [first = '', , third = ''] = volumes ?? [];
    await rm(join(dir, third));
    const again = await pull({ from: to, out }, testContext());
    expect(again).toMatchObject({ outcome: 'pulled', fetched: 100_000, resumed: 0 });
    expect((await readFile(join(dir, third))).equals(bytes.subarray(200_000, 300_000))).toBe(true);
    await rm(join(dir, third));
    await writeFile(join(dir, first), Buffer.alloc(100_000, 'x'));
    const failed = (await failureOf(pull({ from: to, out }, testContext()))) as SealiftError;
    expect(failed).toMatchObject({ code: 'TARGET_CONFLICT', message: expect.stringContaining(first) });
    expect((await readFile(join(dir, first))).equals(Buffer.alloc(100_000, 'x'))).toBe(true);
    expect(await readdir(dir)).not.toContain(third);
  });

  it('does not write over a file that appears while it runs', async () => {
    const to = await openPlace();
    await push({ bundle, to }, testContext());
    const out = join(await folder('appears'), 'b.tar');
    let made: Promise<void> | undefined;
    const context = listening(({ type }) => {
      if (type === 'progress') made ??= writeFile(out, 'of somebody else');
    });
    const failed = (await failureOf(pull({ from: to, out }, context))) as SealiftError;
    await made;
    expect(failed).toMatchObject({ code: 'TARGET_CONFLICT' });
    expect(await readFile(out, 'utf8')).toBe('of somebody else');
  });

  it('does not write through a link that lies where its unfinished file belongs', async () => {
    const to = await openPlace();
    await push({ bundle, to }, testContext());
    const dir = await folder('linked');
    await writeFile(join(dir, 'precious'), 'of somebody else');
    await symlink('precious', join(dir, 'b.tar.pull'));
    const failed = (await failureOf(
      pull({ from: to, out: join(dir, 'b.tar') }, testContext()),
    )) as SealiftError;
    expect(failed).toMatchObject({
      code: 'FILE_UNREADABLE',
      message: expect.stringContaining('b.tar.pull'),
    });
    expect(await readFile(join(dir, 'precious'), 'utf8')).toBe('of somebody else');
  });
});

describe('a push', () => {
  it('of a delta says what it builds on', async () => {
    const to = await openPlace();
    expect(await push({ bundle, to }, testContext())).toMatchObject({ base: null });
    const folderOf = join(bundle, '..');
    const manifestPath = join(folderOf, 'sealift.yaml');
    const out = join(await folder('delta'), 'delta.tar');
    const text = await readFile(manifestPath, 'utf8');
    await writeFile(manifestPath, text.replace('version: "1"', 'version: "2"'));
    await lock({ manifestPath }, testContext());
    await pack({ manifestPath, out, since: [bundle] }, testContext());
    const pushed = await push({ bundle: out, to: { ...to, tag: 'v2' } }, testContext());
    expect(pushed).toMatchObject({ version: '2', base: [{ name: 'astrago', version: '1' }] });
    expect(pushed.size).toBeLessThan(bytes.length / 10);
  });

  it('says that a signature beside the bundle stays behind', async () => {
    const to = await openPlace();
    const at = await site.put('signed.tar', bytes);
    const notes: string[] = [];
    const context = listening((event) => {
      if (event.type === 'note') notes.push(event.message);
    });
    await push({ bundle: at, to }, context);
    expect(notes).toEqual([]);
    await site.put('signed.tar.minisig', 'untrusted comment: x\n');
    await push({ bundle: at, to }, context);
    expect(notes).toEqual([expect.stringContaining(`${at}.minisig is not pushed`)]);
  });

  it('of a folder says how to make one file of it, which then is the same bundle', async () => {
    const to = await openPlace();
    const dir = join(await folder('as-folder'), 'b/');
    await merge({ out: dir, bundles: [bundle] }, testContext());
    const failed = (await failureOf(push({ bundle: dir, to }, testContext()))) as SealiftError;
    expect(failed).toMatchObject({ code: 'USAGE', hint: expect.stringContaining('`sealift merge ') });
    const file = join(dir, '../b.tar');
    await merge({ out: file, bundles: [dir] }, testContext());
    expect((await readFile(file)).equals(bytes)).toBe(true);
    expect(await push({ bundle: file, to }, testContext())).toMatchObject({ outcome: 'pushed' });
  });
});
