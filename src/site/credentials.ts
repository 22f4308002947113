import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { readConfigText } from '../oci/auth-files.ts';
import { type Credential, type CredentialSource, Credentials } from '../oci/credentials.ts';
import { envLogin } from '../oci/env-credentials.ts';
import { netrcLogin, netrcPath } from '../oci/netrc.ts';
import type { CredentialsChoice } from './load.ts';

export interface Login {
  readonly username: string;
  readonly password: string;
}

/** Asks a person for the login of a target. */
export type AskLogin = (target: string) => Promise<Login>;

interface Of {
  /** For questions and messages. */
  readonly name: string;
  /** What the site's file says; undefined: it does not say. */
  readonly choice: CredentialsChoice | undefined;
  /** Every address of the target: a Nexus and its docker connector have the same users. */
  readonly addresses: readonly URL[];
}

interface Tools {
  readonly context: Context;
  /** Absent where nobody can be asked. */
  readonly ask: AskLogin | undefined;
}

/**
 * The logins of one target of a site: SEALIFT_CREDENTIALS_…; then what the site's file says; where it says nothing the files
 * of docker and podman, then netrc. A login that is kept for one address of the target also counts for another one of the same
 * host name, though never from https to http.
 */
export function siteCredentials(of: Of, tools: Tools): CredentialSource {
  const { env, signal, emit } = tools.context;
  const onNote = (message: string): void => emit({ type: 'note', message });
  const files = new Credentials({ env, signal, onNote });
  let stated: Promise<Credential | undefined> | undefined;

  const search = async (host: string, repository: string): Promise<Credential | undefined> => {
    const found = await files.find(host, repository);
    if (found !== undefined) return found;
    return passwordOf(await netrcLogin(netrcPath(env), { host, onNote }));
  };
  const find = async (host: string, repository: string): Promise<Credential | undefined> => {
    const named = passwordOf(envLogin(env, host));
    if (named !== undefined) return named;
    const { choice } = of;
    if (choice?.kind === 'file') return fromFile(choice.path, { host, repository, tools, onNote, of });
    if (choice !== undefined) {
      stated ??= choice.kind === 'env' ? fromEnv(choice.prefix, of, env) : fromPerson(of, tools);
      return stated;
    }
    for (const one of [host, ...othersOf(host, of.addresses)]) {
      const found = await search(one, one === host ? repository : '');
      if (found !== undefined) return found;
    }
    return undefined;
  };
  return { find };
}

/** The other addresses of the same host name whose login may be sent to this one. */
function othersOf(host: string, addresses: readonly URL[]): string[] {
  const own = addresses.filter((url) => url.host === host);
  return addresses
    .filter((url) => url.host !== host && own.some((to) => isAsSafe(to, url)))
    .map((url) => url.host);
}

function isAsSafe(to: URL, from: URL): boolean {
  return to.hostname === from.hostname && (to.protocol === 'https:' || from.protocol === 'http:');
}

function passwordOf(login: Login | undefined): Credential | undefined {
  return login === undefined ? undefined : { kind: 'password', ...login };
}

async function fromEnv(prefix: string, of: Of, env: Context['env']): Promise<Credential> {
  const [user, secret] = [`${prefix}_USERNAME`, `${prefix}_PASSWORD`];
  const [username, password] = [env[user], env[secret]];
  if (username && password) return { kind: 'password', username, password };
  const lacks = username ? secret : password ? user : `${user} and ${secret}`;
  throw new SealiftError('AUTH_REQUIRED', `${of.name}: ${lacks} is not set`, {
    hint: `set ${user} and ${secret}, or take credentials out of the site's file`,
  });
}

async function fromPerson(of: Of, { ask }: Tools): Promise<Credential> {
  if (ask !== undefined) return { kind: 'password', ...(await ask(of.name)) };
  throw new SealiftError('AUTH_REQUIRED', `${of.name}: there is no terminal to ask for the login`, {
    hint: "run it at a terminal, or write credentials: {env: NAME} in the site's file",
  });
}

async function fromFile(
  path: string,
  about: {
    readonly host: string;
    readonly repository: string;
    readonly tools: Tools;
    readonly onNote: (message: string) => void;
    readonly of: Of;
  },
): Promise<Credential | undefined> {
  const { host, repository, tools, onNote, of } = about;
  const text = await readConfigText(path);
  if (text === undefined) {
    throw new SealiftError('AUTH_REQUIRED', `${of.name}: there is no ${path}`, {
      hint: "correct credentials in the site's file",
    });
  }
  const { env, signal } = tools.context;
  const isJson = text.trimStart().startsWith('{');
  const files = new Credentials({ env, signal, only: path, onNote });
  for (const one of [host, ...othersOf(host, of.addresses)]) {
    const found = isJson
      ? await files.find(one, one === host ? repository : '')
      : passwordOf(await netrcLogin(path, { host: one, onNote }));
    if (found !== undefined) return found;
  }
  throw new SealiftError('AUTH_REQUIRED', `${of.name}: ${path} has no login for ${host}`, {
    hint: `add it there, or take credentials out of the site's file`,
  });
}
