import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lsOutcome } from '../../src/cli/commands/ls.ts';
import { exitCodeOf, SealiftError } from '../../src/core/errors.ts';
import { load } from '../../src/ops/load.ts';
import { checkLockFile, type LockOptions, lock } from '../../src/ops/lock.ts';
import { ls } from '../../src/ops/ls.ts';
import { pack } from '../../src/ops/pack.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import { startServer } from '../io/server.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { demoFiles, writeChart } from '../support/charts.ts';
import { type FleetImage, makeImage, pushImage } from '../support/fleet.ts';

let site: Site;
let manifestPath: string;

async function manifest(text: string): Promise<void> {
  manifestPath = await site.put('sealift.yaml', `apiVersion: sealift/v1\nname: site\nversion: "1"\n${text}`);
}

function lockNow(more: Partial<LockOptions> = {}): ReturnType<typeof lock> {
  return lock({ manifestPath, ...more }, testContext());
}

async function failureOf(work: Promise<unknown>): Promise<SealiftError> {
  const failure = await work.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (failure instanceof SealiftError) return failure;
  throw new Error(`expected a SealiftError, got ${String(failure)}`);
}

/** A port on this machine where nobody listens. */
async function deadHost(): Promise<string> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return `127.0.0.1:${port}`;
}

const error = (code: string): string => JSON.stringify({ errors: [{ code, message: 'no' }] });

/** A registry that refuses each repository for its own reason; `public/` asks for a token that nobody gets, as ghcr.io. */
async function refusingRegistry(): Promise<string> {
  const server = await startServer((request, response) => {
    const { url = '' } = request;
    if (url.startsWith('/token')) {
      if (url.includes('public')) return response.writeHead(403).end(error('DENIED'));
      return response.end('{"token":"anonymous"}');
    }
    if (url.includes('/public/')) {
      const realm = `http://${request.headers.host}/token`;
      response.setHeader('www-authenticate', `Bearer realm="${realm}",service="here"`);
      return response.writeHead(401).end(error('UNAUTHORIZED'));
    }
    if (url.includes('/closed/')) {
      response.setHeader('www-authenticate', 'Basic realm="here"');
      return response.writeHead(401).end(error('UNAUTHORIZED'));
    }
    if (url.includes('/busy/')) return response.writeHead(429).end(error('TOOMANYREQUESTS'));
    return response.writeHead(404).end(error(url.includes('/noname/') ? 'NAME_UNKNOWN' : 'MANIFEST_UNKNOWN'));
  });
  return server.host;
}

beforeEach(async () => {
  site = await makeSite();
});

afterEach(() => site.close());

describe('what lock cannot reach', () => {
  it('is told in one run: why, who asks, and what to write instead', async () => {
    const host = await refusingRegistry();
    const dead = await deadHost();
    await site.put('lists/more.txt', `# more\n${host}/closed/app:1\n${host}/public/pypi:latest\n`);
    const good = await site.addImage(makeImage());
    await manifest(
      `images:\n  - ${host}/public/pypi:latest\n  - ${host}/noname/app:1\n  - ${good}\n  - ${host}/notag/app:1\n` +
        `  - ${dead}/app:1\n  - nowhere.invalid/app:1\n  - ${host}/busy/app:1\nimageLists: [lists/*.txt]\n`,
    );
    const failure = await failureOf(lockNow({ noWait: true }));
    const told = failure.faults.map((f) => [
      f.code,
      f.position?.line,
      f.details?.reason,
      f.details?.askedBy,
      f.details?.override,
    ]);
    const own = ['sealift.yaml'];
    const way = (name: string): string => `{ref: "${name}", replace: "HOST/NAME:TAG"}`;
    expect(told).toEqual([
      [
        'AUTH_DENIED',
        5,
        'not allowed (403)',
        ['lists/more.txt', 'sealift.yaml'],
        way(`${host}/public/pypi:latest`),
      ],
      ['CONTENT_NOT_FOUND', 6, 'no such repository (404)', own, way(`${host}/noname/app:1`)],
      ['CONTENT_NOT_FOUND', 8, 'no such tag or digest (404)', own, way(`${host}/notag/app:1`)],
      ['NETWORK_FAILED', 9, 'connection refused', own, way(`${dead}/app:1`)],
      [
        'NETWORK_FAILED',
        10,
        expect.stringMatching(/^(?:host name not known|the name server does not answer)$/),
        own,
        way('nowhere.invalid/app:1'),
      ],
      ['REGISTRY_RATE_LIMITED', 11, 'rate limited (429)', own, way(`${host}/busy/app:1`)],
      ['AUTH_REQUIRED', 2, 'a login is needed (401)', ['lists/more.txt'], way(`${host}/closed/app:1`)],
    ]);
    expect(failure.message).toBe('7 entries cannot be locked');
    for (const f of failure.faults) {
      expect(f.message).toContain(`asked for by ${String((f.details?.askedBy as string[]).join(', '))}`);
      expect(f.hint).toContain(`write ${f.details?.override} under images in sealift.yaml`);
    }
  });

  it('does not cost all tries again for each image of a host where nobody is', async () => {
    const dead = await deadHost();
    const refs = Array.from({ length: 40 }, (_, i) => `${dead}/app:${i}`);
    await manifest(`images: ${JSON.stringify(refs)}\n`);
    const context = testContext();
    const failure = await failureOf(lock({ manifestPath }, context));
    expect(failure.faults.map((f) => f.details?.reason)).toEqual(refs.map(() => 'connection refused'));
    // Five more tries for each of the few that were asked at once.
    expect(context.events.filter((e) => e.type === 'retry').length).toBeLessThanOrEqual(30);
  });

  it('ends with the exit code of what decides: 4 only where a login may cure everything', async () => {
    const host = await refusingRegistry();
    await manifest(`images: [${host}/closed/app:1, ${host}/public/app:1]\n`);
    expect(exitCodeOf((await failureOf(lockNow())).code)).toBe(4);
    await manifest(`images: [${host}/closed/app:1, ${host}/noname/app:1]\n`);
    expect(exitCodeOf((await failureOf(lockNow())).code)).toBe(1);
  });

  it('names every chart that another one lacks, and which one needs it', async () => {
    const dead = await deadHost();
    const files = demoFiles('own', '1.0.0');
    const index =
      'apiVersion: v1\nentries:\n  db: [{apiVersion: v2, name: db, version: 1.0.0, urls: [db.tgz]}]\n';
    const repo = await startServer((request, response) => {
      if (request.url === '/index.yaml') response.end(index);
      else response.writeHead(404).end();
    });
    const needs = [`db, repository: "${repo.url}"`, `queue, repository: "http://${dead}/queue"`].map(
      (n) => `  - {version: 1.0.0, name: ${n}}\n`,
    );
    const yaml = `${files['Chart.yaml']}dependencies:\n${needs.join('')}`;
    await writeChart(join(site.dir, 'own'), { ...files, 'Chart.yaml': yaml });
    await manifest(
      `charts:\n  - {path: own}\nimages: [${dead}/app:1]\nfiles: [{url: "http://${dead}/x", name: x}]\n`,
    );
    const failure = await failureOf(lockNow());
    expect(failure.faults.map((f) => f.message.split(';')[0])).toEqual([
      `${dead}/app:1 cannot be pulled: connection refused`,
      'chart queue, needed by own-1.0.0, cannot be fetched: connection refused',
      'chart db, needed by own-1.0.0, cannot be fetched: not found (404)',
      'file x cannot be fetched: connection refused',
    ]);
    expect(failure.faults.map((f) => f.position?.line)).toEqual([6, 5, 5, 7]);
  });
});

describe('an image that is replaced', () => {
  let image: FleetImage;
  let host: string;
  let asked: string;
  let place: string;
  beforeEach(async () => {
    image = makeImage({ kinds: ['oci'] });
    place = await site.addImage(image);
    host = await refusingRegistry();
    asked = `${host}/public/pypi:latest`;
    await manifest(`platforms: all\nimages: [{ref: "${asked}", replace: "${place}"}]\n`);
  });

  it('is locked, packed and loaded under the name that was asked for, with the other bytes', async () => {
    const { lock: locked, warnings } = await lockNow();
    expect(locked.images.at(0)).toMatchObject({ ref: asked, replacedBy: place, digest: image.index.digest });
    expect(warnings).toEqual([]);
    const out = join(site.dir, 'b.tar');
    await pack({ manifestPath, out }, testContext());
    const target = await startRegistry({ storage: 'memory' });
    try {
      const loaded = await load({ bundle: out, registries: [placeOf(target)] }, testContext());
      expect(loaded.failed).toBe(0);
      expect(loaded.targets[0]?.entries).toMatchObject([{ replacedBy: place, recompressed: null }]);
      const listed = await ls(out, testContext());
      expect(listed.artifacts).toMatchObject([{ name: asked, replacedBy: place, recompressed: null }]);
      expect(lsOutcome(listed, out).summary).toContain(`${asked} has the bytes of ${place}`);
      const url = `${target.url}/v2/public/pypi/manifests/latest`;
      const answer = await fetch(url, { headers: { accept: image.index.mediaType } });
      expect(answer.headers.get('docker-content-digest')).toBe(image.index.digest);
    } finally {
      await target.close();
    }
    const online = await checkLockFile({ manifestPath, online: true }, testContext());
    expect(online.faults).toEqual([]);
  });

  it('is stale in the lock as soon as it is replaced by something else, or no longer', async () => {
    const { lock: before } = await lockNow();
    const other = makeImage({ seed: 7, kinds: ['oci'] });
    await pushImage(site.source.host, other, { repository: 'other/app', tag: '2' });
    const instead = `${site.source.host}/other/app:2`;
    await manifest(`platforms: all\nimages: [{ref: "${asked}", replace: "${instead}"}]\n`);
    const { faults } = await checkLockFile({ manifestPath }, testContext());
    expect(faults.map((f) => [f.code, f.message])).toEqual([
      ['LOCK_STALE', `image ${asked} is pulled from ${instead}, the lock has it from ${place}`],
    ]);
    const { lock: after, diff } = await lockNow();
    expect(after.images.at(0)).toMatchObject({ replacedBy: instead, digest: other.index.digest });
    expect(diff.changed[0]?.changes).toContainEqual({ fact: 'replacedBy', from: place, to: instead });
    expect(before.images.at(0)?.digest).not.toBe(other.index.digest);
    await manifest(`platforms: all\nimages: ["${asked}"]\n`);
    const gone = await checkLockFile({ manifestPath }, testContext());
    expect(gone.faults[0]?.message).toContain(
      `is pulled from its own registry, the lock has it from ${instead}`,
    );
  });

  it('may be one of an image list, and its pin holds for the other bytes too', async () => {
    await site.put('list.txt', `${asked}\n`);
    const pinned = `platforms: all\nimageLists: [list.txt]\nimages: [{ref: "${asked}", replace: "${place}@`;
    await manifest(`${pinned}${image.index.digest}"}]\n`);
    const { lock: locked } = await lockNow();
    expect(locked.images).toHaveLength(1);
    expect(locked.images.at(0)).toMatchObject({ replacedBy: place, usedBy: ['list.txt', 'sealift.yaml'] });
    await manifest(`${pinned}sha256:${'0'.repeat(64)}"}]\n`);
    expect((await checkLockFile({ manifestPath }, testContext())).faults[0]?.message).toContain(
      'asks for sha256:00',
    );
    expect((await failureOf(lockNow())).faults[0]).toMatchObject({
      code: 'CONTENT_NOT_FOUND',
      hint: expect.stringContaining(`correct replace of ${asked}`),
    });
  });

  it.each([
    ['is no reference', 'REPLACE', 'HOST/no reference', 'is not an image reference'],
    ['is itself', 'a.test/app:1', 'a.test/app:1', 'is replaced by itself'],
    [
      'is itself with a digest',
      'a.test/app:1',
      `a.test/app:1@sha256:${'1'.repeat(64)}`,
      'is replaced by itself',
    ],
    [
      'has another digest',
      `a.test/app:1@sha256:${'1'.repeat(64)}`,
      `b.test/app:1@sha256:${'2'.repeat(64)}`,
      'and what replaces it to',
    ],
  ])('is refused where the other %s', async (_, ref, replace, message) => {
    await manifest(`images:\n  - {ref: "${ref === 'REPLACE' ? asked : ref}", replace: "${replace}"}\n`);
    const failure = await failureOf(lockNow());
    expect(exitCodeOf(failure.code)).toBe(2);
    expect(failure.faults).toHaveLength(1);
    expect(failure.faults[0]?.message).toContain(message);
    expect(failure.faults[0]?.position?.line).toBe(5);
  });

  it('is refused in a circle, in a chain, and with two places', async () => {
    await manifest(
      'images:\n  - {ref: "a.test/a:1", replace: "b.test/b:1"}\n  - {ref: "b.test/b:1", replace: "a.test/a:1"}\n',
    );
    const circle = await failureOf(lockNow());
    expect(circle.faults.map((f) => [f.code, f.position?.line])).toEqual([
      ['MANIFEST_CONFLICT', 5],
      ['MANIFEST_CONFLICT', 6],
    ]);
    expect(circle.faults[0]?.message).toContain('b.test/b:1, which is replaced by a.test/a:1');
    await manifest(
      'images:\n  - {ref: "a.test/a:1", replace: "b.test/b:1"}\n  - {ref: "a.test/a:1", replace: "c.test/c:1"}\n',
    );
    expect((await failureOf(lockNow())).faults[0]?.message).toContain(
      'with replace c.test/c:1 here and b.test/b:1',
    );
  });
});
