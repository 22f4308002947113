import type { TrustOptions } from '../ops/trust.ts';
import { shellWord } from './words.ts';

/** The flags of every verb that judges a signature. */
interface TrustFlags {
  readonly key?: readonly string[];
  readonly site?: string;
}

export const KEY_HELP =
  'a public key that must have signed it: NAME.pub, or the key itself; may be repeated, one is enough';
export const SITE_HELP =
  'the policy of this site (default: site.yaml in the working folder, where there is one)';

/** Gathers an option that may be repeated. */
export function gather(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

export function trustOf({ key, site }: TrustFlags): TrustOptions {
  return {
    ...(key === undefined ? {} : { keys: key }),
    ...(site === undefined ? {} : { sitePath: site }),
  };
}

/** The same flags as words of a command that is proposed; '' where there are none. */
export function trustWords({ key = [], site }: TrustFlags): string {
  const flags = [...key.map((one) => ['--key', one]), ...(site === undefined ? [] : [['--site', site]])];
  return flags.map(([flag, value = '']) => ` ${flag} ${shellWord(value)}`).join('');
}
