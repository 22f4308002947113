import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { digestOfHex } from '../core/digest.ts';
import { normalizeProject, parseDistribution } from '../core/distribution.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { PythonTarget, WheelPlatform } from '../core/python-target.ts';
import { readFileLimited } from '../io/files.ts';
import { addressesOf, decoded, plainAddress } from './python-index.ts';
import {
  type Resolution,
  type ResolvedPin,
  type Resolver,
  type ResolverTools,
  resolverEnv,
  resolverError,
  runResolver,
  targetText,
  withFolder,
  writeLines,
} from './python-resolver.ts';

/** glibc versions that uv has a platform for. */
const UV_GLIBC = [17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40] as const;

/** uv's word for a platform: the newest of its glibc versions that is not newer than ours. */
function uvPlatform({ machine, libc, minor }: WheelPlatform): string {
  if (libc === 'musl') return `${machine}-unknown-linux-musl`;
  const known = UV_GLIBC.findLast((n) => n <= minor) ?? UV_GLIBC[0];
  return `${machine}-manylinux_2_${known}`;
}

/** What stands before ` ; marker` and comments. */
function requirementOf(line: string): string {
  return line.replace(/\s+;.*$/, '').trim();
}

/** Where a `file:` address or a path of uv's answer is: absolute. */
function localPath(address: string, root: string): string {
  return address.startsWith('file:') ? fileURLToPath(address) : join(root, address);
}

function placedPin(place: string, root: string): ResolvedPin | undefined {
  const isWeb = /^https?:\/\//.test(place);
  const file = decoded(
    place
      .replace(/[?#].*$/, '')
      .split('/')
      .at(-1) ?? '',
  );
  const found = parseDistribution(file);
  if (found === undefined) return undefined;
  const [, hex] = /[#&]sha256=([0-9a-f]{64})(?:&|$)/i.exec(place) ?? [];
  const stated = hex === undefined ? {} : { sha256: digestOfHex(hex.toLowerCase()) };
  const from = isWeb
    ? { url: plainAddress(place), ...stated }
    : { file: localPath(place.replace(/#.*$/, ''), root) };
  return { name: found.project, version: found.version.replaceAll('_', '-'), from };
}

/**
 * The pins of what `uv pip compile --emit-index-annotation` wrote: `name==version`, a path, `name @ address`; the line
 * after it names the index.
 * @throws PACKAGE_UNRESOLVED for what cannot be carried
 */
export function pinsOfUv(text: string, root: string): ResolvedPin[] {
  const pins: ResolvedPin[] = [];
  for (const line of text.split('\n')) {
    const index = /^\s+# from (\S+)$/.exec(line)?.[1];
    const last = pins.at(-1);
    if (index !== undefined && last !== undefined && 'index' in last.from) {
      const from = index.startsWith('file:')
        ? { folder: fileURLToPath(index) }
        : { index: plainAddress(index) };
      pins[pins.length - 1] = { ...last, from };
    }
    const asked = requirementOf(line.replace(/^\s*#.*$/, ''));
    if (asked === '' || asked.startsWith('-')) continue;
    const [, name, version] = /^([A-Za-z0-9._-]+)==(\S+)$/.exec(asked) ?? [];
    const [, place = asked] = /^[^\s@]+\s*@\s*(\S+)$/.exec(asked) ?? [];
    const pin: ResolvedPin | undefined =
      name !== undefined && version !== undefined
        ? { name: normalizeProject(name), version, from: { index: undefined } }
        : placedPin(place, root);
    if (pin === undefined) {
      throw new SealiftError(
        'PACKAGE_UNRESOLVED',
        `${asked.slice(0, 200)}: neither a wheel nor a source archive`,
        {
          hint: 'build a wheel of it (`pip wheel --no-deps`) and name the wheel: ./wheels/NAME.whl',
        },
      );
    }
    pins.push(pin);
  }
  return pins;
}

/** Arguments that are the same for every target. */
function commonArgs(what: Resolution, files: readonly string[]): string[] {
  const last = what.indexes.at(-1);
  return [
    ...(what.sdists ? [] : ['--only-binary', ':all:']),
    ...what.indexes.slice(0, -1).flatMap((url) => ['--index', url]),
    ...(last === undefined ? [] : ['--default-index', last]),
    ...what.constraints.flatMap((path) => ['--constraints', path]),
    '--',
    ...files,
  ];
}

const FIRST = [
  'pip',
  'compile',
  '--quiet',
  '--no-header',
  '--no-annotate',
  '--emit-index-annotation',
  '--no-progress',
  '--no-python-downloads',
];

/** What runs of uv for one lock have in common. */
interface UvRun {
  /** Pins that are preferred: those of all platforms. */
  readonly all: string;
  readonly folder: string;
  readonly args: readonly string[];
  readonly env: ReturnType<typeof resolverEnv>;
}

interface TargetPins {
  /** The file that uv wrote. */
  readonly out: string;
  readonly pins: readonly ResolvedPin[];
}

function doAgree(found: readonly TargetPins[]): boolean {
  const versions = new Map<string, string>();
  return found.every(({ pins }) =>
    pins.every(({ name, version }) => {
      const other = versions.get(name);
      versions.set(name, version);
      return other === undefined || other === version;
    }),
  );
}

/** Targets of one Python on one machine together: only the C library tells them apart. */
function alikeTargets(targets: readonly PythonTarget[]): readonly (readonly PythonTarget[])[] {
  const groups = new Map<string, PythonTarget[]>();
  for (const target of targets) {
    const key = `${target.python} ${target.platform.machine}`;
    groups.set(key, [...(groups.get(key) ?? []), target]);
  }
  return [...groups.values()];
}

/** uv as a resolver: once for all platforms, so that targets agree, then once for each, where the wheels decide. */
export class UvResolver implements Resolver {
  readonly name: string;
  readonly #command: readonly string[];
  readonly #tools: ResolverTools;

  /** @param found.command `uv`, or the path of it */
  constructor(found: { readonly name: string; readonly command: readonly string[] }, tools: ResolverTools) {
    this.name = found.name;
    this.#command = found.command;
    this.#tools = tools;
  }

  async configured(): Promise<readonly URL[]> {
    const { env } = this.#tools.context;
    return ['UV_INDEX', 'UV_DEFAULT_INDEX', 'UV_INDEX_URL', 'UV_EXTRA_INDEX_URL'].flatMap((name) =>
      addressesOf(env[name]),
    );
  }

  resolve(what: Resolution): Promise<readonly (readonly ResolvedPin[])[]> {
    return withFolder(async (folder) => {
      const own = join(folder, 'packages.txt');
      const files = [
        ...what.requirements,
        ...(what.packages.length === 0 ? [] : [await writeLines(own, what.packages)]),
      ];
      const args = commonArgs(what, files);
      const env = resolverEnv(this.#tools.context, what.indexes);
      const all = await writeLines(join(folder, 'all.txt'), what.held);
      const [lowest = '3.8'] = what.targets
        .map((t) => t.python)
        .toSorted((a, b) => Number(a.slice(2)) - Number(b.slice(2)));
      // What it writes is what the targets prefer. It may fail for a platform that nobody asks for: then they decide alone.
      const universal = ['--universal', '--python-version', lowest, '--output-file', all];
      await this.#run([...universal, ...args], env);
      const pins = new Map<PythonTarget, readonly ResolvedPin[]>();
      for (const alike of alikeTargets(what.targets)) {
        const found = await this.#resolveAlike(alike, { all, folder, args, env });
        for (const [i, target] of alike.entries()) pins.set(target, found[i]?.pins ?? []);
      }
      return what.targets.map((target) => pins.get(target) ?? []);
    });
  }

  /** Targets that no marker can tell apart have to agree: where they do not, what one of them takes is tried for all. */
  async #resolveAlike(targets: readonly PythonTarget[], run: UvRun): Promise<readonly TargetPins[]> {
    const preferring = async (preferred: string, round: number): Promise<TargetPins[]> => {
      const found: TargetPins[] = [];
      for (const [i, target] of targets.entries()) {
        const out = join(run.folder, `${target.python}-${target.platform.machine}-${round}-${i}.txt`);
        found.push({ out, pins: await this.#resolveTarget(target, { ...run, preferred, out }) });
      }
      return found;
    };
    const first = await preferring(run.all, 0);
    if (doAgree(first)) return first;
    for (const [i, { out }] of first.entries()) {
      const next = await preferring(out, i + 1);
      if (doAgree(next)) return next;
    }
    return first;
  }

  async #resolveTarget(
    target: PythonTarget,
    run: UvRun & { readonly preferred: string; readonly out: string },
  ): Promise<readonly ResolvedPin[]> {
    // uv holds to the pins of the file that it writes, where they fit.
    await copyFile(run.preferred, run.out);
    const on = ['--python-version', target.python, '--python-platform', uvPlatform(target.platform)];
    const result = await this.#run([...on, '--output-file', run.out, ...run.args], run.env);
    if (result.code !== 0) throw resolverError(this.name, targetText(target), result);
    const bytes = await readFileLimited(run.out, {
      limit: LIMITS.resolverResult,
      missing: 'PACKAGE_UNRESOLVED',
    });
    return pinsOfUv(bytes.toString('utf8'), this.#tools.root);
  }

  async #run(
    args: readonly string[],
    env: ReturnType<typeof resolverEnv>,
  ): Promise<NonNullable<Awaited<ReturnType<typeof runResolver>>>> {
    const result = await runResolver(this.#command, [...FIRST, ...args], { ...this.#tools, env });
    if (result !== undefined) return result;
    throw new SealiftError('RESOLVER_MISSING', `${this.name} cannot be started`, {
      hint: 'install uv: `pip install uv`',
    });
  }
}
