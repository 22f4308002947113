/** Programs that run beside the tests, and the directories that they are given. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const readyWithin = 60_000;
const stopWithin = 15_000;

const running = new Set<ChildProcess>();
const ownDirectories = new Set<string>();

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const dir of ownDirectories) {
    try {
      rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
    } catch {
      // What a dying daemon still holds stays in the temporary directory; that is no reason to fail the tests.
    }
  }
});

/** A program that runs until it is stopped, or until the tests end. */
export interface Daemon {
  readonly child: ChildProcess;
  readonly name: string;
  readonly log: string;
}

/** Starts a program with its arguments; the kernel ends it when this process ends in whatever way. */
export function startDaemon(
  command: readonly string[],
  files: { readonly stdout: string; readonly log: string },
): Daemon {
  const stdout = openSync(files.stdout, 'a');
  const log = openSync(files.log, 'a');
  try {
    // vitest kills its workers, and then the exit hook above is not run. So the kernel is asked to end the daemon too.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], {
      stdio: ['ignore', stdout, log],
      // Distribution 3 would send traces to a collector on port 4318.
      env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
    });
    running.add(child);
    child.once('exit', () => running.delete(child));
    child.once('error', () => running.delete(child));
    return { child, name: basename(command[0] ?? ''), log: files.log };
  } finally {
    closeSync(stdout);
    closeSync(log);
  }
}

/** Asks a daemon until `probe` answers; throws with the end of the daemon's log when the daemon dies or takes too long. */
export async function untilReady<T>(
  daemon: Daemon,
  probe: () => Promise<T | undefined>,
  within: number = readyWithin,
): Promise<T> {
  const deadline = Date.now() + within;
  for (;;) {
    const dead = !running.has(daemon.child);
    const answer = dead ? undefined : await probe();
    if (answer !== undefined) return answer;
    if (dead || Date.now() > deadline) {
      await stopDaemon(daemon, 'SIGKILL');
      const log = readFileSync(daemon.log, 'utf8').slice(-4000);
      throw new Error(`${daemon.name} ${dead ? 'ended at once' : `is not ready after ${within} ms`}\n${log}`);
    }
    await sleep(25);
  }
}

/** Ends a daemon; one that does not listen is killed after 15 s. */
export async function stopDaemon(
  { child }: Daemon,
  signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM',
): Promise<void> {
  if (!running.has(child)) return;
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), stopWithin);
  await ended;
  clearTimeout(timer);
}

/**
 * Gives `start` a temporary directory that is removed again when it fails. The path is short because a unix socket's path
 * has at most 107 bytes.
 */
export async function inOwnDirectory<T>(start: (dir: string) => Promise<T>): Promise<T> {
  const parent = tmpdir().length > 60 ? '/tmp' : tmpdir();
  const dir = mkdtempSync(join(parent, 'sealift-'));
  ownDirectories.add(dir);
  try {
    return await start(dir);
  } catch (error) {
    await removeOwnDirectory(dir);
    throw error;
  }
}

/** Removes what `inOwnDirectory` gave. */
export async function removeOwnDirectory(dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true, maxRetries: 3 });
  ownDirectories.delete(dir);
}
