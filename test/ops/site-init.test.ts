import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { type SiteInitOptions, type SiteInitResult, siteInit } from '../../src/ops/site-init.ts';
import { siteText } from '../../src/site/init-text.ts';
import { parseSiteFile } from '../../src/site/load.ts';
import { failureOf, startServer, testContext } from '../io/server.ts';
import { tempDir } from '../oci/bench.ts';
import {
  dockerRepository,
  type NexusStandIn,
  type StandInRepository,
  startNexusStandIn,
} from '../support/nexus-stand-in.ts';

let dir: string;
let env: Record<string, string>;

beforeEach(async () => {
  dir = await tempDir();
  env = { HOME: dir, NEXUS_USERNAME: 'admin', NEXUS_PASSWORD: 'hunter2' };
});

async function nexusWith(...repositories: readonly StandInRepository[]): Promise<NexusStandIn> {
  const nexus = await startNexusStandIn({ repositories, users: { admin: 'hunter2', ann: 'hunter2-ann' } });
  onTestFinished(() => nexus.close());
  return nexus;
}

const init = (more: Partial<SiteInitOptions>): Promise<SiteInitResult> =>
  siteInit({ out: join(dir, 'site.yaml'), tls: {}, ...more }, testContext(env));

const docker = (
  name: string,
  connector: Partial<NonNullable<StandInRepository['docker']>>,
): StandInRepository => {
  const whole = dockerRepository(name);
  return { ...whole, docker: { v1Enabled: false, forceBasicAuth: true, ...connector } };
};
const other = (
  name: string,
  format: StandInRepository['format'],
  type: StandInRepository['type'] = 'hosted',
): StandInRepository => ({
  ...dockerRepository(name, { type }),
  format,
});

describe('the file of a site', () => {
  it('names what a Nexus has: the likeliest, and the others beside it', async () => {
    const nexus = await nexusWith(
      docker('staging', { httpPort: 5001 }),
      docker('production', { httpsPort: 5000 }),
      docker('lonely', {}),
      other('charts', 'helm'),
      other('helm-proxy', 'helm', 'proxy'),
      other('raw-hosted', 'raw'),
      other('a-raw', 'raw'),
      other('maven', 'maven2'),
    );
    const { text, choices, targets, path } = await init({ url: nexus.main.url });
    expect(await readFile(path, 'utf8')).toBe(text);
    expect(targets).toEqual(['nexus']);
    expect(text).toContain('    docker: {repository: production, url: "https://127.0.0.1:5000"}');
    expect(text).toContain('    # docker: {repository: staging, url: "http://127.0.0.1:5001"}');
    expect(text).toContain('    raw: raw-hosted\n    # raw: a-raw\n');
    expect(text).toContain('    helm: charts\n');
    expect(text).not.toMatch(/create: true|pypi|helm-proxy|hunter2/);
    expect(text).toContain('credentials: {env: NEXUS}');
    expect(choices).toEqual([
      expect.stringContaining('Nexus 3.94.0-12'),
      'docker: lonely left out: it has neither a connector nor path-based routing',
      'docker: production (by its name; also there, as a comment: staging)',
      'helm: charts (the only hosted one)',
      'pypi: left out, there is no hosted repository of this format',
      'raw: raw-hosted (by its name; also there, as a comment: a-raw)',
    ]);
    expect(parseSiteFile(text, path).targets[0]).toMatchObject({ create: false, pypi: undefined });
  });

  it('names new repositories on an empty Nexus, with path-based routing where it has that', async () => {
    const nexus = await nexusWith(other('maven', 'maven2'));
    const { text, path } = await init({ url: nexus.main.url });
    expect(parseSiteFile(text, path).targets).toMatchObject([
      {
        create: true,
        docker: { repository: 'docker-hosted', url: new URL(`${nexus.main.url}/`) },
        helm: 'helm-hosted',
        pypi: 'pypi-hosted',
        raw: 'raw-hosted',
      },
    ]);
    nexus.admin.version = '3.70.1-02';
    const older = await init({ url: nexus.main.url, out: join(dir, 'older.yaml') });
    expect(older.text).toContain('url: "http://127.0.0.1:5000"');
  });

  it('is written for who is no administrator too; connectors are left for a person to write', async () => {
    env = { HOME: dir, NEXUS_USERNAME: 'ann', NEXUS_PASSWORD: 'hunter2-ann' };
    const nexus = await nexusWith(docker('images', { httpPort: 5000 }), other('charts', 'helm'));
    const { text, path, choices } = await init({ url: nexus.main.url });
    expect(text).toContain('# docker: {repository: images, url: "http://127.0.0.1:PORT"}');
    expect(choices.join()).toContain('only administrators see');
    expect(parseSiteFile(text, path).targets).toMatchObject([{ helm: 'charts', docker: undefined }]);
    const only = await nexusWith(docker('images', { httpPort: 5000 }));
    expect(await failureOf(init({ url: only.main.url, out: join(dir, 'only.yaml') }))).toMatchObject({
      code: 'TARGET_FAILED',
      hint: expect.stringContaining('administrator'),
    });
  });

  it('says what is wrong with the login and the address, and then writes nothing', async () => {
    const nexus = await nexusWith(other('charts', 'helm'));
    env = { ...env, NEXUS_PASSWORD: 'hunter2-wrong' };
    expect(await failureOf(init({ url: nexus.main.url }))).toMatchObject({ code: 'AUTH_DENIED' });
    const page = await startServer((_, response) => response.end('<!doctype html><html></html>'));
    expect(await failureOf(init({ url: page.url }))).toMatchObject({ code: 'TARGET_UNREACHABLE' });
    const nobody = await failureOf(init({ url: 'http://127.0.0.1:1' }));
    expect(nobody).toMatchObject({ code: 'TARGET_UNREACHABLE', hint: expect.stringContaining('curl') });
    const inside = await failureOf(init({ url: 'http://a:hunter2@127.0.0.1:1' }));
    expect(inside).toMatchObject({ code: 'USAGE' });
    expect(JSON.stringify(inside)).not.toContain('hunter2');
    expect(await failureOf(readFile(join(dir, 'site.yaml')))).toMatchObject({ code: 'ENOENT' });
  });

  it('never replaces one that is there, and asks nobody then', async () => {
    const nexus = await nexusWith();
    await writeFile(join(dir, 'site.yaml'), 'mine');
    expect(await failureOf(init({ url: nexus.main.url }))).toMatchObject({ code: 'USAGE' });
    expect(await readFile(join(dir, 'site.yaml'), 'utf8')).toBe('mine');
    expect(nexus.requests).toEqual([]);
  });

  it('holds what flags name, with paths from its folder', async () => {
    const { text, path, targets } = await init({
      devpi: 'http://devpi.local:3141/root/prod',
      containerd: '/run/containerd/containerd.sock',
      chartTree: join(dir, 'charts/external'),
      files: join(dir, 'yes: no #'),
      tls: { caFile: join(dir, 'ca.pem'), insecure: true },
    });
    expect(targets).toEqual(['devpi', 'node', 'charts', 'files']);
    expect(text).toContain('dir: charts/external');
    expect(parseSiteFile(text, path).targets).toMatchObject([
      { index: 'root/prod', tls: { caFile: join(dir, 'ca.pem'), insecure: true } },
      { socket: '/run/containerd/containerd.sock' },
      { dir: join(dir, 'charts/external') },
      { dir: join(dir, 'yes: no #') },
    ]);
    expect(await failureOf(init({ devpi: 'http://devpi.local', out: join(dir, 'x') }))).toMatchObject({
      code: 'SITE_INVALID',
    });
  });

  it('is read as it was meant whatever names of repositories look like', () => {
    const names = ['true', '123', 'a.b_c', '-x', 'null', 'No'];
    for (const name of names) {
      const nexus = {
        name: 'nexus',
        url: 'https://n',
        create: false,
        remarks: [],
        variables: undefined,
        tls: {},
      };
      const text = siteText({
        nexus: { ...nexus, docker: [], helm: [{ name }], pypi: [], raw: [{ name }, { name: 'other' }] },
        devpi: undefined,
        containerd: undefined,
        chartTree: undefined,
        files: undefined,
      });
      expect(parseSiteFile(text, '/site.yaml').targets).toMatchObject([{ helm: name, raw: name }]);
    }
  });
});
