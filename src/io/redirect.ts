import { redact, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

/** One request of a chain of redirects. */
export interface Hop {
  readonly url: URL;
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | (() => AsyncIterable<Uint8Array>) | undefined;
}

const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308]);

/** Where an answer leads; undefined when it is no redirect. */
export function locationOf(answer: {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
}): string | undefined {
  return REDIRECT_STATUS.has(answer.status) ? answer.headers.location : undefined;
}

/** The request after a redirect: no credentials for another origin, and no body after 303 (RFC 9110 15.4.4). */
export function nextHop(hop: Hop, to: { readonly status: number; readonly url: URL }): Hop {
  const drop = new Set(to.url.origin === hop.url.origin ? [] : ['authorization', 'cookie']);
  const asGet = to.status === 303 && hop.method !== 'GET' && hop.method !== 'HEAD';
  if (asGet) for (const name of ['content-length', 'content-type']) drop.add(name);
  return {
    url: to.url,
    method: asGet ? 'GET' : hop.method,
    headers: Object.fromEntries(Object.entries(hop.headers).filter(([name]) => !drop.has(name))),
    body: asGet ? undefined : hop.body,
  };
}

/** An address for a message: without query and fragment, which may hold a token or a signature. */
export function withoutQuery(address: string): string {
  return redact((/^[^?#]*/.exec(address)?.[0] ?? '').slice(0, 200));
}

/** The address of a redirect. @throws NETWORK_URL_REFUSED after too many, and for one that must not be followed */
export function redirectTarget(from: URL, location: string, hop: number): URL {
  const where = `${from.protocol}//${from.host}`;
  if (hop >= LIMITS.redirects) {
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: more than ${LIMITS.redirects} redirects`, {
      hint: 'the server or a proxy in between sends requests in a circle: check the address and what is in between',
    });
  }
  let next: URL;
  try {
    next = new URL(location, from);
  } catch {
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: redirect to "${withoutQuery(location)}"`);
  }
  if (next.protocol !== 'https:' && next.protocol !== 'http:') {
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: redirect to a ${next.protocol} URL`);
  }
  if (from.protocol === 'https:' && next.protocol === 'http:') {
    throw new SealiftError('NETWORK_URL_REFUSED', `${where}: redirect from https to plain http`, {
      hint: 'the server or a proxy in between is set up wrongly; ask its owner',
    });
  }
  return next;
}
