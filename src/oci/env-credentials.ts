import type { Env } from './auth-files.ts';

const PREFIX = 'SEALIFT_CREDENTIALS_';

/**
 * The start of the variables with a host's login: `nexus.local:5000` has `SEALIFT_CREDENTIALS_NEXUS_LOCAL_5000_USERNAME`
 * and `…_PASSWORD`. A dot or colon becomes `_`, a dash `__`, an underscore `___`, so that no two host names share one.
 * @returns undefined for hosts that no variable can name (IPv6 addresses)
 */
export function envPrefix(host: string): string | undefined {
  if (!/^[a-z0-9._-]+(?::\d+)?$/i.test(host)) return undefined;
  const marks: Readonly<Record<string, string>> = { '-': '__', _: '___' };
  return PREFIX + host.toUpperCase().replace(/[^A-Z0-9]/g, (c) => marks[c] ?? '_');
}

/** The login that the environment has for a host, as in a reference or a URL. */
export function envLogin(
  env: Env,
  host: string,
): { readonly username: string; readonly password: string } | undefined {
  const prefix = envPrefix(host);
  if (prefix === undefined) return undefined;
  const username = env[`${prefix}_USERNAME`];
  const password = env[`${prefix}_PASSWORD`];
  return username && password ? { username, password } : undefined;
}
