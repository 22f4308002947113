import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { Registry } from '../../src/oci/registry.ts';
import { failureOf, startServer } from '../io/server.ts';
import { blobOf, client, MANIFEST, manifestOf, pushImage, runRegistry } from './bench.ts';

const image = manifestOf({
  schemaVersion: 2,
  mediaType: MANIFEST,
  config: blobOf('{}').descriptor,
  layers: [blobOf('layer').descriptor],
});

/** A server that answers every request with this manifest and these headers. */
function manifestServer(headers: Record<string, string>, body: Buffer | string = image.bytes) {
  return startServer((_, response) => response.writeHead(200, headers).end(body));
}

describe('a manifest', () => {
  it('[1.3-accept, 1.3-bytes] is fetched with all types in Accept, byte for byte', async () => {
    const body = Buffer.from(`  ${image.bytes.toString()}\n`);
    const server = await manifestServer({ 'content-type': MANIFEST }, body);
    const found = await client(server.host).registry.getManifest('team/app', 'v1');
    expect(found.bytes.equals(body)).toBe(true);
    expect(found.descriptor).toEqual({ mediaType: MANIFEST, digest: digestOf(body), size: body.length });
    expect(server.asked[0]).toMatchObject({
      method: 'GET',
      url: '/v2/team/app/manifests/v1',
    });
    // Without the index types many registries give the manifest of one platform; anything comes last.
    expect(server.asked[0]?.headers.accept?.split(', ')).toEqual([
      'application/vnd.oci.image.index.v1+json',
      'application/vnd.oci.image.manifest.v1+json',
      'application/vnd.docker.distribution.manifest.list.v2+json',
      'application/vnd.docker.distribution.manifest.v2+json',
      'application/vnd.oci.artifact.manifest.v1+json',
      '*/*',
    ]);
  });

  it('[1.3-hash-body] by digest must have that digest, whatever the header says', async () => {
    const other = digestOf('other');
    const server = await manifestServer({ 'content-type': MANIFEST, 'docker-content-digest': other });
    const failure = await failureOf(client(server.host).registry.getManifest('app', other));
    expect(failure).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH', side: 'source' });
    expect((failure as SealiftError).message).toContain(image.descriptor.digest);
    const { digest } = image.descriptor;
    expect((await client(server.host).registry.getManifest('app', digest)).descriptor.digest).toBe(digest);
  });

  it('[1.3-hash-tag] by tag must have the digest that the answer states', async () => {
    const headers = { 'content-type': MANIFEST, 'docker-content-digest': digestOf('other') };
    const server = await manifestServer(headers);
    expect(await failureOf(client(server.host).registry.getManifest('app', 'v1'))).toMatchObject({
      code: 'CONTENT_DIGEST_MISMATCH',
    });
  });

  for (const stated of ['', 'nonsense', `sha512:${'a'.repeat(128)}`]) {
    it(`[1.3-hash-tag] by tag is taken with a digest header that says nothing: "${stated.slice(0, 12)}"`, async () => {
      const server = await manifestServer({ 'content-type': MANIFEST, 'docker-content-digest': stated });
      const found = await client(server.host).registry.getManifest('app', 'v1');
      expect(found.descriptor.digest).toBe(image.descriptor.digest);
    });
  }

  it('[1.3-type-sniff] has its type from the body when the answer names none', async () => {
    const server = await manifestServer({ 'content-type': 'text/plain; charset=utf-8' });
    expect((await client(server.host).registry.getManifest('app', 'v1')).descriptor.mediaType).toBe(MANIFEST);
  });

  it('that is a web page is refused', async () => {
    const server = await manifestServer({ 'content-type': 'text/html' }, '<html>Welcome to Nexus</html>');
    expect(await failureOf(client(server.host).registry.getManifest('app', 'v1'))).toMatchObject({
      code: 'OCI_MANIFEST_INVALID',
    });
  });

  it('[1.3-identity] that is packed on the way has another digest and is refused', async () => {
    const headers = { 'content-type': MANIFEST, 'content-encoding': 'gzip' };
    const server = await manifestServer(headers, gzipSync(image.bytes));
    const work = client(server.host).registry.getManifest('app', image.descriptor.digest);
    expect(await failureOf(work)).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    expect(server.asked[0]?.headers['accept-encoding']).toBe('identity');
  });

  it('[1.3-manifest-limit] may have 16 MiB, and not a byte more', async () => {
    for (const more of [0, 1]) {
      const body = Buffer.alloc(16 * 1024 * 1024 + more, ' ');
      image.bytes.copy(body);
      const server = await manifestServer({ 'content-type': MANIFEST }, body);
      const work = client(server.host).registry.getManifest('app', 'v1');
      if (more === 0) expect((await work).descriptor.size).toBe(body.length);
      else expect(await failureOf(work)).toMatchObject({ code: 'CONTENT_TOO_LARGE' });
    }
  });

  it('[1.3-manifest-limit] that never ends is cut at the limit', async () => {
    let sent = 0;
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'content-type': MANIFEST });
      const chunk = Buffer.alloc(1_000_000, 0x20);
      const write = (): void => {
        while (!response.destroyed && response.write(chunk)) sent += chunk.length;
        if (!response.destroyed) response.once('drain', write);
      };
      write();
    });
    expect(await failureOf(client(server.host).registry.getManifest('app', 'v1'))).toMatchObject({
      code: 'CONTENT_TOO_LARGE',
    });
    expect(sent).toBeLessThan(4 * LIMITS.manifest);
  });

  it('that is cut in the middle is asked for again', async () => {
    const server = await startServer((request, response, count) => {
      response.writeHead(200, { 'content-type': MANIFEST, 'content-length': image.bytes.length });
      if (count > 2) response.end(image.bytes);
      else response.write(image.bytes.subarray(0, 20), () => setTimeout(() => request.socket.destroy(), 5));
    });
    const found = await client(server.host).registry.getManifest('app', 'v1');
    expect(found.bytes.equals(image.bytes)).toBe(true);
    expect(server.asked).toHaveLength(3);
  });
});

describe('refusals', () => {
  const cases: [number, string, string?][] = [
    [404, 'CONTENT_NOT_FOUND', 'tag'],
    [403, 'AUTH_DENIED', 'sealift login'],
    [400, 'REGISTRY_FAILED'],
    [413, 'REGISTRY_FAILED', 'client_max_body_size'],
    [429, 'REGISTRY_RATE_LIMITED', '`docker login`'],
    [503, 'REGISTRY_FAILED'],
    [204, 'REGISTRY_FAILED'],
  ];
  for (const [status, code, hint] of cases) {
    it(`[1.3-error-json] HTTP ${status} is ${code}`, async () => {
      const server = await startServer((_, response) => {
        const body = status === 204 ? '' : '{"errors":[{"code":"TOLD","message":"what the\\nserver says"}]}';
        response.writeHead(status, { 'retry-after': '0' }).end(body);
      });
      const failure = await failureOf(client(server.host).registry.getManifest('team/app', 'v1'));
      expect(failure).toMatchObject({ code, side: 'source', details: { status } });
      const { message, hint: said, details } = failure as SealiftError;
      const tried = status === 429 || status === 503 ? ` (tried ${LIMITS.tries} times)` : '';
      expect(message).toContain(`${server.host}: team/app:v1: HTTP ${status}${tried}`);
      expect(message).not.toContain('\n');
      if (status !== 204)
        expect([message, details?.serverCode]).toEqual([expect.stringContaining('server says'), 'TOLD']);
      if (hint !== undefined) expect(said).toContain(hint);
    });
  }

  it('of any body are one short line', async () => {
    const server = await startServer((_, response) =>
      response.writeHead(400).end(`${'<p>long</p>\n'.repeat(1e5)}{"errors":[{"code":"${'X'.repeat(500)}"}]}`),
    );
    const failure = (await failureOf(client(server.host).registry.getManifest('a', 'v1'))) as SealiftError;
    expect(failure.message.length).toBeLessThan(300);
    expect(JSON.stringify(failure.details).length).toBeLessThan(200);
  });

  for (const body of [
    '{"errors":[]}',
    '{"errors":{}}',
    '{"errors":[null]}',
    '{"errors":[{"code":7}]}',
    '[]',
    'x',
  ]) {
    it(`with odd errors have no server code: ${body}`, async () => {
      const server = await startServer((_, response) => response.writeHead(400).end(body));
      const failure = (await failureOf(client(server.host).registry.getManifest('a', 'v1'))) as SealiftError;
      expect(failure.details).toEqual({ status: 400 });
    });
  }
});

describe('resolve', () => {
  const { digest } = image.descriptor;

  it('[1.3-head] needs one HEAD when it says all', async () => {
    const running = await runRegistry();
    const { registry } = client(running.host);
    const pushed = await pushImage(registry, { repository: 'app', tag: 'v1' });
    const before = running.requests.length;
    expect(await registry.resolve('app', 'v1')).toBe(pushed.descriptor.digest);
    expect(running.requests.slice(before).map((r) => r.method)).toEqual(['HEAD']);
    expect(await registry.resolve('app', 'v2')).toBeUndefined();
    expect(await registry.resolve('nothing/here', 'v1')).toBeUndefined();
  });

  const heads: Record<string, [number, Record<string, string>]> = {
    'is 404 although the tag is there (old Nexus)': [404, {}],
    'is 500 (nexus-public #1059)': [500, {}],
    'is 405': [405, {}],
    'says no digest': [200, { 'content-type': MANIFEST }],
    'says a digest that is none': [200, { 'docker-content-digest': 'sha256:abc' }],
  };
  for (const [name, [status, headers]] of Object.entries(heads)) {
    it(`[1.3-head-incomplete, 1.3-head-broken] asks with GET when HEAD ${name}`, async () => {
      const server = await startServer((request, response) => {
        if (request.method === 'HEAD') response.writeHead(status, headers).end();
        else response.writeHead(200, { 'content-type': MANIFEST }).end(image.bytes);
      });
      expect(await client(server.host).registry.resolve('app', 'v1')).toBe(digest);
      expect(server.asked.at(-1)?.method).toBe('GET');
    });
  }

  it('[1.3-head-broken] believes a HEAD that says 404 once a HEAD has found something there, not before', async () => {
    const server = await startServer((request, response) => {
      const isThere = request.url?.endsWith('/v1') === true;
      response.writeHead(isThere ? 200 : 404, isThere ? { 'docker-content-digest': digest } : {}).end();
    });
    const { registry } = client(server.host);
    const methods = async (tag: string): Promise<string[]> => {
      const before = server.asked.length;
      await registry.resolve('app', tag);
      return server.asked.slice(before).map((r) => r.method);
    };
    expect(await methods('v2')).toEqual(['HEAD', 'GET']);
    expect(await methods('v1')).toEqual(['HEAD']);
    expect(await methods('v2')).toEqual(['HEAD']);
  });

  /** A registry with the tag v1, whose HEAD finds it or never finds anything; says what it was asked. */
  async function headServer(isHonest: boolean): Promise<(work: () => Promise<unknown>) => Promise<string[]>> {
    const server = await startServer((request, response) => {
      const isThere = request.url?.endsWith('/v1') === true && (isHonest || request.method === 'GET');
      const headers = { 'content-type': MANIFEST, 'docker-content-digest': digest };
      if (isThere) response.writeHead(200, headers).end(image.bytes);
      else response.writeHead(404).end();
    });
    const { registry } = client(server.host);
    await registry.getManifest('app', 'v1');
    found = registry;
    return async (work) => {
      const before = server.asked.length;
      await work();
      return server.asked.slice(before).map((r) => `${r.method} ${r.url.split('/').at(-1)}`);
    };
  }
  let found: Registry;

  it('[1.3-head-broken] that says 404 is tried once on a manifest that was read, and then believed', async () => {
    const asked = await headServer(true);
    expect(await asked(() => found.describe('app', 'sig'))).toEqual(['HEAD sig', 'HEAD v1']);
    expect(await asked(() => found.describe('app', 'att'))).toEqual(['HEAD att']);
    expect(await asked(() => found.resolve('app', 'sbom'))).toEqual(['HEAD sbom']);
  });

  it('[1.3-head-broken] that says 404 of a manifest that was read is never believed', async () => {
    const asked = await headServer(false);
    expect(await asked(() => found.describe('app', 'sig'))).toEqual(['HEAD sig', 'HEAD v1', 'GET sig']);
    expect(await asked(() => found.describe('app', 'att'))).toEqual(['HEAD att', 'GET att']);
    expect(await found.describe('app', 'v1')).toEqual(image.descriptor);
    expect(await found.resolve('app', 'v1')).toBe(digest);
  });

  it('[1.3-head-broken] does not ask with GET when HEAD is forbidden', async () => {
    const server = await startServer((_, response) => response.writeHead(403).end());
    expect(await failureOf(client(server.host).registry.resolve('app', 'v1'))).toMatchObject({
      code: 'AUTH_DENIED',
    });
    expect(server.asked).toHaveLength(1);
  });

  it('passes on what is wrong with the GET', async () => {
    const server = await startServer((request, response) =>
      response.writeHead(request.method === 'HEAD' ? 404 : 400).end(),
    );
    expect(await failureOf(client(server.host).registry.resolve('app', 'v1'))).toMatchObject({
      code: 'REGISTRY_FAILED',
    });
  });
});
