import { link, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import type { Context } from '../core/events.ts';
import { besidePath, diskError, errnoOf } from './files.ts';
import { sleep } from './pool.ts';

/** A turn is a moment: whoever still has it after this long is gone. */
const TURN_MS = 30_000;
const POLL_MS = 50;

/** Whether the process that a mark names runs no more. Of other machines only the age tells. */
function isGone(mark: string): boolean {
  const [host, pid] = mark.trim().split(' ');
  if (host !== hostname() || !/^\d+$/.test(pid ?? '')) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return errnoOf(error) === 'ESRCH';
  }
}

/** Takes a mark away that a killed run left. Whoever renames it first removes it; nobody removes a fresh one. */
async function removeStale(mark: string, now: () => number): Promise<void> {
  const aside = besidePath(mark);
  try {
    const [text, { mtimeMs }] = await Promise.all([readFile(mark, 'utf8'), stat(mark)]);
    if (!isGone(text) && now() - mtimeMs < TURN_MS) return;
    await rename(mark, aside);
    const isSame = (await readFile(aside, 'utf8')) === text;
    if (!isSame) await link(aside, mark).catch(() => {});
  } catch {
    // Somebody else was faster.
  } finally {
    await rm(aside, { force: true });
  }
}

/** A file is made by exactly one of several processes. */
async function takeMark(mark: string): Promise<boolean> {
  try {
    await writeFile(mark, `${hostname()} ${process.pid}\n`, { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw diskError(error, mark);
  }
}

/**
 * Does a short piece of work on a file while nobody else does, on this machine or another: others wait for their turn.
 * The mark is `<path>.sealift-turn` beside the file; one that a killed run left does not block.
 * @param options.busy makes the error for a turn that does not come in 30 s
 */
export async function inTurn<T>(
  path: string,
  work: () => Promise<T>,
  options: { readonly context: Pick<Context, 'signal' | 'now'>; readonly busy: (mark: string) => Error },
): Promise<T> {
  const mark = `${path}.sealift-turn`;
  const { signal, now } = options.context;
  const until = now() + TURN_MS;
  while (!(await takeMark(mark))) {
    await removeStale(mark, now);
    if (now() > until) throw options.busy(mark);
    await sleep(POLL_MS, signal);
  }
  try {
    return await work();
  } finally {
    await rm(mark, { force: true });
  }
}
