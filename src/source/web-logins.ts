import { join } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { type TlsOptions, tlsTowards } from '../io/certificates.ts';
import { parseYaml } from '../io/yaml.ts';
import { type Env, helmConfigFolder, readConfigText, recordOf } from '../oci/auth-files.ts';
import { envLogin } from '../oci/env-credentials.ts';
import { basicOf } from '../oci/token.ts';

/** One chart repository of helm's own configuration (`helm repo add`). */
interface HelmRepository {
  readonly name: string;
  readonly url: URL;
  readonly login: { readonly username: string; readonly password: string } | undefined;
  /** `pass_credentials_all`: the login also goes to other hosts that the repository's index names. */
  readonly passAll: boolean;
  readonly tls: TlsOptions;
  readonly wantsInsecure: boolean;
}

/** What a request to a chart repository or for a file carries, beside its address. */
export interface WebAccess {
  readonly tls: TlsOptions;
  readonly authorization: string | undefined;
  /** Where the login is from; undefined when there is none. */
  readonly from: string | undefined;
}

/** helm's list of chart repositories: HELM_REPOSITORY_CONFIG, else `repositories.yaml` in helm's folder. */
export function helmRepositoriesPath(env: Env): string {
  return env.HELM_REPOSITORY_CONFIG || join(helmConfigFolder(env), 'repositories.yaml');
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function parseRepository(entry: unknown): HelmRepository | undefined {
  const { name, url, ...more } = recordOf(entry);
  const address = textOf(url);
  if (address === undefined || !URL.canParse(address)) return undefined;
  const { username, password, caFile, certFile, keyFile } = Object.fromEntries(
    Object.entries(more).map(([key, value]) => [key, textOf(value)]),
  );
  return {
    name: textOf(name) ?? '',
    url: new URL(address),
    login: username && password ? { username, password } : undefined,
    passAll: more.pass_credentials_all === true,
    wantsInsecure: more.insecure_skip_tls_verify === true,
    tls: {
      ...(caFile ? { caFile } : {}),
      ...(certFile && keyFile ? { clientCert: certFile, clientKey: keyFile } : {}),
    },
  };
}

/** @throws AUTH_REQUIRED for a file that is no YAML; its text is not repeated */
function parseRepositories(text: string, path: string): HelmRepository[] {
  const { yaml, faults } = parseYaml(text, { file: path, code: 'AUTH_REQUIRED' });
  if (yaml === undefined || faults.length > 0) {
    const line = faults[0]?.position?.line;
    const where = line === undefined ? '' : ` (line ${line})`;
    throw new SealiftError('AUTH_REQUIRED', `${path}: not YAML that can be read${where}`, {
      hint: 'repair the file with `helm repo list` and `helm repo add`, or remove it',
    });
  }
  const { repositories } = recordOf(yaml.value);
  return Array.isArray(repositories) ? repositories.flatMap((entry) => parseRepository(entry) ?? []) : [];
}

/** An address without what makes no difference to it: a slash at the end, a query. */
function addressOf(url: URL): string {
  return url.origin + url.pathname.replace(/\/+$/, '');
}

/** Logins for chart repositories and files: of the environment, and of helm's own configuration, read once. */
export class WebLogins {
  readonly #context: Context;
  readonly #noted = new Set<string>();
  #repositories: Promise<readonly HelmRepository[]> | undefined;

  constructor(context: Context) {
    this.#context = context;
  }

  /**
   * What to send to `url`. A login is for the host that it was given for (environment) or for the origin of the
   * repository (helm); the latter goes further only with `pass_credentials_all`, and never from https to http.
   * @param about.repository the chart repository that names the address; none for a file
   * @param about.tls what the manifest says of the host: it wins over helm's settings
   * @throws AUTH_REQUIRED when helm's file is broken
   */
  async accessTo(
    url: URL,
    about: { readonly repository: string | undefined; readonly tls: TlsOptions },
  ): Promise<WebAccess> {
    const found = about.repository === undefined ? undefined : await this.#find(about.repository);
    const helmTls = found === undefined ? {} : tlsTowards(found.tls, { from: found.url, to: url });
    const tls = { ...helmTls, ...about.tls };
    if (found?.wantsInsecure === true && about.tls.insecure !== true) this.#noteInsecure(found);
    const env = envLogin(this.#context.env, url.host);
    if (env !== undefined) {
      return { tls, authorization: basicOf({ kind: 'password', ...env }), from: 'the environment' };
    }
    const mayGo =
      found !== undefined &&
      (url.origin === found.url.origin ||
        (found.passAll && !(found.url.protocol === 'https:' && url.protocol === 'http:')));
    if (!mayGo || found.login === undefined) return { tls, authorization: undefined, from: undefined };
    const from = helmRepositoriesPath(this.#context.env);
    return { tls, authorization: basicOf({ kind: 'password', ...found.login }), from };
  }

  async #find(repository: string): Promise<HelmRepository | undefined> {
    if (!URL.canParse(repository)) return undefined;
    const wanted = addressOf(new URL(repository));
    this.#repositories ??= this.#read();
    const same = (await this.#repositories).filter((r) => addressOf(r.url) === wanted);
    return same.find((r) => r.login !== undefined) ?? same[0];
  }

  async #read(): Promise<readonly HelmRepository[]> {
    const path = helmRepositoriesPath(this.#context.env);
    const text = await readConfigText(path);
    return text === undefined || text.trim() === '' ? [] : parseRepositories(text, path);
  }

  /** Certificates are left unchecked only where sealift.yaml says so, which is reviewed. */
  #noteInsecure({ name, url }: HelmRepository): void {
    if (this.#noted.has(name)) return;
    this.#noted.add(name);
    const message = `helm's repository "${name.slice(0, 100)}" is set to accept any certificate; sealift checks it unless sealift.yaml has registries: {"${url.host}": {insecure: true}}`;
    this.#context.emit({ type: 'note', message });
  }
}
