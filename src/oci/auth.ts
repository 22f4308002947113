import { isAbort, redact, SealiftError } from '../core/errors.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import { type Credential, findCredential } from './credentials.ts';
import { type AuthOptions, basicOf, fetchToken, realmOf, type Token } from './token.ts';

export type { AuthOptions } from './token.ts';

/** What a request is for. */
export interface AuthAbout {
  /** `repository:<name>:<actions>`, the most important first (registry.md A4). */
  readonly scopes: readonly string[];
  /** Decides which credential is taken; '' for the registry itself. */
  readonly repository: string;
}

const BASIC: Challenge = { scheme: 'basic', params: {} };

/** The scopes of a challenge; one may hold a space in its type only. */
function challengedScopes(challenge: Challenge): string[] {
  return challenge.params.scope?.split(/ +(?=[a-z]+(?:\([^)]*\))?:)/).filter((s) => s !== '') ?? [];
}

/** Our scopes and those that the server asks for beyond them. */
function mergeScopes(own: readonly string[], challenged: readonly string[]): string[] {
  const split = (scope: string): readonly [string, string[]] => {
    const colon = scope.lastIndexOf(':');
    return [scope.slice(0, colon), scope.slice(colon + 1).split(',')];
  };
  const covered = challenged.filter((scope) => {
    const [name, actions] = split(scope);
    return own.some((o) => {
      const [ownName, ownActions] = split(o);
      return ownName === name && actions.every((a) => ownActions.includes(a));
    });
  });
  return [...new Set([...own, ...challenged.filter((scope) => !covered.includes(scope))])];
}

/** Authorization for one registry: learns from its 401s, keeps tokens, asks for new ones in time (registry.md 1.1). */
export class RegistryAuth {
  readonly #options: AuthOptions;
  readonly #tokens = new Map<string, Promise<Token>>();
  readonly #credentials = new Map<string, Promise<Credential | undefined>>();
  /** Scopes that the server wanted for what we call these scopes. */
  readonly #wanted = new Map<string, readonly string[]>();
  #challenge: Challenge | undefined;
  #noted = false;

  constructor(options: AuthOptions) {
    this.#options = options;
  }

  /** The Authorization header for a request, from what is known already; undefined before the first 401. */
  async header(about: AuthAbout): Promise<string | undefined> {
    const challenge = this.#challenge;
    if (challenge === undefined) return undefined;
    const credential = await this.#credential(about.repository);
    if (credential?.kind === 'registry-token') return `Bearer ${credential.token}`;
    if (challenge.scheme === 'basic') {
      return credential?.kind === 'password' ? basicOf(credential) : undefined;
    }
    const realm = realmOf(challenge, this.#options);
    try {
      return `Bearer ${await this.#token(challenge, { about, credential, realm: realm.url })}`;
    } catch (error) {
      if (!realm.repaired || credential?.kind !== 'password' || isAbort(error)) throw error;
      // Nexus takes a password without being asked for one (registry.md A8).
      this.#challenge = BASIC;
      return basicOf(credential);
    }
  }

  /**
   * Learns from a 401: picks Bearer, then Basic, of what the server offers, and forgets the token that was refused.
   * @param refused the Authorization header that was sent
   * @throws AUTH_REQUIRED when nothing that we have fits
   */
  async learn(
    header: string | undefined,
    options: AuthAbout & { readonly refused: string | undefined },
  ): Promise<void> {
    const offered = parseChallenges(header ?? '');
    const chosen =
      offered.find((c) => c.scheme === 'bearer' && c.params.realm !== undefined) ??
      offered.find((c) => c.scheme === 'basic');
    if (chosen === undefined) {
      const names = offered.map((c) => c.scheme).join(', ') || 'nothing';
      throw this.#required(`the server offers ${names}; Bearer or Basic is needed`);
    }
    if (chosen.scheme === 'basic' && (await this.#credential(options.repository))?.kind !== 'password') {
      throw this.#required('it wants a user name and a password, and none is configured');
    }
    this.#challenge = chosen;
    this.#wanted.set(options.scopes.join(' '), mergeScopes(options.scopes, challengedScopes(chosen)));
    if (chosen.scheme === 'bearer') this.#note(chosen);
    await this.#forget(options.refused);
  }

  /** Tells once that the realm had to be guessed. */
  #note(challenge: Challenge): void {
    const { host, context } = this.#options;
    const realm = realmOf(challenge, this.#options);
    if (!realm.repaired || this.#noted) return;
    this.#noted = true;
    const stated = redact((challenge.params.realm ?? '').slice(0, 80));
    context.emit({
      type: 'note',
      message: `${host}: the realm "${stated}" is not a URL, using ${realm.url.href}`,
    });
  }

  /** Drops the token of a refused header, but not one that another request got in the meantime. */
  async #forget(refused: string | undefined): Promise<void> {
    for (const [key, pending] of this.#tokens) {
      const token = await pending.catch(() => undefined);
      if (`Bearer ${token?.value}` === refused && this.#tokens.get(key) === pending) this.#tokens.delete(key);
    }
  }

  #required(why: string): SealiftError {
    return new SealiftError('AUTH_REQUIRED', `${this.#options.host}: ${why}`, {
      hint: `run \`docker login ${this.#options.host}\` (or podman login), then the same command again`,
    });
  }

  #credential(repository: string): Promise<Credential | undefined> {
    const known = this.#credentials.get(repository);
    if (known !== undefined) return known;
    const { host, context } = this.#options;
    const found = findCredential(host, { repository, env: context.env, signal: context.signal });
    this.#credentials.set(repository, found);
    return found;
  }

  /** The token for some scopes: the one that is known while it lasts, one exchange for all who wait otherwise (A5). */
  async #token(
    challenge: Challenge,
    ask: { readonly about: AuthAbout; readonly credential: Credential | undefined; readonly realm: URL },
  ): Promise<string> {
    const { about, credential, realm } = ask;
    const scopes = this.#wanted.get(about.scopes.join(' ')) ?? about.scopes;
    const service = challenge.params.service;
    const key = JSON.stringify([realm.href, service, [...scopes].sort()]);
    for (let known = this.#tokens.get(key); known !== undefined; ) {
      const token = await known;
      if (token.expires > this.#options.context.now()) return token.value;
      const now = this.#tokens.get(key);
      if (now === known) break;
      known = now;
    }
    const fresh = fetchToken(this.#options, { realm, service, scopes, credential });
    this.#tokens.set(key, fresh);
    try {
      return (await fresh).value;
    } catch (error) {
      if (this.#tokens.get(key) === fresh) this.#tokens.delete(key);
      throw error;
    }
  }
}
