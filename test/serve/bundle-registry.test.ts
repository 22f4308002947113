import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Serving } from '../../src/ops/serve.ts';
import { type BundleSite, makeBundleSite, serveBundles } from './bundle-site.ts';
import { digestOf, errorCodes } from './client.ts';

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

describe('images of a bundle', () => {
  it('are there under their path, under host and path, and for a mirror that names the host', async () => {
    for (const [i, image] of site.images.entries()) {
      const host = site.hostOf(i);
      const paths = [
        `/v2/${image.name}/manifests/${image.tag}`,
        `/v2/${host.replace(':', '_')}/${image.name}/manifests/${image.tag}`,
        `/v2/${image.name}/manifests/${image.tag}?ns=${host}`,
        `/v2/${image.name}/manifests/${image.index.digest}`,
      ];
      for (const path of paths) {
        const answer = await get(path);
        expect([path, answer.status]).toEqual([path, 200]);
        expect(answer.headers.get('docker-content-digest')).toBe(image.index.digest);
        expect(answer.headers.get('content-type')).toBe(image.index.mediaType);
        expect(Buffer.from(await answer.arrayBuffer())).toEqual(image.index.bytes);
      }
      expect((await get(`/v2/${image.name}/manifests/${image.tag}?ns=ghcr.io`)).status).toBe(404);
    }
  });
});

/** A layer that is carried, and one of a platform that is not. */
function layers(): { carried: `sha256:${string}`; bytes: Buffer; left: `sha256:${string}` } {
  const [image] = site.images;
  const amd64 = image?.manifests.find((m) => m.digest === image.platforms['linux/amd64']);
  const body: { layers: { digest: `sha256:${string}` }[] } = JSON.parse(amd64?.bytes.toString() ?? '');
  const carried = body.layers[0]?.digest ?? 'sha256:';
  const left = image?.platforms['linux/arm64'] ?? 'sha256:';
  return { carried, bytes: image?.blobs.get(carried)?.bytes() ?? Buffer.alloc(0), left };
}

const nameOf = (i = 0): string => site.images[i]?.name ?? '';

describe('blobs of a bundle', () => {
  it('come whole, by HEAD and in parts', async () => {
    const { carried, bytes } = layers();
    const path = `/v2/${nameOf()}/blobs/${carried}`;
    const size = bytes.length;
    const whole = await get(path);
    expect(whole.status).toBe(200);
    expect(whole.headers.get('accept-ranges')).toBe('bytes');
    expect(digestOf(Buffer.from(await whole.arrayBuffer()))).toBe(carried);
    const head = await get(path, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-length')]).toEqual([200, `${size}`]);
    expect(await head.text()).toBe('');
    for (const [range, start, end] of [
      ['bytes=0-0', 0, 1],
      ['bytes=10-2009', 10, 2010],
      [`bytes=${size - 5}-`, size - 5, size],
      ['bytes=-7', size - 7, size],
      [`bytes=5-${size * 9}`, 5, size],
      ['bytes=0-', 0, size],
    ] as const) {
      const part = await get(path, { headers: { range } });
      expect([range, part.status]).toEqual([range, 206]);
      expect(part.headers.get('content-range')).toBe(`bytes ${start}-${end - 1}/${size}`);
      expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(start, end)), range).toBe(true);
    }
    const outside = await get(path, { headers: { range: `bytes=${size}-` } });
    expect([outside.status, outside.headers.get('content-range')]).toEqual([416, `bytes */${size}`]);
    for (const range of ['bytes=9-2', 'lines=1-2', 'bytes=1-2,4-5', 'bytes=a-b', 'bytes=-']) {
      const all = await get(path, { headers: { range } });
      expect([range, all.status, (await all.arrayBuffer()).byteLength]).toEqual([range, 200, size]);
    }
  });

  it('are judged by the conditions of a request', async () => {
    const { carried, bytes } = layers();
    const path = `/v2/${nameOf()}/blobs/${carried}`;
    const tag = `"${carried}"`;
    const asked = async (headers: Record<string, string>, method = 'GET'): Promise<[number, number]> => {
      const answer = await get(path, { method, headers });
      return [answer.status, (await answer.arrayBuffer()).byteLength];
    };
    const range = 'bytes=0-9';
    const { length } = bytes;
    for (const known of [tag, `W/${tag}`, '*', `"other", ${tag}`]) {
      expect([known, await asked({ 'if-none-match': known, range })]).toEqual([known, [304, 0]]);
      expect([known, await asked({ 'if-none-match': known }, 'HEAD')]).toEqual([known, [304, 0]]);
    }
    expect(await asked({ 'if-none-match': '"other"', range })).toEqual([206, 10]);
    // Only the same bytes can be gone on with: a date or a weak tag does not say that.
    expect(await asked({ 'if-range': tag, range })).toEqual([206, 10]);
    for (const other of ['"other"', `W/${tag}`, 'Wed, 21 Oct 2026 07:28:00 GMT']) {
      expect([other, await asked({ 'if-range': other, range })]).toEqual([other, [200, length]]);
    }
    expect(await asked({ 'if-match': `"other", ${tag}`, range })).toEqual([206, 10]);
    expect(await asked({ 'if-match': '*' })).toEqual([200, length]);
    for (const other of ['"other"', `W/${tag}`]) {
      expect([other, (await asked({ 'if-match': other }))[0]]).toEqual([other, 412]);
    }
    expect(await asked({ range: 'Bytes=0-9' })).toEqual([206, 10]);
    const head = await get(path, { method: 'HEAD', headers: { range } });
    expect([head.status, head.headers.get('content-length')]).toEqual([200, `${length}`]);
    expect(head.headers.get('content-range')).toBe(null);
  });

  it('are only where they belong, and what is not carried is told', async () => {
    const { carried, left } = layers();
    const elsewhere = await get(`/v2/${nameOf(1)}/blobs/${carried}`);
    expect([elsewhere.status, await errorCodes(elsewhere)]).toEqual([404, ['BLOB_UNKNOWN']]);
    const sparse = await get(`/v2/${nameOf()}/manifests/${left}`);
    expect([sparse.status, await errorCodes(sparse)]).toEqual([404, ['MANIFEST_UNKNOWN']]);
    for (const [path, status, code] of [
      [`/v2/${nameOf()}/blobs/sha256:12`, 400, 'DIGEST_INVALID'],
      [`/v2/${nameOf()}/blobs/sha512:${'a'.repeat(128)}`, 400, 'DIGEST_INVALID'],
      [`/v2/${nameOf()}/manifests/sha256:zz`, 400, 'DIGEST_INVALID'],
      [`/v2/${nameOf()}/manifests/no-such-tag`, 404, 'MANIFEST_UNKNOWN'],
      ['/v2/no/such/manifests/latest', 404, 'MANIFEST_UNKNOWN'],
      ['/v2/no/such/tags/list', 404, 'NAME_UNKNOWN'],
      ['/v2/UPPER/manifests/latest', 400, 'NAME_INVALID'],
      ['/v2/a/../b/manifests/latest', 404, undefined],
    ] as const) {
      const answer = await get(path);
      expect([path, answer.status]).toEqual([path, status]);
      if (code !== undefined) expect(await errorCodes(answer)).toEqual([code]);
    }
  });
});

describe('what there is', () => {
  it('is listed page by page, tags and names', async () => {
    const { index } = site.images[0] ?? {};
    const attached = `sha256-${index?.digest.slice(7)}.sig`;
    const tags = [site.images[0]?.tag ?? '', attached].sort();
    const list = async (path: string): Promise<string[]> => {
      const found: string[] = [];
      for (let next: string | undefined = path; next !== undefined; ) {
        const answer = await get(next);
        const { tags: some = [], repositories = [] } = (await answer.json()) as {
          tags?: string[];
          repositories?: string[];
        };
        found.push(...some, ...repositories);
        next = /^<([^>]+)>; rel="next"$/.exec(answer.headers.get('link') ?? '')?.[1];
      }
      return found;
    };
    const name = nameOf();
    expect(await list(`/v2/${name}/tags/list`)).toEqual(tags);
    expect(await list(`/v2/docker.io/${name}/tags/list?n=1`)).toEqual(tags);
    const repositories = await list('/v2/_catalog');
    expect(repositories).toContain('charts/demo');
    expect(repositories).toContain('files/bin/tool');
    for (const [i, image] of site.images.entries()) {
      expect(repositories).toContain(image.name);
      expect(repositories).toContain(`${site.hostOf(i).replace(':', '_')}/${image.name}`);
    }
    expect(repositories).toEqual([...new Set(repositories)].sort());
    for (const n of [1, 2, 3]) expect(await list(`/v2/_catalog?n=${n}`)).toEqual(repositories);
    expect(await list('/v2/_catalog?n=0')).toEqual([]);
    expect(await list(`/v2/_catalog?last=${repositories.at(-2)}`)).toEqual(repositories.slice(-1));
    // Who asks in the place of a host goes on so.
    const { link } = Object.fromEntries((await get(`/v2/${name}/tags/list?n=1&ns=docker.io`)).headers);
    expect(link).toMatch(/[?&]ns=docker\.io[&>]/);
    expect(await list(`/v2/${name}/tags/list?n=1&ns=docker.io`)).toEqual(tags);
    for (const path of [`/v2/${name}/tags/list`, '/v2/_catalog']) {
      const head = await get(path, { method: 'HEAD' });
      expect([path, head.status, await head.text()]).toEqual([path, 200, '']);
    }
    const wrong = await get('/v2/_catalog?n=-1');
    expect([wrong.status, await errorCodes(wrong)]).toEqual([400, ['PAGINATION_NUMBER_INVALID']]);
  });

  it('has referrers by subject and by kind', async () => {
    const subject = site.images[3]?.index.digest;
    const path = `/v2/${nameOf(3)}/referrers/${subject}`;
    const { digest, size, mediaType } = site.referrer;
    const listed = {
      mediaType,
      digest,
      size,
      artifactType: 'application/vnd.example.report',
      annotations: { 'org.example.about': 'test' },
    };
    const all = await get(path);
    expect(all.headers.get('content-type')).toBe('application/vnd.oci.image.index.v1+json');
    expect(await all.json()).toMatchObject({ schemaVersion: 2, manifests: [listed] });
    const some = await get(`${path}?artifactType=application/vnd.example.report`);
    expect(some.headers.get('oci-filters-applied')).toBe('artifactType');
    expect(await some.json()).toMatchObject({ manifests: [listed] });
    expect(await (await get(`${path}?artifactType=other`)).json()).toMatchObject({ manifests: [] });
    expect(await (await get(`/v2/${nameOf(1)}/referrers/${subject}`)).json()).toMatchObject({
      manifests: [],
    });
    expect((await get(`/v2/${nameOf(3)}/manifests/${digest}`)).status).toBe(200);
    expect((await get(`/v2/${nameOf()}/referrers/nonsense`)).status).toBe(400);
  });

  it('has charts and files as artifacts', async () => {
    const chart = await get('/v2/charts/demo/manifests/1.2.3');
    const manifest = (await chart.json()) as { layers: { digest: string }[] };
    expect(manifest.layers[0]?.digest).toBe(digestOf(site.chart));
    const blob = await get(`/v2/charts/demo/blobs/${digestOf(site.chart)}`);
    expect(digestOf(Buffer.from(await blob.arrayBuffer()))).toBe(digestOf(site.chart));
    const tool = digestOf(site.files.get('bin/tool') ?? '');
    expect((await get(`/v2/files/bin/tool/manifests/${tool.slice(7, 19)}`)).status).toBe(200);
  });
});

describe('writing', () => {
  it('is refused everywhere, with the code of the specification', async () => {
    const { carried } = layers();
    for (const [method, path] of [
      ['POST', `/v2/${nameOf()}/blobs/uploads/`],
      ['POST', `/v2/${nameOf()}/blobs/uploads/?mount=${carried}&from=x`],
      ['PUT', `/v2/${nameOf()}/manifests/new`],
      ['PATCH', `/v2/${nameOf()}/blobs/uploads/1`],
      ['DELETE', `/v2/${nameOf()}/manifests/${site.images[0]?.tag}`],
      ['DELETE', `/v2/${nameOf()}/blobs/${carried}`],
      ['PUT', '/files/bin/tool'],
      ['POST', '/api/charts'],
      ['POST', '/simple/'],
      ['OPTIONS', '/'],
    ] as const) {
      const body = method === 'OPTIONS' ? {} : { body: 'x'.repeat(100_000) };
      const answer = await get(path, { method, ...body });
      expect([method, path, answer.status]).toEqual([method, path, 405]);
      expect(answer.headers.get('allow')).toBe('GET, HEAD');
      expect(await errorCodes(answer)).toEqual(['UNSUPPORTED']);
    }
    expect((await get(`/v2/${nameOf()}/blobs/uploads/1`)).status).toBe(405);
  });
});
