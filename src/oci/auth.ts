import { isAbort, redact, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { conceal } from '../io/conceal.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import { type Credential, type CredentialSource, Credentials } from './credentials.ts';
import { type AuthOptions, basicOf, fetchToken, realmOf, type Token } from './token.ts';

export type { AuthOptions } from './token.ts';

/** What a request is for. */
export interface AuthAbout {
  /** `repository:<name>:<actions>`, the most important first (registry.md A4). */
  readonly scopes: readonly string[];
  /** Decides which credential is taken; '' for the registry itself. */
  readonly repository: string;
}

/** What a registry wants, for one repository or until another one says otherwise. */
interface Demand {
  readonly challenge: Challenge;
  /** It offered Basic beside Bearer. */
  readonly basicToo: boolean;
}

const BASIC: Demand = { challenge: { scheme: 'basic', params: {} }, basicToo: false };

/** The scopes of a challenge; one may hold a space in its type only. */
export function challengedScopes(challenge: Challenge): string[] {
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

/** The values that are there already; nothing is waited for. */
async function settledOf<T>(promises: Iterable<Promise<T>>): Promise<NonNullable<T>[]> {
  const known = [...promises].map((p) => Promise.race([p, undefined]).catch(() => undefined));
  return (await Promise.all(known)).flatMap((value) => value ?? []);
}

/** Keeps what is remembered for each repository small, however many repositories there are. */
function dropOldest(map: Map<string, unknown>): void {
  if (map.size <= LIMITS.rememberedLogins) return;
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}

/** What a server offers that we can answer: Bearer with a realm, then Basic (registry.md A1). */
export function chooseChallenge(offered: readonly Challenge[]): Challenge | undefined {
  return (
    offered.find((c) => c.scheme === 'bearer' && c.params.realm !== undefined) ??
    offered.find((c) => c.scheme === 'basic')
  );
}

/** Every form in which a credential could come back in an answer. */
function secretsOf(credential: Credential | undefined): string[] {
  if (credential === undefined) return [];
  if (credential.kind === 'password') {
    return [basicOf(credential).slice('Basic '.length), credential.password];
  }
  const spare = credential.kind === 'identity-token' ? credential.password : undefined;
  return [credential.token, ...secretsOf(spare)];
}

/** Authorization for one registry: learns from its 401s, keeps tokens, asks for new ones in time (registry.md 1.1). */
export class RegistryAuth {
  readonly #options: AuthOptions;
  readonly #source: CredentialSource;
  readonly #tokens = new Map<string, Promise<Token>>();
  readonly #credentials = new Map<string, Promise<Credential | undefined>>();
  /** Scopes that the server wanted for what we call these scopes. */
  readonly #wanted = new Map<string, readonly string[]>();
  /** Some servers have another realm for each repository. */
  readonly #demands = new Map<string, Demand>();
  #latest: Demand | undefined;
  #noted = false;

  constructor(options: AuthOptions) {
    this.#options = options;
    const { env, signal, emit } = options.context;
    const onNote = (message: string): void => emit({ type: 'note', message });
    this.#source = options.credentials ?? new Credentials({ env, signal, onNote });
  }

  /** The Authorization header for a request, from what is known already; undefined before the first 401. */
  async header(about: AuthAbout): Promise<string | undefined> {
    const demand = this.#demands.get(about.repository) ?? this.#latest;
    if (demand === undefined) return undefined;
    const credential = await this.#credential(about.repository);
    if (credential?.kind === 'registry-token') return `Bearer ${credential.token}`;
    if (demand.challenge.scheme === 'basic') {
      return credential?.kind === 'password' ? basicOf(credential) : undefined;
    }
    return this.#bearer(demand, { about, credential });
  }

  async #bearer(
    { challenge, basicToo }: Demand,
    ask: { readonly about: AuthAbout; readonly credential: Credential | undefined },
  ): Promise<string> {
    let repaired = false;
    try {
      const realm = realmOf(challenge, this.#options);
      repaired = realm.repaired;
      return `Bearer ${await this.#token(challenge, { ...ask, realm: realm.url })}`;
    } catch (error) {
      const isDenied = error instanceof SealiftError && error.code === 'AUTH_DENIED';
      const basicMayDo = repaired || (basicToo && !isDenied);
      if (!basicMayDo || ask.credential?.kind !== 'password' || isAbort(error)) throw error;
      // Nexus takes a password without being asked for one (registry.md A8).
      this.#demand(ask.about.repository, BASIC);
      return basicOf(ask.credential);
    }
  }

  #demand(repository: string, demand: Demand): void {
    this.#latest = demand;
    this.#demands.set(repository, demand);
    dropOldest(this.#demands);
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
    const challenge = chooseChallenge(offered);
    if (challenge === undefined) {
      const names = offered.map((c) => c.scheme).join(', ') || 'nothing';
      throw this.#required(`the server offers ${names}; Bearer or Basic is needed`);
    }
    if (challenge.scheme === 'basic' && (await this.#credential(options.repository))?.kind !== 'password') {
      throw this.#required('it wants a user name and a password, and none is configured');
    }
    const basicToo = challenge.scheme === 'bearer' && offered.some((c) => c.scheme === 'basic');
    this.#demand(options.repository, { challenge, basicToo });
    this.#wanted.set(options.scopes.join(' '), mergeScopes(options.scopes, challengedScopes(challenge)));
    dropOldest(this.#wanted);
    if (challenge.scheme === 'bearer') this.#note(challenge);
    await this.#forget(options.refused);
  }

  /** A text from the server without any secret that it was sent: some repeat what they got (registry.md A10). */
  async conceal(text: string): Promise<string> {
    const tokens = await settledOf(this.#tokens.values());
    const credentials = await settledOf(this.#credentials.values());
    const secrets = [...tokens.map((t) => t.value), ...credentials.flatMap(secretsOf)];
    return conceal(text, secrets);
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
      message: `${host}: the realm "${stated}" is not where its token server is, using ${realm.url.href}`,
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
      hint: `run \`sealift login ${this.#options.host}\`, then the same command again`,
      details: { status: 401 },
    });
  }

  #credential(repository: string): Promise<Credential | undefined> {
    const known = this.#credentials.get(repository);
    if (known !== undefined) return known;
    const found = this.#source.find(this.#options.host, repository);
    this.#credentials.set(repository, found);
    dropOldest(this.#credentials);
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
    dropOldest(this.#tokens);
    try {
      return (await fresh).value;
    } catch (error) {
      if (this.#tokens.get(key) === fresh) this.#tokens.delete(key);
      throw error;
    }
  }
}
