import { type Fault, fault, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { isHost } from '../core/reference.ts';
import { removeLogin, storeLogin } from '../oci/credential-store.ts';
import { Credentials } from '../oci/credentials.ts';
import { checkLogin } from '../oci/login.ts';
import type { HostConfig } from '../oci/registry.ts';
import { withHttp } from './session.ts';

export interface LoginOptions {
  /** As `parseLoginHost` gives it. */
  readonly host: string;
  readonly username: string;
  readonly password: string;
  readonly config: HostConfig;
}

export interface LoginResult {
  readonly host: string;
  readonly username: string;
  /** docker's configuration file. */
  readonly file: string;
  /** The credential helper that has the password; null when the file itself has it. */
  readonly helper: string | null;
  /** False when the registry lets everybody in and so did not say whether the password is right. */
  readonly checked: boolean;
  readonly warnings: readonly Fault[];
}

export interface LogoutResult {
  readonly host: string;
  /** False when there was no login. */
  readonly removed: boolean;
  readonly file: string | null;
  readonly helper: string | null;
  /** Where a login for the host still is: another file, or the environment; null when nowhere. */
  readonly remaining: string | null;
}

const HUB_NAMES = ['index.docker.io', 'registry-1.docker.io'];

/**
 * Reads `[http://|https://]HOST[:PORT]`. The names of Docker Hub become `docker.io`.
 * @throws USAGE, also for a user name or a password inside
 */
export function parseLoginHost(text: string): Pick<LoginOptions, 'host' | 'config'> {
  const [, scheme, rest = ''] = /^(?:(https?):\/\/)?(.*)$/is.exec(text) ?? [];
  if (rest.includes('@')) {
    throw new SealiftError('USAGE', 'no user name or password in the address of a registry', {
      hint: 'write `sealift login HOST -u USER`; the password is asked for, or read with --password-stdin',
    });
  }
  const host = rest.replace(/\/(?:v[12])?\/?$/, '').toLowerCase();
  if (!isHost(host)) {
    throw new SealiftError('USAGE', `"${text.slice(0, 200)}" is not the address of a registry`, {
      hint: 'write host[:port], for example nexus.local:5000 or docker.io; a login is for a whole host',
    });
  }
  const config = scheme === undefined ? {} : { plainHttp: scheme.toLowerCase() === 'http' };
  return { host: HUB_NAMES.includes(host) ? 'docker.io' : host, config };
}

/**
 * Checks a login against its registry and then writes it to docker's configuration, where docker finds it too.
 * @throws AUTH_DENIED, AUTH_REQUIRED, TARGET_UNREACHABLE, AUTH_FILE_BUSY …; then nothing is written
 */
export function login(options: LoginOptions, context: Context): Promise<LoginResult> {
  return withHttp(context, async (http) => {
    const { host, config, ...person } = options;
    const answer = await checkLogin(host, person, { http, context, config });
    const { file, helper } = await storeLogin(host, person, context);
    const plain = fault('AUTH_STORED_PLAIN', `${file} holds the password in Base64, which hides nothing`, {
      hint: 'set a credential helper in it ("credsStore": "secretservice", "pass" …) and log in again',
    });
    return {
      host,
      username: person.username,
      file,
      helper: helper ?? null,
      checked: answer === 'taken',
      warnings: helper === undefined ? [plain] : [],
    };
  });
}

/** Takes a login out of docker's configuration and its helper. Without one nothing changes. @throws as `login` */
export async function logout(host: string, context: Context): Promise<LogoutResult> {
  const removed = await removeLogin(host, context);
  const { env, signal } = context;
  const left = await new Credentials({ env, signal }).locate(host, '').catch((error: unknown) => {
    // The login is gone; that another file is broken says the command that needs it.
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    return undefined;
  });
  return {
    host,
    removed: removed !== undefined,
    file: removed?.file ?? null,
    helper: removed?.helper ?? null,
    remaining: left?.from ?? null,
  };
}
