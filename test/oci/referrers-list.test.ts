import { describe, expect, it } from 'vitest';
import { startServer } from '../io/server.ts';
import { blobOf, client, INDEX, MANIFEST } from './bench.ts';

describe('the list of referrers', () => {
  it('[1.5-pages, 1.5-filter] is gathered over all pages, and asked for whole', async () => {
    const { digest } = blobOf('subject').descriptor;
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
