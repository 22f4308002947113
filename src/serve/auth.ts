import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { LIMITS } from '../core/limits.ts';
import { isHost, isRepository } from '../core/reference.ts';
import { collect } from '../io/verify.ts';
import { type Answer, bodyOf, type Exchange, jsonAnswer, refusal } from './answer.ts';

/** Who may use the registry. `basic` asks for a password on every request, `bearer` hands out tokens at `/token`. */
export interface AuthOptions {
  readonly kind: 'basic' | 'bearer';
  /** User name → password. Every user may do everything. */
  readonly users: Readonly<Record<string, string>>;
  /** Whether everybody may pull. Default false. */
  readonly anonymousPull?: boolean;
  /** Seconds that a token holds. Default 300. */
  readonly tokenTtlSeconds?: number;
}

/** What a request needs: actions on one resource, as in a token scope `type:name:action,action`. */
export interface Access {
  readonly type: 'repository' | 'registry';
  readonly name: string;
  readonly actions: readonly string[];
}

/** The doorkeeper of a registry. */
export interface Guard {
  /** The refusal for a request that lacks something, or undefined when it may go on. No needs at all: any known user. */
  check(exchange: Exchange, needs: readonly Access[]): Answer | undefined;
  /** The same for the chart repository and the files, which know only passwords. */
  checkPlain(exchange: Exchange): Answer | undefined;
  /** `GET` and `POST /token`; undefined when there is no token server here. */
  token(exchange: Exchange): Promise<Answer | undefined>;
}

interface Token {
  readonly granted: readonly Access[];
  /** Milliseconds since the epoch. */
  readonly expires: number;
}

const SERVICE = 'sealift';
const BASIC_CHALLENGE = 'Basic realm="sealift"';

function same(a: string, b: string): boolean {
  const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(hash(a), hash(b));
}

/** Whether a name and a password belong together. */
function isUser(users: AuthOptions['users'], name: string, password: string): boolean {
  return same(Object.hasOwn(users, name) ? (users[name] ?? '') : randomBytes(16).toString('hex'), password);
}

/** What a Basic Authorization header says; `wrong` for a header that says nothing of the kind; undefined without one. */
export function basicCredentials(
  exchange: Exchange,
): { readonly name: string; readonly password: string } | 'wrong' | undefined {
  const header = exchange.request.headers.authorization;
  if (header === undefined) return undefined;
  const encoded = /^basic\s+([A-Za-z0-9+/=_-]+)$/i.exec(header)?.[1];
  if (encoded === undefined) return 'wrong';
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 0 ? 'wrong' : { name: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** The user of a Basic Authorization header; `wrong` for a header that proves nothing; undefined without one. */
function basicUser(exchange: Exchange, users: AuthOptions['users']): string | 'wrong' | undefined {
  const said = basicCredentials(exchange);
  if (said === undefined || said === 'wrong') return said;
  return isUser(users, said.name, said.password) ? said.name : 'wrong';
}

function isPullOnly(needs: readonly Access[]): boolean {
  return needs.length > 0 && needs.every((n) => n.type === 'repository' && n.actions.join() === 'pull');
}

function scopeText(access: Access): string {
  return `${access.type}:${access.name}:${access.actions.join(',')}`;
}

/** Reads scopes; a parameter may hold several, separated by spaces. What is no scope is left out. */
function readScopes(values: readonly string[]): Access[] {
  const found: Access[] = [];
  for (const scope of values.flatMap((value) => value.split(' '))) {
    const [, type, name = '', actions = ''] = /^(repository|registry):([^:]+):([a-z*,]+)$/.exec(scope) ?? [];
    if (type === 'repository' && isRepository(name)) found.push({ type, name, actions: actions.split(',') });
    if (type === 'registry' && name === 'catalog') found.push({ type, name, actions: actions.split(',') });
  }
  return found;
}

function covers(granted: readonly Access[], need: Access): boolean {
  return need.actions.every((action) =>
    granted.some((g) => {
      if (g.type !== need.type || g.name !== need.name) return false;
      return g.actions.includes(action) || g.actions.includes('*');
    }),
  );
}

/** Asks for a user name and a password. */
export function basicRefusal(): Answer {
  return refusal('UNAUTHORIZED', 'authentication required', {
    headers: { 'www-authenticate': BASIC_CHALLENGE },
  });
}

/** A guard that asks for a user name and a password. */
function basicGuard(options: AuthOptions): Guard {
  const check = (exchange: Exchange, pull: boolean): Answer | undefined => {
    const user = basicUser(exchange, options.users);
    if (user === undefined && pull && options.anonymousPull === true) return undefined;
    return user === undefined || user === 'wrong' ? basicRefusal() : undefined;
  };
  return {
    check: (exchange, needs) => check(exchange, isPullOnly(needs)),
    checkPlain: (exchange) => check(exchange, true),
    token: async () => undefined,
  };
}

/** Tokens that were handed out and still hold. */
function tokenBook(options: { readonly ttlSeconds: number; readonly now: () => number }) {
  const tokens = new Map<string, Token>();
  const refresh = new Map<string, string>();
  const keepFew = (map: Map<string, unknown>): void => {
    const oldest = map.keys().next();
    if (map.size >= LIMITS.servedTokens && oldest.done !== true) map.delete(oldest.value);
  };
  return {
    issue(granted: readonly Access[]): string {
      keepFew(tokens);
      const token = randomBytes(24).toString('base64url');
      tokens.set(token, { granted, expires: options.now() + options.ttlSeconds * 1000 });
      return token;
    },
    granted(token: string): readonly Access[] | undefined {
      const found = tokens.get(token);
      if (found === undefined || found.expires > options.now()) return found?.granted;
      tokens.delete(token);
      return undefined;
    },
    issueRefresh(user: string): string {
      keepFew(refresh);
      const token = randomBytes(24).toString('base64url');
      refresh.set(token, user);
      return token;
    },
    userOf: (token: string): string | undefined => refresh.get(token),
  };
}

type TokenBook = ReturnType<typeof tokenBook>;

interface Grant {
  /** undefined: anonymous. */
  readonly user: string | undefined;
  readonly scopes: readonly Access[];
  readonly offline: boolean;
}

/** The form of an OAuth2 token request (distribution, "token authentication: OAuth2"). */
async function oauthGrant(
  exchange: Exchange,
  options: AuthOptions,
  book: TokenBook,
): Promise<Grant | Answer> {
  const body = await collect(bodyOf(exchange), { limit: LIMITS.token, what: 'token request' });
  const form = new URLSearchParams(body.toString('utf8'));
  const name = form.get('username') ?? '';
  const kind = form.get('grant_type');
  const user =
    kind === 'refresh_token'
      ? book.userOf(form.get('refresh_token') ?? '')
      : kind === 'password' && isUser(options.users, name, form.get('password') ?? '')
        ? name
        : undefined;
  if (user === undefined) return jsonAnswer({ error: 'invalid_grant' }, { status: 401 });
  return { user, scopes: readScopes(form.getAll('scope')), offline: form.get('access_type') === 'offline' };
}

function basicGrant(exchange: Exchange, options: AuthOptions): Grant | Answer {
  const user = basicUser(exchange, options.users);
  if (user === 'wrong' || (user === undefined && options.anonymousPull !== true)) return basicRefusal();
  return {
    user,
    scopes: readScopes(exchange.query.getAll('scope')),
    offline: exchange.query.get('offline_token') === 'true',
  };
}

/** What a grant allows: everything that a user asks for; only to pull for everybody else. */
function grantedScopes(grant: Grant): readonly Access[] {
  if (grant.user !== undefined) return grant.scopes;
  return grant.scopes
    .filter((scope) => scope.type === 'repository' && scope.actions.includes('pull'))
    .map((scope) => ({ ...scope, actions: ['pull'] }));
}

/** A guard that asks for a token, and the server that hands it out. */
function bearerGuard(
  options: AuthOptions,
  place: { readonly host: () => string; readonly now: () => number },
): Guard {
  const ttlSeconds = options.tokenTtlSeconds ?? 300;
  const book = tokenBook({ ttlSeconds, now: place.now });
  const challenge = (exchange: Exchange, needs: readonly Access[], error?: string): Answer => {
    // The name by which the client reached us: behind a forwarded port our own address would be wrong.
    const asked = exchange.request.headers.host ?? '';
    const realm = `http://${isHost(asked) ? asked : place.host()}/token`;
    const scope = needs.length === 0 ? '' : `,scope="${needs.map(scopeText).join(' ')}"`;
    const why = error === undefined ? '' : `,error="${error}"`;
    return refusal('UNAUTHORIZED', 'authentication required', {
      headers: { 'www-authenticate': `Bearer realm="${realm}",service="${SERVICE}"${scope}${why}` },
    });
  };
  return {
    check(exchange, needs) {
      const header = exchange.request.headers.authorization;
      if (header === undefined) return challenge(exchange, needs);
      const granted = book.granted(/^bearer\s+(\S+)$/i.exec(header)?.[1] ?? '');
      if (granted === undefined) return challenge(exchange, needs, 'invalid_token');
      const allowed = needs.every((need) => covers(granted, need));
      return allowed ? undefined : challenge(exchange, needs, 'insufficient_scope');
    },
    checkPlain: (exchange) => basicGuard(options).checkPlain(exchange),
    async token(exchange) {
      const isForm = exchange.method === 'POST';
      const grant = isForm ? await oauthGrant(exchange, options, book) : basicGrant(exchange, options);
      if ('status' in grant) return grant;
      const token = book.issue(grantedScopes(grant));
      const offline = grant.offline && grant.user !== undefined;
      return jsonAnswer({
        token,
        access_token: token,
        expires_in: ttlSeconds,
        ...(offline ? { refresh_token: book.issueRefresh(grant.user) } : {}),
      });
    },
  };
}

/** The guard for these options; without any everybody may do everything. */
export function createGuard(
  options: AuthOptions | undefined,
  place: { readonly host: () => string; readonly now: () => number },
): Guard {
  if (options === undefined) {
    return { check: () => undefined, checkPlain: () => undefined, token: async () => undefined };
  }
  return options.kind === 'basic' ? basicGuard(options) : bearerGuard(options, place);
}
