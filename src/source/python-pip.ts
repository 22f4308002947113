import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { normalizeProject } from '../core/distribution.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { PythonTarget } from '../core/python-target.ts';
import { readFileLimited } from '../io/files.ts';
import { platformTags } from '../python/tags.ts';
import { addressesOf, plainAddress } from './python-index.ts';
import {
  NEUTRAL_FOLDER,
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

/** A Python with pip in it. */
export interface PipPython {
  /** `python3.11` */
  readonly command: string;
  /** `3.11` */
  readonly python: string;
  readonly pip: string;
  /** As `platform.machine()` names it. */
  readonly machine: string;
}

const PROBE =
  'import sys,platform,pip;print("%d.%d"%sys.version_info[:2],pip.__version__,platform.machine(),sys.implementation.name,sys.platform)';
const PROBE_MS = 30_000;
/** `-m pip` would import what lies in the manifest's folder under the name of one of Python's own modules. */
const PIP = [
  '-c',
  'import sys;sys.path[:]=[p for p in sys.path if p];import runpy;runpy.run_module("pip",run_name="__main__",alter_sys=True)',
] as const;

/** What a Python command is; undefined where it is none, or none with pip. */
export async function probePython(command: string, tools: ResolverTools): Promise<PipPython | undefined> {
  const env = resolverEnv(tools.context, []);
  const result = await runResolver([command], ['-c', PROBE], {
    ...tools,
    root: NEUTRAL_FOLDER,
    env,
    timeoutMs: PROBE_MS,
  });
  const [python = '', pip = '', machine = '', implementation, system] =
    result?.stdout.trim().split(' ') ?? [];
  if (result?.code !== 0 || implementation !== 'cpython' || system !== 'linux') return undefined;
  return { command, python, pip, machine };
}

const report = z.object({
  install: z.array(
    z.object({
      download_info: z.object({ url: z.string() }),
      is_direct: z.boolean(),
      metadata: z.object({ name: z.string(), version: z.string() }),
    }),
  ),
});

function pinOf(item: z.infer<typeof report>['install'][number]): ResolvedPin {
  const { url } = item.download_info;
  const { name, version } = item.metadata;
  const pin = { name: normalizeProject(name), version };
  if (url.startsWith('file:')) {
    const file = fileURLToPath(url);
    return { ...pin, from: item.is_direct ? { file } : { folder: join(file, '..') } };
  }
  return { ...pin, from: item.is_direct ? { url: plainAddress(url) } : { index: undefined } };
}

/** The pins of a report of `pip install --report` (pip's "Installation Report", version 1). @throws PACKAGE_UNRESOLVED */
export function pinsOfPip(text: string): ResolvedPin[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const read = report.safeParse(value);
  if (read.success) return read.data.install.map(pinOf);
  throw new SealiftError('PACKAGE_UNRESOLVED', 'pip wrote no report that can be read', {
    hint: 'update pip (`python3 -m pip install --upgrade pip`), or install uv (`pip install uv`)',
  });
}

/** `key='value'` lines of `pip config list` that name indexes. */
export function indexesOfPipConfig(text: string): URL[] {
  const lines = text.split('\n').flatMap((line) => {
    const [, key = '', value = ''] = /^([^=]+)=(.*)$/.exec(line.trim()) ?? [];
    return /^(?:global|install|download|:env:)\.(?:extra-)?index-url$/.test(key) ? [{ key, value }] : [];
  });
  const extra = lines.filter(({ key }) => key.endsWith('extra-index-url'));
  const main = lines.filter(({ key }) => !key.endsWith('extra-index-url'));
  // The environment decides over files, what is for `install` over what is for all.
  const rank = ({ key }: { readonly key: string }): number =>
    key.startsWith(':env:') ? 0 : key.startsWith('global') ? 2 : 1;
  const [decides] = main.toSorted((a, b) => rank(a) - rank(b));
  const urls = ({ value }: { readonly value: string }): URL[] =>
    addressesOf(value.replace(/^['"]|['"]$/g, '').replaceAll('\\n', ' '));
  return [...(decides === undefined ? [] : urls(decides)), ...extra.flatMap(urls)];
}

/** The index that pip asks where nobody configured one, as its own help says. */
export function indexOfPipHelp(text: string): URL[] {
  const [, address = ''] = /--index-url <url>[^(]*\(default\s+(https?:\/\/[^\s)]+)\)/.exec(text) ?? [];
  return addressesOf(address);
}

/** pip as a resolver, once for each target. It judges markers for the Python that it runs in, so there must be one for each. */
export class PipResolver implements Resolver {
  readonly name: string;
  readonly #pythons: readonly PipPython[];
  readonly #tools: ResolverTools;

  constructor(pythons: readonly PipPython[], tools: ResolverTools) {
    this.name = `pip ${pythons[0]?.pip ?? ''}`.trim();
    this.#pythons = pythons;
    this.#tools = tools;
  }

  async configured(): Promise<readonly URL[]> {
    const [first] = this.#pythons;
    if (first === undefined) return [];
    const env = resolverEnv(this.#tools.context, []);
    const run = { ...this.#tools, env, timeoutMs: PROBE_MS };
    const result = await runResolver([first.command], [...PIP, 'config', 'list'], run);
    const own = result?.code === 0 ? indexesOfPipConfig(result.stdout) : [];
    if (own.length > 0) return own;
    const help = await runResolver([first.command], [...PIP, 'install', '--help'], run);
    return help?.code === 0 ? indexOfPipHelp(help.stdout) : [];
  }

  resolve(what: Resolution): Promise<readonly (readonly ResolvedPin[])[]> {
    const runs = what.targets.map((target) => ({ target, python: this.#pythonFor(target) }));
    return withFolder(async (folder) => {
      const pins: (readonly ResolvedPin[])[] = [];
      for (const run of runs) pins.push(await this.#resolveTarget(run, { what, folder }));
      return pins;
    });
  }

  #pythonFor(target: PythonTarget): PipPython {
    const { python, platform } = target;
    const found = this.#pythons.find((p) => p.python === python && p.machine === platform.machine);
    if (found !== undefined) return found;
    const what = `pip cannot resolve ${targetText(target)}: it judges markers for the Python that it runs in`;
    throw new SealiftError('RESOLVER_MISSING', `${what}, and there is no python${python} with pip here`, {
      hint: 'install uv (`pip install uv`), which resolves for every Python and platform',
    });
  }

  async #resolveTarget(
    run: { readonly target: PythonTarget; readonly python: PipPython },
    { what, folder }: { readonly what: Resolution; readonly folder: string },
  ): Promise<readonly ResolvedPin[]> {
    const { target, python } = run;
    const out = join(folder, 'report.json');
    const [first, ...others] = what.indexes;
    const packages = await writeLines(join(folder, 'packages.txt'), what.packages);
    const held = await writeLines(join(folder, 'held.txt'), what.held);
    // With source archives allowed pip knows only the platform that it runs on; wheels are chosen for the target all the same.
    const wheels = what.sdists
      ? []
      : [
          '--only-binary=:all:',
          `--python-version=${target.python}`,
          '--implementation=cp',
          `--target=${join(folder, 'none')}`,
          ...platformTags(target.platform).map((tag) => `--platform=${tag}`),
        ];
    const args = [
      ...[...PIP, 'install', '--dry-run', '--ignore-installed', '--quiet', `--report=${out}`],
      ...wheels,
      ...(first === undefined ? [] : [`--index-url=${first}`]),
      ...others.map((url) => `--extra-index-url=${url}`),
      ...[...what.requirements, packages].map((path) => `--requirement=${path}`),
      ...what.constraints.map((path) => `--constraint=${path}`),
    ];
    const options = { ...this.#tools, env: resolverEnv(this.#tools.context, what.indexes) };
    let result = await runResolver([python.command], [...args, `--constraint=${held}`], options);
    // Old pins that no longer fit give way.
    if (result !== undefined && result.code !== 0 && what.held.length > 0) {
      result = await runResolver([python.command], args, options);
    }
    if (result === undefined) {
      throw new SealiftError('RESOLVER_MISSING', `${python.command} cannot be started`);
    }
    if (result.code !== 0) throw resolverError(this.name, targetText(target), result);
    const bytes = await readFileLimited(out, {
      limit: LIMITS.resolverResult,
      missing: 'PACKAGE_UNRESOLVED',
      hint: 'update pip (`python3 -m pip install --upgrade pip`), or install uv (`pip install uv`)',
    });
    return pinsOfPip(bytes.toString('utf8'));
  }
}
