/** A room for hostile input: what is opened, made and left is seen, and nothing but our errors may come out. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type Fault, isErrorCode, SealiftError } from '../../src/core/errors.ts';
import { seen } from './watch.ts';

/** The seed of the first case, or always the same; each case has the next one. */
const SEED = Number(process.env.SEALIFT_FUZZ_SEED ?? 20_261_122);
/** Cases of all fuzz tests together. */
const CASES = Number(process.env.SEALIFT_FUZZ_CASES ?? 5_000);
/** Only CI does so many cases that they take more than seconds, in milliseconds. */
export const HOUR = 3_600_000;
/** Only a net: a case takes milliseconds, and one that takes so long hangs. */
const CASE_MS = 60_000;
/** What a process may grow by, whatever it is given. Bytes. */
const GROWTH = 512 * 1024 * 1024;

export interface Room {
  readonly dir: string;
  path(...names: string[]): string;
  /** What is in the room, without what is below `except`: names, sizes, times and bytes. */
  close(): void;
}

const CANARY = 'the canary sings\n';

export function openRoom(): Room {
  const dir = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'sealift-fuzz-'));
  mkdirSync(join(dir, 'in'));
  mkdirSync(join(dir, 'temp'));
  writeFileSync(join(dir, 'canary'), CANARY);
  process.env.TMPDIR = join(dir, 'temp');
  return {
    dir,
    path: (...names) => join(dir, ...names),
    close: () => {
      delete process.env.TMPDIR;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** What stands beside the input: all of it is as it was made. */
function expectUntouched(room: Room, where: string): void {
  expect(readdirSync(room.dir).sort(), where).toEqual(['canary', 'in', 'temp']);
  expect(readdirSync(room.path('temp')), where).toEqual([]);
  expect(readFileSync(room.path('canary'), 'utf8'), where).toBe(CANARY);
}

function expectOurs(fault: Fault, where: string): void {
  expect(isErrorCode(fault.code), where).toBe(true);
  expect(fault.code, `${where}: ${fault.message.slice(0, 500)}`).not.toBe('INTERNAL');
  expect(fault.message.includes(CANARY.trim()), where).toBe(false);
}

async function inTime<T>(work: Promise<T>, where: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`hangs: ${where}`)), CASE_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What one case came to: nothing wrong, or what. */
export type Verdict = 'accepted' | readonly Fault[];

/** Runs one reader; anything but a SealiftError with our codes fails. */
async function judge(read: () => Promise<readonly Fault[]>, where: string): Promise<Verdict> {
  let faults: readonly Fault[];
  try {
    faults = await inTime(read(), where);
  } catch (error) {
    if (!(error instanceof SealiftError)) throw new Error(`${where}: not our error`, { cause: error });
    faults = [{ code: error.code, message: error.message }, ...error.faults];
  }
  for (const fault of faults) expectOurs(fault, where);
  return faults.length === 0 ? 'accepted' : faults;
}

export interface Fuzz {
  readonly room: Room;
  /** The part of all cases that are done here. */
  readonly share: number;
  /**
   * Makes the input of one case in the room's folder `in` and returns what reads it, as a list of faults.
   * @param seed of this case
   */
  readonly make: (seed: number) => () => Promise<readonly Fault[]>;
  /** Judges what was accepted: it must have been right. */
  readonly accepted: (seed: number) => void | Promise<void>;
  /** Judges what was refused, as far as it was to be refused. */
  readonly refused?: (seed: number) => void | Promise<void>;
}

/**
 * Does the cases and says how many were refused, for each code. A case is done again alone with its seed:
 * `SEALIFT_FUZZ_SEED=<seed> SEALIFT_FUZZ_CASES=1`.
 * @returns how many
 */
export async function fuzz(name: string, { room, share, make, accepted, refused }: Fuzz): Promise<number> {
  const count = Math.max(1, Math.round(CASES * share));
  const tally = new Map<string, number>();
  const before = process.resourceUsage().maxRSS * 1024;
  const inside = [room.dir, `pipe:`, `socket:`, `anon_inode:`];
  for (let seed = SEED; seed < SEED + count; seed += 1) {
    const where = `SEALIFT_FUZZ_SEED=${seed} SEALIFT_FUZZ_CASES=1, ${name}`;
    const read = make(seed);
    seen.start();
    const verdict = await judge(read, where);
    expect(
      seen.stop().filter((path) => !inside.some((i) => path.startsWith(i))),
      where,
    ).toEqual([]);
    const key = verdict === 'accepted' ? verdict : (verdict[0]?.code ?? '');
    tally.set(key, (tally.get(key) ?? 0) + 1);
    if (verdict === 'accepted') await accepted(seed);
    else await refused?.(seed);
    expectUntouched(room, where);
  }
  const grown = process.resourceUsage().maxRSS * 1024 - before;
  const shown = [...tally].sort(([, a], [, b]) => b - a).map(([code, times]) => `${code} ${times}`);
  console.log(
    `${name}: ${count} cases from seed ${SEED}, ${Math.round(grown / 2 ** 20)} MiB more: ${shown.join(', ')}`,
  );
  expect(grown, name).toBeLessThan(GROWTH);
  return count;
}
