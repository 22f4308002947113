import { stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Env, readConfigText } from './auth-files.ts';

/** Logins of a netrc file, by host name; `default` is of all others. */
export type Netrc = ReadonlyMap<string, { readonly username: string; readonly password: string }>;

/** The entry that is for every host. */
const DEFAULT = 'default';

/** Words of a netrc file; one in double quotes may hold blanks and `\"`, as curl reads it. A line that begins with `#` is a comment. */
function* wordsOf(text: string): Generator<{ readonly word: string; readonly isPlain: boolean }> {
  const pattern = /"((?:[^"\\]|\\.)*)"|((?<=^[ \t]*)#[^\n]*)|(\S+)/gm;
  let macro: number | undefined;
  for (const match of text.matchAll(pattern)) {
    // A macro is everything up to an empty line, and may look like logins.
    if (macro !== undefined) {
      if (!/\n[ \t]*\r?\n/.test(text.slice(macro, match.index))) continue;
      macro = undefined;
    }
    const [whole, quoted, comment] = match;
    if (comment !== undefined) continue;
    if (whole === 'macdef') macro = match.index;
    else if (quoted === undefined) yield { word: whole, isPlain: true };
    else yield { word: quoted.replace(/\\(.)/g, '$1'), isPlain: false };
  }
}

/** The logins of a netrc file (ftp(1), curl's `--netrc`); what is no login is passed over. */
export function parseNetrc(text: string): Netrc {
  const logins = new Map<string, { readonly username: string; readonly password: string }>();
  let current: { host: string; username?: string; password?: string } | undefined;
  let key: string | undefined;
  const keep = (): void => {
    const { host = '', username, password } = current ?? {};
    // The first entry of a host counts.
    if (username !== undefined && password !== undefined && !logins.has(host)) {
      logins.set(host, { username, password });
    }
    current = undefined;
  };
  for (const { word, isPlain } of wordsOf(text)) {
    if (key === 'machine') current = { host: word.toLowerCase() };
    else if (key === 'login' && current !== undefined) current.username = word;
    else if (key === 'password' && current !== undefined) current.password = word;
    else if (key === undefined && isPlain) {
      if (word === 'machine' || word === 'default') keep();
      if (word === 'default') current = { host: DEFAULT };
      else if (['machine', 'login', 'password', 'account'].includes(word)) {
        key = word;
        continue;
      }
    }
    key = undefined;
  }
  keep();
  return logins;
}

/** Where it is looked for: NETRC, else `.netrc` in the home folder. */
export function netrcPath(env: Env): string {
  return env.NETRC || join(env.HOME || homedir(), '.netrc');
}

/**
 * The login of a host in a netrc file; undefined where there is neither. The port counts nothing there.
 * @param about.onNote is told of a file that others may read
 * @throws FILE_UNREADABLE, CONTENT_TOO_LARGE
 */
export async function netrcLogin(
  path: string,
  about: { readonly host: string; readonly onNote: (message: string) => void },
): Promise<{ readonly username: string; readonly password: string } | undefined> {
  const text = await readConfigText(path);
  if (text === undefined) return undefined;
  const name = about.host.replace(/:\d+$/, '').toLowerCase();
  const logins = parseNetrc(text);
  const found = logins.get(name) ?? logins.get(DEFAULT);
  if (found === undefined) return undefined;
  const { mode } = await stat(path);
  if ((mode & 0o077) !== 0) {
    about.onNote(`${path} holds passwords, and others may read it: chmod 600 ${path}`);
  }
  return found;
}

/** What curl, pip and uv read there; empty where there is none. */
export async function readNetrc(env: Env): Promise<Netrc> {
  try {
    return parseNetrc((await readConfigText(netrcPath(env))) ?? '');
  } catch {
    // As with curl: what cannot be read is not there. The server says what lacks.
    return new Map();
  }
}
