/** Sees which files a program really opens, reads and changes, links followed. */

import type * as plain from 'node:fs';
import { readlinkSync, realpathSync } from 'node:fs';
import type * as promises from 'node:fs/promises';
import { dirname } from 'node:path';

let paths: string[] | undefined;

/** Notes paths between `start` and `stop`. */
export const seen = {
  start(): void {
    paths = [];
  },
  stop(): readonly string[] {
    const found = paths ?? [];
    paths = undefined;
    return found;
  },
};

/** The real place of a path; of one that is not there, that of its folder. */
function realOf(path: unknown): string {
  const text = String(path);
  try {
    return realpathSync(text);
  } catch {
    try {
      return `${realpathSync(dirname(text))}/`;
    } catch {
      return text;
    }
  }
}

function noteFile(fd: number): void {
  paths?.push(readlinkSync(`/proc/self/fd/${fd}`));
}

/** Calls whose first path, and for some the second, is read or changed. */
const ONE = [
  'readFile',
  'readdir',
  'writeFile',
  'mkdir',
  'rm',
  'unlink',
  'truncate',
  'chmod',
  'opendir',
] as const;
const TWO = ['rename', 'link', 'copyFile'] as const;

type Call = (...args: unknown[]) => unknown;

function noting(call: Call, count: number): Call {
  return (...args) => {
    // A file that is open already was seen when it was opened.
    for (const path of args.slice(0, count)) if (typeof path === 'string') paths?.push(realOf(path));
    return call(...args);
  };
}

/** `node:fs/promises`, seen. */
export function watchedPromises(real: typeof promises): typeof promises {
  const made: Record<string, unknown> = { ...real };
  for (const name of ONE) made[name] = noting(real[name] as Call, 1);
  for (const name of TWO) made[name] = noting(real[name] as Call, 2);
  made.open = async (...args: Parameters<typeof real.open>) => {
    const handle = await real.open(...args);
    if (paths !== undefined) noteFile(handle.fd);
    return handle;
  };
  return made as unknown as typeof promises;
}

/** `node:fs`, seen as far as it opens files. */
export function watchedPlain(real: typeof plain): typeof plain {
  const openSync = (...args: Parameters<typeof real.openSync>): number => {
    const fd = real.openSync(...args);
    if (paths !== undefined) noteFile(fd);
    return fd;
  };
  return { ...real, openSync, readFileSync: noting(real.readFileSync as Call, 1) } as typeof plain;
}
