import { describe, expect, it } from 'vitest';
import type { HttpClient } from '../../src/io/http.ts';
import { Registry } from '../../src/oci/registry.ts';
import { startServer, type TestServer, testClient, testContext } from '../io/server.ts';
import { basicAuth, loggedIn } from './bench.ts';

/** Sends what is meant for these hosts to servers of the test, which see the host in their path. */
function ledTo(http: HttpClient, server: TestServer): HttpClient {
  const send = http.request.bind(http);
  http.request = async (request) => {
    const { host, pathname, search } = request.url;
    const answer = await send({ ...request, url: new URL(`/${host}${pathname}${search}`, server.url) });
    return { ...answer, url: request.url };
  };
  return http;
}

describe('Docker Hub', () => {
  it('[1.2-hub-auth, A1-lazy] gives its tokens on another host, to which alone the password goes', async () => {
    const server = await startServer((request, response) => {
      if (request.url?.startsWith('/auth.docker.io/token') === true) {
        response.end('{"token":"T","expires_in":300}');
      } else if (request.headers.authorization === 'Bearer T') response.end('{"tags":["1.27"]}');
      else {
        const challenge = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"';
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      }
    });
    const login = { auth: basicAuth('ann', 'pw') };
    const context = testContext(await loggedIn({ 'https://index.docker.io/v1/': login }));
    const registry = new Registry('docker.io', { http: ledTo(testClient(context), server), context });
    expect(await registry.listTags('library/nginx')).toEqual(['1.27']);
    expect(await registry.listTags('library/nginx')).toEqual(['1.27']);
    const list = 'registry-1.docker.io/v2/library/nginx/tags/list?n=1000';
    const scope = encodeURIComponent('repository:library/nginx:pull');
    expect(server.asked.map((r) => [decodeURI(r.url), r.headers.authorization])).toEqual([
      [`/${list}`, undefined],
      [`/auth.docker.io/token?service=registry.docker.io&scope=${scope}`, `Basic ${login.auth}`],
      [`/${list}`, 'Bearer T'],
      [`/${list}`, 'Bearer T'],
    ]);
  });
});
