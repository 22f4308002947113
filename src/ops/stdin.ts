import type { Readable } from 'node:stream';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { ByteSource } from '../io/byte-source.ts';

/** What stands for the path of a bundle that comes through a pipe. */
export const STDIN = 'stdin';

/**
 * A bundle that comes through a pipe.
 * @param about.others what is given beside it
 * @param about.again what to do where it does not bring what it must, as a hint
 * @throws USAGE for an input that is a terminal, and for others: a pipe brings one bundle
 */
export function pipeSource(
  input: Readable,
  about: {
    readonly others?: readonly string[] | undefined;
    readonly again?: string;
    readonly context: Context;
  },
): ByteSource {
  const { others = [], again = 'send the bundle once more', context } = about;
  if ('isTTY' in input && input.isTTY === true) {
    throw new SealiftError('USAGE', 'stdin is a terminal: nobody sends a bundle', {
      hint: 'send one, for example `ssh site sealift load - … < bundle.tar`, or name its file',
    });
  }
  if (others.length > 0) {
    throw new SealiftError('USAGE', 'a bundle that comes through a pipe is read alone', {
      hint: 'copy it to a file and give all of them as files',
    });
  }
  return new ByteSource(input, {
    what: STDIN,
    signal: context.signal,
    again,
    close: () => input.destroy(),
  });
}
