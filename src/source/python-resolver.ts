import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import type { PythonTarget } from '../core/python-target.ts';
import { type ProcessResult, runProcess } from '../io/process.ts';
import { INDEX_VARIABLES } from './python-index.ts';

/** A project as a resolver decided it for one target. */
export interface ResolvedPin {
  /** Normalised. */
  readonly name: string;
  readonly version: string;
  /** Where its files are: the index (where the resolver says which), a folder or a file of this disk, an address. */
  readonly from:
    | { readonly index: string | undefined }
    | { readonly folder: string }
    | { readonly file: string }
    /** `sha256`: what the requirement says that the file must be. */
    | { readonly url: string; readonly sha256?: Digest };
}

/** What is resolved, in the words of a resolver. */
export interface Resolution {
  /** Absolute paths. */
  readonly requirements: readonly string[];
  readonly constraints: readonly string[];
  readonly packages: readonly string[];
  readonly targets: readonly PythonTarget[];
  /** Empty: what the resolver is configured with. */
  readonly indexes: readonly string[];
  readonly sdists: boolean;
  /** Pins that shall stay where they can, as lines of a requirements file. */
  readonly held: readonly string[];
}

/** What a resolver works with. */
export interface ResolverTools {
  readonly context: Context;
  /** Folder of the manifest: relative paths in requirements are relative to it. */
  readonly root: string;
}

/** A program that decides versions. */
export interface Resolver {
  /** `uv 0.9.1` */
  readonly name: string;
  /** Indexes that it asks where none is given, perhaps with logins in them. */
  configured(): Promise<readonly URL[]>;
  /** The pins of each target, in the order of the targets. @throws PACKAGE_UNRESOLVED with the program's own words */
  resolve(what: Resolution): Promise<readonly (readonly ResolvedPin[])[]>;
}

/** Nothing of ours is its business, and where the manifest names the indexes no other is asked. */
export function resolverEnv(context: Context, indexes: readonly string[]): Context['env'] {
  const dropped = new Set<string>(indexes.length === 0 ? [] : INDEX_VARIABLES);
  const kept = Object.entries(context.env).filter(
    ([name]) => !name.startsWith('SEALIFT_') && !dropped.has(name),
  );
  return {
    ...Object.fromEntries(kept),
    NO_COLOR: '1',
    PIP_DISABLE_PIP_VERSION_CHECK: '1',
    PIP_NO_INPUT: '1',
    // Only a virtual environment may be installed into, and nothing is installed.
    PIP_REQUIRE_VIRTUALENV: '0',
    UV_PYTHON_DOWNLOADS: 'never',
  };
}

/** Runs a resolver; undefined where the program cannot be started. @throws ABORTED */
export async function runResolver(
  command: readonly string[],
  args: readonly string[],
  options: { readonly context: Context; readonly env: Context['env']; readonly timeoutMs?: number } & {
    /** The folder that it starts in. */
    readonly root: string;
  },
): Promise<ProcessResult | undefined> {
  const [file = '', ...before] = command;
  try {
    return await runProcess(file, [...before, ...args], {
      timeoutMs: options.timeoutMs ?? LIMITS.resolverMs,
      limit: LIMITS.resolverText,
      env: options.env,
      cwd: options.root,
      signal: options.context.signal,
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    return undefined;
  }
}

const MAX_WORDS = 4_000;

/** What a program said, without what steers a terminal. */
export function saidBy({ stderr, stdout }: ProcessResult): string {
  const said = (stderr.trim() || stdout.trim())
    .replace(/\u001b\[[0-9;]*[A-Za-z]/g, '')
    .split(/\r\n|\r|\n/)
    .map((line) => line.replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ').trim())
    .filter((line) => line !== '' && !/^warning: The requested Python version/i.test(line))
    .join(' / ');
  return said.length > MAX_WORDS ? `${said.slice(0, MAX_WORDS)}…` : said;
}

/** The failure of a resolver, in its own words. */
export function resolverError(name: string, what: string, result: ProcessResult): SealiftError {
  const { code } = result;
  const message =
    code === 124
      ? `${name} did not end within ${LIMITS.resolverMs / 60_000} minutes ${what}`
      : `${name} cannot resolve the requirements ${what}: ${saidBy(result) || `exit code ${code}`}`;
  return new SealiftError('PACKAGE_UNRESOLVED', message, {
    hint: 'change the requirements, constraints, pythons or platforms under python in sealift.yaml; a project without wheels needs sdists: true',
    details: { code },
  });
}

/** `for Python 3.11 on linux/amd64` */
export function targetText({ python, platform }: PythonTarget): string {
  return `for Python ${python} on ${platform.name}`;
}

/** Runs `work` with a folder of its own, which is gone afterwards. */
export async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'sealift-python-'));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Writes lines for a resolver. @returns the file's path */
export async function writeLines(path: string, lines: readonly string[]): Promise<string> {
  await writeFile(path, lines.map((line) => `${line}\n`).join(''));
  return path;
}

/** Where programs start that have no business with the manifest's folder: Python imports what lies there. */
export const NEUTRAL_FOLDER = '/';
