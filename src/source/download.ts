import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { TlsOptions } from '../io/certificates.ts';
import type { HttpClient, HttpResponse } from '../io/http.ts';
import { withoutQuery } from '../io/redirect.ts';
import { resumableBytes } from '../io/resume.ts';

/** The TLS settings for an address; `Registries` is one. */
export interface HostTrust {
  tlsOf(url: URL): TlsOptions;
}

/**
 * Streams a URL from byte `offset`, surviving cuts. Not verified here.
 * @throws CONTENT_NOT_FOUND, AUTH_REQUIRED, NETWORK_FAILED, NETWORK_URL_REFUSED
 */
export function downloadUrl(
  address: string,
  options: {
    readonly http: HttpClient;
    readonly context: Context;
    /** What the manifest says about hosts. */
    readonly registries?: HostTrust;
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
    const response = await options.http.request({
      method: 'GET',
      url,
      headers: at > 0 ? { range: `bytes=${at}-` } : {},
      ...(options.registries === undefined ? {} : { tls: options.registries.tlsOf(url) }),
    });
    const { status } = response;
    if (status === 200 || status === 206 || (status === 416 && at > 0)) return response;
    await response.body.dump();
    throw answerError(shown, status);
  };
  return resumableBytes({
    what: shown,
    start: options.offset ?? 0,
    context: options.context,
    open,
    ...(options.size === undefined ? {} : { size: options.size }),
  });
}

function answerError(address: string, status: number): SealiftError {
  const message = `${address}: HTTP ${status}`;
  if (status === 401) return new SealiftError('AUTH_REQUIRED', message, { hint: 'the server wants a login' });
  if (status === 403) return new SealiftError('AUTH_DENIED', message);
  if (status === 404 || status === 410) {
    return new SealiftError('CONTENT_NOT_FOUND', message, {
      hint: 'check the address; the publisher may have moved it',
    });
  }
  return new SealiftError('NETWORK_FAILED', message);
}
