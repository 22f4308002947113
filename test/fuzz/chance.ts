/** Random choices from a seed, and things that a hostile hand would put somewhere. */
import { seeded } from '../bundle/site.ts';

/** Choices that are the same for the same seed. */
export interface Chance {
  /** An even number in [0, 1). */
  readonly next: () => number;
  /** A whole number from 0 to `limit` - 1; 0 for a limit of 0. */
  below(limit: number): number;
  /** True once in `times`. */
  once(times: number): boolean;
  /** One of a list that is not empty. */
  of<T>(list: readonly T[]): T;
  bytes(length: number): Buffer;
}

export function chanceOf(seed: number): Chance {
  const next = seeded(seed);
  const below = (limit: number): number => Math.floor(next() * limit);
  return {
    next,
    below,
    once: (times) => next() * times < 1,
    of: (list) => {
      const [found] = list.slice(below(list.length));
      if (found === undefined) throw new Error('nothing to choose from');
      return found;
    },
    bytes: (length) => Buffer.from(Array.from({ length }, () => below(256))),
  };
}

/** Names that lead elsewhere, that two readers could read in two ways, or that a disk does not take. */
export const NAMES: readonly string[] = [
  '',
  '.',
  '..',
  '/',
  './x',
  '../x',
  '../../canary',
  '/etc/passwd',
  '//x',
  'a/../../x',
  'a/./b',
  'a//b',
  'a/',
  'C:\\x',
  'c:/x',
  '..\\x',
  'a\\..\\..\\x',
  'x\0y',
  'x\ny',
  'x\u001b[2Jy',
  '\u202egpj.sh',
  '\u00e9',
  'e\u0301',
  '\ufeffx',
  '\ud800',
  'CON',
  'aux.txt',
  '~root',
  '-rf',
  '$(id)',
  '`id`',
  '%2e%2e%2fx',
  '__proto__',
  'constructor',
  'toString',
  'x'.repeat(101),
  'x'.repeat(256),
  'x/'.repeat(200),
  'x'.repeat(70_000),
  'oci-layout',
  'index.json',
  'manifest.json',
  'versions.lock',
  'sealift.json',
  'SHA256SUMS',
  'B3SUMS',
  'B3SUMS.minisig',
  'blobs',
  'blobs/sha256',
  'blobs/sha256/',
  `blobs/sha256/${'0'.repeat(64)}`,
  `blobs/sha256/${'F'.repeat(64)}`,
  `blobs/sha256/${'f'.repeat(63)}`,
  `blobs/sha512/${'f'.repeat(128)}`,
  'blobs/sha256/../../x',
];

/** Numbers at the edges of what somebody may have thought of. */
export const NUMBERS: readonly number[] = [
  0,
  -0,
  -1,
  1,
  0.5,
  511,
  512,
  513,
  1024,
  4095,
  65_536,
  2 ** 27,
  2 ** 27 + 1,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 33,
  2 ** 33 - 1,
  2 ** 53 - 1,
  2 ** 53,
  1e21,
  1e308,
];
