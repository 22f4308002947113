import { SealiftError } from '../core/errors.ts';
import { type PipPython, PipResolver, probePython } from './python-pip.ts';
import {
  NEUTRAL_FOLDER,
  type Resolver,
  type ResolverTools,
  resolverEnv,
  runResolver,
} from './python-resolver.ts';
import { UvResolver } from './python-uv.ts';

const PROBE_MS = 30_000;

/** Where the package `uv` of a Python has its program. */
const FIND = 'import uv;print(uv.find_uv_bin())';

async function findUv(tools: ResolverTools): Promise<Resolver | undefined> {
  const env = resolverEnv(tools.context, []);
  const options = { ...tools, root: NEUTRAL_FOLDER, env, timeoutMs: PROBE_MS };
  const programs = async function* (): AsyncGenerator<string> {
    yield 'uv';
    for (const python of ['python3', 'python']) {
      const found = await runResolver([python], ['-c', FIND], options);
      if (found?.code === 0) yield found.stdout.trim();
    }
  };
  for await (const program of programs()) {
    const result = await runResolver([program], ['--version'], options);
    const [, version] = /^uv (\d\S*)/.exec(result?.stdout ?? '') ?? [];
    if (result?.code === 0 && version !== undefined) {
      return new UvResolver({ name: `uv ${version}`, command: [program] }, tools);
    }
  }
  return undefined;
}

async function findPip(pythons: readonly string[], tools: ResolverTools): Promise<Resolver | undefined> {
  const found: PipPython[] = [];
  for (const command of [...pythons.map((version) => `python${version}`), 'python3', 'python']) {
    const python = await probePython(command, tools);
    if (python !== undefined) found.push(python);
  }
  return found.length === 0 ? undefined : new PipResolver(found, tools);
}

/**
 * The program that resolves: uv where it is there, else pip; or the one that is wished for.
 * @param wish.pythons versions of Python that pip has to be found for
 * @throws RESOLVER_MISSING
 */
export async function findResolver(
  wish: { readonly resolver: 'uv' | 'pip' | undefined; readonly pythons: readonly string[] },
  tools: ResolverTools,
): Promise<Resolver> {
  const uv = wish.resolver === 'pip' ? undefined : await findUv(tools);
  const found = uv ?? (wish.resolver === 'uv' ? undefined : await findPip(wish.pythons, tools));
  if (found !== undefined) return found;
  const what = wish.resolver === undefined ? 'neither uv nor pip is' : `${wish.resolver} is not`;
  throw new SealiftError('RESOLVER_MISSING', `Python packages cannot be resolved: ${what} found`, {
    hint: wish.resolver === 'pip' ? 'install Python with pip' : 'install uv: `pip install uv`',
  });
}
