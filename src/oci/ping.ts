import { SealiftError } from '../core/errors.ts';
import { errorText, type HttpResponse } from '../io/http.ts';
import { isNetworkError } from '../io/network-errors.ts';
import type { RegistryWire } from './wire.ts';

/** Asks whether a registry answers here at all. @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED */
export async function ping(wire: RegistryWire): Promise<void> {
  const url = wire.url('/v2/');
  let response: HttpResponse;
  try {
    response = await wire.send({ method: 'GET', url, tries: 2 }, { repository: '', access: 'pull' });
  } catch (error) {
    const isRefused = error instanceof SealiftError && error.code === 'NETWORK_URL_REFUSED';
    if (!isNetworkError(error) && !isRefused) throw error;
    throw new SealiftError(
      'TARGET_UNREACHABLE',
      error instanceof Error ? error.message : `${wire.host}: no answer`,
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
