import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { errorText, type HttpClient, isLoopback, type TlsOptions } from '../io/http.ts';
import { collect } from '../io/verify.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import { type Credential, findCredential } from './credentials.ts';

export interface AuthOptions {
  readonly http: HttpClient;
  readonly context: Context;
  /** The name under which credentials are kept: `docker.io`, `10.0.0.1:5000`. */
  readonly host: string;
  /** Where the registry answers: scheme, host and port. */
  readonly origin: URL;
  readonly tls: TlsOptions;
}

interface Token {
  readonly value: string;
  /** Milliseconds since the epoch. */
  readonly expires: number;
}

const PRIVATE_HOST =
  /^(?:10\.|127\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|0\.|\[?::1\]?$|\[?f[cde])|^localhost$/i;

/** Authorization for one registry: learns from its 401s, keeps tokens, asks for new ones in time (registry.md 1.1). */
export class RegistryAuth {
  readonly #options: AuthOptions;
  readonly #tokens = new Map<string, Promise<Token>>();
  readonly #credentials = new Map<string, Promise<Credential | undefined>>();
  #challenge: Challenge | undefined;

  constructor(options: AuthOptions) {
    this.#options = options;
  }

  /** The Authorization header for these scopes, from what is known already; undefined before the first 401. */
  async header(scopes: readonly string[], repository: string): Promise<string | undefined> {
    const challenge = this.#challenge;
    if (challenge === undefined) return undefined;
    const credential = await this.#credential(repository);
    if (credential?.kind === 'registry-token') return `Bearer ${credential.token}`;
    if (challenge.scheme === 'basic') {
      if (credential?.kind !== 'password') return undefined;
      return `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString('base64')}`;
    }
    return `Bearer ${await this.#token(challenge, scopes, credential)}`;
  }

  /**
   * Learns from a 401: picks Bearer, then Basic, of what the server offers, and forgets the token that was refused.
   * @throws AUTH_REQUIRED when nothing that we have fits
   */
  async learn(header: string | undefined, scopes: readonly string[], repository: string): Promise<void> {
    const offered = parseChallenges(header ?? '');
    const chosen =
      offered.find((c) => c.scheme === 'bearer' && c.params.realm !== undefined) ??
      offered.find((c) => c.scheme === 'basic');
    if (chosen === undefined) {
      const names = offered.map((c) => c.scheme).join(', ') || 'nothing';
      throw this.#required(`the server offers ${names}; Bearer or Basic is needed`);
    }
    if (chosen.scheme === 'basic' && (await this.#credential(repository))?.kind !== 'password') {
      throw this.#required('it wants a user name and a password, and none is configured');
    }
    this.#challenge = chosen;
    this.#tokens.delete(this.#key(scopes, chosen));
  }

  #required(why: string): SealiftError {
    return new SealiftError('AUTH_REQUIRED', `${this.#options.host}: ${why}`, {
      hint: `run \`docker login ${this.#options.host}\` (or podman login), then the same command again`,
    });
  }

  #credential(repository: string): Promise<Credential | undefined> {
    const known = this.#credentials.get(repository);
    if (known !== undefined) return known;
    const found = findCredential(this.#options.host, { repository, env: this.#options.context.env });
    this.#credentials.set(repository, found);
    return found;
  }

  #key(scopes: readonly string[], challenge: Challenge): string {
    return JSON.stringify([challenge.params.realm, challenge.params.service, [...scopes].sort()]);
  }

  async #token(
    challenge: Challenge,
    scopes: readonly string[],
    credential: Credential | undefined,
  ): Promise<string> {
    const key = this.#key(scopes, challenge);
    const known = this.#tokens.get(key);
    if (known !== undefined) {
      const token = await known;
      if (token.expires > this.#options.context.now()) return token.value;
    }
    const fresh = this.#exchange(challenge, scopes, credential);
    this.#tokens.set(key, fresh);
    try {
      return (await fresh).value;
    } catch (error) {
      this.#tokens.delete(key);
      throw error;
    }
  }

  /** The token server's URL, with the broken forms that Nexus is known for put right (registry.md A7, A8). */
  #realm(challenge: Challenge): URL {
    const { origin, host } = this.#options;
    const text = challenge.params.realm ?? '';
    let realm: URL | undefined;
    try {
      realm = new URL(text);
    } catch {
      realm = undefined;
    }
    if (realm === undefined || (realm.protocol !== 'https:' && realm.protocol !== 'http:')) {
      this.#options.context.emit({
        type: 'note',
        message: `${host}: the realm "${text.slice(0, 80)}" is not a URL, using ${origin.origin}/v2/token`,
      });
      return new URL('/v2/token', origin);
    }
    const sameHost = realm.host === origin.host;
    if (realm.protocol === 'http:' && origin.protocol === 'https:') {
      if (sameHost) realm.protocol = 'https:';
      else throw this.#refused(`its token server ${realm.host} is plain http`);
    }
    if (!sameHost && PRIVATE_HOST.test(realm.hostname) && !isLoopback(origin.hostname)) {
      if (realm.hostname !== origin.hostname) {
        throw this.#refused(`its token server ${realm.host} is a private address`);
      }
    }
    return realm;
  }

  #refused(why: string): SealiftError {
    return new SealiftError(
      'NETWORK_URL_REFUSED',
      `${this.#options.host}: ${why}; credentials are not sent there`,
    );
  }

  async #exchange(
    challenge: Challenge,
    scopes: readonly string[],
    credential: Credential | undefined,
  ): Promise<Token> {
    const { http, context, tls, host } = this.#options;
    const url = this.#realm(challenge);
    const service = challenge.params.service;
    const post = credential?.kind === 'identity-token';
    const form = new URLSearchParams();
    if (service !== undefined) form.set('service', service);
    const wanted = scopes.length > 0 ? scopes : (challenge.params.scope?.split(/ (?=[a-z]+:)/) ?? []);
    if (post) {
      form.set('grant_type', 'refresh_token');
      form.set('client_id', 'sealift');
      form.set('refresh_token', credential.token);
      form.set('scope', wanted.join(' '));
    } else {
      for (const scope of wanted) form.append('scope', scope);
      for (const [key, value] of form) url.searchParams.append(key, value);
    }
    const basic =
      credential?.kind === 'password'
        ? `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString('base64')}`
        : undefined;
    const response = await http.request({
      method: post ? 'POST' : 'GET',
      url,
      tls,
      headers: {
        ...(basic === undefined ? {} : { authorization: basic }),
        ...(post ? { 'content-type': 'application/x-www-form-urlencoded' } : {}),
      },
      ...(post ? { body: Buffer.from(form.toString()) } : {}),
    });
    if (response.status !== 200) {
      await errorText(response);
      const code = response.status === 401 || response.status === 403 ? 'AUTH_DENIED' : 'REGISTRY_FAILED';
      throw new SealiftError(code, `${host}: its token server answered HTTP ${response.status}`, {
        hint: `check the login: \`docker login ${host}\``,
      });
    }
    const body = await collect(response.body, { limit: LIMITS.token, what: `token of ${host}` });
    return parseToken(body, { host, now: context.now() });
  }
}

/** A token server's answer: `token` or `access_token`, 60 s unless it says otherwise, renewed 5 s early at most (A2, A5). */
function parseToken(body: Buffer, about: { readonly host: string; readonly now: number }): Token {
  const invalid = (): SealiftError =>
    new SealiftError('REGISTRY_ANSWER_INVALID', `${about.host}: its token server did not send a token`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString('utf8'));
  } catch {
    throw invalid();
  }
  if (typeof parsed !== 'object' || parsed === null) throw invalid();
  const fields = new Map(Object.entries(parsed));
  const value = fields.get('token') || fields.get('access_token');
  if (typeof value !== 'string' || value === '' || /[\s\x00-\x1f]/.test(value)) throw invalid();
  const stated = fields.get('expires_in');
  const seconds = typeof stated === 'number' && stated > 0 ? stated : 60;
  return { value, expires: about.now + (seconds - Math.min(5, seconds / 10)) * 1000 };
}
