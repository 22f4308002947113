import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { AskPassword, SigningKey } from '../ops/keys.ts';
import { askLine, checkPassword, readPassword } from './password.ts';

/** The variable that holds the password of a key. */
const PASSWORD_VARIABLE = 'SEALIFT_KEY_PASSWORD';

const HINT = 'printf \'%s\' "$PASSWORD" | sealift … --password-stdin';

interface Asking {
  readonly passwordStdin: boolean;
  /** Asked for twice, because nobody can read what is typed. */
  readonly isNew: boolean;
  readonly signal: AbortSignal;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly input: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly output: NodeJS.WritableStream;
}

async function typed(what: string, { input, output, signal, isNew }: Asking): Promise<string> {
  const ask = (question: string): Promise<string> =>
    askLine(question, { input, output, hidden: true, signal });
  const first = checkPassword(await ask(`Password of ${what} (not shown): `), 'the terminal', HINT);
  if (isNew && (await ask('The same once more: ')) !== first) {
    throw new SealiftError('USAGE', 'the two passwords are not the same', { hint: 'run it again' });
  }
  return first;
}

/**
 * The password of a key: from standard input, or from SEALIFT_KEY_PASSWORD, or typed unseen at a terminal; never from the
 * command line, where every process of the machine could read it.
 */
export function keyPassword(asking: Asking): AskPassword {
  return async (what) => {
    if (asking.passwordStdin) return readPassword(asking.input, HINT);
    const given = asking.env[PASSWORD_VARIABLE];
    if (given !== undefined && given !== '') return checkPassword(given, PASSWORD_VARIABLE, HINT);
    if (asking.input.isTTY === true) return typed(what, asking);
    throw new SealiftError('USAGE', `${what} has a password, and there is nobody to ask for it`, {
      hint: `set ${PASSWORD_VARIABLE}, or pipe it in: ${HINT}`,
    });
  };
}

/** The key that shall sign, and where its password comes from. */
export function signingKey(
  path: string,
  { passwordStdin, context }: { readonly passwordStdin: boolean; readonly context: Context },
): SigningKey {
  const { signal, env } = context;
  const streams = { input: process.stdin, output: process.stderr };
  return { path, password: keyPassword({ passwordStdin, isNew: false, signal, env, ...streams }) };
}
