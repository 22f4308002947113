import { isAddress } from '../bundle/names.ts';
import { SealiftError } from '../core/errors.ts';
import { withoutQuery } from '../io/redirect.ts';

/**
 * The address of a bundle on a server, where one is given instead of a path.
 * @throws USAGE for one beside others
 */
export function addressIn(words: readonly string[]): string | undefined {
  const address = words.find(isAddress);
  if (address === undefined || words.length === 1) return address;
  throw new SealiftError('USAGE', `${withoutQuery(address)}: a bundle on a server is read alone`, {
    hint: 'copy it to a file and give all of them as files',
  });
}
