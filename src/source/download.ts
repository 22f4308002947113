import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { HttpClient, HttpResponse } from '../io/http.ts';
import { limitEnd } from '../io/rate-limit.ts';
import { withoutQuery } from '../io/redirect.ts';
import { resumableBytes } from '../io/resume.ts';
import { envPrefix } from '../oci/env-credentials.ts';
import type { WebAccess } from './web-logins.ts';

/** How to reach an address: TLS settings and login; `Registries` is one. */
export interface HostAccess {
  /** @param repository the chart repository that names the address */
  accessTo(url: URL, repository: string | undefined): Promise<WebAccess>;
}

/**
 * Streams a URL from byte `offset`, surviving cuts. Not verified here.
 * @throws CONTENT_NOT_FOUND, AUTH_REQUIRED, AUTH_DENIED, NETWORK_FAILED, NETWORK_URL_REFUSED
 */
export function downloadUrl(
  address: string,
  options: {
    readonly http: HttpClient;
    readonly context: Context;
    /** What the manifest says about hosts, and the logins for them. */
    readonly registries?: HostAccess;
    /** The chart repository that the address belongs to: its login is for its own origin. */
    readonly repository?: string;
    /** Whole size in bytes, where it is known. */
    readonly size?: number;
    readonly offset?: number;
  },
): AsyncIterable<Buffer> {
  const url = new URL(address);
  // A query may hold a token or a signature.
  const shown = withoutQuery(address);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new SealiftError('NETWORK_URL_REFUSED', `${shown}: only http and https are fetched`);
  }
  const open = async (at: number): Promise<HttpResponse> => {
    const access = await options.registries?.accessTo(url, options.repository);
    const response = await options.http.request({
      method: 'GET',
      url,
      headers: {
        ...(at > 0 ? { range: `bytes=${at}-` } : {}),
        ...(access?.authorization === undefined ? {} : { authorization: access.authorization }),
      },
      ...(access === undefined ? {} : { tls: access.tls }),
    });
    const { status } = response;
    if (status === 200 || status === 206 || (status === 416 && at > 0)) return response;
    await response.body.dump();
    throw answerError(shown, {
      answer: response,
      url,
      from: access?.from,
      repository: options.repository,
      now: options.context.now(),
    });
  };
  return resumableBytes({
    what: shown,
    start: options.offset ?? 0,
    context: options.context,
    open,
    ...(options.size === undefined ? {} : { size: options.size }),
  });
}

interface Refusal {
  readonly answer: HttpResponse;
  /** What was asked for, before redirects. */
  readonly url: URL;
  /** Where the login that was sent is from. */
  readonly from: string | undefined;
  readonly repository: string | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** Where a login has to be written for the next try. */
function loginHint({ url, answer, from, repository }: Refusal): string {
  const answered = answer.url;
  if (answered.origin !== url.origin) {
    return `it was redirected to ${answered.host}, where no login is sent: ask the publisher for an address that needs none`;
  }
  if (from !== undefined) return `check user name and password, which are from ${from}, and what they permit`;
  const prefix = envPrefix(url.host);
  const variables = prefix === undefined ? '' : `set ${prefix}_USERNAME and ${prefix}_PASSWORD`;
  if (repository === undefined) return variables || 'the server wants a login';
  const shown = withoutQuery(repository);
  return `run \`helm repo add NAME ${shown} --username USER\`${variables === '' ? '' : `, or ${variables}`}`;
}

function answerError(address: string, refusal: Refusal): SealiftError {
  const { answer, from } = refusal;
  const { status, tries } = answer;
  const message = `${address}: HTTP ${status}${tries > 1 ? ` (tried ${tries} times)` : ''}`;
  if (status === 429) {
    const end = limitEnd(answer, refusal.now);
    const until = end === undefined ? '' : `; the limit ends at ${end} at the latest`;
    return new SealiftError('REGISTRY_RATE_LIMITED', message + until, {
      hint: 'run the same command again later',
      details: { status },
    });
  }
  if (status === 401 || status === 403) {
    const code = status === 401 && from === undefined ? 'AUTH_REQUIRED' : 'AUTH_DENIED';
    return new SealiftError(code, message, { hint: loginHint(refusal), details: { status } });
  }
  if (status === 404 || status === 410) {
    return new SealiftError('CONTENT_NOT_FOUND', message, {
      hint: 'check the address; the publisher may have moved it',
      details: { status },
    });
  }
  return new SealiftError('NETWORK_FAILED', message, { details: { status } });
}
