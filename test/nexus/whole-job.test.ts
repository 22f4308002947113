import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { envPrefix } from '../../src/oci/env-credentials.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { documentOf, ensureBuilt, type Ran, runProgram } from '../cli/program.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { type Devpi, onEachNexus, startDevpi } from '../support/nexus.ts';
import { askNexus, listAssets, removeRepository, throwAwayName } from '../support/nexus-server.ts';
import { peer, run } from '../support/peers.ts';
import { wheel } from '../support/wheels.ts';

/**
 * The whole way by the real program: charts, Python packages and files from where they come from into a Nexus that has nothing;
 * helm, pip and curl get the same bytes there, and what was loaded can be taken back.
 */

const CHART = 'demo-1.2.3.tgz';
const TOOL = 'installers/bin/tool 1.0+a.sh';
const APPLICATION = {
  name: 'Ship.App',
  version: '1.2.0',
  requires: ['ship-lib>=2'],
  requiresPython: '>=3.8',
};
const LIBRARY = { name: 'ship-lib', version: '2.0', requiresPython: '>=3.8' };

let dir = '';
let charts: RunningRegistry;
let index: Devpi;
/** SHA-256 of what was made, by file name. */
const made = new Map<string, string>();

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Runs `sealift` where uv is found. */
function sealift(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> {
  const path = `${dirname(peer('uv'))}${delimiter}${process.env.PATH}`;
  return runProgram(args, { cwd: dir, env: { PATH: path, ...env } });
}

async function publish(): Promise<void> {
  const wheels = join(dir, 'wheels');
  await mkdir(wheels);
  for (const of of [APPLICATION, LIBRARY]) {
    const { fileName, bytes } = wheel(of);
    await writeFile(join(wheels, fileName), bytes);
    made.set(fileName, sha256(bytes));
  }
  const files = (await readdir(wheels)).map((name) => join(wheels, name));
  const login = ['--username', index.user, '--password', index.password];
  await run(peer('twine'), ['upload', '--repository-url', `${index.url}${index.index}/`, ...login, ...files]);
}

/** Locks and packs what stands there now. */
async function bundle(out: string): Promise<void> {
  const chart = await chartArchive({ ...demoFiles(), 'README.md': `for ${out}\n` });
  await charts.addChart(CHART, chart);
  made.set(out, sha256(chart));
  // What is locked stays locked.
  await rm(join(dir, 'versions.lock'), { force: true });
  for (const args of [['lock'], ['pack', '-o', out]]) {
    const ran = await sealift(args);
    expect(ran, ran.stderr).toMatchObject({ code: 0 });
  }
}

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-job-'));
  charts = await startRegistry({ storage: 'memory' });
  index = await startDevpi();
  await publish();
  await writeFile(join(dir, 'tool.sh'), '#!/bin/sh\necho tool\n');
  made.set(TOOL, sha256(await readFile(join(dir, 'tool.sh'))));
  await writeFile(
    join(dir, 'sealift.yaml'),
    [
      'apiVersion: sealift/v1',
      'name: job',
      'version: "1"',
      `charts: [{name: demo, version: 1.2.3, repo: "http://${charts.host}/charts"}]`,
      `files: [{path: tool.sh, name: "${TOOL}"}]`,
      `python: {packages: [Ship.App], pythons: ["3.11", "3.12"], indexes: ["${index.simple}"], resolver: uv}`,
      '',
    ].join('\n'),
  );
  await bundle('first.tar');
  await bundle('second.tar');
});
afterAll(async () => {
  await charts?.close();
  await index?.close();
  if (dir !== '') await rm(dir, { recursive: true, force: true });
});

onEachNexus(['helm', 'pypi', 'raw'], (nexus) => {
  const [helm, pypi, raw] = [throwAwayName('helm'), throwAwayName('pypi'), throwAwayName('raw')];
  const env = { NEXUS_USERNAME: nexus.username, NEXUS_PASSWORD: nexus.password };
  const urlOf = (repository: string): string => `${nexus.url}repository/${repository}`;

  afterAll(async () => {
    for (const name of [helm, pypi, raw]) await removeRepository(nexus, name);
  });

  it('writes site.yaml from what the server says, and finds nothing against a load', async () => {
    const asked = await sealift(['site', 'init', nexus.url], env);
    expect(asked, asked.stderr).toMatchObject({ code: 0 });
    const path = join(dir, 'site.yaml');
    const { targets, ...rest }: { targets: Record<string, unknown>[] } = parse(await readFile(path, 'utf8'));
    const [target, ...others] = targets;
    expect(target).toMatchObject({ type: 'nexus', credentials: { env: 'NEXUS' } });
    expect(new URL(String(target?.url)).href).toBe(nexus.url);
    expect(others).toEqual([]);
    // The repositories are the test's own, on whatever server.
    const { docker: _, ...kept } = target ?? {};
    await writeFile(path, stringify({ ...rest, targets: [{ ...kept, create: true, helm, pypi, raw }] }));
    const checked = await sealift(['site', 'check'], env);
    expect(checked, checked.stdout + checked.stderr).toMatchObject({ code: 0 });
  });

  /** What was put there, without the pages that Nexus makes of it. */
  async function stored(): Promise<string[]> {
    const all = await Promise.all([helm, pypi, raw].map((name) => listAssets(nexus, name)));
    return all.flat().filter((line) => !/^(?:index\.yaml|simple\/.*) /.test(line));
  }

  /** Every file that lies below a folder, with its SHA-256. */
  async function sumsBelow(folder: string): Promise<Map<string, string>> {
    const names = await readdir(folder);
    return new Map(
      await Promise.all(names.map(async (n) => [n, sha256(await readFile(join(folder, n)))] as const)),
    );
  }

  function talliesOf(ran: Ran): unknown[] {
    const { targets } = documentOf(ran);
    return Array.isArray(targets) ? targets.map(({ tally }) => tally) : [];
  }

  it('makes the repositories that are missing, and loads everything', async () => {
    const planned = await sealift(['load', 'first.tar', '--dry-run'], env);
    expect(planned, planned.stderr).toMatchObject({ code: 0 });
    expect(planned.stdout).toContain(helm);
    const ran = await sealift(['load', 'first.tar', '--receipt', 'receipt.json', '--json'], env);
    expect(ran, ran.stderr + ran.stdout).toMatchObject({ code: 0 });
    expect((await stored()).map((line) => line.split(' ')[0]?.split('/').at(-1)).sort()).toEqual(
      [CHART, 'ship_lib-2.0-py3-none-any.whl', 'Ship.App-1.2.0-py3-none-any.whl', 'tool'].sort(),
    );
  });

  it('gives helm, pip and curl the same bytes', async () => {
    const home = join(dir, 'judges', nexus.name);
    const [pulled, fetched, downloaded] = ['charts', 'files', 'wheels'].map((name) => join(home, name));
    await run('mkdir', ['-p', `${pulled}`, `${fetched}`, `${downloaded}`]);
    const settings = {
      HELM_CACHE_HOME: join(home, 'cache'),
      HELM_CONFIG_HOME: join(home, 'config'),
      HELM_DATA_HOME: join(home, 'data'),
    };
    await run(peer('helm'), ['repo', 'add', 'site', urlOf(helm)], { env: settings });
    await run(peer('helm'), ['pull', 'site/demo', '--version', '1.2.3', '-d', `${pulled}`], {
      env: settings,
    });
    expect(await sumsBelow(`${pulled}`)).toEqual(new Map([[CHART, made.get('first.tar')]]));

    const only = ['--isolated', '--no-cache-dir', '--index-url', `${urlOf(pypi)}/simple`];
    await run(peer('pip'), ['download', ...only, '--dest', `${downloaded}`, 'ship-app']);
    const wheels = new Map([...made].filter(([name]) => name.endsWith('.whl')));
    expect(await sumsBelow(`${downloaded}`)).toEqual(wheels);

    const path = TOOL.split('/').map(encodeURIComponent).join('/');
    await run('curl', ['-fsS', '-o', join(`${fetched}`, 'tool'), `${urlOf(raw)}/${path}`]);
    expect(await sumsBelow(`${fetched}`)).toEqual(new Map([['tool', made.get(TOOL)]]));
  });

  it('writes nothing the second time', async () => {
    const before = await stored();
    const again = await sealift(['load', 'first.tar', '--json'], env);
    expect(again, again.stderr).toMatchObject({ code: 0 });
    const tallies = talliesOf(again);
    expect(tallies.length).toBeGreaterThan(0);
    for (const tally of tallies) expect(tally).toMatchObject({ blobsWritten: 0, bytesWritten: 0 });
    expect(await stored()).toEqual(before);
  });

  it('tells a changed chart of the same version as a conflict with both digests, and leaves it', async () => {
    const before = await stored();
    const ran = await sealift(['load', 'second.tar', '--json'], env);
    expect(ran.code).toBe(1);
    expect(ran.stdout).toContain('TARGET_CONFLICT');
    expect(ran.stdout).toContain(made.get('first.tar'));
    expect(ran.stdout).toContain(made.get('second.tar'));
    expect(await stored()).toEqual(before);
  });

  it('takes back what it loaded, and nothing else', async () => {
    const login = {
      method: 'PUT',
      headers: { authorization: `Basic ${btoa(`${nexus.username}:${nexus.password}`)}` },
    };
    await fetch(`${urlOf(raw)}/mine.txt`, { ...login, body: 'not of this load' });
    // By the receipt alone: it knows no site.
    const prefix = envPrefix(new URL(nexus.url).host);
    const env = { [`${prefix}_USERNAME`]: nexus.username, [`${prefix}_PASSWORD`]: nexus.password };
    const looked = await sealift(['unload', '--receipt', 'receipt.json', '--dry-run'], env);
    expect(looked, looked.stderr).toMatchObject({ code: 0 });
    expect(await stored()).toHaveLength(5);
    const ran = await sealift(['unload', '--receipt', 'receipt.json', '--yes'], env);
    expect(ran, ran.stderr).toMatchObject({ code: 0 });
    expect((await stored()).map((line) => line.split(' ')[0])).toEqual(['mine.txt']);
    // What the load made and nobody else uses is gone too.
    const { text } = await askNexus(nexus, { path: 'v1/repositories' });
    const names = JSON.parse(text).map((one: { name: string }) => one.name);
    expect([helm, pypi, raw].filter((name) => names.includes(name))).toEqual([raw]);
  });
});
