/** What a site's servers refuse, told ahead by `site check` where that can be known, and by `load` in any case. */
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { loadFailure } from '../../src/cli/render-load.ts';
import { exitCodeOf, type SealiftError } from '../../src/core/errors.ts';
import { load } from '../../src/ops/load.ts';
import { siteCheck, siteFailure } from '../../src/ops/site-check.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import type { Finding } from '../../src/target/finding.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { dockerRepository, type NexusStandIn, startNexusStandIn } from '../support/nexus-stand-in.ts';

const ADMIN = { NEXUS_USERNAME: 'admin', NEXUS_PASSWORD: 'hunter2' };

let site: Site;
let bundle: Packed;
let upstream: RunningRegistry;
let nexus: NexusStandIn;

beforeAll(async () => {
  site = await openSite();
  bundle = await packSite(site);
});
afterAll(() => site.close());

beforeEach(async () => {
  upstream = await startRegistry({ storage: 'memory' });
  nexus = await startNexusStandIn({
    upstream: upstream.host,
    users: { admin: 'hunter2' },
    repositories: [
      dockerRepository('images', { pathEnabled: true }),
      dockerRepository('hub', { type: 'proxy', pathEnabled: true }),
      dockerRepository('all', { type: 'group', memberNames: ['hub', 'images'], pathEnabled: true }),
    ],
    traps: ['path-routing'],
  });
  return async () => {
    await nexus.close();
    await upstream.close();
  };
});

interface Front {
  readonly url: string;
  close(): Promise<void>;
}

/** A proxy in front of the server, which answers some requests itself. */
async function frontOf(answer: (method: string, path: string) => number | undefined): Promise<Front> {
  const { port } = new URL(nexus.main.url);
  const server = createServer((request, response) => {
    const status = answer(request.method ?? '', request.url ?? '');
    if (status !== undefined) {
      request.resume();
      request.on('end', () => {
        response.writeHead(status, { 'content-type': 'text/html' });
        response.end(`<html><body><h1>${status} says the proxy</h1></body></html>`);
      });
      return;
    }
    const { method, url, headers } = request;
    const onward = httpRequest({ host: '127.0.0.1', port, method, path: url, headers }, (from) => {
      response.writeHead(from.statusCode ?? 502, from.headers);
      from.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

let count = 0;
async function siteOf(where: {
  readonly url?: string;
  readonly docker?: string;
  readonly repository?: string;
}): Promise<string> {
  const { url = nexus.main.url, docker = url, repository = 'images' } = where;
  count += 1;
  const dir = site.path(`refused-${count}`);
  await mkdir(dir);
  const target = `{type: nexus, name: nexus, url: "${url}", credentials: {env: NEXUS}, docker: {repository: ${repository}, url: "${docker}"}}`;
  await writeFile(`${dir}/site.yaml`, `apiVersion: sealift-site/v1\ntargets:\n  - ${target}\n`);
  return `${dir}/site.yaml`;
}

interface Told {
  readonly exit: number;
  /** Of a check: the findings that are no praise. Of a load: every fault. */
  readonly said: readonly { readonly code: string; readonly help: string }[];
}

const exitOf = (failure: SealiftError | undefined): number =>
  failure === undefined ? 0 : exitCodeOf(failure.code);

async function checked(sitePath: string, env: Record<string, string> = ADMIN): Promise<Told> {
  const result = await siteCheck({ sitePath }, { ...contextOf(), env });
  const bad = (f: Finding): boolean => f.level === 'fault' || f.level === 'warning';
  const found = result.targets.flatMap((t) => t.findings).filter(bad);
  return { exit: exitOf(siteFailure(result)), said: found.map((f) => ({ code: f.code, help: f.fix ?? '' })) };
}

async function loaded(sitePath: string, env: Record<string, string> = ADMIN): Promise<Told> {
  const result = await load({ bundle: bundle.path, sitePath }, { ...contextOf(), env });
  const faults = result.targets.flatMap((t) => [t.fault, ...t.entries.map((e) => e.fault)]);
  const said = faults.flatMap((f) => (f === null ? [] : [{ code: f.code, help: f.hint ?? '' }]));
  return { exit: exitOf(loadFailure(result)), said };
}

const told = (code: string, help: string) => ({ code, help: expect.stringContaining(help) });

describe('what a server refuses is told with what to do about it', () => {
  it('a wrong password', async () => {
    const path = await siteOf({});
    const env = { NEXUS_USERNAME: 'admin', NEXUS_PASSWORD: 'wrong' };
    expect(await checked(path, env)).toEqual({ exit: 4, said: [told('AUTH_DENIED', 'password')] });
    expect(await loaded(path, env)).toEqual({ exit: 4, said: [told('AUTH_DENIED', 'password')] });
  });

  it('the port of another program', async () => {
    const page = await frontOf(() => 200);
    const path = await siteOf({ url: page.url });
    expect(await checked(path)).toEqual({ exit: 3, said: [told('TARGET_UNREACHABLE', 'address of Nexus')] });
    expect(await loaded(path)).toEqual({ exit: 1, said: [told('TARGET_UNREACHABLE', 'address')] });
    await page.close();
  });

  it('the port of another program for images alone', async () => {
    const page = await frontOf(() => 200);
    const path = await siteOf({ docker: page.url });
    const said = await checked(path);
    expect(said.exit).toBe(3);
    expect(said.said).toContainEqual(told('TARGET_UNREACHABLE', 'connector'));
    expect(await loaded(path)).toEqual({ exit: 1, said: [told('TARGET_UNREACHABLE', 'docker repository')] });
    await page.close();
  });

  it.each(['hub', 'all'])('a repository that is no hosted one: %s', async (repository) => {
    const path = await siteOf({ repository });
    expect(await checked(path)).toEqual({
      exit: 3,
      said: [told('REPOSITORY_TYPE', 'repository: images')],
    });
    expect(await loaded(path)).toEqual({ exit: 1, said: [told('TARGET_FAILED', 'repository: images')] });
  });

  it('a server that is read-only', async () => {
    nexus.admin.readOnly = true;
    const path = await siteOf({});
    expect(await checked(path)).toEqual({ exit: 3, said: [told('TARGET_READ_ONLY', 'read-only mode')] });
    expect(await loaded(path)).toEqual({ exit: 1, said: [told('TARGET_READ_ONLY', 'read-only mode')] });
  });

  it('a full quota: Nexus only warns of its own, another server refuses', async () => {
    const front = await frontOf((method, path) =>
      method === 'PUT' && path.includes('/blobs/') ? 507 : undefined,
    );
    nexus.admin.blobStores.set('default', {
      name: 'default',
      path: 'default',
      violation: 'Blob store default is over its quota',
      availableSpaceInBytes: 1_000_000_000,
    });
    const path = await siteOf({ url: front.url });
    expect(await checked(path)).toEqual({ exit: 0, said: [told('QUOTA', 'make room')] });
    const { exit, said } = await loaded(path);
    expect(exit).toBe(1);
    expect(new Set(said.map(({ code }) => code))).toEqual(new Set(['TARGET_FULL']));
    for (const { help } of said) expect(help).toContain('make room');
    await front.close();
  });

  it('a proxy in front that takes no body of any size, which cannot be known ahead', async () => {
    const front = await frontOf((method) => (method === 'PUT' || method === 'PATCH' ? 413 : undefined));
    const path = await siteOf({ url: front.url });
    expect(await checked(path)).toEqual({ exit: 0, said: [] });
    const { exit, said } = await loaded(path);
    expect(exit).toBe(1);
    expect(said.length).toBeGreaterThan(0);
    for (const { help } of said) expect(help).toContain('client_max_body_size 0');
    await front.close();
  });
});
