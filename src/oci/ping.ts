import { SealiftError } from '../core/errors.ts';
import { errorText, type HttpResponse } from '../io/http.ts';
import { isNetworkError } from '../io/network-errors.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { RegistryWire } from './wire.ts';

/**
 * Asks whether a registry answers here at all.
 * @param withinMs how long it is waited for; default as for any request
 * @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED
 */
export async function ping(wire: RegistryWire, withinMs?: number): Promise<void> {
  const url = wire.url('/v2/');
  const late = withinMs === undefined ? undefined : AbortSignal.timeout(withinMs);
  const limit = late === undefined ? {} : { signal: late };
  let response: HttpResponse;
  try {
    response = await wire.send(
      { method: 'GET', url, tries: 2, ...limit },
      { repository: '', access: 'pull' },
    );
  } catch (error) {
    throwIfAborted(wire.context.signal);
    const isRefused = error instanceof SealiftError && error.code === 'NETWORK_URL_REFUSED';
    const isLate = late?.aborted === true;
    if (!isNetworkError(error) && !isRefused && !isLate) throw error;
    throw new SealiftError(
      'TARGET_UNREACHABLE',
      error instanceof Error && !isLate ? error.message : `${wire.host}: no answer`,
      {
        cause: error,
        hint: `check the address; \`curl ${url.href}\` must answer on this machine (plain HTTP needs plainHttp or http://)`,
      },
    );
  }
  const text = await errorText(response);
  const isPage = /^\s*</.test(text);
  if (response.status === 401 || (response.status === 200 && !isPage)) return;
  const page = isPage ? ' with a web page' : '';
  throw new SealiftError('TARGET_UNREACHABLE', `${url.href} answered HTTP ${response.status}${page}`, {
    hint: 'this is not a registry endpoint; with Nexus use the port of the docker repository (its connector), not 8081',
  });
}
