/** The stand-in itself: its administration speaks as Nexus describes it. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hasOpenApi, nexusOpenApi } from '../support/nexus-openapi.ts';
import { dockerRepository, type NexusStandIn, startNexusStandIn } from '../support/nexus-stand-in.ts';

let nexus: NexusStandIn;

beforeEach(async () => {
  nexus = await startNexusStandIn({
    repositories: [
      dockerRepository('docker-hosted'),
      dockerRepository('docker-hub', { type: 'proxy' }),
      dockerRepository('docker-all', { type: 'group', memberNames: ['docker-hosted'] }),
    ],
  });
});

afterEach(() => nexus.close());

interface Said {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly body: unknown;
  readonly sent: unknown;
}

async function call(method: string, path: string, sent?: unknown): Promise<Said> {
  const body = sent === undefined ? {} : { body: JSON.stringify(sent) };
  const response = await fetch(`${nexus.main.url}/service/rest${path}`, { method, ...body });
  const text = await response.text();
  return { method, path, status: response.status, body: text === '' ? undefined : JSON.parse(text), sent };
}

const wanted = {
  name: 'raw-hosted',
  online: true,
  storage: { blobStoreName: 'default', strictContentTypeValidation: false, writePolicy: 'ALLOW_ONCE' },
  raw: { contentDisposition: 'ATTACHMENT' },
};

/** One of every call, in an order in which each succeeds. */
async function everyCall(): Promise<Said[]> {
  const { format: _f, type: _t, ...docker } = dockerRepository('docker-new', { writePolicy: 'ALLOW_ONCE' });
  return [
    await call('GET', '/v1/status'),
    await call('GET', '/v1/status/writable'),
    await call('GET', '/v1/status/check'),
    await call('POST', '/v1/repositories/docker/hosted', docker),
    await call('POST', '/v1/repositories/raw/hosted', wanted),
    await call('POST', '/v1/repositories/helm/hosted', { ...wanted, name: 'helm-hosted' }),
    await call('POST', '/v1/repositories/pypi/hosted', { ...wanted, name: 'pypi-hosted' }),
    await call('GET', '/v1/repositories'),
    await call('GET', '/v1/repositorySettings'),
    await call('GET', '/v1/repositories/docker/hosted/docker-new'),
    await call('GET', '/v1/repositories/raw/hosted/raw-hosted'),
    await call('GET', '/v1/repositories/helm/hosted/helm-hosted'),
    await call('PUT', '/v1/repositories/docker/hosted/docker-new', docker),
    await call('DELETE', '/v1/repositories/pypi-hosted'),
    await call('POST', '/v1/blobstores/file', {
      name: 'big',
      path: 'big',
      softQuota: { type: 'spaceRemainingQuota', limit: 1024 },
    }),
    await call('GET', '/v1/blobstores'),
    await call('GET', '/v1/blobstores/file/big'),
    await call('GET', '/v1/blobstores/big/quota-status'),
    await call('GET', '/v1/security/realms/active'),
    await call('GET', '/v1/security/realms/available'),
    await call('PUT', '/v1/security/realms/active', ['NexusAuthenticatingRealm']),
    await call('GET', '/v1/security/anonymous'),
    await call('GET', '/v1/system/eula'),
    await call('POST', '/v1/system/eula', { ...nexus.admin.eula, accepted: true }),
    await call('GET', '/v1/assets?repository=docker-new'),
  ];
}

describe('the administration of the stand-in', () => {
  it('answers what a load and a site ask, and remembers what is made', async () => {
    const said = await everyCall();
    expect(said.filter(({ status }) => status >= 400)).toEqual([]);
    expect(nexus.admin.repositories.get('docker-new')?.storage.writePolicy).toBe('ALLOW_ONCE');
    expect([...nexus.admin.repositories.keys()]).not.toContain('pypi-hosted');
    expect(nexus.admin.realms).toEqual(['NexusAuthenticatingRealm']);
  });

  it('refuses a name that is taken, an unknown blob store and what is not there', async () => {
    const taken = await call('POST', '/v1/repositories/raw/hosted', { ...wanted, name: 'Docker-Hosted' });
    expect([taken.status, taken.body]).toEqual([
      400,
      [{ id: 'name', message: expect.stringContaining('unique') }],
    ]);
    const storage = { ...wanted.storage, blobStoreName: 'none' };
    expect((await call('POST', '/v1/repositories/raw/hosted', { ...wanted, storage })).status).toBe(400);
    expect((await call('GET', '/v1/repositories/raw/hosted/docker-hosted')).status).toBe(404);
    expect((await call('GET', '/v1/assets')).status).toBe(422);
  });

  it('says that it takes no writes, and takes none', async () => {
    nexus.admin.readOnly = true;
    nexus.admin.writableAfter = 1;
    const refused = await fetch(`${nexus.main.url}/service/rest/v1/repositories/raw/hosted`, {
      method: 'POST',
    });
    expect([refused.status, await refused.text()]).toEqual([503, expect.stringContaining('read-only mode')]);
    expect((await call('GET', '/v1/status/writable')).status).toBe(503);
    expect((await call('GET', '/v1/status/writable')).status).toBe(200);
  });

  it('lets nobody in without a login where there are users, except for its state', async () => {
    const guarded = await startNexusStandIn({ users: { admin: 'secret', dora: 'deploys' } });
    try {
      const ask = async (path: string, login?: string): Promise<number> => {
        const headers = { authorization: `Basic ${Buffer.from(login ?? '').toString('base64')}` };
        const url = `${guarded.main.url}/service/rest/v1/${path}`;
        return (await fetch(url, login === undefined ? {} : { headers })).status;
      };
      expect(await ask('status')).toBe(200);
      expect(await ask('blobstores')).toBe(401);
      expect(await ask('blobstores', 'admin:wrong')).toBe(401);
      expect(await ask('blobstores', 'dora:deploys')).toBe(403);
      expect(await ask('repositories', 'dora:deploys')).toBe(200);
      expect(await ask('blobstores', 'admin:secret')).toBe(200);
    } finally {
      await guarded.close();
    }
  });
});

describe.skipIf(!hasOpenApi)(
  `Nexus's own description (skipped without ${hasOpenApi ? 'nothing' : '../shared/nexus'})`,
  () => {
    it('has every call of the stand-in, with these bodies', async () => {
      const openApi = nexusOpenApi();
      const said = await everyCall();
      const faults = said.flatMap((one) => {
        const path = one.path.split('?')[0] ?? '';
        const sent = one.sent === undefined ? [] : openApi.requestFaults({ ...one, path, body: one.sent });
        return [...openApi.faults({ ...one, path }), ...sent];
      });
      expect(faults).toEqual([]);
    });

    it('finds what is wrong in a body', () => {
      const openApi = nexusOpenApi();
      const about = { method: 'GET', path: '/v1/blobstores/x/quota-status', status: 200 };
      expect(openApi.faults({ ...about, body: { isViolation: 'no', message: '' } })).toHaveLength(3);
      expect(openApi.has('GET', '/v1/read-only')).toBe(false);
    });
  },
);
