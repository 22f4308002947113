import {
  AUTH_VARIABLE,
  type AuthFile,
  credentialFiles,
  type Env,
  entriesFor,
  helperFor,
  keysFor,
  parseAuthFile,
  readConfigText,
  serverKey,
} from './auth-files.ts';
import { getFromHelper } from './credential-helper.ts';
import { envLogin } from './env-credentials.ts';

interface Password {
  readonly kind: 'password';
  readonly username: string;
  readonly password: string;
}

/** What a person has for one registry. Never logged, never put into an error. */
export type Credential =
  | Password
  /** `password` of the same entry, for token servers that know no identity tokens (registry.md A3). */
  | { readonly kind: 'identity-token'; readonly token: string; readonly password?: Password }
  | { readonly kind: 'registry-token'; readonly token: string };

/** A credential, and the file, variable or helper that it is from. */
export interface FoundCredential {
  readonly credential: Credential;
  readonly from: string;
}

/** What knows the credentials of a registry. */
export interface CredentialSource {
  find(host: string, repository: string): Promise<Credential | undefined>;
}

/** Nobody's credentials. */
export const NOBODY: CredentialSource = { find: async () => undefined };

interface SearchOptions {
  readonly env: Env;
  readonly signal?: AbortSignal;
  /** The only file that is asked, instead of the environment and all files. */
  readonly only?: string;
  /** Is told what went wrong where the search could go on. */
  readonly onNote?: (message: string) => void;
}

/** The `user:password` of an entry, in Base64 or apart. */
function passwordOf(entry: Readonly<Record<string, unknown>>): Password | undefined {
  if (typeof entry.auth === 'string' && entry.auth !== '') {
    // docker for Windows wrote zero bytes behind it.
    const text = Buffer.from(entry.auth, 'base64').toString('utf8').replace(/\0+$/, '');
    const colon = text.indexOf(':');
    if (colon > 0) {
      return { kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1) };
    }
  }
  const { username, password } = entry;
  if (typeof username !== 'string' || typeof password !== 'string' || username === '') return undefined;
  return { kind: 'password', username, password };
}

function fromEntry(entry: Readonly<Record<string, unknown>>): Credential | undefined {
  const { registrytoken, identitytoken } = entry;
  if (typeof registrytoken === 'string' && registrytoken !== '') {
    return { kind: 'registry-token', token: registrytoken };
  }
  const password = passwordOf(entry);
  if (typeof identitytoken === 'string' && identitytoken !== '') {
    const spare = password === undefined || password.password === '' ? {} : { password };
    return { kind: 'identity-token', token: identitytoken, ...spare };
  }
  return password;
}

/** The credentials of one run: files are read once, helpers are asked once for each host. */
export class Credentials implements CredentialSource {
  readonly #options: SearchOptions;
  readonly #files = new Map<string, Promise<AuthFile | undefined>>();
  readonly #helped = new Map<string, Promise<Credential | undefined>>();

  constructor(options: SearchOptions) {
    this.#options = options;
  }

  /**
   * The credential for a repository on a host (`docker.io` for Docker Hub); undefined means anonymous. The environment
   * beats the files; in one file `credHelpers` beats `credsStore` beats `auths`; the first file that knows the host wins.
   * @throws AUTH_REQUIRED when a file or a helper is broken
   */
  async find(host: string, repository: string): Promise<Credential | undefined> {
    return (await this.locate(host, repository))?.credential;
  }

  /** As `find`, with where it was found. */
  async locate(host: string, repository: string): Promise<FoundCredential | undefined> {
    const { env, only } = this.#options;
    const login = only === undefined ? envLogin(env, host) : undefined;
    if (login !== undefined) return { credential: { kind: 'password', ...login }, from: 'the environment' };
    const paths = only === undefined ? [AUTH_VARIABLE, ...credentialFiles(env)] : [only];
    for (const path of paths) {
      const file = await this.#read(path);
      const credential = file && (await this.#inFile(file, host.toLowerCase(), repository));
      if (credential !== undefined) return { credential, from: path };
    }
    return undefined;
  }

  #read(path: string): Promise<AuthFile | undefined> {
    const known = this.#files.get(path);
    if (known !== undefined) return known;
    const read = async (): Promise<AuthFile | undefined> => {
      const text = path === AUTH_VARIABLE ? this.#options.env[path] : await readConfigText(path);
      return text === undefined ? undefined : parseAuthFile(text, path);
    };
    const file = read();
    this.#files.set(path, file);
    return file;
  }

  async #inFile(file: AuthFile, host: string, repository: string): Promise<Credential | undefined> {
    const helper = helperFor(file, host);
    if (helper !== undefined) {
      // docker keeps Docker Hub under its old address, podman under its name.
      for (const server of new Set([serverKey(host), host])) {
        const found = await this.#fromHelper(helper, server);
        if (found !== undefined) return found;
      }
    }
    for (const key of keysFor(host, repository)) {
      for (const entry of entriesFor(file, key)) {
        const found = fromEntry(entry);
        if (found !== undefined) return found;
      }
    }
    return undefined;
  }

  #fromHelper(name: string, server: string): Promise<Credential | undefined> {
    const key = `${name} ${server}`;
    const known = this.#helped.get(key);
    if (known !== undefined) return known;
    const ask = async (): Promise<Credential | undefined> => {
      const { onNote, ...options } = this.#options;
      const tell = onNote === undefined ? {} : { onRefusal: onNote };
      const found = await getFromHelper(name, server, { ...options, ...tell });
      if (found === undefined) return undefined;
      const { username, secret } = found;
      if (username === '<token>') return { kind: 'identity-token', token: secret };
      return { kind: 'password', username, password: secret };
    };
    const found = ask();
    this.#helped.set(key, found);
    return found;
  }
}
