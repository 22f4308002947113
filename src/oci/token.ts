import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { type TlsOptions, tlsTowards } from '../io/certificates.ts';
import { errorText, type HttpClient, type HttpResponse, isLoopback } from '../io/http.ts';
import { isPrivateAddress } from '../io/private-address.ts';
import { wholeAnswer } from '../io/resume.ts';
import type { Challenge } from './challenge.ts';
import type { Credential, CredentialSource } from './credentials.ts';

/** The registry that asks for tokens. */
export interface AuthOptions {
  readonly http: HttpClient;
  readonly context: Context;
  /** The name under which credentials are kept: `docker.io`, `10.0.0.1:5000`. */
  readonly host: string;
  /** Where the registry answers: scheme, host and port. */
  readonly origin: URL;
  readonly tls: TlsOptions;
  /** Default: those of the environment and the credential files. */
  readonly credentials?: CredentialSource;
}

export interface Token {
  readonly value: string;
  /** Milliseconds since the epoch. */
  readonly expires: number;
}

function parseUrl(text: string): URL | undefined {
  // `http:///v2/token` would be read as the host v2.
  if (!/^https?:\/\/[^/\\]/i.test(text)) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url?.protocol === 'https:' || url?.protocol === 'http:' ? url : undefined;
}

/**
 * The token server's URL, guarded against servers that want credentials elsewhere (registry.md A7) and with the broken
 * forms that Nexus is known for put right (A8): `repaired` is true when the stated one was no URL.
 * @throws NETWORK_URL_REFUSED for plain http beside an https registry, and for private addresses of other hosts
 */
export function realmOf(
  challenge: Challenge,
  registry: Pick<AuthOptions, 'host' | 'origin'>,
): { readonly url: URL; readonly repaired: boolean } {
  const { origin, host } = registry;
  const refused = (why: string): SealiftError =>
    new SealiftError('NETWORK_URL_REFUSED', `${host}: ${why}; credentials are not sent there`, {
      hint: 'the registry or a proxy before it is set up wrongly: its owner can correct the realm',
    });
  const realm = parseUrl(challenge.params.realm ?? '');
  if (realm === undefined) return { url: new URL('/v2/token', origin), repaired: true };
  realm.username = '';
  realm.password = '';
  const sameHost = realm.host === origin.host;
  if (realm.protocol === 'http:' && origin.protocol === 'https:') {
    // A proxy that ends TLS and tells Nexus neither scheme nor port (nexus-public #435).
    if (!sameHost && realm.hostname === origin.hostname && realm.port === '') {
      return { url: new URL('/v2/token', origin), repaired: true };
    }
    if (!sameHost) throw refused(`its token server ${realm.host} is plain http`);
    realm.protocol = 'https:';
  }
  const elsewhere = realm.hostname !== origin.hostname && !isLoopback(origin.hostname);
  if (elsewhere && isPrivateAddress(realm.hostname)) {
    throw refused(`its token server ${realm.host} is a private address`);
  }
  return { url: realm, repaired: false };
}

interface TokenRequest {
  readonly realm: URL;
  readonly service: string | undefined;
  readonly scopes: readonly string[];
  readonly credential: Credential | undefined;
}

/** `Basic` for a password. */
export function basicOf(credential: Extract<Credential, { kind: 'password' }>): string {
  return `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString('base64')}`;
}

/** The GET form (registry.md A2): one `scope` parameter for each scope, a password in the header or nobody at all. */
function askByGet(registry: AuthOptions, request: TokenRequest): Promise<HttpResponse> {
  const url = new URL(request.realm);
  if (request.service !== undefined) url.searchParams.append('service', request.service);
  for (const scope of request.scopes) url.searchParams.append('scope', scope);
  const { credential } = request;
  const password = credential?.kind === 'identity-token' ? credential.password : credential;
  const headers = password?.kind === 'password' ? { authorization: basicOf(password) } : undefined;
  return registry.http.request({
    method: 'GET',
    url,
    tls: tlsTowards(registry.tls, { from: registry.origin, to: url }),
    ...(headers ? { headers } : {}),
  });
}

/** The OAuth2 form for an identity token (A3). Not redirected: the secret is in the body, which would go along. */
function askByPost(registry: AuthOptions, request: TokenRequest, token: string): Promise<HttpResponse> {
  const form = new URLSearchParams({
    grant_type: 'refresh_token',
    ...(request.service === undefined ? {} : { service: request.service }),
    client_id: 'sealift',
    refresh_token: token,
    scope: request.scopes.join(' '),
  });
  return registry.http.request({
    method: 'POST',
    url: request.realm,
    tls: tlsTowards(registry.tls, { from: registry.origin, to: request.realm }),
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: Buffer.from(form.toString()),
    follow: false,
  });
}

/**
 * Gets a token. A server that knows no POST is asked by GET, with the password beside the identity token or as nobody.
 * @throws AUTH_DENIED, REGISTRY_RATE_LIMITED, REGISTRY_FAILED, REGISTRY_ANSWER_INVALID, NETWORK_FAILED …
 */
export async function fetchToken(registry: AuthOptions, request: TokenRequest): Promise<Token> {
  const { context, host } = registry;
  const { credential } = request;
  const about = { limit: LIMITS.token, what: `token of ${host}`, context };
  const { response, bytes } = await wholeAnswer(async () => {
    if (credential?.kind !== 'identity-token') return askByGet(registry, request);
    const answer = await askByPost(registry, request, credential.token);
    if (answer.status !== 404 && answer.status !== 405) return answer;
    await answer.body.dump();
    return askByGet(registry, request);
  }, about);
  if (bytes !== undefined) return parseToken(bytes, { host, now: context.now() });
  // Only to end the answer: what a token server says may repeat what it was sent.
  await errorText(response);
  const { status } = response;
  const denied = status === 401 || status === 403 || (status === 400 && credential !== undefined);
  const code = denied ? 'AUTH_DENIED' : status === 429 ? 'REGISTRY_RATE_LIMITED' : 'REGISTRY_FAILED';
  throw new SealiftError(code, `${host}: its token server answered HTTP ${status}`, {
    hint: denied
      ? `check the login: \`sealift login ${host}\``
      : 'run the same command again later; if it stays like this, ask the owner of the registry',
    details: { status },
  });
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
  if (typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value)) throw invalid();
  const stated = fields.get('expires_in');
  const seconds = typeof stated === 'number' && stated > 0 ? stated : 60;
  return { value, expires: about.now + (seconds - Math.min(5, seconds / 10)) * 1000 };
}
