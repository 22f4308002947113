import { join } from 'node:path';
import { LIMITS } from '../core/limits.ts';
import { readFileLimited } from '../io/files.ts';
import type { Env } from './auth-files.ts';

/** Logins of a netrc file, by host name; `default` is of all others. */
export type Netrc = ReadonlyMap<string, { readonly username: string; readonly password: string }>;

/** Reads what a netrc file says; what is not understood is skipped (its macros too). */
export function parseNetrc(text: string): Netrc {
  const logins = new Map<string, { username: string; password: string }>();
  const plain = text.replace(/^\s*macdef[^\n]*\n(?:[^\n]+\n)*/gm, '').replace(/(^|\s)#[^\n]*/g, '$1');
  const words = plain.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? [];
  const value = (word: string | undefined): string =>
    word?.startsWith('"') === true ? word.slice(1, -1).replace(/\\(.)/g, '$1') : (word ?? '');
  let login: { username: string; password: string } | undefined;
  for (let i = 0; i < words.length; i += 1) {
    const word = words[i];
    if (word === 'default' || word === 'machine') {
      const host = word === 'default' ? word : value(words[++i]).toLowerCase();
      login = { username: '', password: '' };
      // The first entry of a host counts.
      if (!logins.has(host)) logins.set(host, login);
    } else if (login !== undefined && word === 'login') login.username = value(words[++i]);
    else if (login !== undefined && word === 'password') login.password = value(words[++i]);
    else if (word === 'account') i += 1;
  }
  return logins;
}

/** The netrc file that curl, pip and uv read: NETRC, else `.netrc` in the home folder. Empty where there is none. */
export async function readNetrc(env: Env): Promise<Netrc> {
  const path = env.NETRC || (env.HOME === undefined ? undefined : join(env.HOME, '.netrc'));
  if (path === undefined) return new Map();
  try {
    const bytes = await readFileLimited(path, { limit: LIMITS.passwordFile, missing: 'FILE_NOT_FOUND' });
    return parseNetrc(bytes.toString('utf8'));
  } catch {
    // As with curl: what cannot be read is not there. The server says what lacks.
    return new Map();
  }
}
