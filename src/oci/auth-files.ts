import { homedir } from 'node:os';
import { join } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readFileLimited } from '../io/files.ts';

export type Env = Readonly<Record<string, string | undefined>>;

/** A docker or podman file with credentials, as far as it concerns us. */
export interface AuthFile {
  readonly path: string;
  /** In the order of the file. */
  readonly auths: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  /** The helper of each host; '' means that this host has none, whatever `credsStore` says. */
  readonly credHelpers: ReadonlyMap<string, string>;
  readonly credsStore: string | undefined;
}

/** The key of Docker Hub in docker's files and in helpers. */
export const HUB_KEY = 'https://index.docker.io/v1/';

/** A variable that holds a whole docker configuration file; docker 28.1 and GitLab CI know it. */
export const AUTH_VARIABLE = 'DOCKER_AUTH_CONFIG';

// An empty variable is one that is not set.
function homeOf(env: Env): string {
  return env.HOME || homedir();
}

/** docker's own file, the one that a login is written to. */
export function dockerConfigPath(env: Env): string {
  return join(env.DOCKER_CONFIG || join(homeOf(env), '.docker'), 'config.json');
}

/** Helm's folder of settings: HELM_CONFIG_HOME, then the XDG folder (helm docs, "Helm environment variables"). */
export function helmConfigFolder(env: Env): string {
  return env.HELM_CONFIG_HOME || join(env.XDG_CONFIG_HOME || join(homeOf(env), '.config'), 'helm');
}

/** Files that may hold credentials, in the order in which they are asked (registry.md 1.1 "Credential files"). */
export function credentialFiles(env: Env): string[] {
  const home = homeOf(env);
  return [
    dockerConfigPath(env),
    ...(env.REGISTRY_AUTH_FILE ? [env.REGISTRY_AUTH_FILE] : []),
    ...(env.XDG_RUNTIME_DIR ? [join(env.XDG_RUNTIME_DIR, 'containers', 'auth.json')] : []),
    join(env.XDG_CONFIG_HOME || join(home, '.config'), 'containers', 'auth.json'),
    join(home, '.dockercfg'),
    env.HELM_REGISTRY_CONFIG || join(helmConfigFolder(env), 'registry', 'config.json'),
  ];
}

export function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>) // proved by the test before
    : {};
}

/** The JSON object of a configuration; an empty text holds none. @throws AUTH_REQUIRED for other texts */
export function parseConfigText(text: string, path: string): Readonly<Record<string, unknown>> {
  if (text.trim() === '') return {};
  try {
    return recordOf(JSON.parse(text));
  } catch {
    // Without the cause: it repeats a part of the text.
    throw new SealiftError('AUTH_REQUIRED', `${path}: not JSON`, { hint: 'repair or remove the file' });
  }
}

/** @param path only for messages, and to know `.dockercfg`, whose entries are not below `auths` */
export function parseAuthFile(text: string, path: string): AuthFile {
  const body = parseConfigText(text, path);
  const auths = Object.entries(recordOf(path.endsWith('.dockercfg') ? body : body.auths));
  const helpers = Object.entries(recordOf(body.credHelpers));
  return {
    path,
    auths: new Map(auths.map(([key, entry]) => [key, recordOf(entry)])),
    credHelpers: new Map(helpers.filter((e): e is [string, string] => typeof e[1] === 'string')),
    credsStore: typeof body.credsStore === 'string' && body.credsStore !== '' ? body.credsStore : undefined,
  };
}

/** The text of a file, or undefined when there is none. @throws CONTENT_TOO_LARGE, FILE_UNREADABLE */
export async function readConfigText(path: string): Promise<string | undefined> {
  try {
    const bytes = await readFileLimited(path, { limit: LIMITS.manifestText, missing: 'FILE_NOT_FOUND' });
    return bytes.toString('utf8');
  } catch (error) {
    if (error instanceof SealiftError && error.code === 'FILE_NOT_FOUND') return undefined;
    throw error;
  }
}

/** Keys to try for a repository, most specific first: podman's path prefixes, then docker's host forms. */
export function keysFor(host: string, repository: string): string[] {
  const parts = repository === '' ? [] : repository.split('/');
  const paths = parts.map((_, i) => `${host}/${parts.slice(0, parts.length - i).join('/')}`);
  const hub = host === 'docker.io' ? [HUB_KEY, 'index.docker.io', 'registry-1.docker.io'] : [];
  return [...paths, host, ...hub];
}

/** A key of `auths` without what docker's versions put around a host: scheme, `/v1/`, a slash, capital letters. */
export function normalizeKey(key: string): string {
  if (key === HUB_KEY) return key;
  const bare = key.replace(/^https?:\/\//i, '').replace(/\/(?:v1|v2)?\/?$/, '');
  return bare.replace(/^[^/]*/, (host) => host.toLowerCase());
}

/** The entries of a file for a key, the one that is written exactly so first. */
export function entriesFor(file: AuthFile, key: string): Readonly<Record<string, unknown>>[] {
  const exact = file.auths.get(key);
  const alike = [...file.auths].filter(([k]) => k !== key && normalizeKey(k) === key).map(([, e]) => e);
  return exact === undefined ? alike : [exact, ...alike];
}

/** The name under which a host stands in docker's files and helpers. */
export function serverKey(host: string): string {
  return host === 'docker.io' ? HUB_KEY : host;
}

/** The helper that a file names for a host: `credHelpers` beats `credsStore`; undefined when there is none. */
export function helperFor(file: AuthFile, host: string): string | undefined {
  for (const key of [serverKey(host), host]) {
    const own = file.credHelpers.get(key);
    if (own !== undefined) return own === '' ? undefined : own;
  }
  return file.credsStore;
}
