import type { Context } from '../core/events.ts';
import type { LoadOptions } from '../ops/load.ts';
import { readLogin } from './password.ts';
import { harmless } from './words.ts';

/** Who is asked for logins, where the site's file says `prompt`: nobody but a person at a terminal. */
export function askingOf({ signal }: Context): Pick<LoadOptions, 'askLogin'> {
  const { stdin: input, stderr: output } = process;
  if (input.isTTY !== true) return {};
  return {
    askLogin: async (target) => {
      output.write(`${harmless(target)}\n`);
      return readLogin({}, { input, output, signal });
    },
  };
}
