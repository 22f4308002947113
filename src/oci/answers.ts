import type { Descriptor } from '../core/descriptor.ts';
import { isDigest } from '../core/digest.ts';
import { type ErrorCode, SealiftError } from '../core/errors.ts';
import { isIndexType, isManifestType } from '../core/media.ts';
import { isRepository, isTag } from '../core/reference.ts';
import type { HttpResponse } from '../io/http.ts';
import { isPage, shortLine } from '../io/page-text.ts';
import { limitEnd } from '../io/rate-limit.ts';
import { policyIn, policyMeaning } from './policies.ts';

/** Answers to an upload after which the whole upload is tried again. */
export function retriedStatus(status: number): boolean {
  return status === 404 || status === 408 || status === 416 || status === 429 || status >= 500;
}

interface RegistryError {
  readonly code: string;
  readonly message: string;
  /** Where it is a text; Nexus has its reason there. */
  readonly detail: string;
}

/** The start of an answer that was too long to be read whole, and so is no JSON. */
const CUT_OFF = /^\s*\{\s*"errors"\s*:\s*\[\s*\{\s*"code"\s*:\s*"([^"\\]{1,100})"/;

/** The errors of a registry's answer, `{"errors":[{code,message}]}` (distribution-spec "Error Codes"). */
function registryErrors(text: string): RegistryError[] {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    // A refused index has one error for each child that lacks, so the first may be all that was read.
    const code = CUT_OFF.exec(text)?.[1];
    return code === undefined ? [] : [{ code, message: '', detail: '' }];
  }
  if (typeof body !== 'object' || body === null || !('errors' in body) || !Array.isArray(body.errors))
    return [];
  return body.errors.flatMap((error: unknown) => {
    if (typeof error !== 'object' || error === null) return [];
    const fields = new Map<string, unknown>(Object.entries(error));
    const [code, message, detail] = ['code', 'message', 'detail'].map((key) => {
      const value = fields.get(key);
      return typeof value === 'string' ? value : '';
    });
    return [{ code: code?.slice(0, 100) ?? '', message: message ?? '', detail: detail ?? '' }];
  });
}

/** What an answer says is wrong, as one short line: each error once, or the start of the text. */
function saidIn(text: string, errors: readonly RegistryError[]): string {
  const lines = errors.map(({ code, message, detail }) =>
    [code, message, detail].filter((t) => t !== '').join(': '),
  );
  const told = [...new Set(lines.filter((line) => line !== ''))].join('; ');
  return shortLine(told === '' ? text : told);
}

function codeOfStatus(status: number): readonly [ErrorCode, string | undefined] {
  if (status === 401) return ['AUTH_REQUIRED', undefined];
  if (status === 403) return ['AUTH_DENIED', undefined];
  if (status === 404) return ['CONTENT_NOT_FOUND', 'check the name, the tag and the registry'];
  if (status === 413) {
    return [
      'REGISTRY_FAILED',
      'a proxy limits the size of uploads: raise it (nginx: client_max_body_size 0)',
    ];
  }
  if (status === 429) return ['REGISTRY_RATE_LIMITED', undefined];
  if (status === 507) {
    return ['TARGET_FULL', 'its disk or quota is full: make room there, then run the same command again'];
  }
  return ['REGISTRY_FAILED', undefined];
}

/** What to do about a status that says nothing else. */
function plainHint(status: number): string {
  return status >= 500 || status === 408
    ? 'the registry or a proxy before it is in trouble, or its disk is full: run the same command again later'
    : 'the registry or a proxy before it refuses this: ask its owner';
}

const PAGE_HINT =
  'a web page answered, not a registry: check the address (with Nexus the port of the docker repository, not 8081) and proxies in between';

/** A registry's refusal as our error: the code from the status, what it said (the first 200 characters), a hint. */
export function statusError(
  response: HttpResponse,
  about: {
    readonly text: string;
    readonly what: string;
    readonly host: string;
    /** Where the registry answers itself: what another origin says, after a redirect, is told with its name. */
    readonly origin: string;
    readonly side: 'source' | 'destination';
    /** Milliseconds since the epoch. */
    readonly now: number;
  },
): SealiftError {
  const policy = policyIn(response.status, about.text);
  const [code, statusHint] =
    policy === undefined ? codeOfStatus(response.status) : policyMeaning(policy, response.status);
  const limited = response.status === 429 ? limitEnd(response, about.now) : undefined;
  const isElsewhere = response.url.origin !== about.origin;
  const login = isElsewhere
    ? `the registry sends its readers there, where no login is sent: check this machine's clock, and proxies and firewalls on the way to ${response.url.host}`
    : `check the login and its rights: \`sealift login ${about.host}\``;
  const hints: Partial<Record<ErrorCode, string>> = {
    AUTH_REQUIRED: login,
    AUTH_DENIED: login,
    REGISTRY_RATE_LIMITED: `a login (\`sealift login ${about.host}\` or \`docker login\`) may give a higher limit; else run the same command again ${limited === undefined ? 'later' : 'then'}`,
  };
  const errors = registryErrors(about.text);
  const said = saidIn(about.text, errors);
  const serverCode = errors[0]?.code ?? '';
  const isStranger = isPage(about.text) && (response.status === 404 || statusHint === undefined);
  const otherHint = isStranger ? PAGE_HINT : (statusHint ?? plainHint(response.status));
  const hint = hints[code] ?? otherHint;
  const tried = response.tries > 1 ? ` (tried ${response.tries} times)` : '';
  const until = limited === undefined ? '' : `; the limit ends at ${limited} at the latest`;
  const from = isElsewhere ? ` from ${response.url.host}` : '';
  const answered = `HTTP ${response.status}${from}${tried}${said === '' ? '' : `: ${said}`}${until}`;
  return new SealiftError(code, `${about.what}: ${answered}`, {
    ...(hint === undefined ? {} : { hint }),
    details: {
      status: response.status,
      ...(serverCode === '' ? {} : { serverCode }),
      ...(policy === undefined ? {} : { policy }),
      ...(limited === undefined ? {} : { resetAt: limited }),
    },
    side: about.side,
  });
}

/** The names under a key of a list; `null` means none, and what cannot be a name is left out. */
function namesIn(
  bytes: Buffer,
  key: 'tags' | 'repositories',
  about: { readonly what: string; readonly isName: (name: string) => boolean },
): string[] {
  const { what, isName } = about;
  let body: unknown;
  try {
    body = JSON.parse(bytes.toString('utf8'));
  } catch {
    body = undefined;
  }
  const names: unknown = typeof body === 'object' && body !== null ? Reflect.get(body, key) : undefined;
  if (names === null) return [];
  if (!Array.isArray(names)) {
    throw new SealiftError('REGISTRY_ANSWER_INVALID', `${what}: not a list of ${key}`);
  }
  return names.filter((name): name is string => typeof name === 'string' && isName(name));
}

/** The `tags` of a tag list (distribution-spec "Listing Tags"). */
export function parseTags(bytes: Buffer, what: string): string[] {
  return namesIn(bytes, 'tags', { what, isName: isTag });
}

/** The `repositories` of a catalog. */
export function parseRepositories(bytes: Buffer, what: string): string[] {
  return namesIn(bytes, 'repositories', { what, isName: isRepository });
}

/** One link of a `Link` header: its target, and its parameters, in which commas and semicolons may be quoted (RFC 8288 3). */
const LINK = /<([^<>]*)>((?:\s*;\s*[^\s=;,"<>]+(?:\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)*)/g;
const PARAMETER = /;\s*([^\s=;,"<>]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?/g;

/** The relations of a link; only its first `rel` counts (RFC 8288 3.3). */
function relationsOf(parameters: string): readonly string[] {
  for (const [, name, quoted, plain] of parameters.matchAll(PARAMETER)) {
    if (name?.toLowerCase() === 'rel') return (quoted ?? plain ?? '').toLowerCase().split(/\s+/);
  }
  return [];
}

/** Where the next page of a list is: the query of a `Link: <…>; rel="next"`, undefined at the end. */
export function nextQuery(link: string | undefined, url: URL): string | undefined {
  const links = [...(link ?? '').matchAll(LINK)];
  const target = links.find(([, , parameters]) => relationsOf(parameters ?? '').includes('next'))?.[1];
  if (target === undefined || !URL.canParse(target, url.href)) return undefined;
  const { search } = new URL(target, url);
  return search === '' || search === url.search ? undefined : search;
}

/** What the headers of an answer say about a manifest; undefined when they do not say all of it. */
export function statedDescriptor(headers: HttpResponse['headers']): Descriptor | undefined {
  const digest = headers['docker-content-digest'];
  const mediaType = headers['content-type']?.split(';')[0]?.trim().toLowerCase();
  const length = headers['content-length'] ?? '';
  if (digest === undefined || !isDigest(digest) || mediaType === undefined || !/^\d{1,9}$/.test(length)) {
    return undefined;
  }
  return isIndexType(mediaType) || isManifestType(mediaType)
    ? { mediaType, digest, size: Number(length) }
    : undefined;
}
