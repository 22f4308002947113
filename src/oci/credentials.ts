import { homedir } from 'node:os';
import { join } from 'node:path';
import { isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readFileIfExists } from '../io/files.ts';
import { runProcess } from '../io/process.ts';

/** What a person has for one registry. Never logged, never put into an error. */
export type Credential =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  | { readonly kind: 'identity-token'; readonly token: string }
  | { readonly kind: 'registry-token'; readonly token: string };

type Env = Readonly<Record<string, string | undefined>>;

interface AuthFile {
  readonly path: string;
  readonly auths: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly credHelpers: Readonly<Record<string, string>>;
  readonly credsStore: string | undefined;
}

/** Files that may hold credentials, in the order in which they are asked (registry.md 1.1 "Credential files"). */
export function credentialFiles(env: Env): string[] {
  // An empty variable is one that is not set.
  const home = env.HOME || homedir();
  const docker = env.DOCKER_CONFIG || join(home, '.docker');
  return [
    join(docker, 'config.json'),
    ...(env.REGISTRY_AUTH_FILE ? [env.REGISTRY_AUTH_FILE] : []),
    ...(env.XDG_RUNTIME_DIR ? [join(env.XDG_RUNTIME_DIR, 'containers', 'auth.json')] : []),
    join(env.XDG_CONFIG_HOME || join(home, '.config'), 'containers', 'auth.json'),
  ];
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>) // proved by the test before
    : {};
}

async function readAuthFile(path: string): Promise<AuthFile | undefined> {
  const bytes = await readFileIfExists(path);
  if (bytes === undefined || bytes.length > LIMITS.manifestText) return undefined;
  let body: Readonly<Record<string, unknown>>;
  try {
    body = record(JSON.parse(bytes.toString('utf8')));
  } catch {
    throw new SealiftError('AUTH_REQUIRED', `${path}: not JSON`, { hint: 'repair or remove the file' });
  }
  const auths = Object.fromEntries(Object.entries(record(body.auths)).map(([k, v]) => [k, record(v)]));
  const helpers = Object.entries(record(body.credHelpers)).filter(
    (e): e is [string, string] => typeof e[1] === 'string',
  );
  return {
    path,
    auths,
    credHelpers: Object.fromEntries(helpers),
    credsStore: typeof body.credsStore === 'string' && body.credsStore !== '' ? body.credsStore : undefined,
  };
}

/** A helper that wants a person to type something will not get an answer. */
const HELPER_MS = 30_000;

const HUB_KEY = 'https://index.docker.io/v1/';

/** Keys to try for a repository, most specific first: podman's path prefixes, then Docker's host forms. */
function keysFor(host: string, repository: string): string[] {
  const parts = repository === '' ? [] : repository.split('/');
  const paths = parts.map((_, i) => `${host}/${parts.slice(0, parts.length - i).join('/')}`);
  const hub = host === 'docker.io' ? [HUB_KEY, 'index.docker.io', 'registry-1.docker.io'] : [];
  return [...paths, host, ...hub];
}

function normalizeKey(key: string): string {
  if (key === HUB_KEY) return key;
  return key.replace(/^https?:\/\//, '').replace(/\/(?:v1|v2)?\/?$/, '');
}

function fromEntry(entry: Readonly<Record<string, unknown>>): Credential | undefined {
  if (typeof entry.registrytoken === 'string' && entry.registrytoken !== '') {
    return { kind: 'registry-token', token: entry.registrytoken };
  }
  if (typeof entry.identitytoken === 'string' && entry.identitytoken !== '') {
    return { kind: 'identity-token', token: entry.identitytoken };
  }
  if (typeof entry.auth === 'string' && entry.auth !== '') {
    const text = Buffer.from(entry.auth, 'base64').toString('utf8').replace(/\0+$/, '');
    const colon = text.indexOf(':');
    if (colon > 0) {
      return { kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1) };
    }
  }
  if (typeof entry.username === 'string' && typeof entry.password === 'string' && entry.username !== '') {
    return { kind: 'password', username: entry.username, password: entry.password };
  }
  return undefined;
}

interface Asking {
  readonly repository?: string;
  readonly env: Env;
  readonly signal?: AbortSignal;
}

async function fromHelper(name: string, server: string, options: Asking): Promise<Credential | undefined> {
  if (!/^[a-zA-Z0-9._-]+$/.test(name)) return undefined;
  const program = `docker-credential-${name}`;
  let answer: Awaited<ReturnType<typeof runProcess>>;
  try {
    answer = await runProcess(program, ['get'], {
      input: server,
      timeoutMs: HELPER_MS,
      limit: LIMITS.token,
      env: options.env,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
  } catch (cause) {
    if (isAbort(cause)) throw cause;
    throw new SealiftError('AUTH_REQUIRED', `${program}: cannot be started`, {
      cause,
      hint: 'install the credential helper that the docker configuration names, or remove it there',
    });
  }
  if (answer.code === 124) {
    throw new SealiftError('AUTH_REQUIRED', `${program}: no answer in ${HELPER_MS / 1000} s`, {
      hint: `run \`${program} get\` by hand: it may wait for a password that unlocks it`,
    });
  }
  // Helpers say "credentials not found" with a non-zero code: that means anonymous, not an error.
  if (answer.code !== 0) return undefined;
  try {
    const { Username, Secret } = record(JSON.parse(answer.stdout));
    if (typeof Username !== 'string' || typeof Secret !== 'string' || Secret === '') return undefined;
    if (Username === '<token>') return { kind: 'identity-token', token: Secret };
    return { kind: 'password', username: Username, password: Secret };
  } catch {
    throw new SealiftError('AUTH_REQUIRED', `${program}: the answer is not JSON`);
  }
}

/**
 * The credential for a repository on a host (`docker.io` for Docker Hub), from docker's and podman's files; undefined
 * means anonymous. In one file `credHelpers` beats `credsStore` beats `auths`; the first file that knows the host wins.
 * @throws AUTH_REQUIRED when a file or a helper is broken
 */
export async function findCredential(host: string, options: Asking): Promise<Credential | undefined> {
  const keys = keysFor(host, options.repository ?? '');
  for (const path of credentialFiles(options.env)) {
    const file = await readAuthFile(path);
    if (file === undefined) continue;
    const server = host === 'docker.io' ? HUB_KEY : host;
    const helper = file.credHelpers[host] ?? file.credHelpers[server] ?? file.credsStore;
    if (helper !== undefined) {
      const found = await fromHelper(helper, server, options);
      if (found !== undefined) return found;
    }
    const byKey = new Map(Object.entries(file.auths).map(([k, v]) => [normalizeKey(k), v]));
    for (const key of keys) {
      const found = fromEntry(byKey.get(key) ?? {});
      if (found !== undefined) return found;
    }
  }
  return undefined;
}
