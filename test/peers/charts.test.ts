import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { verify } from '../../src/ops/verify.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { peer, quietContext, type Registry, run, startRegistry } from '../support/peers.ts';

/** Charts from a repository and a registry, through a bundle, to a registry and a tree, judged by the real helm. */

const DATA = resolve(import.meta.dirname, '../../../shared/data/charts');

let dir: string;
let source: Registry;
let target: Registry;
let site: { readonly url: string; readonly close: () => void };
let env: NodeJS.ProcessEnv;

const context = quietContext();

/** Serves a folder; `index.yaml` with every address of an archive made to point here. */
async function serveFolder(folder: string): Promise<typeof site> {
  const server: Server = createServer(async (request, response) => {
    const path = join(folder, decodeURIComponent(new URL(request.url ?? '/', 'http://x').pathname));
    if (!existsSync(path)) {
      response.writeHead(404).end();
      return;
    }
    const bytes = await readFile(path);
    if (!path.endsWith('index.yaml')) {
      response.end(bytes);
      return;
    }
    response.end(bytes.toString('utf8').replace(/https?:\/\/\S+\/([^/\s]+\.tgz)/g, '$1'));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => void server.close() };
}

/** Every file of a tree with its bytes. */
async function treeOf(folder: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const d of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!d.isFile()) continue;
    const path = join(d.parentPath, d.name);
    found.set(
      relative(folder, path),
      `${((await stat(path)).mode & 0o777).toString(8)} ${(await readFile(path)).toString('base64')}`,
    );
  }
  return found;
}

async function manifest(name: string, charts: readonly string[]): Promise<string> {
  const folder = join(dir, name);
  await mkdir(folder, { recursive: true });
  const path = join(folder, 'sealift.yaml');
  await writeFile(
    path,
    `apiVersion: sealift/v1\nname: ${name}\nversion: "1"\ncharts:\n${charts.map((c) => `  - ${c}\n`).join('')}`,
  );
  return path;
}

async function faultCodes(work: Promise<unknown>): Promise<string[]> {
  try {
    await work;
  } catch (error) {
    if (error instanceof SealiftError) return error.faults.map((f) => f.code);
    throw error;
  }
  return [];
}

/** Locks, packs, verifies and loads; then asks helm. */
async function through(
  name: string,
  charts: readonly string[],
): Promise<{ tree: string; names: readonly string[] }> {
  const manifestPath = await manifest(name, charts);
  const { lock: locked } = await lock({ manifestPath }, context);
  const bundle = join(dir, name, 'b.tar');
  await pack({ manifestPath, out: bundle }, context);
  expect((await verify({ bundle, deep: true }, context)).faults).toEqual([]);
  const tree = join(dir, name, 'charts', 'external');
  const place = {
    ...parseRegistryUrl(target.url),
    prefix: name,
    naming: 'drop-host',
    indexPolicy: 'auto',
  } as const;
  const loaded = await load({ bundle, registries: [place], chartTrees: [tree] }, context);
  expect(loaded.failed).toBe(0);
  return { tree, names: locked.charts.map((c) => `${c.name} ${c.version}`) };
}

async function agreesWithHelm(
  name: string,
  chart: { name: string; version: string; archive: string; tree: string },
): Promise<void> {
  const pulled = await mkdtemp(join(dir, 'pull-'));
  const tag = chart.version;
  const ref = `oci://${target.url}/${name}/charts/${chart.name}`;
  await run(peer('helm'), ['pull', ref, '--version', tag, '--plain-http', '--destination', pulled], { env });
  const [file] = await readdir(pulled);
  expect(await readFile(join(pulled, file ?? ''))).toEqual(await readFile(chart.archive));
  await run(
    peer('helm'),
    ['pull', ref, '--version', tag, '--plain-http', '--untar', '--untardir', join(pulled, 'u')],
    { env },
  );
  const own = join(chart.tree, `${chart.name}-${chart.version}`);
  expect(await treeOf(own)).toEqual(await treeOf(join(pulled, 'u', chart.name)));
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-charts-'));
  source = await startRegistry();
  target = await startRegistry();
  env = {
    ...process.env,
    HELM_CACHE_HOME: join(dir, 'hc'),
    HELM_CONFIG_HOME: join(dir, 'hf'),
    HELM_DATA_HOME: join(dir, 'hd'),
  };
  const repo = join(dir, 'repo');
  await mkdir(repo);
  for (const version of ['1.0.0', '1.1.0+build.5']) {
    await writeFile(join(repo, `web-${version}.tgz`), await chartArchive(demoFiles('web', version), 'web'));
  }
  await run(peer('helm'), ['repo', 'index', repo], { env });
  site = await serveFolder(repo);
  const pushed = join(dir, 'pushed-0.1.0.tgz');
  await writeFile(pushed, await chartArchive(demoFiles('pushed', '0.1.0'), 'pushed'));
  await run(peer('helm'), ['push', pushed, `oci://${source.url}/team`, '--plain-http'], { env });
});

afterAll(async () => {
  site?.close();
  await source?.stop();
  await target?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('charts through a bundle', () => {
  it('come out as helm itself would have fetched them, from a repository and from a registry', async () => {
    const { tree, names } = await through('own', [
      `{name: web, version: 1.0.0, repo: "${site.url}"}`,
      `{name: web, version: 1.1.0+build.5, repo: "${site.url}"}`,
      `{name: pushed, version: 0.1.0, oci: "oci://${source.url}/team/pushed"}`,
    ]);
    expect(names).toEqual(['pushed 0.1.0', 'web 1.0.0', 'web 1.1.0+build.5']);
    for (const version of ['1.0.0', '1.1.0+build.5']) {
      await agreesWithHelm('own', {
        name: 'web',
        version,
        archive: join(dir, 'repo', `web-${version}.tgz`),
        tree,
      });
    }
    await agreesWithHelm('own', {
      name: 'pushed',
      version: '0.1.0',
      archive: join(dir, 'pushed-0.1.0.tgz'),
      tree,
    });
    const rendered = await run(peer('helm'), ['template', 'r', join(tree, 'web-1.0.0')], { env });
    expect(rendered.stdout).toContain('docker.io/library/nginx:1.25.2');
  });

  it('keep the manifest that helm push published, byte for byte', async () => {
    const at = (registry: Registry, repository: string): Promise<{ stdout: string }> =>
      run(peer('crane'), ['manifest', '--insecure', `${registry.url}/${repository}:0.1.0`]);
    expect((await at(target, 'own/charts/pushed')).stdout).toBe((await at(source, 'team/pushed')).stdout);
  });
});

describe.skipIf(!existsSync(DATA))(
  'the real charts of ../shared/data (skipped where they are absent)',
  () => {
    it.each(['csi-driver-nfs', 'gpu-operator', 'artifact-hub'])('%s', async (name) => {
      const served = await serveFolder(join(DATA, name));
      try {
        const files = (await readdir(join(DATA, name))).filter((f) => f.endsWith('.tgz'));
        const versions = files.map((f) => basename(f, '.tgz').slice(name.length + 1));
        const good = versions.filter((v) => !['v0.0.0', 'v23.9.0'].includes(v));
        const { tree } = await through(
          name,
          good.map((v) => `{name: ${name}, version: ${v}, repo: "${served.url}"}`),
        );
        for (const version of good) {
          // The schema of artifact-hub's values points to a web address, which helm would ask for.
          const offline = name === 'artifact-hub' ? ['--skip-schema-validation'] : [];
          const archive = join(DATA, name, `${name}-${version}.tgz`);
          await agreesWithHelm(name, { name, version, archive, tree });
          const args = [
            'template',
            'r',
            join(tree, `${name}-${version}`),
            '--kube-version',
            '1.34.0',
            ...offline,
          ];
          const rendered = await run(peer('helm'), args, { env });
          expect(rendered.stdout).toContain('kind: ');
        }
      } finally {
        served.close();
      }
    });

    it.each([
      ['csi-driver-nfs', 'v0.0.0'],
      ['gpu-operator', 'v23.9.0'],
    ])(
      '%s %s: the wrong digest of its index is caught, and accepted only with a reason',
      async (name, version) => {
        const served = await serveFolder(join(DATA, name));
        try {
          const entry = `name: ${name}, version: ${version}, repo: "${served.url}"`;
          const refused = await manifest(`${name}-refused`, [`{${entry}}`]);
          expect(await faultCodes(lock({ manifestPath: refused }, context))).toEqual([
            'CHART_INDEX_MISMATCH',
          ]);
          const allowed = await manifest(`${name}-allowed`, [
            `{${entry}, allowIndexMismatch: "known since 2023"}`,
          ]);
          const { lock: locked } = await lock({ manifestPath: allowed }, context);
          const [chart] = locked.charts;
          expect(chart?.integrity.upstream).not.toBe(chart?.integrity.archive);
          expect(chart?.allowIndexMismatch).toBe('known since 2023');
        } finally {
          served.close();
        }
      },
    );
  },
);
