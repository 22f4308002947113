import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { HttpClient, HttpResponse } from '../io/http.ts';
import { withoutQuery } from '../io/redirect.ts';
import { resumableBytes } from '../io/resume.ts';
import { webAnswerError } from '../oci/web-answer.ts';
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
    throw webAnswerError(shown, {
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
