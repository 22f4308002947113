import type { IncomingMessage } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { LIMITS } from '../../src/core/limits.ts';
import type { Serving } from '../../src/ops/serve.ts';
import { pageOf, readExchange } from '../../src/serve/answer.ts';
import { createShelf } from '../../src/serve/charts.ts';
import { type BundleSite, makeBundleSite, serveBundles, WHEEL } from './bundle-site.ts';
import { digestOf } from './client.ts';

let site: BundleSite;
let serving: Serving;

beforeAll(async () => {
  site = await makeBundleSite();
  serving = await serveBundles([site.tar]);
});

afterAll(async () => {
  await serving.close();
  await site.close();
});

const get = (path: string, init: RequestInit = {}): Promise<Response> => fetch(`${serving.url}${path}`, init);
const bytesOf = async (path: string): Promise<Buffer> => Buffer.from(await (await get(path)).arrayBuffer());

describe('charts of a bundle', () => {
  it('are in an index that leads to the archive of the publisher', async () => {
    const answer = await get('/charts/index.yaml');
    expect(answer.headers.get('content-type')).toBe('application/x-yaml');
    const { entries } = parse(await answer.text());
    const [entry] = entries.demo;
    expect(entry).toMatchObject({
      name: 'demo',
      version: '1.2.3',
      digest: digestOf(site.chart).slice(7),
      urls: ['demo-1.2.3.tgz'],
    });
    expect((await bytesOf('/charts/demo-1.2.3.tgz')).equals(site.chart)).toBe(true);
    expect((await get('/charts/demo-1.2.3.tgz.prov')).status).toBe(404);
    expect((await get('/charts/../files/bin/tool')).status).not.toBe(500);
  });
});

describe('files of a bundle', () => {
  it('have their names, also in parts', async () => {
    for (const [name, bytes] of site.files) {
      const path = `/files/${name.split('/').map(encodeURIComponent).join('/')}`;
      const answer = await get(path);
      expect([name, answer.status]).toEqual([name, 200]);
      expect(answer.headers.get('etag')).toBe(`"${digestOf(bytes)}"`);
      expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true);
      expect((await get(path, { method: 'HEAD' })).headers.get('content-length')).toBe(`${bytes.length}`);
    }
    const tool = site.files.get('bin/tool') ?? Buffer.alloc(0);
    const rest = await get('/files/bin/tool', { headers: { range: 'bytes=400001-' } });
    expect(rest.status).toBe(206);
    expect(Buffer.from(await rest.arrayBuffer()).equals(tool.subarray(400_001))).toBe(true);
  });

  it('are listed, and nothing else is there', async () => {
    const page = await (await get('/files/')).text();
    expect(page).toContain('<a href="./docs/read%20me.txt">docs/read me.txt</a>');
    expect(await (await get('/files/bin/')).text()).toContain('<a href="./tool">tool</a>');
    for (const path of ['/files/nothing', '/files/bin', '/files/%2e%2e/%2e%2e/etc/passwd', '/etc/passwd']) {
      expect([path, (await get(path)).status]).toEqual([path, 404]);
    }
  });
});

describe('the Python index of a bundle', () => {
  const json = 'application/vnd.pypi.simple.v1+json';
  const hash = (): string => digestOf(site.files.get(WHEEL) ?? '').slice(7);
  const url = `../../files/${WHEEL}`;

  it('lists projects and their files with SHA-256, in HTML and in JSON', async () => {
    const root = await get('/simple/');
    expect(root.headers.get('content-type')).toContain('text/html');
    expect(await root.text()).toContain('<a href="demo-pkg/">demo-pkg</a>');
    expect(await (await get('/simple/demo-pkg/')).text()).toContain(`<a href="${url}#sha256=${hash()}">`);
    const accept = {
      headers: { accept: `${json}, application/vnd.pypi.simple.v1+html;q=0.1, text/html;q=0.01` },
    };
    const listed = await get('/simple/demo-pkg/', accept);
    expect(listed.headers.get('content-type')).toBe(json);
    expect(await listed.json()).toEqual({
      meta: { 'api-version': '1.1' },
      name: 'demo-pkg',
      versions: ['1.2.0'],
      files: [{ filename: 'Demo_Pkg-1.2.0-py3-none-any.whl', url, hashes: { sha256: hash() }, size: 7 }],
    });
    expect(await (await get('/simple/', accept)).json()).toMatchObject({ projects: [{ name: 'demo-pkg' }] });
    expect((await bytesOf(new URL(url, `${serving.url}/simple/demo-pkg/`).pathname)).toString()).toBe(
      'a wheel',
    );
  });

  it('leads other spellings to the normalised name, and knows no others', async () => {
    for (const path of ['/simple/Demo.Pkg/', '/simple/demo_pkg', '/simple/demo-pkg']) {
      const answer = await get(path);
      expect([path, answer.status, new URL(answer.url).pathname]).toEqual([path, 200, '/simple/demo-pkg/']);
    }
    expect((await get('/simple/other/')).status).toBe(404);
    expect((await get('/simple/demo-pkg/x')).status).toBe(404);
    expect((await get('/simple/', { headers: { accept: 'image/png' } })).status).toBe(406);
  });
});

describe('the start page', () => {
  it('says how each client is told', async () => {
    const text = await (await get('/')).text();
    expect(text).toBe(serving.text);
    const { host } = new URL(serving.url);
    expect(serving.snippets.map((s) => s.client)).toEqual([
      'containerd',
      'k3s, rke2',
      'docker (images of docker.io)',
      'skopeo, podman, CRI-O',
      'helm',
      'pip',
      'files',
    ]);
    expect(text).toContain(`[host."${serving.url}"]`);
    expect(text).toContain(`{"registry-mirrors":["${serving.url}"]}`);
    expect(text).toContain(`location = "quay.io"`);
    expect(text).toContain(`location = "${host}/quay.io"`);
    expect(text).toContain(`helm repo add sealift ${serving.url}/charts`);
    expect(text).toContain(`helm pull oci://${host}/charts/demo --version 1.2.3 --plain-http`);
    expect(text).toContain(`pip install --index-url ${serving.url}/simple/ demo-pkg`);
    expect(text).toContain(`curl -fO -C - ${serving.url}/files/bin/tool`);
  });
});

describe('lists', () => {
  const asked = (url: string) => readExchange({ url, method: 'GET', headers: {} } as IncomingMessage);

  it('of names have so many on a page, whoever asks for more', () => {
    const names = Array.from({ length: 2 * LIMITS.listPage + 1 }, (_, i) => `n${String(i).padStart(5, '0')}`);
    const found: string[] = [];
    for (const n of ['', '?n=999999999']) {
      let next: string | undefined = `/v2/_catalog${n}`;
      while (next !== undefined) {
        const page = pageOf(asked(next), names);
        if ('refused' in page) throw new Error('refused');
        expect(page.names.length).toBeLessThanOrEqual(LIMITS.listPage);
        found.push(...page.names);
        next = /<(.*)>/.exec(page.headers.link ?? '')?.[1];
      }
    }
    expect(found).toEqual([...names, ...names]);
  });

  it('of a folder are made once, however many ask, and again when something is added', async () => {
    const shelf = createShelf();
    const page = async () => (await shelf.answer(asked('/files/'), { base: '' })).body;
    for (let i = 0; i < 10; i += 1) shelf.addFile(`a/${i}`, 'x');
    const first = await page();
    expect(await page()).toBe(first);
    shelf.addFile('b', 'x');
    expect(String(await page())).toContain('./b');
  });
});
