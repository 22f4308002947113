import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import type { HttpClient } from '../io/http.ts';
import { collect } from '../io/verify.ts';
import { type Netrc, readNetrc } from '../oci/netrc.ts';
import { basicOf } from '../oci/token.ts';
import { webAnswerError } from '../oci/web-answer.ts';
import { type IndexFile, parseSimplePage } from '../python/simple-page.ts';
import type { HostAccess } from './download.ts';
import type { WebAccess } from './web-logins.ts';

/** Environment variables of uv and pip that hold addresses of indexes, what is asked first before the others. */
const UV_INDEXES = ['UV_INDEX', 'UV_EXTRA_INDEX_URL', 'UV_DEFAULT_INDEX', 'UV_INDEX_URL'] as const;
const PIP_INDEXES = ['PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL'] as const;
export const INDEX_VARIABLES = [...UV_INDEXES, ...PIP_INDEXES, 'UV_FIND_LINKS', 'PIP_FIND_LINKS'] as const;

type Env = Context['env'];

/** Addresses in the words of a list: uv's may have a name in front, `nexus=https://…`. */
export function addressesOf(text: string | undefined): URL[] {
  return (text ?? '').split(/\s+/).flatMap((word) => {
    const address = word.replace(/^[A-Za-z0-9._-]+=/, '');
    return /^https?:\/\//.test(address) && URL.canParse(address) ? [new URL(address)] : [];
  });
}

/** An address of a file as it is asked for and locked: without login, query and fragment; as it is where it cannot be read. */
export function plainAddress(text: string): string {
  if (!URL.canParse(text)) return text;
  const url = new URL(text);
  return `${url.origin}${url.pathname}`;
}

/** An address as a lock and a message may have it: without login, query and slash at its end. */
export function plainIndex(url: URL): string {
  return `${url.origin}${url.pathname}`.replace(/\/+$/, '');
}

/** The indexes that uv and pip are configured with by the environment. */
export function environmentIndexes(env: Env): readonly string[] {
  const urls = [...UV_INDEXES, ...PIP_INDEXES].flatMap((name) => addressesOf(env[name]));
  return [...new Set(urls.map(plainIndex))];
}

/** Percent signs that stand for nothing stay as they are. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Logins for package indexes and their files, each for its own origin: of sealift's own variables first, then those in
 * the addresses that pip and uv are configured with by the environment (and `configured`), then netrc.
 */
export class PythonLogins implements HostAccess {
  readonly #inner: HostAccess;
  readonly #env: Env;
  readonly #origins = new Map<string, { readonly username: string; readonly password: string }>();
  #netrc: Promise<Netrc> | undefined;

  /** @param options.configured further addresses, perhaps with logins: those of pip's own configuration */
  constructor(inner: HostAccess, options: { readonly env: Env; readonly configured?: readonly URL[] }) {
    this.#inner = inner;
    this.#env = options.env;
    const variables = [...UV_INDEXES, ...PIP_INDEXES].flatMap((name) => addressesOf(options.env[name]));
    for (const url of [...variables, ...(options.configured ?? [])]) {
      if (url.username === '' && url.password === '') continue;
      const login = { username: decoded(url.username), password: decoded(url.password) };
      if (!this.#origins.has(url.origin)) this.#origins.set(url.origin, login);
    }
  }

  async accessTo(url: URL): Promise<WebAccess> {
    const access = await this.#inner.accessTo(url, undefined);
    if (access.authorization !== undefined) return access;
    const own = this.#origins.get(url.origin);
    const from = 'the configuration of pip or uv';
    if (own !== undefined) return { ...access, authorization: basicOf({ kind: 'password', ...own }), from };
    this.#netrc ??= readNetrc(this.#env);
    const netrc = await this.#netrc;
    // A page may name any host: what netrc has for all others is not for those.
    const login = netrc.get(url.hostname);
    if (login === undefined || login.password === '') return access;
    return { ...access, authorization: basicOf({ kind: 'password', ...login }), from: 'netrc' };
  }
}

/** What is liked best: PEP 691, "Version + Format Selection". */
const ACCEPT =
  'application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1';

/** Simple indexes (PEP 503, 691); each page is asked for once. */
export class SimpleIndexes {
  readonly #tools: { readonly http: HttpClient; readonly context: Context; readonly logins: HostAccess };
  readonly #pages = new Map<string, Promise<readonly IndexFile[] | undefined>>();

  constructor(tools: { readonly http: HttpClient; readonly context: Context; readonly logins: HostAccess }) {
    this.#tools = tools;
  }

  /**
   * The files that an index has of a project; undefined when it does not know it.
   * @param project normalised
   * @throws AUTH_REQUIRED, AUTH_DENIED, NETWORK_FAILED, REGISTRY_ANSWER_INVALID, CONTENT_TOO_LARGE
   */
  files(index: string, project: string): Promise<readonly IndexFile[] | undefined> {
    const address = `${index.replace(/\/+$/, '')}/${project}/`;
    const page = this.#pages.get(address) ?? this.#ask(address);
    this.#pages.set(address, page);
    return page;
  }

  async #ask(address: string): Promise<readonly IndexFile[] | undefined> {
    const { http, context, logins } = this.#tools;
    const url = new URL(address);
    const access = await logins.accessTo(url, undefined);
    const { authorization } = access;
    const answer = await http.request({
      method: 'GET',
      url,
      headers: { accept: ACCEPT, ...(authorization === undefined ? {} : { authorization }) },
      tls: access.tls,
    });
    if (answer.status === 404 || answer.status === 410) {
      await answer.body.dump();
      return undefined;
    }
    if (answer.status !== 200) {
      await answer.body.dump();
      throw webAnswerError(address, { answer, url, from: access.from, now: context.now() });
    }
    const bytes = await collect(answer.body, { limit: LIMITS.simplePage, what: address });
    const contentType = answer.headers['content-type'] ?? '';
    return parseSimplePage(bytes.toString('utf8'), { url: answer.url.href, contentType });
  }
}
