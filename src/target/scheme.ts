import { isAbort } from '../core/errors.ts';
import { type TlsOptions, tlsOptionsOf } from '../io/certificates.ts';
import { errorText, type HttpClient } from '../io/http.ts';
import { locationOf } from '../io/redirect.ts';

/** What a server says to somebody who speaks the other scheme: a refusal, or trouble. */
const isRefusal = (status: number): boolean => status === 400 || status === 497 || status >= 500;

/**
 * Whether something answers at an address under the other scheme, http for https and the reverse: who mistook it is told so. Asks
 * once, without any login.
 */
export async function speaksOther(
  url: URL,
  { http, tls }: { readonly http: HttpClient; readonly tls: TlsOptions },
): Promise<boolean> {
  const isPlain = url.protocol === 'http:';
  // Where the port changes with the scheme, plain HTTP is another door, mostly one that leads back here.
  if (!isPlain && url.port === '') return false;
  // A port that stands there stays; the one that a scheme implies changes with it.
  const other = new URL(`${isPlain ? 'https' : 'http'}://${url.host}${url.pathname}`);
  try {
    // A certificate that nobody trusts still proves that it speaks TLS.
    const trust = isPlain ? { ...tlsOptionsOf(tls), insecure: true } : {};
    const answer = await http.request({ method: 'GET', url: other, tls: trust, tries: 1, follow: false });
    await errorText(answer);
    if (!isPlain && (locationOf(answer) ?? '').startsWith('https:')) return false;
    return !isRefusal(answer.status);
  } catch (error) {
    if (isAbort(error)) throw error;
    return false;
  }
}
