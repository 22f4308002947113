/** Our chart archives, trees, ranges and OCI artifacts against the real Helm. */
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readChartArchive } from '../../src/helm/archive.ts';
import { chartArtifact } from '../../src/helm/artifact.ts';
import { highestMatch } from '../../src/helm/index-file.ts';
import { packChartDirectory } from '../../src/helm/pack-dir.ts';
import { diffTree, hashTree, unpackChart } from '../../src/helm/tree.ts';
import { digestOf } from '../../src/io/verify.ts';
import { type ChartFiles, chartArchive, demoFiles, inPieces } from '../support/charts.ts';
import { peer, type Registry, run, startRegistry } from '../support/peers.ts';

const shared = fileURLToPath(new URL('../../../shared/data/charts', import.meta.url));
const published = existsSync(shared)
  ? readdirSync(shared, { recursive: true, encoding: 'utf8' }).filter((p) => p.endsWith('.tgz'))
  : [];

let dir: string;
let server: Server;
let base: string;
let registry: Registry;
const served = new Map<string, Buffer>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-helm-'));
  server = createServer((request, response) => {
    const body = served.get(request.url ?? '');
    response.writeHead(body === undefined ? 404 : 200).end(body);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('the server has no port');
  base = `http://127.0.0.1:${address.port}`;
  registry = await startRegistry();
});
afterAll(async () => {
  server?.close();
  await registry?.stop();
  if (dir !== undefined) await rm(dir, { recursive: true, force: true });
});

let folders = 0;
async function folder(files: ChartFiles = {}): Promise<string> {
  const made = join(dir, `f${++folders}`);
  await mkdir(made);
  for (const [path, data] of Object.entries(files)) {
    await mkdir(dirname(join(made, path)), { recursive: true });
    await writeFile(join(made, path), data);
  }
  return made;
}

function helm(...args: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  const env = {
    HELM_CACHE_HOME: join(dir, 'c'),
    HELM_CONFIG_HOME: join(dir, 'g'),
    HELM_DATA_HOME: join(dir, 'd'),
  };
  return run(peer('helm'), args, { env });
}

async function pack(from: string): Promise<{ bytes: Buffer; file: string }> {
  const chunks: Buffer[] = [];
  const { chart } = await packChartDirectory(from, { write: (c) => void chunks.push(c) });
  const file = join(await folder(), `${chart.name}-${chart.version}.tgz`);
  await writeFile(file, Buffer.concat(chunks));
  return { bytes: Buffer.concat(chunks), file };
}

async function pullUntar(bytes: Buffer, name: string): Promise<string> {
  served.set(`/${name}`, bytes);
  const out = await folder();
  await helm('pull', `${base}/${name}`, '--untar', '--untardir', out);
  const [only] = (await readdir(out)).filter((n) => !n.endsWith('.tgz'));
  return join(out, only ?? '');
}

const rich: ChartFiles = {
  ...demoFiles(),
  'values.yaml': '\ufeffimage: docker.io/library/nginx:1.25.2\n',
  '.helmignore': '*.bak\n!*.keep\n',
  'docs/한국어 문서.md': 'ko',
  [`files/${'long-name-'.repeat(14)}.keep`]: 'x',
  'x.keep': 'x',
};

describe('a folder that we packed', () => {
  it('is a chart that helm shows, lints, renders and pulls apart into the same tree', async () => {
    const { bytes, file } = await pack(await folder({ ...rich, '.helmignore': '*.bak\n', 'y.bak': '' }));
    expect((await helm('show', 'chart', file)).stdout).toContain('appVersion: "7.0"');
    expect((await helm('template', 'r', file)).stdout).toContain('image: "docker.io/library/nginx:1.25.2"');
    await helm('lint', file);
    const tree = await pullUntar(bytes, basename(file));
    const content = await readChartArchive(inPieces(bytes), { what: 'x' });
    expect(await hashTree(tree)).toEqual({ digest: content.tree, files: content.files });
    expect(existsSync(join(tree, 'y.bak'))).toBe(false);
  });

  it.each([
    ['a plain list', '*.bak\nsecret/\n/top.txt\n# c\n[xy].md\n'],
    ['a negated rule', '*.bak\n!*.yaml\n'],
    ['a negated folder', '!templates/\n*.txt\n'],
  ])('leaves out the same files as helm package with %s in .helmignore', async (_what, rules) => {
    const chart = await folder({
      ...demoFiles(),
      '.helmignore': rules,
      'a.bak': 'a',
      'd/b.bak': 'b',
      'secret/k': 'k',
      'top.txt': 't',
      'd/top.txt': 't',
      'x.md': 'x',
      'z.md': 'z',
      'templates/.swp': 's',
    });
    const out = await folder();
    const theirs = await run(peer('helm'), ['package', chart, '-d', out], { check: false });
    if (theirs.code !== 0) {
      // Rules that drop Chart.yaml make no chart, for neither.
      await expect(pack(chart)).rejects.toMatchObject({ code: 'CHART_INVALID' });
      return;
    }
    const [name = ''] = await readdir(out);
    const { entries } = await readChartArchive(inPieces(await readFile(join(out, name))), { what: 'theirs' });
    const ours = await readChartArchive(inPieces((await pack(chart)).bytes), { what: 'ours' });
    expect([...ours.entries.keys()]).toEqual([...entries.keys()]);
  });
});

describe('an archive that we unpacked', () => {
  it.each([['generated', ''], ...published.map((p) => [p, p])])(
    'is what helm pull --untar leaves (%s)',
    async (_name, path) => {
      const bytes = path === '' ? await chartArchive(rich) : readFileSync(join(shared, path));
      const theirs = await pullUntar(bytes, path === '' ? 'demo-1.2.3.tgz' : basename(path));
      const out = join(await folder(), 'out');
      const content = await unpackChart(inPieces(bytes), { dir: out, what: 'x' });
      expect(await diffTree(theirs, content.entries)).toEqual({ changed: [], missing: [], extra: [] });
      // Modes, too, and no file or folder more.
      await run('diff', ['-r', out, theirs]);
      const modes = async (at: string): Promise<string> =>
        (await run('sh', ['-c', 'find . -printf "%y %m %p\\n" | sort'], { cwd: at })).stdout;
      expect(await modes(out)).toBe(await modes(theirs));
    },
  );
});

async function put(path: string, bytes: Uint8Array, type: string): Promise<void> {
  const response = await fetch(`http://${registry.url}/v2/${path}`, {
    method: 'PUT',
    headers: { 'content-type': type },
    body: Buffer.from(bytes),
  });
  if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
}

async function putBlob(repository: string, bytes: Uint8Array): Promise<void> {
  const start = await fetch(`http://${registry.url}/v2/${repository}/blobs/uploads/`, { method: 'POST' });
  const location = new URL(start.headers.get('location') ?? '', `http://${registry.url}`);
  location.searchParams.set('digest', digestOf(bytes));
  await put(`${location.pathname.slice('/v2/'.length)}${location.search}`, bytes, 'application/octet-stream');
}

describe('a chart as our OCI artifact', () => {
  it('is pulled by helm, with its provenance, as the same archive', async () => {
    const { bytes } = await pack(await folder(demoFiles('demo', '1.2.3+build.5')));
    const prov = Buffer.from('not a signature\n');
    const content = await readChartArchive(inPieces(bytes), { what: 'x' });
    const blob = (b: Buffer) => ({ digest: digestOf(b), size: b.length });
    const made = chartArtifact(content.chart, { archive: blob(bytes), provenance: blob(prov) });
    for (const b of [bytes, prov, made.config]) await putBlob('charts/demo', b);
    await put('charts/demo/manifests/1.2.3_build.5', made.manifest, made.descriptor.mediaType);
    const out = await folder();
    const args = [`oci://${registry.url}/charts/demo`, '--version', '1.2.3+build.5', '--plain-http'];
    const pulled = await helm('pull', ...args, '--prov', '-d', out);
    expect(`${pulled.stdout}${pulled.stderr}`).toContain(made.descriptor.digest);
    expect((await readFile(join(out, 'demo-1.2.3+build.5.tgz'))).equals(bytes)).toBe(true);
    expect((await readFile(join(out, 'demo-1.2.3+build.5.tgz.prov'))).equals(prov)).toBe(true);
    expect((await helm('template', 'r', ...args)).stdout).toContain('nginx:1.25.2');
  });

  it.each([['generated', ''], ...published.map((p) => [p, p])])(
    'says the same as the one that helm push makes (%s)',
    async (_name, path) => {
      const bytes = path === '' ? await chartArchive() : readFileSync(join(shared, path));
      const { chart } = await readChartArchive(inPieces(bytes), { what: 'x' });
      const file = join(
        await folder({ [`${chart.name}-${chart.version}.tgz`]: bytes }),
        `${chart.name}-${chart.version}.tgz`,
      );
      await helm('push', file, `oci://${registry.url}/pushed`, '--plain-http');
      const at = `http://${registry.url}/v2/pushed/${chart.name}`;
      const accept = { accept: 'application/vnd.oci.image.manifest.v1+json' };
      const answer = await fetch(`${at}/manifests/${chart.version}`, { headers: accept });
      const theirs = JSON.parse(await answer.text());
      const config = await (await fetch(`${at}/blobs/${theirs.config.digest}`)).json();
      const made = chartArtifact(chart, { archive: { digest: digestOf(bytes), size: bytes.length } });
      expect(JSON.parse(made.config.toString())).toEqual(config);
      const { 'org.opencontainers.image.created': _created, ...annotations } = theirs.annotations;
      const ours = JSON.parse(made.manifest.toString());
      expect(ours.annotations).toEqual(annotations);
      expect(ours.layers).toEqual(theirs.layers);
    },
  );
});

describe('a range of versions', () => {
  const versions = [
    '0.0.3',
    '0.2.9',
    '0.3.0',
    '1.2.3',
    '1.2.9',
    '1.3.0-rc.1',
    '1.3.0',
    '1.9.0',
    'v2.0.0',
    '2.1.0-beta.1',
    '11.1.5',
    '12.0.0',
  ];
  const ranges = [
    '1.2',
    '^1.x',
    '~1.2.3',
    '>= 1.0, < 2.0',
    '>=1.3.0-0 <1.3.0',
    '^0.2',
    '^0.0.3',
    '*',
    '>0.0.0-0',
    '>11',
    '>11.1',
    '<=11',
    '!=12.x',
    '1.2 - 1.3',
    '~1',
    '2.x.x',
    '>2.0.0-0 <2.2.0',
    '^0',
    'v1.2.3',
    '<0.1 || ~1.2',
    '',
    '~0.0.0',
    '=2',
    '1.2.3.4',
    'latest',
    '>=1 ||',
    '~0',
    '<=1.2.3',
    '!=1.9.0',
    '~>1.2',
    '=>12',
    '1.3.0-rc.1',
    '9.x',
  ];

  it('is resolved to the version that helm dependency update takes', async () => {
    const ours = (constraint: string): string[] | string => {
      try {
        return [`dep-${highestMatch(versions, { constraint, what: 'x' })}.tgz`];
      } catch {
        return 'refused';
      }
    };
    const entries: unknown[] = [];
    for (const version of versions) {
      const bytes = await chartArchive(demoFiles('dep', version), 'dep');
      served.set(`/deps/dep-${version}.tgz`, bytes);
      entries.push({
        apiVersion: 'v2',
        name: 'dep',
        version,
        urls: [`dep-${version}.tgz`],
        digest: digestOf(bytes).slice(7),
      });
    }
    served.set(
      '/deps/index.yaml',
      Buffer.from(JSON.stringify({ apiVersion: 'v1', entries: { dep: entries } })),
    );
    for (const range of ranges) {
      const dependencies = `dependencies: [{name: dep, version: ${JSON.stringify(range)}, repository: "${base}/deps"}]`;
      const chart = await folder({
        'Chart.yaml': `apiVersion: v2\nname: outer\nversion: 1.0.0\n${dependencies}\n`,
      });
      const env = {
        HELM_CACHE_HOME: join(dir, 'c'),
        HELM_CONFIG_HOME: join(dir, 'g'),
        HELM_DATA_HOME: join(dir, 'd'),
      };
      const result = await run(peer('helm'), ['dependency', 'update', chart], { env, check: false });
      const theirs = result.code === 0 ? await readdir(join(chart, 'charts')) : 'refused';
      expect([range, ours(range)]).toEqual([range, theirs]);
    }
  });
});
