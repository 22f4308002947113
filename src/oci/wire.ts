import { fault, type SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { type TlsOptions, tlsOptionsOf, tlsTowards } from '../io/certificates.ts';
import { errorText, type HttpClient, type HttpRequest, type HttpResponse, isLoopback } from '../io/http.ts';
import { wholeAnswer } from '../io/resume.ts';
import { statusError } from './answers.ts';
import { challengedScopes, chooseChallenge, RegistryAuth } from './auth.ts';
import { parseChallenges } from './challenge.ts';
import { type CredentialSource, NOBODY } from './credentials.ts';
import { warningTexts } from './warnings.ts';

/** How to reach one registry, where it differs from HTTPS with the system's trust. */
export interface HostConfig extends TlsOptions {
  /** Plain HTTP; the default only on loopback hosts. */
  readonly plainHttp?: boolean;
}

/** What a request does, for its authorization. */
export interface Purpose {
  /** '' for the registry itself. */
  readonly repository: string;
  readonly access: 'pull' | 'push' | 'delete';
  /** Another repository that a blob is mounted from. */
  readonly mountFrom?: string;
}

/** Registry.md A4: who deletes asks for that right by its own name. */
const ACTIONS = { pull: 'pull', push: 'pull,push', delete: 'pull,delete' } as const;

function scopesOf(purpose: Purpose): string[] {
  if (purpose.repository === '') return [];
  const from = purpose.mountFrom === undefined ? [] : [`repository:${purpose.mountFrom}:pull`];
  return [`repository:${purpose.repository}:${ACTIONS[purpose.access]}`, ...from];
}

/** Requests to one registry, with its authorization. */
export class RegistryWire {
  readonly host: string;
  readonly context: Context;
  readonly base: URL;
  readonly #http: HttpClient;
  readonly #tls: TlsOptions;
  readonly #auth: RegistryAuth;
  readonly #warned = new Set<string>();

  /** @param host as in a reference: `docker.io`, `quay.io`, `10.0.0.1:5000` */
  constructor(
    host: string,
    options: {
      readonly http: HttpClient;
      readonly context: Context;
      readonly config: HostConfig;
      readonly credentials?: CredentialSource;
    },
  ) {
    this.host = host;
    this.context = options.context;
    this.#http = options.http;
    this.#tls = tlsOptionsOf(options.config);
    const api = host === 'docker.io' ? 'registry-1.docker.io' : host;
    const plain = options.config.plainHttp ?? isLoopback(new URL(`https://${api}`).hostname);
    this.base = new URL(`${plain ? 'http' : 'https'}://${api}`);
    this.#auth = new RegistryAuth({
      http: this.#http,
      context: this.context,
      host,
      origin: this.base,
      tls: this.#tls,
      ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    });
  }

  /** Tells people something about this registry, each text once and a bounded number of them. */
  warn(text: string): void {
    if (this.#warned.has(text) || this.#warned.size >= LIMITS.registryWarnings) return;
    this.#warned.add(text);
    this.context.emit({ type: 'warning', fault: fault('REGISTRY_WARNING', `${this.host}: ${text}`) });
  }

  /** Shows what the registry wants people to know (registry.md 1.3 "Warning"). */
  async #showWarnings(response: HttpResponse): Promise<void> {
    if (response.url.origin !== this.base.origin) return;
    for (const text of warningTexts(response.headers.warning)) this.warn(await this.#auth.conceal(text));
  }

  url(path: string): URL {
    return new URL(path, this.base);
  }

  /** Sends one request with authorization; a 401 is answered once with what the server asks for. */
  async send(req: Omit<HttpRequest, 'tls'>, purpose: Purpose): Promise<HttpResponse> {
    const about = { scopes: scopesOf(purpose), repository: purpose.repository };
    const local = req.url.origin === this.base.origin;
    for (let attempt = 0; ; attempt++) {
      const authorization = local ? await this.#auth.header(about) : undefined;
      const response = await this.#http.request({
        ...req,
        tls: this.#tls,
        headers: { ...req.headers, ...(authorization === undefined ? {} : { authorization }) },
      });
      await this.#showWarnings(response);
      if (response.status !== 401) return response;
      if (!local || response.url.origin !== this.base.origin) return this.#askAsNobody(req, response);
      if (attempt > 0) return response;
      await response.body.dump();
      await this.#auth.learn(response.headers['www-authenticate'], { ...about, refused: authorization });
    }
  }

  /** Another host's 401, after a redirect, is not for our credentials; a token for nobody may do (registry.md A7). */
  async #askAsNobody(req: Omit<HttpRequest, 'tls'>, response: HttpResponse): Promise<HttpResponse> {
    const { url } = response;
    const header = response.headers['www-authenticate'];
    const challenge = chooseChallenge(parseChallenges(header ?? ''));
    const isRead = req.method === 'GET' || req.method === 'HEAD';
    if (challenge?.scheme !== 'bearer' || !isRead || req.url.origin !== this.base.origin) return response;
    await response.body.dump();
    const tls = tlsTowards(this.#tls, { from: this.base, to: url });
    const origin = new URL(url.origin);
    const shared = { http: this.#http, context: this.context, tls };
    const auth = new RegistryAuth({ ...shared, host: url.host, origin, credentials: NOBODY });
    const about = { scopes: challengedScopes(challenge), repository: '' };
    await auth.learn(header, { ...about, refused: undefined });
    const authorization = await auth.header(about);
    const headers = { ...req.headers, ...(authorization === undefined ? {} : { authorization }) };
    return this.#http.request({ ...req, url, tls, headers });
  }

  /** Sends a GET and gathers its small answer; other answers than 200 come back unread. */
  read(
    req: Pick<HttpRequest, 'url' | 'headers'>,
    about: Purpose & { readonly limit: number; readonly what: string },
  ): Promise<{ readonly response: HttpResponse; readonly bytes: Buffer | undefined }> {
    const ask = (): Promise<HttpResponse> => this.send({ method: 'GET', ...req }, about);
    return wholeAnswer(ask, { limit: about.limit, what: about.what, context: this.context });
  }

  /** A refusal as our error. Reads the start of its body. */
  async fail(response: HttpResponse, what: string, side: 'source' | 'destination'): Promise<SealiftError> {
    const text = await this.#auth.conceal(await errorText(response));
    return statusError(response, {
      text,
      what: `${this.host}: ${what}`,
      host: this.host,
      origin: this.base.origin,
      side,
      now: this.context.now(),
    });
  }
}
