import type { ServerResponse } from 'node:http';
import { describe, expect, it } from 'vitest';
import { addReferrers } from '../../src/oci/referrers.ts';
import { failureOf, startServer, type TestServer } from '../io/server.ts';
import { blobOf, client, INDEX, MANIFEST } from './bench.ts';

it('[1.5-push-fallback] a list is begun, also where it says null, and added to', () => {
  const [a, b] = ['a', 'b'].map((text) => ({ ...blobOf(text).descriptor, mediaType: MANIFEST }));
  if (a === undefined || b === undefined) throw new Error('two');
  const empty = Buffer.from('{"schemaVersion":2,"manifests":null,"annotations":{"kept":"yes"}}');
  const made = addReferrers(empty, [a]);
  expect(JSON.parse(`${made?.bytes}`)).toEqual({
    schemaVersion: 2,
    manifests: [a],
    annotations: { kept: 'yes' },
  });
  expect(addReferrers(made?.bytes, [a])).toBeUndefined();
  expect(JSON.parse(`${addReferrers(made?.bytes, [b, a])?.bytes}`)).toMatchObject({ manifests: [a, b] });
  expect(JSON.parse(`${addReferrers(undefined, [a])?.bytes}`)).toEqual({
    schemaVersion: 2,
    mediaType: INDEX,
    manifests: [a],
  });
});

describe('the list of referrers', () => {
  const { digest } = blobOf('subject').descriptor;
  const listed = { ...blobOf('referrer').descriptor, mediaType: MANIFEST };
  const list = (manifests: readonly unknown[]): string =>
    JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests });

  /** A registry whose fallback tag lists one referrer, and whose API answers as the test says. */
  async function withTag(api: (response: ServerResponse) => unknown): Promise<TestServer> {
    return startServer((request, response) => {
      if (request.url?.includes('/referrers/') === true) return api(response);
      if (request.url !== `/v2/team/app/manifests/${digest.replace(':', '-')}`)
        return response.writeHead(404).end();
      return response.writeHead(200, { 'content-type': INDEX }).end(list([listed]));
    });
  }

  it.each([400, 404, 405, 501])(
    '[1.5-fallback] is that of the tag where the API is answered with %i, and the API is not asked again',
    async (status) => {
      const server = await withTag((response) => response.writeHead(status).end());
      const { registry } = client(server.host);
      for (let i = 0; i < 2; i++) {
        expect(await registry.referrers('team/app', digest)).toMatchObject({
          by: 'tag',
          list: [{ digest: listed.digest }],
        });
      }
      expect(server.asked.filter((r) => r.url.includes('/referrers/'))).toHaveLength(1);
    },
  );

  it('[1.5-fallback] is not that of the tag where the API is refused or broken', async () => {
    for (const status of [401, 403, 500]) {
      const server = await withTag((response) => response.writeHead(status).end());
      expect(await failureOf(client(server.host).registry.referrers('team/app', digest))).toMatchObject({
        details: { status },
      });
      expect(server.asked.filter((r) => r.url.includes('/manifests/'))).toEqual([]);
    }
  });

  it('[1.5-api-type] is that of the tag where the API is answered with something that is no index', async () => {
    for (const type of ['text/html', 'application/json']) {
      const server = await withTag((response) =>
        response.writeHead(200, { 'content-type': type }).end(list([])),
      );
      expect(await client(server.host).registry.referrers('team/app', digest)).toMatchObject({
        by: 'tag',
        list: [{ digest: listed.digest }],
      });
    }
  });

  it.each([list([]), '{"schemaVersion":2,"manifests":null}'])(
    '[1.5-api] may be empty: then the tag is not asked for (%s)',
    async (body) => {
      const server = await withTag((response) =>
        response.writeHead(200, { 'content-type': INDEX }).end(body),
      );
      const found = await client(server.host).registry.referrers('team/app', digest);
      expect(found).toEqual({ by: 'api', list: [] });
      expect(server.asked).toHaveLength(1);
    },
  );

  it('[1.5-pages, 1.5-filter] is gathered over all pages, and asked for whole', async () => {
    const entry = (n: number): unknown => ({ ...blobOf(`referrer ${n}`).descriptor, mediaType: MANIFEST });
    const server = await startServer((request, response) => {
      const page = Number(new URL(request.url ?? '', 'http://x').searchParams.get('page') ?? 1);
      const link = page < 3 ? { link: `</elsewhere/referrers?page=${page + 1}>; rel="next"` } : {};
      const body = { schemaVersion: 2, mediaType: INDEX, manifests: [entry(page)] };
      response.writeHead(200, { 'content-type': INDEX, ...link }).end(JSON.stringify(body));
    });
    const found = await client(server.host).registry.referrers('team/app', digest);
    expect(found.list.map((d) => d.digest)).toEqual(
      [1, 2, 3].map((n) => blobOf(`referrer ${n}`).descriptor.digest),
    );
    expect(server.asked.map((r) => r.url)).toEqual(
      ['', '?page=2', '?page=3'].map((query) => `/v2/team/app/referrers/${digest}${query}`),
    );
  });
});
