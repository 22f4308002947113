import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

type Input = NodeJS.ReadableStream & { readonly isTTY?: boolean };

/** A password of several lines, or an empty one, is a slip of the pipe that it came through. */
export function checkPassword(text: string, where: string, hint: string): string {
  const password = text.replace(/\r?\n$/, '');
  if (password !== '' && !/[\r\n\0]/.test(password)) return password;
  const what = password === '' ? 'no password' : 'more than one line';
  throw new SealiftError('USAGE', `${what} came from ${where}`, { hint: `for example: ${hint}` });
}

const LOGIN_HINT = 'printf \'%s\' "$TOKEN" | sealift login HOST -u USER --password-stdin';

/** The whole standard input, without the line break at its end. @throws USAGE when it is empty or has several lines */
export async function readPassword(input: Input, hint = LOGIN_HINT): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of input) {
    const bytes = Buffer.from(chunk);
    chunks.push(bytes);
    size += bytes.length;
    if (size > LIMITS.token) {
      throw new SealiftError('USAGE', `standard input has more than ${LIMITS.token} bytes: not a password`);
    }
  }
  return checkPassword(Buffer.concat(chunks).toString('utf8'), 'standard input', hint);
}

/**
 * Asks a person at the terminal for one line.
 * @param options.hidden shows nothing of what is typed
 * @throws USAGE when the input ends first, ABORTED for Ctrl-C
 */
export function askLine(
  question: string,
  options: {
    readonly input: Input;
    readonly output: NodeJS.WritableStream;
    readonly hidden: boolean;
    readonly signal: AbortSignal;
  },
): Promise<string> {
  const { input, output, hidden, signal } = options;
  // readline echoes what is typed to its output; only the question passes.
  const echo = new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (!hidden) output.write(chunk);
      done();
    },
  });
  return new Promise((resolve, reject) => {
    // The terminal stops to echo here: who types at once after the question is not seen either.
    const lines = createInterface({ input, output: echo, terminal: true, historySize: 0 });
    const end = (settle: () => void): void => {
      signal.removeEventListener('abort', onAbort);
      // Not all listeners: readline gives the input back with one of its own.
      lines.off('close', onClose);
      lines.close();
      if (hidden) output.write('\n');
      settle();
    };
    const onAbort = (): void => end(() => reject(new SealiftError('ABORTED', 'stopped')));
    const onClose = (): void => end(() => reject(new SealiftError('USAGE', 'nothing was typed')));
    lines.once('SIGINT', onAbort);
    lines.once('close', onClose);
    signal.addEventListener('abort', onAbort, { once: true });
    if (hidden) output.write(question);
    lines.question(hidden ? '' : question, (answer) => end(() => resolve(answer)));
  });
}

/**
 * User name and password of a login: the password from standard input, or typed unseen at a terminal; never from the
 * command line, where every process of the machine could read it.
 * @throws USAGE when there is no terminal to ask at
 */
export async function readLogin(
  given: { readonly username?: string; readonly passwordStdin?: boolean },
  options: { readonly input: Input; readonly output: NodeJS.WritableStream; readonly signal: AbortSignal },
): Promise<{ readonly username: string; readonly password: string }> {
  const canAsk = options.input.isTTY === true && given.passwordStdin !== true;
  if (!canAsk && given.username === undefined) {
    throw new SealiftError('USAGE', 'there is nobody to ask for the user name', {
      hint: 'give it with -u USER',
    });
  }
  if (!canAsk && given.passwordStdin !== true) {
    throw new SealiftError('USAGE', 'standard input is not a terminal, so the password cannot be typed', {
      hint: 'pipe it in and say so with --password-stdin',
    });
  }
  const username = given.username ?? (await askLine('User name: ', { ...options, hidden: false }));
  if (username === '' || /[:\p{Cc}]/u.test(username)) {
    throw new SealiftError('USAGE', 'a user name is not empty and has neither ":" nor control characters');
  }
  if (given.passwordStdin === true) return { username, password: await readPassword(options.input) };
  const typed = await askLine('Password (not shown): ', { ...options, hidden: true });
  return { username, password: checkPassword(typed, 'the terminal', LOGIN_HINT) };
}
