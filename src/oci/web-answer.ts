import { SealiftError } from '../core/errors.ts';
import type { HttpResponse } from '../io/http.ts';
import { limitEnd } from '../io/rate-limit.ts';
import { withoutQuery } from '../io/redirect.ts';
import { envPrefix } from './env-credentials.ts';

/** A refusal of a web server, and what was sent to it. */
export interface Refusal {
  readonly answer: HttpResponse;
  /** What was asked for, before redirects. */
  readonly url: URL;
  /** Where the login that was sent is from. */
  readonly from: string | undefined;
  /** The chart repository that names the address, where there is one. */
  readonly repository?: string | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** Where a login has to be written for the next try. */
function loginHint({ url, answer, from, repository }: Refusal): string {
  const answered = answer.url;
  if (answered.origin !== url.origin) {
    return `it was redirected to ${answered.host}, where no login is sent: ask the publisher for an address that needs none`;
  }
  if (from === undefined && repository === undefined && url.search !== '') {
    return 'what its query permits may have ended, or be for something else: ask for a new address';
  }
  if (from !== undefined) return `check user name and password, which are from ${from}, and what they permit`;
  const prefix = envPrefix(url.host);
  const variables = prefix === undefined ? '' : `set ${prefix}_USERNAME and ${prefix}_PASSWORD`;
  if (repository === undefined) return variables || 'the server wants a login';
  const shown = withoutQuery(repository);
  return `run \`helm repo add NAME ${shown} --username USER\`${variables === '' ? '' : `, or ${variables}`}`;
}

/**
 * What an answer other than 2xx of a web server means.
 * @param address as it may be shown
 * @returns REGISTRY_RATE_LIMITED, AUTH_REQUIRED, AUTH_DENIED, CONTENT_NOT_FOUND, NETWORK_FAILED
 */
export function webAnswerError(address: string, refusal: Refusal): SealiftError {
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
