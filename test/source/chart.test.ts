import { describe, expect, it } from 'vitest';
import { MEDIA } from '../../src/core/media.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { ChartLock } from '../../src/lock/schema.ts';
import { type ResolvedChart, resolveChart } from '../../src/source/chart.ts';
import { vendorOf } from '../../src/source/chart-archive.ts';
import { Registries } from '../../src/source/registries.ts';
import { type Answer, failureOf, startServer, testClient, testContext } from '../io/server.ts';
import { chart } from '../lock/locks.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';

/** Resolves the only chart of a repository whose `.prov` is answered as said. */
async function resolved(prov: Answer, file = 'web-1.0.0.tgz'): Promise<ResolvedChart> {
  const archive = await chartArchive(demoFiles('web', '1.0.0'), 'web');
  const entry = `{apiVersion: v2, name: web, version: 1.0.0, urls: ["${file}"]}`;
  const { url } = await startServer((request, response, count) => {
    if (request.url === '/index.yaml') response.end(`apiVersion: v1\nentries:\n  web: [${entry}]\n`);
    else if (request.url === `/${file}`) response.end(archive);
    else prov(request, response, count);
  });
  const context = testContext();
  const http = testClient(context);
  const registries = new Registries({ http, context, config: {} });
  const wanted = { kind: 'repo', name: 'web', version: '1.0.0', repo: url } as const;
  return resolveChart(wanted, { http, context, registries, root: '/' }, new Map());
}

describe('the provenance of a chart', () => {
  it.each([403, 404, 410])('is absent where the server answers %i', async (status) => {
    const { facts } = await resolved((_, response) => response.writeHead(status).end());
    expect(facts.integrity.provenance).toBe('absent');
  });

  it.each([
    [401, 'AUTH_REQUIRED'],
    [400, 'NETWORK_FAILED'],
  ])('is not known where the server answers %i', async (status, code) => {
    const failure = await failureOf(resolved((_, response) => response.writeHead(status).end()));
    expect(failure).toMatchObject({ code });
  });

  it('that is cut is read on', async () => {
    const text = Buffer.from('no provenance at all');
    let asked = 0;
    const { facts } = await resolved((request, response) => {
      if (asked++ > 0) response.end(text);
      else {
        response.writeHead(200, { 'content-length': text.length });
        response.write('no', () => setTimeout(() => request.socket.destroy(), 5));
      }
    });
    expect([facts.integrity.provenance, asked]).toEqual(['absent', 2]);
  });
});

describe('a chart in a registry', () => {
  /** Serves the chart; of the archive's bytes from `wrongFrom` on it sends others. */
  async function chartRegistry(wrongFrom: number, size?: number) {
    const archive = await chartArchive(demoFiles('web', '1.0.0'), 'web');
    const blob = (mediaType: string, bytes: Buffer) => ({
      mediaType,
      digest: digestOf(bytes),
      size: bytes.length,
    });
    const config = blob(MEDIA.helmConfig, Buffer.from('{}'));
    const layer = blob(MEDIA.helmChart, archive);
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      config,
      layers: [{ ...layer, size: size ?? layer.size }],
    });
    return startServer((request, response) => {
      if (request.url?.endsWith('/manifests/1.0.0')) {
        response.setHeader('content-type', MEDIA.ociManifest).end(manifest);
      } else if (request.url?.endsWith(layer.digest)) {
        response.end(
          Buffer.concat([archive.subarray(0, wrongFrom), archive.subarray(wrongFrom).map((b) => b ^ 1)]),
        );
      } else response.writeHead(404).end();
    });
  }

  async function resolvedFrom(host: string, mirror: string): Promise<ResolvedChart> {
    const context = testContext();
    const http = testClient(context);
    const registries = new Registries({ http, context, config: { [host]: { mirrors: [mirror] } } });
    const wanted = { kind: 'oci', name: 'web', version: '1.0.0', oci: `oci://${host}/charts/web` } as const;
    return resolveChart(wanted, { http, context, registries, root: '/' }, new Map());
  }

  it.each([
    ['at its end', 300],
    ['so that it is no archive', 0],
  ])('that a mirror gives wrong, %s, is asked of the next place in the same run', async (_, wrongFrom) => {
    const [origin, mirror] = [await chartRegistry(1e6), await chartRegistry(wrongFrom)];
    const { facts } = await resolvedFrom(origin.host, mirror.host);
    expect(facts.name).toBe('web');
    const asked = (server: typeof origin) =>
      server.asked.filter(({ url }) => url?.includes('/blobs/')).length;
    expect([asked(mirror), asked(origin)]).toEqual([1, 1]);
  });

  it('is not fetched where it is announced too large', async () => {
    const origin = await chartRegistry(1e6, 65 * 1024 * 1024);
    expect(await failureOf(resolvedFrom(origin.host, origin.host))).toMatchObject({
      code: 'CHART_ARCHIVE_BOMB',
    });
    expect(origin.asked.filter(({ url }) => url?.includes('/blobs/'))).toEqual([]);
  });
});

describe('an address in a repository index', () => {
  it('may hold a % that is no code', async () => {
    const { facts } = await resolved((_, response) => response.writeHead(404).end(), 'web-100%.tgz');
    expect(facts.name).toBe('web');
  });
});

describe('chart folders that a lock puts into each other', () => {
  it('are refused, not packed for ever', async () => {
    const context = testContext();
    const http = testClient(context);
    const access = { http, context, registries: new Registries({ http, context, config: {} }), root: '/' };
    const needs = (name: string): Partial<ChartLock> => ({
      source: { type: 'path', path: name },
      dependencies: [{ name, version: '1', repository: '', from: 'fetched' }],
    });
    const [a, b] = [chart('a', '1', needs('b')), chart('b', '1', needs('a'))];
    expect(await failureOf(vendorOf(a, access, [a, b]))).toMatchObject({ code: 'LOCK_INVALID' });
  });
});
