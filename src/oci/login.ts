import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { errorText, type HttpClient, type HttpResponse } from '../io/http.ts';
import { isNetworkError } from '../io/network-errors.ts';
import { basicOf } from './token.ts';
import { type HostConfig, RegistryWire } from './wire.ts';

interface LoginOptions {
  readonly http: HttpClient;
  readonly context: Context;
  readonly config: HostConfig;
}

function unreachable(url: URL, why: string, cause?: unknown): SealiftError {
  return new SealiftError('TARGET_UNREACHABLE', why, {
    ...(cause === undefined ? {} : { cause }),
    hint: `check the address; \`curl ${url.href}\` must answer on this machine (plain HTTP needs http:// before the host)`,
  });
}

/** What a failed request says about a login. */
function loginError(
  error: unknown,
  about: { readonly url: URL; readonly denied: () => SealiftError },
): unknown {
  if (isNetworkError(error)) {
    return unreachable(about.url, error instanceof Error ? error.message : 'no answer', error);
  }
  return error instanceof SealiftError && error.code === 'AUTH_DENIED' ? about.denied() : error;
}

/**
 * Asks a registry whether it takes a login, without keeping it.
 * @returns `taken`, or `not asked` when the registry lets everybody in and so says nothing about the password
 * @throws AUTH_DENIED when it refuses, AUTH_REQUIRED when it wants another kind of login, TARGET_UNREACHABLE
 */
export async function checkLogin(
  host: string,
  login: { readonly username: string; readonly password: string },
  options: LoginOptions,
): Promise<'taken' | 'not asked'> {
  const credential = { kind: 'password', ...login } as const;
  let asked = false;
  const find = async (): Promise<typeof credential> => {
    asked = true;
    return credential;
  };
  const wire = new RegistryWire(host, { ...options, credentials: { find } });
  const url = wire.url('/v2/');
  const send = (headers: Readonly<Record<string, string>> = {}): Promise<HttpResponse> =>
    wire.send({ method: 'GET', url, tries: 2, headers }, { repository: '', access: 'pull' });
  const denied = (): SealiftError =>
    new SealiftError('AUTH_DENIED', `${host}: refused the login of "${login.username}"`, {
      hint: 'check user name and password; where logins have a second factor, an access token is the password',
    });
  let response: HttpResponse;
  try {
    response = await send();
    if (response.status === 200 && !asked) {
      await response.body.dump();
      // It lets everybody in; a wrong password may still be refused when it is sent unasked.
      response = await send({ authorization: basicOf(credential) });
    }
  } catch (error) {
    throw loginError(error, { url, denied });
  }
  const isPage = /^\s*</.test(await errorText(response));
  if (response.status === 401 || response.status === 403) throw denied();
  if (response.status === 200 && !isPage) return asked ? 'taken' : 'not asked';
  const page = isPage ? ' with a web page' : '';
  throw unreachable(url, `${url.href} answered HTTP ${response.status}${page}: this is not a registry`);
}
