import { afterEach, describe, expect, it } from 'vitest';
import { HttpClient } from '../../src/io/http.ts';
import type { CredentialSource } from '../../src/oci/credentials.ts';
import { NOBODY } from '../../src/oci/credentials.ts';
import type { Finding } from '../../src/target/finding.ts';
import { checkRegistry } from '../../src/target/registry-check.ts';
import { checkNexus, type NexusPlace, type WantedRepository } from '../../src/target/web/nexus-check.ts';
import { WebServer } from '../../src/target/web/server.ts';
import { contextOf } from '../bundle/site.ts';
import {
  dockerRepository,
  type NexusStandIn,
  type StandInOptions,
  type StandInRepository,
  startNexusStandIn,
} from '../support/nexus-stand-in.ts';

const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0)) await close();
});

async function standIn(options: StandInOptions = {}): Promise<NexusStandIn> {
  const nexus = await startNexusStandIn(options);
  open.push(() => nexus.close());
  return nexus;
}

const login = (username: string, password: string): CredentialSource => ({
  find: async () => ({ kind: 'password', username, password }),
});

function serverOf(url: string, credentials: CredentialSource): WebServer {
  const context = contextOf();
  const http = new HttpClient(context);
  open.push(() => http.close());
  return new WebServer({ http, context, base: new URL(`${url}/`), credentials });
}

async function check(
  nexus: NexusStandIn,
  wanted: readonly WantedRepository[],
  more: Partial<NexusPlace> & { readonly credentials?: CredentialSource } = {},
): Promise<readonly Finding[]> {
  const { credentials = NOBODY, ...place } = more;
  const server = serverOf(nexus.main.url, credentials);
  return (await checkNexus(server, { wanted, create: false, onConflict: 'fail', ...place })).findings;
}

const ofCode = (findings: readonly Finding[], code: Finding['code']): readonly Finding[] =>
  findings.filter((f) => f.code === code);

function hosted(
  name: string,
  format: StandInRepository['format'],
  storage: Partial<StandInRepository['storage']> = {},
): StandInRepository {
  return {
    name,
    format,
    type: 'hosted',
    online: true,
    storage: {
      blobStoreName: 'default',
      strictContentTypeValidation: false,
      writePolicy: 'ALLOW_ONCE',
      ...storage,
    },
  };
}

const RAW = { format: 'raw', name: 'raw-hosted' } as const;
const changes = (nexus: NexusStandIn): readonly string[] =>
  nexus.requests
    .filter(({ method }) => !['GET', 'HEAD'].includes(method))
    // Deleting what is not there asks for the right to.
    .filter(({ method, url }) => !(method === 'DELETE' && url.includes('sealift-check')))
    .map(({ method, url }) => `${method} ${url}`);

describe('the check of a Nexus', () => {
  it('finds nothing wrong with a repository as we make it, and changes nothing', async () => {
    const nexus = await standIn({ repositories: [hosted('raw-hosted', 'raw'), hosted('charts', 'helm')] });
    const findings = await check(nexus, [RAW, { format: 'helm', name: 'charts' }]);
    expect(findings.filter((f) => f.level === 'fault' || f.level === 'warning')).toEqual([]);
    expect(ofCode(findings, 'REACHABLE')[0]?.message).toContain('Nexus 3.94.0-12');
    expect(changes(nexus)).toEqual([]);
  });

  it('tells the space of the blob stores that are written to', async () => {
    const nexus = await standIn({ repositories: [hosted('raw-hosted', 'raw')] });
    const server = serverOf(nexus.main.url, NOBODY);
    const report = await checkNexus(server, { wanted: [RAW], create: false, onConflict: 'fail' });
    expect(report.room).toEqual({ free: 200_000_000_000, where: 'the blob store default' });
  });

  it('refuses a login that the server does not take', async () => {
    const nexus = await standIn({ repositories: [hosted('raw-hosted', 'raw')], users: { admin: 'right' } });
    await expect(check(nexus, [RAW], { credentials: login('admin', 'wrong') })).rejects.toMatchObject({
      code: 'AUTH_DENIED',
      hint: expect.stringContaining('password'),
    });
  });

  it('tells what it could not see without the rights of an administrator', async () => {
    const users = { admin: 'a', dev: 'd' };
    const nexus = await standIn({ repositories: [hosted('raw-hosted', 'raw')], users });
    const [hidden] = ofCode(await check(nexus, [RAW], { credentials: login('dev', 'd') }), 'STATE_UNKNOWN');
    expect(hidden?.level).toBe('info');
    expect(hidden?.message).toContain('the settings of raw-hosted');
    expect(hidden?.message).toContain('the realms');
  });

  it('says that another program answers at the address', async () => {
    const nexus = await standIn({ repositories: [hosted('raw-hosted', 'raw')] });
    const server = serverOf(nexus.connector.url, NOBODY);
    await expect(
      checkNexus(server, { wanted: [RAW], create: false, onConflict: 'fail' }),
    ).rejects.toMatchObject({
      code: 'TARGET_UNREACHABLE',
      hint: expect.stringContaining('not of a docker connector'),
    });
  });

  it('tells of read-only mode, of a licence that nobody accepted, and of a passed quota, with what to do', async () => {
    const nexus = await standIn({ repositories: [hosted('raw-hosted', 'raw')] });
    nexus.admin.readOnly = true;
    nexus.admin.eula = { accepted: false, disclaimer: 'x' };
    nexus.admin.blobStores.set('default', {
      name: 'default',
      path: 'default',
      softQuota: { type: 'spaceUsedQuota', limit: 1000 },
      violation: 'Blob store default is using 2 kB, limit 1 kB',
      availableSpaceInBytes: 5_000_000,
    });
    const findings = await check(nexus, [RAW]);
    expect(ofCode(findings, 'TARGET_READ_ONLY')[0]).toMatchObject({
      level: 'fault',
      fix: expect.stringContaining('read-only/release'),
    });
    expect(ofCode(findings, 'EULA')[0]).toMatchObject({
      level: 'fault',
      fix: expect.stringContaining('curl'),
    });
    expect(ofCode(findings, 'QUOTA')[0]).toMatchObject({
      level: 'warning',
      message: expect.stringContaining('limit 1 kB'),
    });
  });

  it('tells of a server that is not ready', async () => {
    const nexus = await standIn({ repositories: [hosted('raw-hosted', 'raw')] });
    nexus.admin.down = true;
    expect(ofCode(await check(nexus, [RAW]), 'TARGET_UNREACHABLE')[0]?.level).toBe('fault');
  });

  it('names the hosted repository where a proxy or a group was given', async () => {
    const nexus = await standIn({
      repositories: [
        dockerRepository('docker-hosted'),
        dockerRepository('docker-other'),
        dockerRepository('docker-proxy', { type: 'proxy' }),
        dockerRepository('docker-all', { type: 'group', memberNames: ['docker-proxy', 'docker-other'] }),
      ],
    });
    const ask = async (name: string): Promise<Finding | undefined> =>
      ofCode(await check(nexus, [{ format: 'docker', name }]), 'REPOSITORY_TYPE')[0];
    expect(await ask('docker-all')).toMatchObject({ level: 'fault', fix: 'write repository: docker-other' });
    expect((await ask('docker-proxy'))?.fix).toBe('write repository: one of docker-hosted, docker-other');
  });

  it('names the repositories of the format where one has another, or is not there', async () => {
    const nexus = await standIn({ repositories: [hosted('raw-hosted', 'raw'), hosted('charts', 'helm')] });
    const wrong = await check(nexus, [{ format: 'helm', name: 'raw-hosted' }]);
    expect(ofCode(wrong, 'REPOSITORY_FORMAT')[0]).toMatchObject({
      level: 'fault',
      fix: 'write helm: charts',
    });
    const absent = await check(nexus, [{ format: 'helm', name: 'none' }]);
    expect(ofCode(absent, 'REPOSITORY_ABSENT')[0]).toMatchObject({
      level: 'fault',
      fix: expect.stringContaining('create: true'),
    });
    const made = await check(nexus, [{ format: 'helm', name: 'none' }], { create: true });
    expect(ofCode(made, 'REPOSITORY_ABSENT')[0]?.level).toBe('info');
    const nowhere = { create: true, blobStore: 'none' };
    expect(
      ofCode(await check(nexus, [{ format: 'helm', name: 'none' }], nowhere), 'BLOB_STORE')[0],
    ).toMatchObject({
      level: 'fault',
      fix: 'write blobStore: with one of default',
    });
    expect(changes(nexus)).toEqual([]);
  });

  it('tells of write policies that refuse what the site wants', async () => {
    const nexus = await standIn({
      repositories: [
        hosted('denied', 'raw', { writePolicy: 'DENY' }),
        hosted('once', 'raw'),
        dockerRepository('images', { writePolicy: 'ALLOW_ONCE' }),
        { ...hosted('off', 'helm'), online: false },
      ],
    });
    const denied = await check(nexus, [{ format: 'raw', name: 'denied' }]);
    expect(ofCode(denied, 'WRITE_POLICY')[0]?.level).toBe('fault');
    const once = await check(nexus, [{ format: 'raw', name: 'once' }], { onConflict: 'replace' });
    expect(ofCode(once, 'WRITE_POLICY')[0]?.level).toBe('warning');
    const images = await check(nexus, [{ format: 'docker', name: 'images' }]);
    expect(ofCode(images, 'WRITE_POLICY')[0]).toMatchObject({
      level: 'info',
      message: expect.stringContaining('latest neither'),
    });
    const off = await check(nexus, [{ format: 'helm', name: 'off' }]);
    expect(ofCode(off, 'REPOSITORY_OFFLINE')[0]?.level).toBe('fault');
  });

  it('warns of a raw repository that compares content with names', async () => {
    const nexus = await standIn({
      repositories: [hosted('raw-hosted', 'raw', { strictContentTypeValidation: true })],
    });
    expect(ofCode(await check(nexus, [RAW]), 'CONTENT_TYPE_STRICT')[0]?.level).toBe('warning');
  });

  it('compares the address for images with the connector', async () => {
    const images = dockerRepository('images');
    const docker = images.docker ?? { v1Enabled: false, forceBasicAuth: true };
    const withPort: StandInRepository = { ...images, docker: { ...docker, httpPort: 5000 } };
    const byPath: StandInRepository = { ...dockerRepository('paths', { pathEnabled: true }) };
    const nexus = await standIn({ repositories: [images, withPort, byPath] });
    const ask = async (name: string, url: string): Promise<readonly Finding[]> =>
      ofCode(await check(nexus, [{ format: 'docker', name, url: new URL(url) }]), 'CONNECTOR');
    nexus.admin.repositories.set('images', images);
    expect((await ask('images', nexus.main.url))[0]).toMatchObject({
      level: 'fault',
      message: expect.stringContaining('has no connector'),
    });
    nexus.admin.repositories.set('images', withPort);
    expect((await ask('images', nexus.main.url))[0]).toMatchObject({
      level: 'fault',
      fix: expect.stringContaining(':5000'),
    });
    expect((await ask('images', 'http://127.0.0.1:5000'))[0]?.level).toBe('ok');
    expect((await ask('images', 'http://127.0.0.1:5001'))[0]?.level).toBe('warning');
    expect((await ask('images', 'https://127.0.0.1:5000'))[0]?.level).toBe('warning');
    expect((await ask('paths', `${nexus.main.url}/paths`))[0]?.level).toBe('ok');
    // The load puts the repository there by itself.
    expect((await ask('paths', nexus.main.url))[0]?.level).toBe('ok');
    expect((await ask('paths', `${nexus.main.url}/other`))[0]).toMatchObject({
      level: 'fault',
      fix: expect.stringContaining('/paths'),
    });
  });

  it('tells what pulls without a login lack', async () => {
    const nexus = await standIn({
      repositories: [dockerRepository('images', { forceBasicAuth: false, pathEnabled: true })],
    });
    nexus.admin.realms = ['NexusAuthenticatingRealm'];
    const findings = ofCode(await check(nexus, [{ format: 'docker', name: 'images' }]), 'ANONYMOUS_PULL');
    expect(findings.map((f) => f.level)).toEqual(['warning', 'warning']);
    expect(findings.map((f) => f.message).join()).toContain('DockerToken');
    nexus.admin.realms = ['NexusAuthenticatingRealm', 'DockerToken'];
    nexus.admin.anonymous = { ...nexus.admin.anonymous, enabled: true };
    expect(ofCode(await check(nexus, [{ format: 'docker', name: 'images' }]), 'ANONYMOUS_PULL')).toEqual([]);
  });

  it('knows what versions are known for, by the version alone', async () => {
    const nexus = await standIn({ repositories: [dockerRepository('images', { pathEnabled: true })] });
    const said = async (version: string): Promise<string> => {
      nexus.admin.version = version;
      const findings = await check(nexus, [{ format: 'docker', name: 'images' }]);
      return ofCode(findings, 'VERSION_BUG')
        .map((f) => `${f.level} ${f.fix}`)
        .join('\n');
    };
    expect(await said('3.70.4-02')).toContain('3.71');
    expect(await said('3.76.0-03')).toBe('');
    expect(await said('3.77.1-01')).toContain('#565');
    expect(await said('3.77.2-02')).toBe('');
    expect(await said('3.90.2-06')).toContain('#967');
    expect(await said('3.96.0-01')).toContain('#1059');
  });
});

describe('the check of the docker repository of a Nexus', () => {
  const ask = async (url: string, credentials: CredentialSource = NOBODY): Promise<readonly Finding[]> => {
    const context = contextOf();
    const http = new HttpClient(context);
    open.push(() => http.close());
    const { host, protocol } = new URL(url);
    const config = { plainHttp: protocol === 'http:' };
    const place = { host, prefix: '', config, credentials, isNexus: true };
    return (await checkRegistry(place, { http, context })).findings;
  };

  it('names the connector where the address is that of the user interface', async () => {
    const nexus = await standIn({ repositories: [dockerRepository('images')] });
    expect(await ask(nexus.main.url)).toMatchObject([
      { level: 'fault', code: 'TARGET_UNREACHABLE', fix: expect.stringContaining('connector') },
    ]);
  });

  it('says which scheme the server speaks', async () => {
    const nexus = await standIn({ repositories: [dockerRepository('images')] });
    const [fault] = await ask(nexus.connector.url.replace('http:', 'https:'));
    expect(fault).toMatchObject({ level: 'fault', code: 'TARGET_UNREACHABLE' });
    expect(fault?.fix).toContain(`http://${nexus.connector.host}`);
  });

  it('refuses a wrong login, and none where one is wanted', async () => {
    const nexus = await standIn({ repositories: [dockerRepository('images')], users: { admin: 'right' } });
    expect(await ask(nexus.connector.url, login('admin', 'wrong'))).toMatchObject([
      { level: 'fault', code: 'AUTH_DENIED' },
    ]);
    const codes = (await ask(nexus.connector.url)).filter((f) => f.level === 'fault').map((f) => f.code);
    expect(codes).toEqual([expect.stringMatching(/^AUTH_/)]);
  });
});
