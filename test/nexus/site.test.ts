import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { siteInit } from '../../src/ops/site-init.ts';
import { parseSiteFile } from '../../src/site/load.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { onEachNexus, startDevpi } from '../support/nexus.ts';
import {
  askNexus,
  listAssets,
  removeRepository,
  type SharedNexus,
  throwAwayName,
} from '../support/nexus-server.ts';

import { makeWheel, packPackages } from '../support/packages.ts';

let site: Site;
let bundle: Packed;

beforeAll(async () => {
  site = await openSite();
  bundle = await packSite(site);
});
afterAll(() => site.close());

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const envOf = ({ username, password }: SharedNexus): Record<string, string> => ({
  HOME: site.dir,
  NEXUS_USERNAME: username,
  NEXUS_PASSWORD: password,
});

const loaded = (nexus: SharedNexus, more: Partial<LoadOptions>): Promise<LoadResult> =>
  load({ bundle: bundle.path, ...more }, { ...contextOf(), env: envOf(nexus) });

/** A site with a Nexus of these keys; the repositories are gone when the test ends. */
async function siteOf(nexus: SharedNexus, keys: Readonly<Record<string, string>>): Promise<string> {
  const dir = site.path(throwAwayName('site'));
  await mkdir(dir);
  const words = Object.entries(keys).map(([key, value]) => `${key}: ${value}`);
  const all = [`type: nexus, name: nexus, url: "${nexus.url}", credentials: {env: NEXUS}`, ...words];
  await writeFile(`${dir}/site.yaml`, `apiVersion: sealift-site/v1\ntargets: [{${all.join(', ')}}]\n`);
  onTestFinished(async () => {
    for (const name of Object.values(keys))
      if (name.startsWith('sealift-')) await removeRepository(nexus, name);
  });
  return `${dir}/site.yaml`;
}

const states = ({ targets }: LoadResult): unknown[] =>
  targets.map(({ kind, fault, entries }) => [
    kind,
    fault?.message ?? [...new Set(entries.map((e) => e.state))],
  ]);

onEachNexus(['helm', 'pypi', 'raw'], (nexus) => {
  it('makes repositories, loads charts and files into them, and writes nothing the second time', async () => {
    const [helm, raw] = [throwAwayName('helm'), throwAwayName('raw')];
    const sitePath = await siteOf(nexus, { create: 'true', helm, raw, pypi: throwAwayName('pypi') });
    const plan = await loaded(nexus, { sitePath, dryRun: true });
    // Nothing in the bundle is for the pypi repository, so it is not made.
    expect(plan.targets.map(({ made }) => made?.repository)).toEqual([helm, raw]);
    expect((await askNexus(nexus, { path: 'v1/repositories' })).text).not.toContain(helm);
    const first = await loaded(nexus, { sitePath });
    expect([first.failed, states(first)]).toEqual([
      0,
      [
        ['helm', ['written']],
        ['raw', ['written']],
      ],
    ]);
    expect(first.targets[0]?.use).toEqual([`helm repo add nexus ${nexus.url}repository/${helm}`]);
    const get = async (path: string): Promise<string> => {
      const answer = await fetch(`${nexus.url}repository/${path}`, {
        headers: {
          authorization: `Basic ${Buffer.from(`${nexus.username}:${nexus.password}`).toString('base64')}`,
        },
      });
      return sha256(Buffer.from(await answer.arrayBuffer()));
    };
    expect(await get(`${raw}/notes.txt`)).toBe(sha256(await readFile(site.path('notes.txt'))));
    const chart = await fetch(`${site.source.url}/charts/web-1.2.3.tgz`);
    expect(await get(`${helm}/web-1.2.3.tgz`)).toBe(sha256(Buffer.from(await chart.arrayBuffer())));
    const before = [await listAssets(nexus, helm), await listAssets(nexus, raw)];
    const again = await loaded(nexus, { sitePath });
    expect([again.targets.map(({ made }) => made), states(again)]).toEqual([
      [null, null],
      [
        ['helm', ['present']],
        ['raw', ['present']],
      ],
    ]);
    expect([await listAssets(nexus, helm), await listAssets(nexus, raw)]).toEqual(before);
  });
});

onEachNexus(['pypi'], (nexus) => {
  it('loads packages into its PyPI repository and an index of devpi, which it makes, and says what to tell pip', async () => {
    const devpi = await startDevpi({ makeIndex: false });
    onTestFinished(() => devpi.close());
    const path = await packPackages(site.path(), [makeWheel('alpha', '1.0'), makeWheel('beta', '2.0')]);
    const pypi = throwAwayName('pypi');
    const sitePath = await siteOf(nexus, { create: 'true', pypi });
    const netrc = sitePath.replace('site.yaml', 'netrc');
    await writeFile(netrc, `machine 127.0.0.1 login ${devpi.user} password ${devpi.password}`, {
      mode: 0o600,
    });
    const text = await readFile(sitePath, 'utf8');
    const words = `type: devpi, name: pip, url: "${devpi.url}${devpi.index}", create: true, credentials: {file: netrc}`;
    await writeFile(sitePath, text.replace(/}]\n$/, `}, {${words}}]\n`));
    const first = await loaded(nexus, { bundle: path, sitePath });
    expect([first.failed, states(first)]).toEqual([
      0,
      [
        ['pypi', ['written']],
        ['pypi', ['written']],
      ],
    ]);
    expect(first.targets.map(({ use }) => use[2]?.trim())).toEqual([
      `index-url = ${nexus.url}repository/${pypi}/simple/`,
      `index-url = ${devpi.simple}`,
    ]);
    const again = await loaded(nexus, { bundle: path, sitePath });
    expect(states(again)).toEqual([
      ['pypi', ['present']],
      ['pypi', ['present']],
    ]);
  });
});

onEachNexus(['raw'], (nexus) => {
  it('writes a file of the site that leads back to what is there', async () => {
    const raw = throwAwayName('raw');
    const sitePath = await siteOf(nexus, { create: 'true', raw });
    expect((await loaded(nexus, { sitePath })).failed).toBe(0);
    const out = sitePath.replace('site.yaml', 'init.yaml');
    const context = { ...contextOf(), env: envOf(nexus) };
    const { text, choices } = await siteInit({ url: nexus.url, out, tls: {} }, context);
    expect(text).toMatch(new RegExp(`raw: ${raw}$`, 'm'));
    expect(choices[0]).toContain('Nexus 3.');
    expect(parseSiteFile(text, out).targets).toMatchObject([{ type: 'nexus', create: false }]);
    const nobody = { ...contextOf(), env: { HOME: site.dir } };
    const anonymous = await siteInit({ url: nexus.url, out: `${out}.2`, tls: {} }, nobody);
    expect(anonymous.text).toContain(raw);
  });

  it('refuses a wrong password, a group, another format and a blob store that is not there, and makes nothing then', async () => {
    const raw = throwAwayName('raw');
    const wrong = await siteOf(nexus, { create: 'true', raw });
    const denied = await loaded({ ...nexus, password: 'wrong' }, { sitePath: wrong });
    expect(denied.targets[0]?.fault).toMatchObject({ code: 'AUTH_DENIED' });
    const stores = await loaded(nexus, {
      sitePath: await siteOf(nexus, { create: 'true', raw, blobStore: 'none' }),
    });
    expect(stores.targets[0]?.fault?.message).toContain('there is no blob store none');
    const group = throwAwayName('group');
    const hosted = await siteOf(nexus, { create: 'true', raw });
    expect((await loaded(nexus, { sitePath: hosted })).failed).toBe(0);
    await askNexus(nexus, {
      method: 'POST',
      path: 'v1/repositories/raw/group',
      body: {
        name: group,
        online: true,
        storage: { blobStoreName: 'default', strictContentTypeValidation: false },
        group: { memberNames: [raw] },
      },
    });
    const grouped = await loaded(nexus, { sitePath: await siteOf(nexus, { raw: group }) });
    expect(grouped.targets[0]?.fault).toMatchObject({
      message: expect.stringContaining('is a group repository'),
      hint: expect.stringContaining(raw),
    });
    const central = await loaded(nexus, { sitePath: await siteOf(nexus, { raw: 'maven-central' }) });
    expect(central.targets[0]?.fault?.message).toContain('is of the format maven2, expected raw');
  });
});
