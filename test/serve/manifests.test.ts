import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import {
  artifact,
  digestOf,
  errorCodes,
  INDEX,
  locationOf,
  MANIFEST,
  pushBlob,
  putManifest,
} from './client.ts';

let registry: RunningRegistry;
let url: string;

beforeAll(async () => {
  registry = await startRegistry({ storage: 'memory' });
  url = registry.url;
});
afterAll(() => registry.close());

describe('manifests', () => {
  it('come back by tag and by digest with the exact bytes and the type they were pushed with', async () => {
    const { bytes, digest } = await artifact(url, 'm/exact', { annotations: { spaced: '  é ' } });
    const pushed = await putManifest(url, { repository: 'm/exact', reference: '1.0' }, { bytes });
    expect(pushed.status).toBe(201);
    expect(pushed.headers.get('docker-content-digest')).toBe(digest);
    expect(new URL(locationOf(pushed)).pathname).toBe(`/v2/m/exact/manifests/${digest}`);
    for (const reference of ['1.0', digest]) {
      const got = await fetch(`${url}/v2/m/exact/manifests/${reference}`);
      expect(got.status).toBe(200);
      expect(got.headers.get('content-type')).toBe(MANIFEST);
      expect(got.headers.get('docker-content-digest')).toBe(digest);
      expect(Buffer.from(await got.arrayBuffer())).toEqual(bytes);
      const head = await fetch(`${url}/v2/m/exact/manifests/${reference}`, { method: 'HEAD' });
      expect(head.status).toBe(200);
      expect(head.headers.get('content-length')).toBe(`${bytes.length}`);
      expect(head.headers.get('docker-content-digest')).toBe(digest);
      expect(await head.text()).toBe('');
    }
  });

  it('answer 304 to a client that has them already', async () => {
    const { bytes, digest } = await artifact(url, 'm/etag');
    await putManifest(url, { repository: 'm/etag', reference: 'a' }, { bytes });
    const answer = await fetch(`${url}/v2/m/etag/manifests/a`, {
      headers: { 'if-none-match': `"${digest}"` },
    });
    expect(answer.status).toBe(304);
  });

  it('are 404 MANIFEST_UNKNOWN when they are not there, also by tags that cannot exist', async () => {
    for (const reference of ['nothing', digestOf('nothing'), '.INVALID']) {
      const answer = await fetch(`${url}/v2/m/none/manifests/${reference}`);
      expect(answer.status).toBe(404);
      expect(await errorCodes(answer)).toEqual(['MANIFEST_UNKNOWN']);
    }
  });

  it('are refused under a digest that is not theirs', async () => {
    const { bytes } = await artifact(url, 'm/wrong');
    const answer = await putManifest(url, { repository: 'm/wrong', reference: digestOf('x') }, { bytes });
    expect(answer.status).toBe(400);
    expect(await errorCodes(answer)).toEqual(['DIGEST_INVALID']);
  });

  it.each([
    ['no JSON', 'hello', MANIFEST],
    ['a list', '[]', MANIFEST],
    ['schema 1', '{"schemaVersion":1}', 'application/vnd.docker.distribution.manifest.v1+json'],
    ['two things at once', '{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}', INDEX],
    ['another type than announced', `{"schemaVersion":2,"mediaType":"${MANIFEST}","manifests":[]}`, INDEX],
    [
      'a bad digest',
      `{"config":{"mediaType":"a/b","digest":"sha256:../../x","size":1},"layers":[]}`,
      MANIFEST,
    ],
    ['a subject without a digest', `{"schemaVersion":2,"manifests":[],"subject":{"digest":"x"}}`, INDEX],
    ['a type that is no manifest', '{}', 'text/plain'],
  ])('are refused when they are %s', async (_, bytes, mediaType) => {
    const answer = await putManifest(url, { repository: 'm/bad', reference: 'x' }, { bytes, mediaType });
    expect(answer.status).toBe(400);
    expect(await errorCodes(answer)).toEqual(['MANIFEST_INVALID']);
    expect((await fetch(`${url}/v2/m/bad/manifests/x`)).status).toBe(404);
  });

  it('are refused with every blob that is missing named', async () => {
    const { bytes } = await artifact(url, 'm/has');
    const answer = await putManifest(url, { repository: 'm/has-not', reference: '1' }, { bytes });
    expect(answer.status).toBe(400);
    expect(await errorCodes(answer)).toEqual(['MANIFEST_BLOB_UNKNOWN', 'MANIFEST_BLOB_UNKNOWN']);
  });

  it('need no blob of a foreign layer', async () => {
    const config = await pushBlob(url, 'm/foreign', Buffer.from('{}'));
    const mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
    const layer = { mediaType, digest: digestOf('elsewhere'), size: 9, urls: ['https://example.test/layer'] };
    const body = { schemaVersion: 2, config: { mediaType: 'a/b', digest: config, size: 2 }, layers: [layer] };
    const answer = await putManifest(
      url,
      { repository: 'm/foreign', reference: '1' },
      { bytes: JSON.stringify(body) },
    );
    expect(answer.status).toBe(201);
  });

  it('are refused above the size limit, and the connection still gets its answer', async () => {
    const bytes = Buffer.alloc(17 * 1024 * 1024, ' ');
    const answer = await putManifest(url, { repository: 'm/big', reference: '1' }, { bytes });
    expect(answer.status).toBe(413);
    expect(await errorCodes(answer)).toEqual(['SIZE_INVALID']);
  });

  it('cannot be pushed under something that is no tag', async () => {
    const { bytes } = await artifact(url, 'm/tags');
    for (const reference of ['-x', '.x', 'a'.repeat(129), 'x%20y']) {
      const answer = await putManifest(url, { repository: 'm/tags', reference }, { bytes });
      expect(answer.status).toBe(400);
      expect(await errorCodes(answer)).toEqual(['MANIFEST_INVALID']);
    }
  });

  it('of a deleted tag stay under their digest, of a deleted digest are gone with all their tags', async () => {
    const { bytes, digest } = await artifact(url, 'm/del');
    for (const tag of ['a', 'b', 'c'])
      await putManifest(url, { repository: 'm/del', reference: tag }, { bytes });
    const at = (reference: string, method = 'GET') =>
      fetch(`${url}/v2/m/del/manifests/${reference}`, { method });
    expect((await at('a', 'DELETE')).status).toBe(202);
    expect((await at('a')).status).toBe(404);
    expect((await at('b')).status).toBe(200);
    expect((await at(digest, 'DELETE')).status).toBe(202);
    expect((await at('b')).status).toBe(404);
    expect((await at(digest)).status).toBe(404);
    expect((await at(digest, 'DELETE')).status).toBe(404);
    expect((await fetch(`${url}/v2/m/del/tags/list`)).status).toBe(404);
  });
});

describe('indexes', () => {
  const indexOver = (digests: readonly string[], size: number) =>
    JSON.stringify({
      schemaVersion: 2,
      mediaType: INDEX,
      manifests: digests.map((digest) => ({ mediaType: MANIFEST, digest, size })),
    });

  it('are taken when all children are in the same repository and refused when one is not', async () => {
    const child = await artifact(url, 'i/a');
    await putManifest(url, { repository: 'i/a', reference: child.digest }, child);
    const whole = indexOver([child.digest], child.bytes.length);
    const sparse = indexOver([child.digest, digestOf('other platform')], child.bytes.length);
    const put = (repository: string, bytes: string) =>
      putManifest(url, { repository, reference: '1' }, { bytes, mediaType: INDEX });
    expect((await put('i/a', whole)).status).toBe(201);
    expect((await put('i/b', whole)).status).toBe(400);
    const refused = await put('i/a', sparse);
    expect(refused.status).toBe(400);
    expect(await errorCodes(refused)).toEqual(['MANIFEST_BLOB_UNKNOWN']);
  });

  it('with missing children are taken by a registry that accepts sparse ones, manifests without blobs are not', async () => {
    const lax = await startRegistry({ storage: 'memory', acceptSparse: true });
    try {
      const sparse = indexOver([digestOf('nowhere')], 7);
      const put = (bytes: string | Buffer, mediaType: string) =>
        putManifest(lax.url, { repository: 's', reference: '1' }, { bytes, mediaType });
      expect((await put(sparse, INDEX)).status).toBe(201);
      expect((await put((await artifact(url, 's')).bytes, MANIFEST)).status).toBe(400);
    } finally {
      await lax.close();
    }
  });
});

describe('lists', () => {
  it('of tags are sorted and come in pages that follow each other', async () => {
    const { bytes } = await artifact(url, 'l/tags');
    for (const tag of ['v2', 'b', 'V1', 'a', '10'])
      await putManifest(url, { repository: 'l/tags', reference: tag }, { bytes });
    const list = async (query: string) => {
      const answer = await fetch(`${url}/v2/l/tags/tags/list${query}`);
      const body = (await answer.json()) as { name: string; tags: string[] };
      expect(body.name).toBe('l/tags');
      return { tags: body.tags, link: answer.headers.get('link') };
    };
    expect(await list('')).toEqual({ tags: ['10', 'V1', 'a', 'b', 'v2'], link: null });
    const first = await list('?n=2');
    expect(first).toEqual({ tags: ['10', 'V1'], link: '</v2/l/tags/tags/list?n=2&last=V1>; rel="next"' });
    expect((await list('?n=2&last=V1')).tags).toEqual(['a', 'b']);
    expect(await list('?n=2&last=b')).toEqual({ tags: ['v2'], link: null });
    expect(await list('?n=5')).toEqual({ tags: ['10', 'V1', 'a', 'b', 'v2'], link: null });
    expect(await list('?n=0')).toEqual({ tags: [], link: null });
    expect((await fetch(`${url}/v2/l/tags/tags/list?n=-1`)).status).toBe(400);
    expect((await fetch(`${url}/v2/l/nothing/tags/list`)).status).toBe(404);
  });

  it('of repositories hold those with a manifest, in pages', async () => {
    const own = await startRegistry({ storage: 'memory' });
    try {
      await pushBlob(own.url, 'only/blobs', Buffer.from('x'));
      for (const name of ['b', 'a', 'a/b', 'a-b']) {
        const { bytes } = await artifact(own.url, name);
        expect((await putManifest(own.url, { repository: name, reference: '1' }, { bytes })).status).toBe(
          201,
        );
      }
      const first = await fetch(`${own.url}/v2/_catalog?n=3`);
      expect(await first.json()).toEqual({ repositories: ['a', 'a-b', 'a/b'] });
      const link = /^<(.*)>; rel="next"$/.exec(first.headers.get('link') ?? '')?.[1] ?? '';
      expect(await (await fetch(own.url + link)).json()).toEqual({ repositories: ['b'] });
    } finally {
      await own.close();
    }
  });
});

describe('referrers', () => {
  const list = async (repository: string, digest: string, query = '') => {
    const answer = await fetch(`${url}/v2/${repository}/referrers/${digest}${query}`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toBe(INDEX);
    const body = (await answer.json()) as { manifests: Record<string, unknown>[] };
    return { manifests: body.manifests, filters: answer.headers.get('oci-filters-applied') };
  };

  it('are listed with their type and annotations, filtered by type, and gone when they are deleted', async () => {
    const subject = await artifact(url, 'r/a');
    const pointer = { mediaType: MANIFEST, digest: subject.digest, size: subject.bytes.length };
    expect((await list('r/a', subject.digest)).manifests).toEqual([]);
    const sbom = await artifact(url, 'r/a', {
      subject: pointer,
      artifactType: 'text/sbom',
      annotations: { k: 'v' },
    });
    const plain = await artifact(url, 'r/a', { subject: pointer });
    for (const { bytes, digest } of [sbom, plain]) {
      const pushed = await putManifest(url, { repository: 'r/a', reference: digest }, { bytes });
      expect(pushed.headers.get('oci-subject')).toBe(subject.digest);
    }
    const index = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [], subject: pointer });
    await putManifest(url, { repository: 'r/a', reference: 'index' }, { bytes: index, mediaType: INDEX });
    const all = await list('r/a', subject.digest);
    expect(all.filters).toBeNull();
    expect(all.manifests).toHaveLength(3);
    expect(all.manifests).toContainEqual({
      mediaType: MANIFEST,
      digest: sbom.digest,
      size: sbom.bytes.length,
      artifactType: 'text/sbom',
      annotations: { k: 'v' },
    });
    expect(all.manifests).toContainEqual({ mediaType: INDEX, digest: digestOf(index), size: index.length });
    const some = await list('r/a', subject.digest, '?artifactType=application/vnd.oci.empty.v1%2Bjson');
    expect(some.filters).toBe('artifactType');
    expect(some.manifests.map((m) => m.digest)).toEqual([plain.digest]);
    await fetch(`${url}/v2/r/a/manifests/${sbom.digest}`, { method: 'DELETE' });
    expect((await list('r/a', subject.digest)).manifests).toHaveLength(2);
    expect((await list('r/other', subject.digest)).manifests).toEqual([]);
    expect((await fetch(`${url}/v2/r/a/referrers/latest`)).status).toBe(400);
  });

  it('may be switched off, as on older registries', async () => {
    const old = await startRegistry({ storage: 'memory', referrers: false });
    try {
      expect((await fetch(`${old.url}/v2/r/referrers/${digestOf('x')}`)).status).toBe(404);
      const subject = { mediaType: MANIFEST, digest: digestOf('x'), size: 1 };
      const pushed = await putManifest(
        old.url,
        { repository: 'r', reference: 'x' },
        await artifact(old.url, 'r', { subject }),
      );
      expect(pushed.status).toBe(201);
      expect(pushed.headers.get('oci-subject')).toBeNull();
    } finally {
      await old.close();
    }
  });
});
