/** The real program, built once, and what it said. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';

export const ROOT = resolve(import.meta.dirname, '../..');
const BIN = join(ROOT, 'bin/sealift.js');
const BUILT = join(ROOT, 'dist/program/main.js');
/** A folder is made by exactly one of several processes; whoever finds it waits. */
const LOCK = join(ROOT, 'node_modules/.sealift-test-build');
const LOCK_STALE_MS = 120_000;

function mtimeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function newestBelow(dir: string): number {
  return Math.max(
    ...readdirSync(dir, { withFileTypes: true, recursive: true }).map((d) =>
      mtimeOf(join(d.parentPath, d.name)),
    ),
  );
}

function isFresh(): boolean {
  const sources = ['tsconfig.build.json', 'scripts/bundle.mjs', 'scripts/compile.cjs', 'bin/start.js'].map(
    (file) => mtimeOf(join(ROOT, file)),
  );
  return mtimeOf(BUILT) >= Math.max(newestBelow(join(ROOT, 'src')), ...sources);
}

function takeLock(): boolean {
  try {
    mkdirSync(LOCK);
    return true;
  } catch {
    if (Date.now() - mtimeOf(LOCK) > LOCK_STALE_MS) rmSync(LOCK, { recursive: true, force: true });
    return false;
  }
}

/** Runs the compiler and the bundler. Types are `npm run check`'s concern: what was written counts. */
async function build(): Promise<void> {
  const before = mtimeOf(BUILT);
  const run = (...args: string[]) =>
    promisify(execFile)(process.execPath, args, { cwd: ROOT }).catch((error: unknown) => error);
  const said = [await run('node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json')];
  said.push(await run('scripts/bundle.mjs'));
  if (mtimeOf(BUILT) <= before) throw new Error('the build wrote nothing', { cause: said });
}

/** Builds `dist/` when a source is newer. Test files run at the same time: one builds, the others wait for it. */
export async function ensureBuilt(): Promise<void> {
  while (!isFresh()) {
    if (!takeLock()) {
      await wait(100);
      continue;
    }
    try {
      if (!isFresh()) await build();
    } finally {
      rmSync(LOCK, { recursive: true, force: true });
    }
  }
}

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A program that is running; `ended` settles when it is over. */
export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ran>;
  /** Everything on stderr so far. */
  readonly stderr: () => string;
}

/** Starts `sealift ARGS…`. Neither colours nor credentials of this machine reach it. */
export function startProgram(args: readonly string[], options: RunOptions = {}): Running {
  const env = { PATH: process.env.PATH ?? '', HOME: options.cwd ?? '/nonexistent', ...options.env };
  const child = spawn(process.execPath, [BIN, ...args], {
    cwd: options.cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise<Ran>((settle, reject) => {
    child.once('error', reject);
    child.once('close', (code) => settle({ code, stdout, stderr }));
  });
  return { child, ended, stderr: () => stderr };
}

/** Runs `sealift ARGS…` to its end. */
export function runProgram(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return startProgram(args, options).ended;
}

/** The one JSON document of a run with `--json`. Throws for anything else on stdout. */
export function documentOf(ran: Ran): Record<string, unknown> {
  const value: unknown = JSON.parse(ran.stdout);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('not an object');
  return { ...value };
}
