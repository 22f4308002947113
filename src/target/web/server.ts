import { redact, SealiftError } from '../../core/errors.ts';
import type { Context } from '../../core/events.ts';
import { LIMITS } from '../../core/limits.ts';
import type { TlsOptions } from '../../io/certificates.ts';
import { errorText, type HttpClient, type HttpRequest, type HttpResponse } from '../../io/http.ts';
import { isPage } from '../../io/page-text.ts';
import { wholeAnswer } from '../../io/resume.ts';
import type { CredentialSource } from '../../oci/credentials.ts';
import { type Login, refusalError } from './refusals.ts';

export interface WebServerOptions {
  readonly http: HttpClient;
  readonly context: Context;
  /** Where its paths begin, ending in `/`: `https://nexus.local/`, `https://apps.local/nexus/`. */
  readonly base: URL;
  readonly tls?: TlsOptions;
  /** Asked once, by the host of `base`; default nobody. */
  readonly credentials?: CredentialSource;
}

/** One request to a server. */
export interface WebRequest
  extends Pick<HttpRequest, 'method' | 'headers' | 'body' | 'contentLength' | 'tries'> {
  /** Below the base, encoded, perhaps with a query. */
  readonly path: string;
}

/**
 * A server of packages that speaks plain HTTP and Basic login: Nexus, devpi. The login is sent ahead, because hosted
 * repositories let readers in without one and refuse the upload only after its body (registry.md 2.4), and to its own origin only.
 */
export class WebServer {
  readonly base: URL;
  readonly context: Context;
  readonly #options: WebServerOptions;
  #login: Promise<Login | undefined> | undefined;

  constructor(options: WebServerOptions) {
    if (!options.base.pathname.endsWith('/') || options.base.search !== '' || options.base.username !== '') {
      throw new SealiftError('USAGE', `${redact(options.base.href)}: not the base address of a server`);
    }
    this.base = options.base;
    this.context = options.context;
    this.#options = options;
  }

  /** The address of a path below the base. @throws INTERNAL for one that leads out of it */
  url(path: string): URL {
    const url = new URL(path, this.base);
    if (url.origin === this.base.origin && url.pathname.startsWith(this.base.pathname)) return url;
    throw new SealiftError('INTERNAL', `${redact(path)} leads out of ${this.base.href}`);
  }

  /**
   * Sends a request; any status is an answer, whose body must be read or dumped.
   * @throws NETWORK_FAILED, NETWORK_TIMEOUT, NETWORK_URL_REFUSED, AUTH_REQUIRED for a login that cannot be read
   */
  async send({ path, headers, ...request }: WebRequest): Promise<HttpResponse> {
    const login = await this.#loginOf();
    const { http, tls } = this.#options;
    return http.request({
      ...request,
      url: this.url(path),
      ...(tls === undefined ? {} : { tls }),
      headers: { ...headers, ...(login === undefined ? {} : { authorization: login.header }) },
    });
  }

  /** A small text; undefined where there is none (404). @param limit bytes @throws as `fail`; CONTENT_TOO_LARGE */
  async text(path: string, limit: number): Promise<string | undefined> {
    const what = `GET ${this.url(path).host}${this.url(path).pathname}`;
    const { context } = this.#options;
    const ask = (): Promise<HttpResponse> => this.send({ method: 'GET', path });
    const { response, bytes } = await wholeAnswer(ask, { what, limit, context });
    if (bytes !== undefined) return bytes.toString('utf8');
    if (response.status !== 404) throw await this.fail(response, this.url(path).pathname);
    await response.body.dump();
    return undefined;
  }

  /** A small JSON document, unchecked; undefined where there is none (404). @throws as `text`; TARGET_UNREACHABLE for what is no JSON */
  async json(path: string, limit: number): Promise<unknown> {
    const text = await this.text(path, limit);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch {
      const what = isPage(text) ? 'a web page' : 'something that is no JSON';
      throw new SealiftError('TARGET_UNREACHABLE', `${this.url(path).href}: ${what} answered`, {
        hint: 'check the address of the server (Nexus: that of its user interface, not of a docker repository) and proxies in between',
      });
    }
  }

  /** A refusal as our error, with what helps (see refusalError). Reads the start of its body. */
  async fail(response: HttpResponse, what: string): Promise<SealiftError> {
    const login = await this.#loginOf().catch(() => undefined);
    const text = (await errorText(response)).slice(0, LIMITS.errorBody);
    return refusalError(response, { what, text, base: this.base, login });
  }

  /** Of the host, once. A token is for registries. */
  #loginOf(): Promise<Login | undefined> {
    this.#login ??= this.#find();
    return this.#login;
  }

  async #find(): Promise<Login | undefined> {
    const found = await this.#options.credentials?.find(this.base.host, '');
    if (found?.kind !== 'password') return undefined;
    const { username, password } = found;
    const coded = Buffer.from(`${username}:${password}`).toString('base64');
    return { header: `Basic ${coded}`, username, secrets: [password, coded] };
  }
}
