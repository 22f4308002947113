import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { HttpClient } from '../../src/io/http.ts';
import { type CredentialSource, NOBODY } from '../../src/oci/credentials.ts';
import type { Finding } from '../../src/target/finding.ts';
import { checkDevpi } from '../../src/target/web/devpi-check.ts';
import { checkNexus, type NexusPlace } from '../../src/target/web/nexus-check.ts';
import { WebServer } from '../../src/target/web/server.ts';
import { contextOf } from '../bundle/site.ts';
import { type Devpi, onEachNexus, startDevpi } from '../support/nexus.ts';
import {
  askNexus,
  listAssets,
  makeRepository,
  removeRepository,
  type TestRepository,
  throwAwayName,
} from '../support/nexus-server.ts';

const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0)) await close();
});

const login = (username: string, password: string): CredentialSource => ({
  find: async () => ({ kind: 'password', username, password }),
});

function serverOf(url: string, credentials: CredentialSource): WebServer {
  const context = contextOf();
  const http = new HttpClient(context);
  open.push(() => http.close());
  return new WebServer({ http, context, base: new URL(url), credentials });
}

const codes = (findings: readonly Finding[]): string[] => findings.map((f) => `${f.level} ${f.code}`);
const find = (findings: readonly Finding[], code: Finding['code']): Finding | undefined =>
  findings.find((f) => f.code === code);

onEachNexus(['raw'], (nexus) => {
  const check = async (
    place: Partial<NexusPlace> & Pick<NexusPlace, 'wanted'>,
    credentials: CredentialSource = login(nexus.username, nexus.password),
  ): Promise<readonly Finding[]> => {
    const whole = { create: false, onConflict: 'fail', ...place } as const;
    return (await checkNexus(serverOf(nexus.url, credentials), whole)).findings;
  };

  describe('the check', () => {
    let repository: TestRepository;
    beforeAll(async () => {
      repository = await makeRepository(nexus, 'raw');
    });
    afterAll(() => repository?.remove());
    const wanted = (name = repository.name) => [{ format: 'raw', name } as const];

    it('finds a repository as we make it good, tells its space, and leaves nothing there', async () => {
      const server = serverOf(nexus.url, login(nexus.username, nexus.password));
      const report = await checkNexus(server, { wanted: wanted(), create: false, onConflict: 'fail' });
      expect(codes(report.findings)).toEqual(['ok REACHABLE', 'ok REPOSITORY', 'ok RIGHTS']);
      expect(report.room?.free).toBeGreaterThan(0);
      expect(await listAssets(nexus, repository.name)).toEqual([]);
    });

    it('refuses a wrong password, as the load does', async () => {
      await expect(check({ wanted: wanted() }, login(nexus.username, 'wrong'))).rejects.toMatchObject({
        code: 'AUTH_DENIED',
        hint: expect.stringContaining('password'),
      });
    });

    it('refuses nobody, who may read and not write', async () => {
      const findings = await check({ wanted: wanted() }, NOBODY);
      expect(find(findings, 'AUTH_REQUIRED')?.fix).toContain('sealift login');
      expect(find(findings, 'STATE_UNKNOWN')?.message).toContain('the blob stores');
    });

    it('names the hosted repositories for a group and a proxy', async () => {
      const [group, proxy] = [throwAwayName('raw'), throwAwayName('raw')];
      const storage = { blobStoreName: 'default', strictContentTypeValidation: false };
      const made = await askNexus(nexus, {
        method: 'POST',
        path: 'v1/repositories/raw/group',
        body: { name: group, online: true, storage, group: { memberNames: [repository.name] } },
      });
      expect(made.status).toBe(201);
      const cache = { contentMaxAge: 1440, metadataMaxAge: 1440 };
      const proxied = await askNexus(nexus, {
        method: 'POST',
        path: 'v1/repositories/raw/proxy',
        body: {
          name: proxy,
          online: true,
          storage,
          proxy: { remoteUrl: 'http://127.0.0.1:9/', ...cache },
          negativeCache: { enabled: true, timeToLive: 1440 },
          httpClient: { blocked: false, autoBlock: true },
        },
      });
      expect(proxied.status).toBe(201);
      try {
        const ofGroup = find(await check({ wanted: wanted(group) }), 'REPOSITORY_TYPE');
        expect(ofGroup).toMatchObject({ level: 'fault', fix: `write raw: ${repository.name}` });
        const ofProxy = find(await check({ wanted: wanted(proxy) }), 'REPOSITORY_TYPE');
        expect(ofProxy?.message).toContain('proxy');
        expect(ofProxy?.fix).toContain(repository.name);
      } finally {
        await removeRepository(nexus, group);
        await removeRepository(nexus, proxy);
      }
    });

    it('tells of read-only and strict repositories, and of those that are not there', async () => {
      const denied = await makeRepository(nexus, 'raw', 'DENY');
      try {
        expect(find(await check({ wanted: wanted(denied.name) }), 'WRITE_POLICY')?.level).toBe('fault');
        const replacing = await check({ wanted: wanted(), onConflict: 'replace' });
        expect(find(replacing, 'WRITE_POLICY')?.level).toBe('warning');
        const absent = throwAwayName('raw');
        expect(find(await check({ wanted: wanted(absent) }), 'REPOSITORY_ABSENT')?.level).toBe('fault');
        const made = await check({ wanted: wanted(absent), create: true });
        expect(find(made, 'REPOSITORY_ABSENT')?.level).toBe('info');
        const { text } = await askNexus(nexus, { path: 'v1/repositories' });
        expect(text).not.toContain(absent);
      } finally {
        await denied.remove();
      }
    });

    it('tells what a login that may only read lacks', async () => {
      const name = throwAwayName('raw');
      const role = {
        id: name,
        name,
        description: name,
        roles: [],
        privileges: ['nx-repository-view-*-*-read', 'nx-repository-view-*-*-browse'],
      };
      await askNexus(nexus, { method: 'POST', path: 'v1/security/roles', body: role });
      const person = { firstName: 'a', lastName: 'b', emailAddress: 'a@example.test', status: 'active' };
      const user = { userId: name, ...person, password: 'not-a-secret', roles: [name] };
      await askNexus(nexus, { method: 'POST', path: 'v1/security/users', body: user });
      try {
        const findings = await check({ wanted: wanted() }, login(name, 'not-a-secret'));
        expect(find(findings, 'RIGHTS')).toMatchObject({
          level: 'warning',
          fix: expect.stringContaining(`nx-repository-view-raw-${repository.name}-add`),
        });
        expect(find(findings, 'STATE_UNKNOWN')?.level).toBe('info');
      } finally {
        await askNexus(nexus, { method: 'DELETE', path: `v1/security/users/${name}` });
        await askNexus(nexus, { method: 'DELETE', path: `v1/security/roles/${name}` });
      }
    });
  });
});

/** Our own servers are frozen for the time of one test: no other file runs then. A customer's is left alone. */
onEachNexus(['raw'], (nexus) => {
  it.skipIf(nexus.name === 'NEXUS_URL')('is told to be read-only, by the check and by a write', async () => {
    const repository = await makeRepository(nexus, 'raw');
    const credentials = login(nexus.username, nexus.password);
    const frozen = await askNexus(nexus, { method: 'POST', path: 'v1/read-only/freeze' });
    expect(frozen.status).toBe(204);
    try {
      const server = serverOf(nexus.url, credentials);
      const place = { wanted: [{ format: 'raw', name: repository.name }], create: false } as const;
      const { findings } = await checkNexus(server, { ...place, onConflict: 'fail' });
      expect(find(findings, 'TARGET_READ_ONLY')).toMatchObject({
        level: 'fault',
        fix: expect.stringContaining('read-only/release'),
      });
      const put = await server.send({
        method: 'PUT',
        path: `repository/${repository.name}/a`,
        headers: { 'content-type': 'application/octet-stream' },
        body: Buffer.from('a'),
        tries: 1,
      });
      expect(await server.fail(put, 'a')).toMatchObject({
        code: 'TARGET_READ_ONLY',
        hint: expect.stringContaining('read-only mode'),
      });
    } finally {
      await askNexus(nexus, { method: 'POST', path: 'v1/read-only/release' });
      await repository.remove();
    }
  });
});

describe('the check of a devpi', () => {
  let devpi: Devpi;
  beforeAll(async () => {
    devpi = await startDevpi();
  });
  afterAll(() => devpi?.close());

  const check = async (
    more: { readonly index?: string; readonly create?: boolean } = {},
    credentials: CredentialSource = login(devpi.user, devpi.password),
  ): Promise<readonly Finding[]> => {
    const place = { index: devpi.index, create: false, onConflict: 'fail', ...more } as const;
    return (await checkDevpi(serverOf(devpi.url, credentials), place)).findings;
  };

  it('finds an index that takes uploads of this login', async () => {
    expect(codes(await check())).toEqual(['ok REACHABLE', 'ok INDEX', 'ok RIGHTS']);
  });

  it('refuses a wrong password and nobody', async () => {
    expect(codes(await check({}, login(devpi.user, 'wrong')))).toEqual([
      'ok REACHABLE',
      'ok INDEX',
      'fault AUTH_DENIED',
    ]);
    expect(codes(await check({}, NOBODY)).at(-1)).toBe('fault AUTH_REQUIRED');
  });

  it('tells of an index that is not there, whether it is made or not', async () => {
    expect(codes(await check({ index: 'root/none' }))).toEqual(['ok REACHABLE', 'fault REPOSITORY_ABSENT']);
    const made = { index: 'root/none', create: true };
    expect(codes(await check(made))).toEqual(['ok REACHABLE', 'info REPOSITORY_ABSENT']);
    expect(codes(await check(made, NOBODY)).at(-1)).toBe('fault AUTH_REQUIRED');
    expect(codes(await check({ index: 'nobody/none', create: true })).at(-1)).toBe('fault LOGIN');
    // Still not there.
    expect(codes(await check({ index: 'root/none' })).at(-1)).toBe('fault REPOSITORY_ABSENT');
  });
});
