import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Event } from '../../src/core/events.ts';
import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, type Packed, packSite, placeOf, type Site } from '../bundle/site.ts';
import { failureOf } from '../io/server.ts';
import { pushImage } from '../support/fleet.ts';
import { dockerRepository, type NexusStandIn, startNexusStandIn } from '../support/nexus-stand-in.ts';
import { writeSite } from '../support/site-file.ts';

let site: Site;
let bundle: Packed;
let upstream: RunningRegistry;
let nexus: NexusStandIn;
let env: Record<string, string> = {};
let events: Event[] = [];

beforeAll(async () => {
  site = await openSite();
  bundle = await packSite(site);
});
afterAll(() => site.close());

beforeEach(async () => {
  upstream = await startRegistry({ storage: 'memory' });
  nexus = await startNexusStandIn({
    upstream: upstream.host,
    users: { admin: 'hunter2', ann: 'hunter2-ann' },
    repositories: [
      dockerRepository('images', { pathEnabled: true }),
      dockerRepository('hub', { type: 'proxy' }),
      dockerRepository('all', { type: 'group', memberNames: ['hub', 'images'] }),
      { ...dockerRepository('files'), format: 'raw' },
    ],
    traps: ['path-routing'],
  });
  env = { NEXUS_USERNAME: 'admin', NEXUS_PASSWORD: 'hunter2' };
  events = [];
  return async () => {
    await nexus.close();
    await upstream.close();
  };
});

let count = 0;
/** A new folder with a site's file of these targets. */
async function siteOf(...targets: readonly string[]): Promise<string> {
  count += 1;
  return writeSite(site.path(`far-${count}`), targets);
}

const loaded = (more: Partial<LoadOptions>): Promise<LoadResult> =>
  load({ bundle: bundle.path, ...more }, { ...contextOf({ events }), env });

/** A Nexus of the site with these keys. */
const nexusOf = (keys: string): string =>
  `type: nexus, name: nexus, url: "${nexus.main.url}", credentials: {env: NEXUS}, ${keys}`;
const images = (repository: string): string =>
  `docker: {repository: ${repository}, url: "${nexus.main.url}"}`;

const statesOf = (result: LoadResult): unknown[] =>
  result.targets.map(({ site: name, kind, fault, entries }) => [
    name,
    kind,
    fault?.code ?? [...new Set(entries.map((entry) => `${entry.kind} ${entry.state}`))].sort(),
  ]);

describe('a load without a target', () => {
  it('goes into all targets of the site’s file, with paths from its folder, and writes nothing the second time', async () => {
    const path = await siteOf(
      `type: registry, name: staging, url: "${upstream.url}/gpu", naming: keep-host`,
      'type: chart-tree, name: charts, dir: charts/external',
      'type: files, name: files, dir: files',
    );
    const first = await loaded({ sitePath: path });
    expect(first.failed).toBe(0);
    expect(statesOf(first)).toEqual([
      ['staging', 'registry', ['chart written', 'file written', 'image written']],
      ['charts', 'chart-tree', ['chart written']],
      ['files', 'files', ['file written']],
    ]);
    expect(first.targets[0]?.name).toBe(`registry ${upstream.host}/gpu`);
    expect(first.targets[0]?.entries[0]?.as).toContain('/gpu/127.0.0.1_');
    expect(await readFile(path.replace('site.yaml', 'files/notes.txt'), 'utf8')).toContain('read me');
    const again = await loaded({ sitePath: path });
    const states = again.targets.flatMap(({ entries }) => entries.map(({ state }) => state));
    expect(new Set(states)).toEqual(new Set(['present']));
  });

  it('leaves what a registry has under a tag where the file says keep, and tells it where it says fail', async () => {
    const of = (policy: string): Promise<string> =>
      siteOf(`type: registry, name: staging, url: "${upstream.url}/own", onConflict: ${policy}, parallel: 2`);
    const first = await loaded({ sitePath: await of('keep') });
    const image = first.targets[0]?.entries.find(({ kind }) => kind === 'image');
    const [, place = ''] = /^[^/]*\/(.*)$/.exec(image?.as ?? '') ?? [];
    const url = `${upstream.url}/v2/${place.replace(/:([^:/]*)$/, '/manifests/$1')}`;
    const there = await fetch(url, { headers: { accept: '*/*' } });
    const headers = { 'content-type': there.headers.get('content-type') ?? '' };
    await fetch(url, { method: 'PUT', body: `${await there.text()} `, headers });
    const statesBy = async (policy: string): Promise<unknown[]> => {
      const { targets } = await loaded({ sitePath: await of(policy) });
      const found = targets[0]?.entries.filter(({ state }) => state !== 'present') ?? [];
      return found.map(({ as, state, fault }) => [as === image?.as, state, fault?.code]);
    };
    expect(await statesBy('keep')).toEqual([[true, 'kept', undefined]]);
    expect(await statesBy('fail')).toEqual([[true, 'failed', 'TARGET_CONFLICT']]);
  });

  it('goes into those that are named, and refuses a name that there is not', async () => {
    const path = await siteOf('type: files, name: a, dir: a', 'type: files, name: b, dir: b');
    const result = await loaded({ sitePath: path, targetNames: ['b'] });
    expect(result.targets.map((target) => target.site)).toEqual(['b']);
    const wrong = await failureOf(loaded({ sitePath: path, targetNames: ['b', 'c'] }));
    expect(wrong).toMatchObject({ code: 'USAGE', hint: 'it has a, b' });
    const none = await failureOf(loaded({ targetNames: ['c'] }));
    expect(none).toMatchObject({ code: 'USAGE', hint: expect.stringContaining('site init') });
  });

  it('does not use the file’s targets where a flag names one', async () => {
    const path = await siteOf('type: files, name: a, dir: a');
    const result = await loaded({ sitePath: path, registries: [placeOf(upstream)] });
    expect(result.targets.map((target) => target.site)).toEqual([null]);
  });

  it('leaves targets aside that nothing is for, and says when that is all of them', async () => {
    const path = await siteOf('type: files, name: a, dir: a', 'type: chart-tree, name: c, dir: c');
    const result = await loaded({ sitePath: path, only: ['notes.txt'] });
    expect(statesOf(result)).toEqual([['a', 'files', ['file written']]]);
    expect(events.filter((event) => event.type === 'warning')).toEqual([]);
    const idle = await failureOf(loaded({ sitePath: path, only: ['notes.txt'], targetNames: ['c'] }));
    expect(idle).toMatchObject({ code: 'USAGE', message: expect.stringContaining('nothing that is loaded') });
  });

  it('refuses an older bundle by what the file’s chart trees say', async () => {
    const path = await siteOf('type: chart-tree, name: c, dir: c');
    await loaded({ sitePath: path });
    const lock = path.replace('site.yaml', 'c/versions.lock');
    const text = await readFile(lock, 'utf8');
    await writeFile(lock, text.replace('"2026.11"', '"2027.01"').replace('2026.11', '2027.01'));
    expect(await failureOf(loaded({ sitePath: path }))).toMatchObject({ code: 'POLICY_DOWNGRADE' });
  });
});

describe('a Nexus of the site', () => {
  it('gets images below its repository with path-based routing', async () => {
    const path = await siteOf(nexusOf(images('images')));
    const result = await loaded({ sitePath: path, receiptPath: path.replace('site.yaml', 'r.json') });
    expect([result.failed, statesOf(result)]).toEqual([
      0,
      [['nexus', 'registry', ['chart written', 'file written', 'image written']]],
    ]);
    expect(result.targets[0]?.entries[0]?.as).toContain(`${nexus.main.host}/images/`);
    const receipt = await readFile(path.replace('site.yaml', 'r.json'), 'utf8');
    expect(JSON.parse(receipt).targets[0]).toMatchObject({ site: 'nexus', made: null });
    expect(receipt + JSON.stringify(events)).not.toContain('hunter2');
  });

  it('gets what has no repository of its own there as OCI content, and nothing else', async () => {
    const path = await siteOf(nexusOf(`${images('images')}, raw: files`));
    const result = await loaded({ sitePath: path, targetNames: ['nexus'] });
    expect(statesOf(result)[0]).toEqual(['nexus', 'registry', ['chart written', 'image written']]);
  });

  it('shows in a dry run what would be made, and makes it in a load', async () => {
    const path = await siteOf(nexusOf(`create: true, ${images('new')}`));
    const settings = {
      name: 'new',
      storage: { blobStoreName: 'default', writePolicy: 'ALLOW_ONCE', latestPolicy: true },
      docker: { pathEnabled: true, httpPort: null },
    };
    const plan = await loaded({ sitePath: path, dryRun: true });
    expect(plan.targets).toMatchObject([{ made: { repository: 'new', format: 'docker', settings } }]);
    expect(plan.targets[0]?.entries.every(({ state }) => state === 'write')).toBe(true);
    expect(plan.targets[0]?.entries.reduce((sum, entry) => sum + entry.writeBytes, 0)).toBeGreaterThan(
      10_000,
    );
    expect(nexus.admin.repositories.has('new')).toBe(false);
    const result = await loaded({ sitePath: path });
    expect([result.failed, result.targets[0]?.made?.repository]).toEqual([0, 'new']);
    expect(nexus.admin.repositories.get('new')).toMatchObject(settings);
    expect((await loaded({ sitePath: path })).targets[0]?.made).toBeNull();
  });

  it.each([
    ['hub', 'is a proxy repository', 'repository: images'],
    ['all', 'is a group repository', 'repository: images'],
    ['files', 'is of the format raw, expected docker or oci', 'repository: images'],
    ['none', 'there is no such repository', 'repository: images'],
  ])('is not pushed to where %s %s, with the right one’s name', async (name, message, hint) => {
    const path = await siteOf(nexusOf(images(name)));
    const before = nexus.requests.length;
    const { targets, failed } = await loaded({ sitePath: path });
    expect(failed).toBe(1);
    expect(targets[0]?.fault).toMatchObject({
      code: 'TARGET_FAILED',
      message: expect.stringContaining(message),
      hint: expect.stringContaining(hint),
    });
    expect(nexus.requests.slice(before).every(({ method }) => method === 'GET')).toBe(true);
  });

  it('that refuses the login, or is read-only, is a fault of its own: the others are loaded', async () => {
    const path = await siteOf(nexusOf(images('images')), 'type: files, name: f, dir: f');
    const done = ['f', 'files', ['file written']];
    env = { ...env, NEXUS_PASSWORD: 'hunter2-wrong' };
    const wrong = await loaded({ sitePath: path });
    expect(statesOf(wrong)).toEqual([['nexus', 'registry', 'AUTH_DENIED'], done]);
    expect(JSON.stringify([wrong, events])).not.toContain('hunter2');
    env = {};
    const unset = await loaded({ sitePath: path });
    expect(unset.targets[0]?.fault).toMatchObject({
      code: 'AUTH_REQUIRED',
      message: expect.stringContaining('NEXUS_USERNAME and NEXUS_PASSWORD'),
    });
    env = { NEXUS_USERNAME: 'admin', NEXUS_PASSWORD: 'hunter2' };
    nexus.admin.readOnly = true;
    expect(statesOf(await loaded({ sitePath: path }))[0]).toEqual(['nexus', 'registry', 'TARGET_READ_ONLY']);
  });

  it('waits for a Nexus that takes no writes for a moment', async () => {
    nexus.admin.readOnly = true;
    nexus.admin.writableAfter = 2;
    const result = await loaded({ sitePath: await siteOf(nexusOf(images('images'))) });
    expect([result.failed, nexus.admin.readOnly]).toEqual([0, false]);
  });

  it('[ALLOW_ONCE] leaves a tag that is something else there, says so with both digests, and moves it on request', async () => {
    const [image, other] = site.images;
    if (image === undefined || other === undefined) throw new Error('the site has two images');
    const place = { repository: image.name, tag: image.tag };
    await pushImage(upstream.host, other, place);
    const kept = await loaded({ sitePath: await siteOf(nexusOf(images('images'))) });
    const conflict = kept.targets[0]?.entries.find(({ state }) => state === 'failed');
    expect(conflict).toMatchObject({
      found: other.index.digest,
      fault: {
        code: 'TARGET_CONFLICT',
        details: { found: other.index.digest, expected: image.index.digest },
      },
    });
    expect(kept.failed).toBe(1);
    const sitePath = await siteOf(nexusOf(`onConflict: replace, parallel: 2, ${images('images')}`));
    expect((await loaded({ sitePath })).failed).toBe(0);
    nexus.set('images', { writePolicy: 'ALLOW_ONCE', latestPolicy: true });
    await pushImage(upstream.host, other, place);
    const once = await loaded({ sitePath });
    expect(once.targets[0]?.entries.find(({ state }) => state === 'failed')?.fault?.hint).toContain(
      'Disable redeploy',
    );
  });

  it('makes nothing for a login that may not, and for a blob store that is not there', async () => {
    env = { NEXUS_USERNAME: 'ann', NEXUS_PASSWORD: 'hunter2-ann' };
    const path = await siteOf(nexusOf(`create: true, ${images('new')}`));
    const { targets } = await loaded({ sitePath: path });
    expect(targets[0]?.fault).toMatchObject({
      code: 'AUTH_DENIED',
      hint: expect.stringContaining('administrator'),
    });
    env = { NEXUS_USERNAME: 'admin', NEXUS_PASSWORD: 'hunter2' };
    const other = await siteOf(nexusOf(`create: true, blobStore: fast, ${images('new')}`));
    const refused = await loaded({ sitePath: other });
    expect(refused.targets[0]?.fault).toMatchObject({ hint: expect.stringContaining('default') });
    expect(nexus.admin.repositories.has('new')).toBe(false);
  });

  it('keeps, replaces or tells another image of the same tag, as onConflict says', async () => {
    const of = (policy: string): Promise<string> =>
      siteOf(nexusOf(`onConflict: ${policy}, ${images('images')}`));
    const first = await loaded({ sitePath: await of('fail') });
    const image = first.targets[0]?.entries.find(({ kind }) => kind === 'image');
    const [, place = ''] = /^[^/]*\/(.*)$/.exec(image?.as ?? '') ?? [];
    const url = `${nexus.main.url}/v2/${place.replace(/:([^:/]*)$/, '/manifests/$1')}`;
    const authorization = `Basic ${Buffer.from('admin:hunter2').toString('base64')}`;
    const there = await fetch(url, { headers: { authorization, accept: '*/*' } });
    const type = there.headers.get('content-type') ?? '';
    const body = `${await there.text()} `;
    const put = await fetch(url, { method: 'PUT', body, headers: { authorization, 'content-type': type } });
    expect([there.status, put.status]).toEqual([200, 201]);
    const stateBy = async (policy: string): Promise<unknown[]> => {
      const { targets } = await loaded({ sitePath: await of(policy) });
      const found = targets[0]?.entries.filter(({ state }) => state !== 'present') ?? [];
      return found.map(({ as, state, fault }) => [as === image?.as, state, fault?.code]);
    };
    expect(await stateBy('fail')).toEqual([[true, 'failed', 'TARGET_CONFLICT']]);
    expect(await stateBy('keep')).toEqual([[true, 'kept', undefined]]);
    expect(await stateBy('replace')).toEqual([[true, 'written', undefined]]);
  });

  it('that does not answer is told with what to try', async () => {
    const path = await siteOf(nexusOf(images('images')).replaceAll(nexus.main.url, 'http://127.0.0.1:1'));
    const { targets } = await loaded({ sitePath: path });
    expect(targets[0]?.fault).toMatchObject({
      code: 'TARGET_UNREACHABLE',
      hint: expect.stringContaining('curl http://127.0.0.1:1/service/rest/v1/status'),
    });
    const page = await siteOf(nexusOf(images('images')).replace(nexus.main.url, nexus.connector.url));
    const { targets: strangers } = await loaded({ sitePath: page });
    expect(strangers[0]?.fault).toMatchObject({ code: 'TARGET_UNREACHABLE' });
  });
});
