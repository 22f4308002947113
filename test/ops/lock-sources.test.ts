import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import { parseLock } from '../../src/lock/read.ts';
import { formatLock } from '../../src/lock/write.ts';
import { type LockOptions, lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { selfSigned } from '../io/certificate.ts';
import { failureOf, startServer } from '../io/server.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import { type ChartFiles, chartArchive, demoFiles, writeChart } from '../support/charts.ts';

let site: Site;
let manifestPath: string;
let repo: string;

async function manifest(text: string): Promise<void> {
  manifestPath = await site.put('sealift.yaml', `apiVersion: sealift/v1\nname: site\nversion: "1"\n${text}`);
}

function lockNow(more: Partial<LockOptions> = {}): ReturnType<typeof lock> {
  return lock({ manifestPath, ...more }, testContext());
}

/** A chart that depends on others; each text is `name, version` and more. */
function needing(name: string, dependencies: readonly string[]): ChartFiles {
  const files = demoFiles(name, '1.0.0');
  const lines = dependencies.map((d) => `  - {repository: "${repo}", ${d}}\n`).join('');
  return { ...files, 'Chart.yaml': `${files['Chart.yaml']}dependencies:\n${lines}` };
}

async function addDb(...versions: readonly string[]): Promise<void> {
  for (const v of versions) await site.addChart('db', v, demoFiles('db', v));
}

function archivesAsked(name: string): number {
  return site.source.requests.filter((r) => r.path === `/charts/${name}.tgz`).length;
}

beforeEach(async () => {
  site = await makeSite();
  repo = `${site.source.url}/charts`;
});

afterEach(async () => {
  await site.close();
});

describe('registries.<host>.caFile', () => {
  it('counts for chart repositories, their provenance files and file addresses', async () => {
    const tls = selfSigned();
    const archive = await chartArchive(demoFiles('web', '1.0.0'), 'web');
    const index =
      'apiVersion: v1\nentries:\n  web: [{apiVersion: v2, name: web, version: 1.0.0, urls: [web.tgz]}]\n';
    const answers = new Map<string, string | Buffer>([
      ['/index.yaml', index],
      ['/web.tgz', archive],
      ['/tool', 'tool'],
    ]);
    const server = await startServer((request, response) => {
      const content = answers.get(request.url ?? '');
      if (content === undefined) response.writeHead(404).end();
      else response.end(content);
    }, tls);
    await site.put('ca.pem', tls.cert);
    const wants = `charts: [{name: web, version: 1.0.0, repo: "${server.url}"}]\nfiles: [{url: "${server.url}/tool", name: tool}]\n`;
    await manifest(`registries: {"${server.host}": {caFile: ca.pem}}\n${wants}`);
    const { lock: locked } = await lockNow();
    expect([locked.charts.length, locked.files.length]).toEqual([1, 1]);
    const packed = await pack({ manifestPath, out: join(site.dir, 'b.tar') }, testContext());
    expect(packed.artifacts.charts).toBe(1);
  });
});

describe('two charts of one name and version', () => {
  it('that differ are a conflict that names both sources', async () => {
    await addDb('1.0.0');
    await writeChart(join(site.dir, 'db'), { ...demoFiles('db', '1.0.0'), 'values.yaml': 'image: other\n' });
    await writeChart(join(site.dir, 'own'), needing('own', ['name: db, version: 1.0.0']));
    await manifest('charts: [{path: db}, {path: own}]\n');
    const failure = await failureOf(lockNow());
    expect(failure).toMatchObject({ code: 'MANIFEST_CONFLICT' });
    expect(String(failure)).toContain(`${repo}/db-1.0.0.tgz`);
    expect(String(failure)).toContain('from db,');
  });

  it('that were one folder move together when it changes', async () => {
    await writeChart(join(site.dir, 'db'), demoFiles('db', '1.0.0'));
    repo = 'file://../db';
    await writeChart(join(site.dir, 'own'), needing('own', ['name: db, version: 1.0.0']));
    await manifest('charts: [{path: db}, {path: own}]\n');
    const { lock: before } = await lockNow();
    await site.put('db/values.yaml', 'image: other\n');
    const { lock: after } = await lockNow();
    const trees = (of: typeof before): string[] => of.charts.map((c) => c.integrity.tree);
    expect(after.charts[1]?.dependencies[0]?.archive).toBe(after.charts[0]?.integrity.archive);
    expect(trees(after)[0]).not.toBe(trees(before)[0]);
    expect(trees(after)[1]).not.toBe(trees(before)[1]);
  });
});

describe('dependencies of one name', () => {
  const both = ['name: db, version: ^1.0.0, alias: one', 'name: db, version: ^2.0.0, alias: two'];
  const lockFile = (first: string, second: string, digest: string): string =>
    `dependencies:\n- name: db\n  repository: ${repo}\n  version: ${first}\n- name: db\n  repository: ${repo}\n  version: ${second}\ndigest: ${digest}\n`;

  async function versionsOf(files: ChartFiles): Promise<(string | undefined)[]> {
    await writeChart(join(site.dir, 'own'), files);
    await manifest('charts: [{path: own}]\n');
    const { lock: locked } = await lockNow();
    return locked.charts.filter((c) => c.name === 'db').map((c) => c.version);
  }

  it('are both carried, each in its version', async () => {
    await addDb('1.0.0', '1.1.0', '2.0.0');
    expect(await versionsOf(needing('own', both))).toEqual(['1.1.0', '2.0.0']);
  });

  it('are each taken from an old lock by its range', async () => {
    await addDb('1.0.0', '1.1.0', '2.0.0', '2.1.0');
    const files = needing('own', both);
    const old = { ...files, 'Chart.yaml': String(files['Chart.yaml']).replace('v2', 'v1') };
    const { 'Chart.yaml': yaml = '' } = old;
    const at = String(yaml).indexOf('dependencies:');
    const split = {
      ...old,
      'Chart.yaml': String(yaml).slice(0, at),
      'requirements.yaml': String(yaml).slice(at),
      'requirements.lock': lockFile('1.0.0', '2.0.0', 'sha256:0'),
    };
    expect(await versionsOf(split)).toEqual(['1.0.0', '2.0.0']);
  });

  it('and of one range are each taken from Chart.lock by their place', async () => {
    await addDb('1.0.0', '1.1.0', '1.2.0');
    const asked = ['one', 'two'].map((alias) => ({ name: 'db', version: '^1.0.0', repository: repo, alias }));
    const locked = ['1.0.0', '1.1.0'].map((version) => ({ name: 'db', version, repository: repo }));
    const files = needing(
      'own',
      asked.map((d) => `name: db, version: ${d.version}, alias: ${d.alias}`),
    );
    const digest = digestOf(JSON.stringify([asked, locked]));
    const withLock = { ...files, 'Chart.lock': lockFile('1.0.0', '1.1.0', digest) };
    expect(await versionsOf(withLock)).toEqual(['1.0.0', '1.1.0']);
  });

  it('of which one is in charts/ are carried for the other', async () => {
    await addDb('1.0.0', '2.0.0');
    const inside = await chartArchive(demoFiles('db', '1.0.0'), 'db');
    expect(await versionsOf({ ...needing('own', both), 'charts/db-1.0.0.tgz': inside })).toEqual(['2.0.0']);
  });

  it('follow their ranges, with a warning, when Chart.lock is out of step', async () => {
    await addDb('1.0.0', '1.1.0', '2.0.0', '2.1.0');
    const files = { ...needing('own', both), 'Chart.lock': lockFile('1.0.0', '2.0.0', 'sha256:0') };
    expect(await versionsOf(files)).toEqual(['1.1.0', '2.1.0']);
    const { warnings } = await lockNow({ updateAll: true });
    expect(warnings.map((w) => w.message).join()).toContain('Chart.lock was not made from its Chart.yaml');
  });
});

describe('a chart that others depend on', () => {
  it('moves when --update names it', async () => {
    await addDb('1.0.0');
    await writeChart(join(site.dir, 'own'), needing('own', ['name: db, version: ^1.0.0']));
    await manifest('charts: [{path: own}]\n');
    await lockNow();
    await addDb('1.2.0');
    expect((await lockNow()).lock.charts[0]?.version).toBe('1.0.0');
    expect((await lockNow({ update: ['db'] })).lock.charts[0]?.version).toBe('1.2.0');
  });

  it('is fetched once, and knows all its users', async () => {
    await addDb('1.0.0');
    for (const name of ['a', 'b', 'c']) {
      await site.addChart(name, '1.0.0', needing(name, ['name: db, version: ^1.0.0']));
    }
    const one = (name: string): string => `{name: ${name}, version: 1.0.0, repo: "${repo}"}`;
    await manifest(`charts: [${['a', 'b', 'c'].map(one).join(', ')}]\n`);
    const { lock: locked } = await lockNow();
    expect(locked.charts.find((c) => c.name === 'db')?.usedBy).toEqual(['a-1.0.0', 'b-1.0.0', 'c-1.0.0']);
    expect(archivesAsked('db-1.0.0')).toBe(1);
  });

  it('and on which it depends itself is no endless way', async () => {
    await addDb('1.0.0');
    await writeChart(join(site.dir, 'own'), needing('own', ['name: db, version: ^1.0.0']));
    await manifest('charts: [{path: own}]\n');
    const { lock: locked, path } = await lockNow();
    const round = { name: 'db', version: '1.0.0', repository: repo, from: 'fetched' } as const;
    const charts = locked.charts.map((c) => (c.name === 'db' ? { ...c, dependencies: [round] } : c));
    await site.put('versions.lock', formatLock({ ...locked, charts }));
    const again = await lockNow();
    expect(parseLock(Buffer.from(formatLock(again.lock)), path).charts).toHaveLength(2);
  });
});
