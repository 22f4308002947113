/** Starts real Nexus servers and asks their own API, for the tests and for what is set up before them. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inOwnDirectory, removeOwnDirectory, startDaemon, stopDaemon, untilReady } from './daemon.ts';
import { run } from './peers.ts';

const installer = fileURLToPath(new URL('../../scripts/peers', import.meta.url));
// Two processors that others use too take a minute; the tests of several people at once took three.
const readyWithin = 290_000;

export type NexusVersion = '3.30.0' | '3.71.0';
export type NexusFormat = 'helm' | 'pypi' | 'raw';

/** What each of our two servers can make. The docker format is in no package that can be had. */
const formatsOf: Readonly<Record<NexusVersion, readonly NexusFormat[]>> = {
  '3.30.0': ['helm', 'pypi', 'raw'],
  '3.71.0': ['raw'],
};

export interface NexusLogin {
  /** Ends in a slash. */
  readonly url: string;
  readonly username: string;
  readonly password: string;
}

export interface Nexus extends NexusLogin {
  /** Ends the server; one that all test files share goes on. */
  close(): Promise<void>;
}

/** A server that the whole run of the tests shares, or why it is not there. */
export interface SharedNexus extends NexusLogin {
  /** The version, or `NEXUS_URL`. */
  readonly name: string;
  readonly formats: readonly NexusFormat[];
  /** Why its tests are left out. */
  readonly missing?: string;
}

/** Why there is no Nexus of that version here; undefined where there is one. For `describe.skipIf`. */
export async function missingNexus(version: NexusVersion): Promise<string | undefined> {
  const { stdout } = await run(installer, ['nexus', 'list']);
  return stdout.includes(`nexus ${version} MISSING`)
    ? `Nexus ${version} is not installed; run \`scripts/peers nexus install ${version}\``
    : undefined;
}

/** Starts an empty Nexus on a free port of 127.0.0.1; it takes half a minute and 500 MB of memory. */
export async function startOwnNexus(version: NexusVersion): Promise<Nexus> {
  const missing = await missingNexus(version);
  if (missing !== undefined) throw new Error(missing);
  return inOwnDirectory(async (own) => {
    const data = join(own, 'data');
    const log = join(own, 'log');
    const daemon = startDaemon([installer, 'nexus', 'run', version, data], { stdout: log, log });
    const url = await untilReady(
      daemon,
      async () => {
        const said = /Started ServerConnector.*\{(127\.0\.0\.1:\d+)\}/.exec(await readFile(log, 'utf8'))?.[1];
        return said !== undefined && (await isWritable(`http://${said}/`)) ? `http://${said}/` : undefined;
      },
      readyWithin,
    );
    const password = (await readFile(join(data, 'admin.password'), 'utf8')).trim();
    return {
      url,
      username: 'admin',
      password,
      async close() {
        await stopDaemon(daemon);
        await removeOwnDirectory(own);
      },
    };
  });
}

async function isWritable(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}service/rest/v1/status/writable`)).ok;
  } catch {
    return false;
  }
}

/** The servers that this run of the tests can have: those that `scripts/peers nexus up` started, or new ones. */
export async function startShared(): Promise<{ servers: SharedNexus[]; close(): Promise<void> }> {
  const started: Nexus[] = [];
  const ours = (['3.30.0', '3.71.0'] as const).map(async (version): Promise<SharedNexus> => {
    const formats = formatsOf[version];
    const missing = await missingNexus(version);
    if (missing !== undefined)
      return { name: version, formats, url: '', username: '', password: '', missing };
    const up = await upNexus(version);
    if (up !== undefined) return { name: version, formats, ...up };
    // One that is installed and does not start is a failure.
    const nexus = await startOwnNexus(version);
    started.push(nexus);
    const { url, username, password } = nexus;
    return { name: version, formats, url, username, password };
  });
  const servers = await Promise.all([...ours, ...given()]);
  return {
    servers,
    close: async () => {
      await Promise.all(started.map((nexus) => nexus.close()));
    },
  };
}

async function upNexus(version: NexusVersion): Promise<NexusLogin | undefined> {
  const { stdout } = await run(installer, ['nexus', 'list']);
  const [, url, file] = new RegExp(`^nexus ${version} .* (http:\\S+) (/.*)$`, 'm').exec(stdout) ?? [];
  if (url !== undefined && file !== undefined) {
    return { url, username: 'admin', password: (await readFile(file, 'utf8')).trim() };
  }
  return undefined;
}

/** The server of the environment. What it can make is asked of it. */
function given(): Promise<SharedNexus>[] {
  const { NEXUS_URL = '', NEXUS_USERNAME: username = '', NEXUS_PASSWORD: password = '' } = process.env;
  if (NEXUS_URL === '') return [];
  const url = NEXUS_URL.endsWith('/') ? NEXUS_URL : `${NEXUS_URL}/`;
  const login = { url, username, password };
  return [
    (async () => {
      const formats: NexusFormat[] = [];
      for (const format of formatsOf['3.30.0']) {
        const repository = await makeRepository(login, format).catch(() => undefined);
        if (repository === undefined) continue;
        formats.push(format);
        await repository.remove();
      }
      const missing = `no repository can be made at ${url} with the login of NEXUS_USERNAME and NEXUS_PASSWORD`;
      return { name: 'NEXUS_URL', formats, ...login, ...(formats.length === 0 ? { missing } : {}) };
    })(),
  ];
}

/** Asks Nexus's own API, for what a test looks at or clears away. `path` is below `/service/rest/`. */
export async function askNexus(
  { url, username, password }: NexusLogin,
  request: { readonly method?: string; readonly path: string; readonly body?: unknown },
): Promise<{ readonly status: number; readonly text: string }> {
  const { method = 'GET', path, body } = request;
  const answer = await fetch(`${url}service/rest/${path}`, {
    method,
    headers: {
      authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, text: await answer.text() };
}

/** A name for a repository that nobody else has. */
export function throwAwayName(format: string): string {
  return `sealift-test-${randomBytes(4).toString('hex')}-${format}`;
}

export interface TestRepository {
  readonly name: string;
  /** Where clients read it; no slash at the end. */
  readonly url: string;
  remove(): Promise<void>;
}

/** Makes a hosted repository of the test's own. Remove it at the end. */
export async function makeRepository(
  nexus: NexusLogin,
  format: NexusFormat,
  writePolicy: 'ALLOW' | 'ALLOW_ONCE' | 'DENY' = 'ALLOW_ONCE',
): Promise<TestRepository> {
  const name = throwAwayName(format);
  const storage = { blobStoreName: 'default', strictContentTypeValidation: false, writePolicy };
  const answer = await askNexus(nexus, {
    method: 'POST',
    path: `v1/repositories/${format}/hosted`,
    body: { name, online: true, storage },
  });
  if (answer.status !== 201) throw new Error(`${name} was not made: ${answer.status} ${answer.text}`);
  return { name, url: `${nexus.url}repository/${name}`, remove: () => removeRepository(nexus, name) };
}

/** Removes a repository with everything in it; one that is not there is fine. */
export async function removeRepository(nexus: NexusLogin, name: string): Promise<void> {
  const { status, text } = await askNexus(nexus, { method: 'DELETE', path: `v1/repositories/${name}` });
  if (status !== 204 && status !== 404) throw new Error(`${name} was not removed: ${status} ${text}`);
}

/** Every file of a repository with its SHA-1, as `path sha1`, in order; nothing where there is no such repository. */
export async function listAssets(nexus: NexusLogin, repository: string): Promise<string[]> {
  const found: string[] = [];
  let token: string | null = '';
  while (token !== null) {
    const more: string = token === '' ? '' : `&continuationToken=${token}`;
    const { status, text } = await askNexus(nexus, { path: `v1/assets?repository=${repository}${more}` });
    if (status === 404) return [];
    const page: {
      items: { path: string; checksum: { sha1: string } }[];
      continuationToken: string | null;
    } = JSON.parse(text);
    for (const { path, checksum } of page.items) {
      // 3.71 has a slash in front, 3.30 none.
      found.push(`${path.replace(/^\//, '')} ${checksum.sha1}`);
    }
    token = page.continuationToken;
  }
  return found.sort();
}
