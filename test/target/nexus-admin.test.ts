import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { NexusAdmin } from '../../src/target/web/nexus-admin.ts';
import { hostedSettings } from '../../src/target/web/nexus-settings.ts';
import { WebServer } from '../../src/target/web/server.ts';
import { failureOf, startServer, type TestServer, testClient, testContext } from '../io/server.ts';

type Answers = Readonly<Record<string, readonly [status: number, body?: unknown]>>;

/** A server that answers `METHOD path` as it is told to, and an admin client of it. */
async function adminOf(
  answers: Answers,
  login?: { readonly username: string; readonly password: string },
): Promise<{ readonly admin: NexusAdmin; readonly server: TestServer; readonly bodies: unknown[] }> {
  const bodies: unknown[] = [];
  const server = await startServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    if (request.method === 'POST') bodies.push(JSON.parse(Buffer.concat(chunks).toString()));
    const path = (request.url ?? '').replace('/nexus/service/rest/v1/', '');
    const [status, body = ''] = answers[`${request.method} ${path}`] ?? [404];
    response.writeHead(status, { server: 'Nexus/3.71.0-06 (OSS)', 'content-type': 'application/json' });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
  const context = testContext();
  const credentials = { find: async () => login && ({ kind: 'password', ...login } as const) };
  const base = new URL(`${server.url}/nexus/`);
  const web = new WebServer({ http: testClient(context), context, base, credentials });
  return { admin: new NexusAdmin(web), server, bodies };
}

const ann = { username: 'ann', password: 'hunter2' };
const raw = { name: 'files', format: 'raw', type: 'hosted' };

describe('the client of Nexus’s own API', () => {
  it('tells version, edition and whether writes are taken, in one try', async () => {
    const { admin, server } = await adminOf({ 'GET status': [200], 'GET status/writable': [503] });
    expect(await admin.status()).toEqual({ isUp: true, version: '3.71.0-06', edition: 'OSS' });
    expect(await admin.writable()).toBe(false);
    expect(server.asked).toHaveLength(2);
  });

  it.each([
    ['a 404', [404, 'no'] as const],
    ['a web page', [200, '<!doctype html><html>Welcome</html>'] as const],
  ])('takes %s in place of its status for another server', async (_, answer) => {
    const { admin } = await adminOf({ 'GET status': answer });
    expect(await failureOf(admin.status())).toMatchObject({
      code: 'TARGET_UNREACHABLE',
      hint: expect.stringContaining('context path'),
    });
  });

  it('lists repositories of every format, whatever more they say', async () => {
    const other = {
      name: 'new',
      format: 'future',
      type: 'hosted',
      url: null,
      attributes: { a: { b: 1 } },
      size: 3,
    };
    const { admin } = await adminOf({ 'GET repositories': [200, [raw, other]] });
    expect(await admin.repositories()).toMatchObject([raw, { name: 'new', format: 'future' }]);
  });

  it('refuses lists that are not what Nexus answers, or too long', async () => {
    const long = Array.from({ length: LIMITS.nexusRepositories + 1 }, () => raw);
    for (const body of [{ items: [] }, [{ name: 3 }], [{ ...raw, name: 'x'.repeat(5000) }], long, 'null']) {
      const { admin } = await adminOf({ 'GET repositories': [200, body] });
      expect(await failureOf(admin.repositories())).toMatchObject({ code: 'REGISTRY_ANSWER_INVALID' });
    }
  });

  it('finds settings in the list of all where there is no better way, and nothing for what is not there', async () => {
    const storage = { blobStoreName: 'default', writePolicy: 'DENY', strictContentTypeValidation: true };
    const { admin } = await adminOf({
      'GET repositorySettings': [200, [{ ...raw, storage }]],
      'GET repositories/docker/hosted/images': [200, { docker: { httpPort: 5000, forceBasicAuth: false } }],
    });
    expect(await admin.settings(raw)).toMatchObject({ name: 'files', storage: { writePolicy: 'DENY' } });
    expect(await admin.settings({ ...raw, name: 'none' })).toBeUndefined();
    const images = { name: 'images', format: 'docker', type: 'hosted' };
    expect(await admin.settings(images)).toMatchObject({ name: 'images', docker: { httpPort: 5000 } });
  });

  it('says what a login without the rights lacks, and of nobody that a login lacks', async () => {
    const answers: Answers = { 'GET blobstores': [403], 'POST repositories/raw/hosted': [403] };
    const { admin } = await adminOf(answers, ann);
    const refused = { code: 'AUTH_DENIED', hint: expect.stringContaining('administrator') };
    expect(await failureOf(admin.blobStores())).toMatchObject(refused);
    expect(await failureOf(admin.create('raw', { name: 'files' }))).toMatchObject(refused);
    const nobody = (await adminOf(answers)).admin;
    const asked = { code: 'AUTH_REQUIRED', hint: expect.stringContaining('login') };
    expect(await failureOf(nobody.blobStores())).toMatchObject(asked);
    const wrong = await adminOf({ 'GET repositories': [401] }, ann);
    expect(await failureOf(wrong.admin.repositories())).toMatchObject({ code: 'AUTH_DENIED' });
  });

  it('makes a repository with the settings of its format', async () => {
    const { admin, bodies } = await adminOf({ 'POST repositories/docker/hosted': [201] });
    const body = hostedSettings({
      format: 'docker',
      name: 'images',
      blobStore: 'default',
      onConflict: 'fail',
      connector: { httpPort: 5000 },
    });
    await admin.create('docker', body);
    expect(bodies).toEqual([
      {
        name: 'images',
        online: true,
        storage: {
          blobStoreName: 'default',
          strictContentTypeValidation: true,
          writePolicy: 'ALLOW_ONCE',
          latestPolicy: true,
        },
        docker: { v1Enabled: false, forceBasicAuth: true, httpPort: 5000, httpsPort: null },
      },
    ]);
    expect(hostedSettings({ format: 'raw', name: 'f', blobStore: 'b', onConflict: 'replace' })).toEqual({
      name: 'f',
      online: true,
      storage: { blobStoreName: 'b', strictContentTypeValidation: false, writePolicy: 'ALLOW' },
      raw: { contentDisposition: 'ATTACHMENT' },
    });
  });

  it('repeats why a repository cannot be made, once, without the login', async () => {
    const said = [{ id: 'PARAMETER name', message: `Name is already used by ${ann.password}` }];
    const { admin, server } = await adminOf({ 'POST repositories/raw/hosted': [400, said] }, ann);
    const failure = await failureOf(admin.create('raw', { name: 'files' }));
    expect(failure).toMatchObject({
      code: 'TARGET_FAILED',
      message: expect.stringContaining('Name is already used'),
    });
    expect(JSON.stringify(failure)).not.toContain(ann.password);
    expect(server.asked).toHaveLength(1);
    const none = await failureOf(admin.create('helm', { name: 'charts' }));
    expect(none).toMatchObject({
      code: 'TARGET_FAILED',
      hint: expect.stringContaining('no repositories of this format'),
    });
  });

  it('reads assets page by page, and ends where a page says that it follows itself', async () => {
    const asset = (id: string): unknown => ({ id, path: id, repository: 'files', format: 'raw' });
    const { admin } = await adminOf({
      'GET assets?repository=files': [200, { items: [asset('a')], continuationToken: 't/1' }],
      'GET assets?repository=files&continuationToken=t%2F1': [
        200,
        { items: [asset('b')], continuationToken: 't/1' },
      ],
    });
    const found = [];
    for await (const { id } of admin.assets('files')) found.push(id);
    expect(found).toEqual(['a', 'b']);
  });

  it('tells blob stores, quota, realms, anonymous access and licence', async () => {
    const store = { name: 'default', type: 'File', availableSpaceInBytes: 7, softQuota: null };
    const { admin } = await adminOf({
      'GET blobstores': [200, [store]],
      'GET blobstores/default/quota-status': [200, { isViolation: true, message: 'full' }],
      'GET security/realms/active': [200, ['NexusAuthenticatingRealm', 'DockerToken']],
      'GET security/anonymous': [200, { enabled: false }],
    });
    expect(await admin.blobStores()).toEqual([store]);
    expect(await admin.quotaStatus('default')).toMatchObject({ isViolation: true });
    expect(await admin.activeRealms()).toContain('DockerToken');
    expect(await admin.anonymous()).toBe(false);
    expect(await admin.eula()).toBeUndefined();
  });
});
