import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { withoutQuery } from '../../src/io/redirect.ts';
import { type ResolvedChart, resolveChart } from '../../src/source/chart.ts';
import { downloadUrl } from '../../src/source/download.ts';
import { Registries, type RegistriesConfig } from '../../src/source/registries.ts';
import { WebLogins } from '../../src/source/web-logins.ts';
import { selfSigned } from '../io/certificate.ts';
import {
  failureOf,
  gather,
  startServer,
  type TestContext,
  type TestServer,
  testClient,
  testContext,
} from '../io/server.ts';
import { basicAuth, tempDir, writeFiles } from '../oci/bench.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';

let home: string;
let env: Record<string, string>;

beforeEach(async () => {
  home = await tempDir();
  env = { HOME: home };
});

const PATH = '.config/helm/repositories.yaml';
const BASIC = `Basic ${basicAuth('ann', 'hunter2')}`;

function repositories(...entries: readonly Readonly<Record<string, unknown>>[]): string {
  const lines = entries.map((e) => `- ${JSON.stringify({ name: 'r', ...e })}\n`);
  return `apiVersion: ""\ngenerated: "0001-01-01T00:00:00Z"\nrepositories:\n${lines.join('')}`;
}

const login = { username: 'ann', password: 'hunter2' };

function variables(host: string): Record<string, string> {
  const name = `SEALIFT_CREDENTIALS_${host.toUpperCase().replace(/[.:]/g, '_')}`;
  return { [`${name}_USERNAME`]: 'ann', [`${name}_PASSWORD`]: 'hunter2' };
}

function accessOf(config: RegistriesConfig = {}): {
  readonly access: {
    http: ReturnType<typeof testClient>;
    registries: Registries;
    context: TestContext;
    root: string;
  };
  readonly context: TestContext;
} {
  const context = testContext(env);
  const http = testClient(context);
  return {
    context,
    access: { http, context, registries: new Registries({ http, context, config }), root: '/' },
  };
}

/** A chart repository that wants a login. Its archive is below `files`, on its own host or another. */
async function repository(files: string | undefined, wanted = BASIC): Promise<TestServer> {
  const archive = await chartArchive(demoFiles('web', '1.0.0'), 'web');
  return startServer((request, response) => {
    if (request.headers.authorization !== wanted) return response.writeHead(401).end('hunter2');
    if (request.url?.endsWith('.prov') === true) return response.writeHead(404).end();
    if (request.url !== '/charts/index.yaml') return response.end(archive);
    const url = `${files ?? '.'}/web-1.0.0.tgz`;
    return response.end(
      `apiVersion: v1\nentries:\n  web: [{apiVersion: v2, name: web, version: 1.0.0, urls: ["${url}"]}]\n`,
    );
  });
}

async function resolve(repo: string, config: RegistriesConfig = {}): Promise<ResolvedChart> {
  const { access } = accessOf(config);
  return resolveChart({ kind: 'repo', name: 'web', version: '1.0.0', repo }, access, new Map());
}

describe('a chart repository that wants a login', () => {
  it("gets the one of helm's own list, for index, archive and provenance", async () => {
    const server = await repository(undefined);
    for (const url of [`${server.url}/charts`, `${server.url}/charts/`]) {
      await writeFiles(home, { [PATH]: repositories({ url: `${server.url}/other` }, { url, ...login }) });
      expect((await resolve(`${server.url}/charts`)).facts.name).toBe('web');
    }
    expect(new Set(server.asked.map((r) => r.headers.authorization))).toEqual(new Set([BASIC]));
    expect(server.asked).toHaveLength(6);
  });

  it('gets it from HELM_REPOSITORY_CONFIG and HELM_CONFIG_HOME as helm does', async () => {
    const server = await repository(undefined);
    const text = repositories({ url: `${server.url}/charts`, ...login });
    await writeFiles(home, { 'own.yaml': text, 'helm/repositories.yaml': text });
    for (const more of [
      { HELM_REPOSITORY_CONFIG: join(home, 'own.yaml') },
      { HELM_CONFIG_HOME: join(home, 'helm') },
      { XDG_CONFIG_HOME: home },
    ]) {
      env = { HOME: '/nonexistent', ...more };
      expect((await resolve(`${server.url}/charts`)).facts.name).toBe('web');
    }
  });

  it("gets the one of the environment before helm's", async () => {
    const server = await repository(undefined);
    await writeFiles(home, {
      [PATH]: repositories({ url: `${server.url}/charts`, username: 'ann', password: 'old' }),
    });
    env = { ...env, ...variables(server.host) };
    expect((await resolve(`${server.url}/charts`)).facts.name).toBe('web');
  });

  it('gets none that is for another repository of the same host', async () => {
    const server = await repository(undefined);
    await writeFiles(home, { [PATH]: repositories({ url: `${server.url}/private`, ...login }) });
    const failure = await failureOf(resolve(`${server.url}/charts`));
    expect(failure).toMatchObject({ code: 'AUTH_REQUIRED' });
    expect(server.asked[0]?.headers).not.toHaveProperty('authorization');
  });

  it('and another host that has its archives: nothing is sent there, unless helm is told so', async () => {
    const other = await repository(undefined, 'never');
    const server = await repository(`${other.url}/files`);
    const entry = { url: `${server.url}/charts`, ...login };
    await writeFiles(home, { [PATH]: repositories(entry) });
    expect(await failureOf(resolve(`${server.url}/charts`))).toMatchObject({
      code: 'AUTH_REQUIRED',
      message: expect.stringContaining(other.host),
    });
    expect(other.asked[0]?.headers).not.toHaveProperty('authorization');
    await writeFiles(home, { [PATH]: repositories({ ...entry, pass_credentials_all: true }) });
    await failureOf(resolve(`${server.url}/charts`));
    expect(other.asked.at(-1)?.headers.authorization).toBe(BASIC);
  });

  it('and redirects elsewhere: the login stays, whatever helm is told', async () => {
    const other = await startServer((_, response) => response.writeHead(401).end());
    const server = await startServer((request, response) =>
      response.writeHead(302, { location: `${other.url}${request.url}?X-Amz-Signature=hunter2` }).end(),
    );
    const entry = { url: server.url, ...login, pass_credentials_all: true };
    await writeFiles(home, { [PATH]: repositories(entry) });
    const failure = await failureOf(resolve(server.url));
    expect(failure).toMatchObject({
      code: 'AUTH_DENIED',
      hint: expect.stringContaining(`redirected to ${other.host}, where no login is sent`),
    });
    expect(server.asked[0]?.headers.authorization).toBe(BASIC);
    expect(other.asked[0]?.headers).not.toHaveProperty('authorization');
    expect(JSON.stringify([failure, String(failure)])).not.toContain('hunter2');
  });

  it('without one: the error says where to write it', async () => {
    const server = await repository(undefined);
    const failure = await failureOf(resolve(`${server.url}/charts`));
    const name = `SEALIFT_CREDENTIALS_${server.host.replace(/[.:]/g, '_')}`;
    expect(failure).toMatchObject({
      code: 'AUTH_REQUIRED',
      message: `${server.url}/charts/index.yaml: HTTP 401`,
      hint: `run \`helm repo add NAME ${server.url}/charts --username USER\`, or set ${name}_USERNAME and ${name}_PASSWORD`,
    });
  });

  it('with a wrong one: the error says where that is from, and nothing of it', async () => {
    const server = await repository(undefined);
    const password = 'wrong-hunter2';
    await writeFiles(home, {
      [PATH]: repositories({ url: `${server.url}/charts`, username: 'ann', password }),
    });
    const failure = await failureOf(resolve(`${server.url}/charts`));
    expect(failure).toMatchObject({
      code: 'AUTH_DENIED',
      hint: expect.stringContaining(join(home, PATH)),
    });
    expect(JSON.stringify([failure, String(failure)])).not.toContain('hunter2');
  });

  it('in an address of its index is refused: it would end in the lock', async () => {
    const open = await startServer((_, response) =>
      response.end(
        'apiVersion: v1\nentries:\n  web: [{apiVersion: v2, name: web, version: 1.0.0, urls: ["http://ann:hunter2@charts.example/web.tgz"]}]\n',
      ),
    );
    const failure = await failureOf(resolve(open.url));
    expect(failure).toMatchObject({ code: 'CHART_INDEX_INVALID' });
    expect(JSON.stringify([failure, String(failure)])).not.toContain('hunter2');
    expect(withoutQuery('http://ann:hunter2@x/y?z')).toBe('http://***@x/y');
  });
});

describe("helm's list of repositories", () => {
  it('that cannot be read is a fault that names it, not what is in it', async () => {
    for (const text of ['repositories: [{password: hunter2', 'a: hunter2\na: hunter2\n', '\thunter2: *x']) {
      await writeFiles(home, { [PATH]: text });
      const failure = await failureOf(resolve('http://127.0.0.1:9/charts'));
      expect(failure).toMatchObject({ code: 'AUTH_REQUIRED', message: expect.stringContaining(PATH) });
      expect(JSON.stringify([failure, String(failure)])).not.toContain('hunter2');
    }
  });

  it('of odd shapes holds nothing', async () => {
    for (const text of ['', '[]', 'repositories: 7', 'repositories: [7, {url: 7}, {url: ":"}, {}]']) {
      await writeFiles(home, { [PATH]: text });
      const logins = new WebLogins(testContext(env));
      const url = new URL('https://charts.example/index.yaml');
      const about = { repository: 'https://charts.example', tls: {} };
      expect(await logins.accessTo(url, about)).toEqual({
        tls: {},
        authorization: undefined,
        from: undefined,
      });
    }
  });

  it('has CA and client certificate for its own host; sealift.yaml wins, and says alone what is not checked', async () => {
    const files = { caFile: '/ca', certFile: '/cert', keyFile: '/key' };
    const repository = 'https://charts.example/stable';
    const entry = { url: repository, insecure_skip_tls_verify: true, ...files };
    await writeFiles(home, { [PATH]: repositories(entry) });
    const context = testContext(env);
    const logins = new WebLogins(context);
    const tlsOf = async (url: string, tls = {}): Promise<unknown> =>
      (await logins.accessTo(new URL(url), { repository, tls })).tls;
    const own = { caFile: '/ca', clientCert: '/cert', clientKey: '/key' };
    expect(await tlsOf('https://charts.example/stable/index.yaml')).toEqual(own);
    expect(await tlsOf('https://cdn.example/web.tgz')).toEqual({ caFile: '/ca' });
    expect(await tlsOf('https://charts.example/x', { caFile: '/other' })).toEqual({
      ...own,
      caFile: '/other',
    });
    expect(context.events).toEqual([
      { type: 'note', message: expect.stringContaining('is set to accept any certificate') },
    ]);
  });

  it('opens a repository with a certificate of its own', async () => {
    const pair = selfSigned();
    const archive = await chartArchive(demoFiles('web', '1.0.0'), 'web');
    const server = await startServer((request, response) => {
      if (request.url === '/index.yaml') {
        response.end(
          'apiVersion: v1\nentries:\n  web: [{apiVersion: v2, name: web, version: 1.0.0, urls: [w.tgz]}]\n',
        );
      } else if (request.url === '/w.tgz') response.end(archive);
      else response.writeHead(404).end();
    }, pair);
    await writeFiles(home, {
      'ca.pem': pair.cert,
      [PATH]: repositories({ url: server.url, caFile: join(home, 'ca.pem') }),
    });
    expect((await resolve(server.url)).facts.name).toBe('web');
  });
});

describe('a file that wants a login', () => {
  it('gets the one of the environment, and none of helm', async () => {
    const server = await startServer((request, response) =>
      response.writeHead(request.headers.authorization === BASIC ? 200 : 401).end('tool'),
    );
    await writeFiles(home, { [PATH]: repositories({ url: server.url, ...login }) });
    const fetched = (): Promise<Buffer> => gather(downloadUrl(`${server.url}/tool`, accessOf().access));
    const failure = await failureOf(fetched());
    expect(failure).toMatchObject({
      code: 'AUTH_REQUIRED',
      hint: expect.stringMatching(/^set SEALIFT_CREDENTIALS_127_0_0_1_\d+_USERNAME and /),
    });
    env = { ...env, ...variables(server.host) };
    expect((await fetched()).toString()).toBe('tool');
  });
});
