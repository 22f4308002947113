import { isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { TlsOptions } from '../io/certificates.ts';
import type { HttpClient } from '../io/http.ts';
import { chooseChallenge } from './auth.ts';
import { parseChallenges } from './challenge.ts';
import { type CredentialSource, Credentials } from './credentials.ts';
import { fetchToken, realmOf } from './token.ts';
import type { RegistryWire } from './wire.ts';

/** Bytes of a token that is looked into. */
const TOKEN_LIMIT = 64 * 1024;

/**
 * What a registry lets this login do in a repository, as its token says. `opaque`: the token says nothing that we can read;
 * `none`: the registry works without tokens (Basic, or everybody).
 */
export type Granted = readonly string[] | 'opaque' | 'none';

/** The actions that a JWT of a token server grants for a repository (distribution, "Token Authentication"). Not verified: it is only read. */
export function grantedActions(token: string, repository: string): readonly string[] | undefined {
  const [, payload] = token.length > TOKEN_LIMIT ? [] : token.split('.');
  if (payload === undefined || token.split('.').length !== 3) return undefined;
  try {
    const body: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    const access: unknown =
      typeof body === 'object' && body !== null ? Reflect.get(body, 'access') : undefined;
    if (!Array.isArray(access)) return access === undefined || access === null ? [] : undefined;
    return access.flatMap((one: unknown) => {
      const [type, name, actions] = ['type', 'name', 'actions'].map((key): unknown =>
        typeof one === 'object' && one !== null ? Reflect.get(one, key) : undefined,
      );
      if (type !== 'repository' || name !== repository || !Array.isArray(actions)) return [];
      return actions.filter((action): action is string => typeof action === 'string');
    });
  } catch {
    return undefined;
  }
}

/**
 * Asks a registry's token server which of pull, push and delete it grants, without touching the registry's content.
 * @throws AUTH_DENIED when the login is refused, NETWORK_FAILED, NETWORK_URL_REFUSED …
 */
export async function askAccess(
  wire: RegistryWire,
  options: {
    readonly http: HttpClient;
    readonly context: Context;
    readonly tls: TlsOptions;
    readonly credentials?: CredentialSource;
    readonly repository: string;
  },
): Promise<Granted> {
  const { http, context, tls, repository } = options;
  const { host, base: origin } = wire;
  const response = await http.request({ method: 'GET', url: wire.url('/v2/'), tls, tries: 2 });
  await response.body.dump();
  const challenge = chooseChallenge(parseChallenges(response.headers['www-authenticate'] ?? ''));
  if (response.status !== 401 || challenge?.scheme !== 'bearer') return 'none';
  const source = options.credentials ?? new Credentials({ env: context.env, signal: context.signal });
  const credential = await source.find(host, repository);
  if (credential?.kind === 'registry-token') return 'opaque';
  const registry = { http, context, host, origin, tls };
  const { url: realm, repaired } = realmOf(challenge, { host, origin });
  const scopes = [`repository:${repository}:pull,push,delete`];
  try {
    const service = challenge.params.service;
    const { value } = await fetchToken(registry, { realm, service, scopes, credential });
    return grantedActions(value, repository) ?? 'opaque';
  } catch (error) {
    // A realm that had to be guessed (Nexus): a password may do without a token.
    if (!repaired || isAbort(error) || !(error instanceof SealiftError)) throw error;
    return 'opaque';
  }
}
