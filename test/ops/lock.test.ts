import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { MEDIA } from '../../src/core/media.ts';
import { digestOf } from '../../src/io/verify.ts';
import { checkLockFile, type LockOptions, lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import { chartArchive, demoFiles, tgzOf, writeChart } from '../support/charts.ts';
import { type FleetImage, makeImage, pushImage } from '../support/fleet.ts';

const HEAD = 'apiVersion: sealift/v1\nname: site\nversion: "1"\n';

let site: Site;
let manifestPath: string;

async function manifest(text: string): Promise<void> {
  manifestPath = await site.put('sealift.yaml', `${HEAD}${text}`);
}

function lockNow(more: Partial<LockOptions> = {}): ReturnType<typeof lock> {
  return lock({ manifestPath, ...more }, testContext());
}

async function failureOf(work: Promise<unknown>): Promise<SealiftError> {
  const error = await work.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (error instanceof SealiftError) return error;
  throw new Error(`expected a SealiftError, got ${String(error)}`);
}

/** Another image under the same name and tag. */
async function republish(image: FleetImage, seed: number): Promise<FleetImage> {
  const other = makeImage({ seed, kinds: ['oci'] });
  await pushImage(site.source.host, other, { repository: image.name, tag: image.tag });
  return other;
}

beforeEach(async () => {
  site = await makeSite();
});

afterEach(async () => {
  await site.close();
});

it('asks for each index once, however often others name it', async () => {
  const image = makeImage({ seed: 1, kinds: ['oci'] });
  await site.addImage(image);
  const put = async (reference: string, content: object): Promise<{ digest: string; size: number }> => {
    const bytes = Buffer.from(JSON.stringify(content));
    const url = `http://${site.source.host}/v2/${image.name}/manifests/`;
    const headers = { 'content-type': MEDIA.ociIndex };
    const { status } = await fetch(`${url}${reference || digestOf(bytes)}`, {
      method: 'PUT',
      headers,
      body: bytes,
    });
    expect(status).toBe(201);
    return { digest: digestOf(bytes), size: bytes.length };
  };
  const { digest, bytes } = image.index;
  let child = { digest: String(digest), size: bytes.length };
  for (const name of ['', '', 'often']) {
    const manifests = Array.from({ length: 40 }, () => ({ mediaType: MEDIA.ociIndex, ...child }));
    child = await put(name, { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests });
  }
  await manifest(`platforms: all\nimages: ["${site.source.host}/${image.name}:often"]\n`);
  const before = site.source.requests.length;
  const { lock: made } = await lockNow();
  expect(made.images.at(0)?.digest).toBe(child.digest);
  await pack({ manifestPath, out: join(site.dir, 'often.tar') }, testContext());
  const asked = site.source.requests
    .slice(before)
    .filter(({ path }) => path.includes(`/manifests/${digest}`));
  expect(asked.length).toBeLessThan(5);
});

describe('pins', () => {
  it('stay when the tag moves, and move with --update, which shows old and new', async () => {
    const image = makeImage({ seed: 1, kinds: ['oci'] });
    const ref = await site.addImage(image);
    await manifest(`platforms: all\nimages: ["${ref}"]\n`);
    await lockNow();
    const other = await republish(image, 2);
    const kept = await lockNow();
    expect([kept.written, kept.lock.images.at(0)?.digest]).toEqual([false, image.index.digest]);
    const dry = await lockNow({ updateAll: true, dryRun: true });
    expect([dry.written, dry.lock.images.at(0)?.digest]).toEqual([false, other.index.digest]);
    const moved = await lockNow({ update: [image.name] });
    expect(moved.lock.images.at(0)?.digest).toBe(other.index.digest);
    const [change] = moved.diff.changed[0]?.changes.filter((c) => c.fact === 'digest') ?? [];
    expect(change).toEqual({ fact: 'digest', from: image.index.digest, to: other.index.digest });
  });

  it('stay when only a platform is added: the digest is asked for, not the tag', async () => {
    const image = makeImage({ seed: 1, kinds: ['oci'] });
    const ref = await site.addImage(image);
    await manifest(`platforms: [linux/amd64]\nimages: ["${ref}"]\n`);
    await lockNow();
    await republish(image, 2);
    await manifest(`platforms: [linux/amd64, linux/arm64]\nimages: ["${ref}"]\n`);
    const { lock: locked } = await lockNow();
    expect(locked.images.at(0)?.digest).toBe(image.index.digest);
    expect(locked.images.at(0)?.platforms).toEqual(image.platforms);
  });

  it('can be asked to move only by names that exist', async () => {
    await manifest(`images: ["${await site.addImage(makeImage())}"]\n`);
    expect((await failureOf(lockNow({ update: ['nginx'] }))).code).toBe('USAGE');
  });

  it('are the same bytes on every run, and the file is not touched when nothing changed', async () => {
    await site.addChart('web', '1.0.0', demoFiles('web', '1.0.0'));
    const ref = await site.addImage(makeImage());
    await manifest(
      `images: ["${ref}"]\ncharts: [{name: web, version: 1.0.0, repo: "${site.source.url}/charts"}]\n`,
    );
    const { path } = await lockNow();
    const [bytes, before] = [await readFile(path), await stat(path)];
    await lockNow();
    expect((await stat(path)).mtimeMs).toBe(before.mtimeMs);
    await rm(path);
    await lockNow();
    expect(await readFile(path)).toEqual(bytes);
    expect(bytes.toString()).toMatch(/^# @generated by sealift/);
    expect(bytes.toString()).not.toContain(site.dir);
  });
});

describe('what cannot be locked', () => {
  it('is reported all at once, with reasons, and nothing is written', async () => {
    const image = makeImage({ platforms: ['linux/amd64', 'linux/arm64'], kinds: ['oci'] });
    const ref = await site.addImage(image);
    const { host, url } = site.source;
    await site.addChart('web', '1.0.0', demoFiles('web', '1.0.0'));
    await manifest(
      `images:\n  - {ref: "${ref}", platforms: [linux/s390x]}\n  - ${host}/absent:1\n` +
        `charts:\n  - {name: web, version: "1.0", repo: "${url}/charts"}\n` +
        `files:\n  - {url: "${url}/files/absent", name: x}\n`,
    );
    const failure = await failureOf(lockNow());
    expect(failure.faults.map((f) => f.code)).toEqual([
      'IMAGE_PLATFORM_MISSING',
      'CONTENT_NOT_FOUND',
      'CHART_VERSION_NOT_FOUND',
      'CONTENT_NOT_FOUND',
    ]);
    expect(failure.faults[0]?.message).toContain('no linux/s390x; it has linux/amd64, linux/arm64');
    expect(failure.faults[2]?.hint).toContain('1.0.0');
    expect(failure.faults.every((f) => f.position?.file === manifestPath)).toBe(true);
    await expect(stat(join(site.dir, 'versions.lock'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it.each([
    ['CHART_ARCHIVE_TRAVERSAL', [{ name: 'web/../../x', data: 'x' }]],
    ['CHART_ARCHIVE_LINK', [{ name: 'web/values.yaml', type: 'symlink' as const, linkname: '/etc/passwd' }]],
    ['CHART_ARCHIVE_SPECIAL', [{ name: 'web/dev', type: 'character-device' as const }]],
    ['CHART_ARCHIVE_ROOTS', [{ name: 'other/values.yaml', data: 'x' }]],
  ])('includes hostile archives: %s', async (code, extra) => {
    const chart = { name: 'web/Chart.yaml', data: 'apiVersion: v2\nname: web\nversion: 1.0.0\n' };
    await site.source.addChart('web-1.0.0.tgz', await tgzOf([chart, ...extra]), {
      metadata: { apiVersion: 'v2', name: 'web', version: '1.0.0' },
    });
    await manifest(`charts: [{name: web, version: 1.0.0, repo: "${site.source.url}/charts"}]\n`);
    const failure = await failureOf(lockNow());
    expect(failure.faults.map((f) => f.code)).toContain(code);
  });

  it('includes a chart whose index states another digest, unless the manifest accepts it with a reason', async () => {
    const archive = await chartArchive(demoFiles('web', '1.0.0'), 'web');
    await site.source.addChart('web-1.0.0.tgz', archive, { indexDigest: 'a'.repeat(64) });
    const entry = `name: web, version: 1.0.0, repo: "${site.source.url}/charts"`;
    await manifest(`charts: [{${entry}}]\n`);
    const failure = await failureOf(lockNow());
    expect(failure.code).toBe('CHART_INDEX_MISMATCH');
    expect(failure.faults[0]?.message).toContain('a'.repeat(64));
    await manifest(`charts: [{${entry}, allowIndexMismatch: "the owner knows"}]\n`);
    expect((await lockNow()).lock.charts[0]?.allowIndexMismatch).toBe('the owner knows');
    await manifest(`charts: [{${entry}}]\n`);
    expect((await checkLockFile({ manifestPath }, testContext())).faults).not.toEqual([]);
    expect((await failureOf(lockNow())).code).toBe('CHART_INDEX_MISMATCH');
  });
});

describe('the check', () => {
  it('needs no network, and names what is missing, stale and extra', async () => {
    const [a, b] = [makeImage({ seed: 1 }), makeImage({ seed: 2, prefix: 'b/' })];
    const [refA, refB] = [await site.addImage(a), await site.addImage(b)];
    await manifest(`images: ["${refA}", "${refB}"]\n`);
    await lockNow();
    await site.source.close();
    expect((await checkLockFile({ manifestPath }, testContext())).faults).toEqual([]);
    await manifest(`platforms: [linux/amd64]\nimages: ["${refA}", "${site.source.host}/new:1"]\n`);
    const { faults } = await checkLockFile({ manifestPath }, testContext());
    expect(faults.map((f) => f.code)).toEqual(['LOCK_STALE', 'LOCK_STALE', 'LOCK_STALE']);
    const text = faults.map((f) => f.message).join('\n');
    expect(text).toContain(`${refA} asks for linux/amd64`);
    expect(text).toContain('/new:1 is missing in the lock');
    expect(text).toContain(`${refB} is in the lock, but nothing asks for it`);
    const refused = await failureOf(pack({ manifestPath, out: join(site.dir, 'b.tar') }, testContext()));
    expect(refused.code).toBe('LOCK_STALE');
  });

  it('asks the sources with --online: moved tags, republished charts, changed files, each with both hashes', async () => {
    const image = makeImage({ seed: 1, kinds: ['oci'] });
    const ref = await site.addImage(image);
    await site.addChart('web', '1.0.0', demoFiles('web', '1.0.0'));
    site.source.addFile('tool', 'one');
    const { url } = site.source;
    await manifest(
      `platforms: all\nimages: ["${ref}"]\ncharts: [{name: web, version: 1.0.0, repo: "${url}/charts"}]\nfiles: [{url: "${url}/files/tool", name: tool}]\n`,
    );
    const { lock: locked } = await lockNow();
    expect((await checkLockFile({ manifestPath, online: true }, testContext())).faults).toEqual([]);
    const other = await republish(image, 2);
    await site.addChart('web', '1.0.0', { ...demoFiles('web', '1.0.0'), 'values.yaml': 'image: other\n' });
    site.source.addFile('tool', 'two');
    expect((await checkLockFile({ manifestPath }, testContext())).faults).toEqual([]);
    const { faults } = await checkLockFile({ manifestPath, online: true }, testContext());
    expect(faults.map((f) => f.code)).toEqual(['DRIFT_FOUND', 'CHART_REPUBLISHED', 'DRIFT_FOUND']);
    expect(faults[0]?.message).toContain(`locked ${image.index.digest}, now ${other.index.digest}`);
    expect(faults[1]?.message).toContain('republished upstream');
    expect(faults[1]?.message).toContain(`locked ${locked.charts[0]?.integrity.archive}`);
  });

  it('sees a changed chart folder, values file and file', async () => {
    await writeChart(join(site.dir, 'own'), demoFiles('own', '0.1.0'));
    await site.put('values/own.yaml', 'a: 1\n');
    await site.put('notes.txt', 'one\n');
    await manifest(
      'charts: [{path: own, values: [values/own.yaml]}]\nfiles: [{path: notes.txt, name: notes.txt}]\n',
    );
    await lockNow();
    expect((await checkLockFile({ manifestPath }, testContext())).faults).toEqual([]);
    for (const [path, text] of [
      ['own/values.yaml', 'image: other\n'],
      ['values/own.yaml', 'a: 2\n'],
      ['notes.txt', 'two\n'],
    ] as const) {
      const before = await readFile(join(site.dir, path));
      await site.put(path, text);
      const { faults } = await checkLockFile({ manifestPath }, testContext());
      expect(
        faults.map((f) => f.code),
        path,
      ).toEqual(['LOCK_STALE']);
      await writeFile(join(site.dir, path), before);
    }
    expect((await checkLockFile({ manifestPath }, testContext())).faults).toEqual([]);
  });
});

describe('a bundle in a folder', () => {
  it('is not replaced while something of somebody else is in it', async () => {
    await site.put('notes.txt', 'one\n');
    await manifest('files: [{path: notes.txt, name: notes.txt}]\n');
    await lockNow();
    const out = `${join(site.dir, 'folder')}/`;
    await pack({ manifestPath, out }, testContext());
    await site.put('folder/precious.txt', 'mine\n');
    await site.put('notes.txt', 'two\n');
    await lockNow();
    const refused = await failureOf(pack({ manifestPath, out }, testContext()));
    expect([refused.code, refused.message]).toEqual([
      'TARGET_CONFLICT',
      expect.stringContaining('precious.txt'),
    ]);
    expect(await readFile(join(site.dir, 'folder', 'precious.txt'), 'utf8')).toBe('mine\n');
    await rm(join(site.dir, 'folder', 'precious.txt'));
    expect((await pack({ manifestPath, out }, testContext())).outcome).toBe('packed');
  });
});

describe('dependencies of charts', () => {
  const needs = (repository: string, version = '^1.0.0'): string =>
    `dependencies:\n  - {name: db, version: ${version}, repository: "${repository}"}\n`;

  async function ownChart(more: string): Promise<void> {
    const files = demoFiles('own', '0.1.0');
    await writeChart(join(site.dir, 'own'), { ...files, 'Chart.yaml': `${files['Chart.yaml']}${more}` });
    await manifest('charts: [{path: own}]\n');
  }

  it('that a folder lacks are fetched, locked, carried by themselves and put into its archive', async () => {
    for (const v of ['1.0.0', '1.2.0', '2.0.0']) await site.addChart('db', v, demoFiles('db', v));
    await ownChart(needs(`${site.source.url}/charts`));
    const { lock: locked } = await lockNow();
    const [db, own] = locked.charts;
    expect([db?.name, db?.version, db?.usedBy]).toEqual(['db', '1.2.0', ['own-0.1.0']]);
    expect(own?.dependencies).toMatchObject([{ name: 'db', version: '1.2.0', from: 'fetched' }]);
    expect(own?.integrity.tree).not.toBe(own?.integrity.upstream);
    await site.addChart('db', '1.3.0', demoFiles('db', '1.3.0'));
    expect((await lockNow()).written).toBe(false);
    expect((await checkLockFile({ manifestPath }, testContext())).faults).toEqual([]);
    const packed = await pack({ manifestPath, out: join(site.dir, 'own.tar') }, testContext());
    expect(packed.artifacts.charts).toBe(2);
  });

  it('of a published archive are carried beside it, with a warning', async () => {
    await site.addChart('db', '1.0.0', demoFiles('db', '1.0.0'));
    const files = demoFiles('web', '1.0.0');
    const { url } = site.source;
    await site.addChart('web', '1.0.0', {
      ...files,
      'Chart.yaml': `${files['Chart.yaml']}${needs(`${url}/charts`)}`,
    });
    await manifest(`charts: [{name: web, version: 1.0.0, repo: "${url}/charts"}]\n`);
    const { lock: locked, warnings } = await lockNow();
    expect(locked.charts.map((c) => c.name)).toEqual(['db', 'web']);
    expect(warnings.map((w) => w.message).join()).toContain('its archive lacks db');
  });

  it('from a neighbouring folder are packed too, and a change there makes the lock stale', async () => {
    await writeChart(join(site.dir, 'db'), demoFiles('db', '1.1.0'));
    await ownChart(needs('file://../db'));
    const { lock: locked } = await lockNow();
    expect(locked.charts[0]).toMatchObject({ name: 'db', source: { type: 'path', path: 'db' } });
    await site.put('db/values.yaml', 'image: other\n');
    expect((await checkLockFile({ manifestPath }, testContext())).faults.map((f) => f.code)).toEqual([
      'LOCK_STALE',
    ]);
    const again = await lockNow();
    expect(again.lock.charts[0]?.integrity.tree).not.toBe(locked.charts[0]?.integrity.tree);
    await pack({ manifestPath, out: join(site.dir, 'own.tar') }, testContext());
    expect((await checkLockFile({ manifestPath }, testContext())).faults).toEqual([]);
  });

  it('that the manifest asks for too stay as the manifest says', async () => {
    const other = await makeSite();
    try {
      const common = demoFiles('common', '1.0.0');
      await site.addChart('common', '1.0.0', common);
      await other.addChart('common', '1.0.0', common);
      const umbrella = demoFiles('umbrella', '1.0.0');
      const needsIt = `dependencies: [{name: common, version: 1.0.0, repository: "${other.source.url}/charts"}]\n`;
      await site.addChart('umbrella', '1.0.0', {
        ...umbrella,
        'Chart.yaml': `${umbrella['Chart.yaml']}${needsIt}`,
      });
      const repo = `repo: "${site.source.url}/charts"`;
      for (const names of [
        ['common', 'umbrella'],
        ['umbrella', 'common'],
      ]) {
        await manifest(`charts: [${names.map((n) => `{name: ${n}, version: 1.0.0, ${repo}}`).join(', ')}]\n`);
        await rm(join(site.dir, 'versions.lock'), { force: true });
        await lockNow();
        expect((await checkLockFile({ manifestPath }, testContext())).faults, names.join()).toEqual([]);
      }
    } finally {
      await other.close();
    }
  });

  it('without a place to fetch them from are a fault', async () => {
    await ownChart(needs(''));
    const failure = await failureOf(lockNow());
    expect(failure.message).toContain('dependency db has no repository');
    expect(failure.hint).toContain('helm dependency update');
  });
});
