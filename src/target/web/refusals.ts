import { STATUS_CODES } from 'node:http';
import { type ErrorCode, SealiftError } from '../../core/errors.ts';
import { conceal } from '../../io/conceal.ts';
import type { HttpResponse } from '../../io/http.ts';
import { isPage, shortLine } from '../../io/page-text.ts';

/** What is sent ahead, and what of it must never be shown. */
export interface Login {
  readonly header: string;
  readonly username: string;
  readonly secrets: readonly string[];
}

interface About {
  /** What was wanted, for people. */
  readonly what: string;
  /** The start of the answer. */
  readonly text: string;
  readonly base: URL;
  readonly login: Login | undefined;
}

/** A field of the errors that Nexus, devpi and proxies send as JSON; undefined for other texts. */
function jsonMessage(text: string): string | undefined {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  const errors: readonly unknown[] = Array.isArray(body) ? body : [body];
  const told = errors.flatMap((error) => {
    const message: unknown =
      typeof error === 'object' && error !== null ? Reflect.get(error, 'message') : undefined;
    return typeof message === 'string' && message !== '' ? [message] : [];
  });
  return told.length === 0 ? undefined : [...new Set(told)].join('; ');
}

const WRONG_ADDRESS =
  'check the address: of Nexus it is that of its user interface, with its path if it has one; check the name of the repository, and proxies in between';

/** The code and the hint of a status. */
function meaning(
  status: number,
  { base, login, text, words }: About & { readonly words: string },
): readonly [ErrorCode, string] {
  const who =
    login === undefined ? 'no login was found' : `the login is of ${JSON.stringify(login.username)}`;
  if (status === 401) {
    return [
      login === undefined ? 'AUTH_REQUIRED' : 'AUTH_DENIED',
      login === undefined
        ? `${who}: run \`sealift login ${base.host}\`, or name one under credentials in site.yaml`
        : `${who}: check user name and password`,
    ];
  }
  if (status === 403) {
    return [
      login === undefined ? 'AUTH_REQUIRED' : 'AUTH_DENIED',
      `${who}: it needs the rights to add and edit there`,
    ];
  }
  if (status === 404 || status === 405) {
    return isPage(text)
      ? ['TARGET_UNREACHABLE', WRONG_ADDRESS]
      : ['TARGET_FAILED', 'check the name of the repository in site.yaml'];
  }
  if (status === 413) {
    return [
      'TARGET_FAILED',
      'a proxy before the server limits the size of uploads: raise it (nginx: client_max_body_size 0)',
    ];
  }
  if (status === 429)
    return ['TARGET_FAILED', 'the server limits requests: run the same command again later'];
  if (status === 503) {
    return [
      'TARGET_READ_ONLY',
      'the server is read-only or not ready: end the read-only mode (Nexus: Administration, System, Nodes), then run the same command again',
    ];
  }
  if (status === 507)
    return ['TARGET_FULL', 'its disk or quota is full: make room there, then run the same command again'];
  if (status >= 500) {
    return [
      'TARGET_FAILED',
      'the server or a proxy before it is in trouble; a full disk or quota looks so too: see its log and its blob stores',
    ];
  }
  // A page whose status line gives a reason of its own is that of Nexus.
  return isPage(text) && words === ''
    ? ['TARGET_UNREACHABLE', WRONG_ADDRESS]
    : ['TARGET_FAILED', 'the server refuses this: see its settings, or ask its owner'];
}

/** What the status line says beyond the name of its status: Nexus has its reason there, and an empty body or a page. */
function reasonOf({ status, reason = '' }: HttpResponse): string {
  return reason.toLowerCase() === STATUS_CODES[status]?.toLowerCase() ? '' : reason;
}

/**
 * What a refusal of a server of packages means (registry.md 2.2, 2.4 to 2.7).
 * @returns AUTH_REQUIRED, AUTH_DENIED, TARGET_UNREACHABLE for a web page of somebody else, TARGET_READ_ONLY, TARGET_FULL,
 * TARGET_FAILED; `details.status` is the status
 */
export function refusalError(response: HttpResponse, about: About): SealiftError {
  const { status, tries } = response;
  // A server may give back what was sent to it.
  const text = conceal(about.text, about.login?.secrets ?? []);
  const words = conceal(reasonOf(response), about.login?.secrets ?? []);
  const [code, hint] = meaning(status, { ...about, text, words });
  const said = shortLine(words || (jsonMessage(text) ?? text));
  const times = tries > 1 ? ` (tried ${tries} times)` : '';
  const from = response.url.origin === about.base.origin ? '' : ` from ${response.url.host}`;
  const message = `${about.base.host}: ${about.what}: HTTP ${status}${from}${times}${said === '' ? '' : `: ${said}`}`;
  return new SealiftError(code, message, { hint, details: { status }, side: 'destination' });
}
