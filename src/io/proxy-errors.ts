import { SealiftError } from '../core/errors.ts';
import { isNetworkError, networkError, reasonOf } from './network-errors.ts';
import type { HttpProxy } from './proxy.ts';

/** A proxy's refusal as our error. What a new try may cure is NETWORK_FAILED. */
export function proxyRefusal(
  proxy: HttpProxy,
  about: { readonly status: number; readonly target: string },
): SealiftError {
  const { status, target } = about;
  const { host } = proxy.url;
  const what = `the proxy ${host} (${proxy.variable}) answered HTTP ${status} for ${target}`;
  if (status === 407) {
    const hint =
      proxy.authorization === undefined
        ? `the proxy ${host} wants a login: write it as ${proxy.variable}=http://USER:PASSWORD@${host}`
        : `the proxy ${host} refused the login that ${proxy.variable} holds: correct it there`;
    return new SealiftError('AUTH_REQUIRED', what, { hint, details: { status } });
  }
  if (status === 408 || status === 429 || status >= 500) {
    return new SealiftError('NETWORK_FAILED', what, {
      hint: `the proxy ${host} does not reach that host: check its name, or put it into NO_PROXY where no proxy is needed`,
      details: { status },
    });
  }
  return new SealiftError('NETWORK_URL_REFUSED', what, {
    hint: `the owner of the proxy ${host} must allow that host; put it into NO_PROXY where no proxy is needed`,
    details: { status },
  });
}

/** A fault of the wire between us and a proxy, as one that names the proxy; other errors pass unchanged. */
export function proxyFailure(proxy: HttpProxy, error: unknown): unknown {
  if (error instanceof SealiftError) return error;
  const where = `the proxy ${proxy.url.host} (${proxy.variable})`;
  if (!isNetworkError(error)) return networkError(error, where);
  const known = networkError(error, where);
  const isLate = known instanceof SealiftError && known.code === 'NETWORK_TIMEOUT';
  return new SealiftError(
    isLate ? 'NETWORK_TIMEOUT' : 'NETWORK_FAILED',
    `${where}: ${isLate ? 'no answer in time' : reasonOf(error)}`,
    {
      cause: error,
      hint: `check that ${proxy.variable} is right and the proxy runs, or put the host into NO_PROXY`,
    },
  );
}
