import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseWheelPlatform } from '../../src/core/python-target.ts';
import type { PythonLock } from '../../src/lock/schema.ts';
import { lock } from '../../src/ops/lock.ts';
import { platformTags } from '../../src/python/tags.ts';
import { testContext } from '../support/bundles.ts';
import { type PackageIndex, startPackageIndex, taggedWheel } from '../support/package-index.ts';
import { peer } from '../support/peers.ts';

const run = promisify(execFile);
const HEAD = 'apiVersion: sealift/v1\nname: site\nversion: "1"\npython:\n';
const PYTHONS = ['3.10', '3.11', '3.12'] as const;
const PLATFORMS = ['linux/amd64', 'linux/arm64'] as const;
const TARGETS = `  pythons: [${PYTHONS.join(', ')}]\n  platforms: [${PLATFORMS.join(', ')}]\n`;
const login = { username: 'bob', password: 'hunter2' };

let dir: string;
let index: PackageIndex;
let env: Record<string, string>;

function put(name: string, text: string | Uint8Array): Promise<void> {
  return writeFile(join(dir, name), text);
}

async function lockNow(body: string, update: readonly string[] = []): Promise<PythonLock> {
  await put('sealift.yaml', `${HEAD}${body}`);
  const manifestPath = join(dir, 'sealift.yaml');
  const { lock: locked } = await lock({ manifestPath, update }, { ...testContext(), env });
  if (locked.python === undefined) throw new Error('nothing was locked');
  return locked.python;
}

function pinsOf({ pins }: PythonLock): string[] {
  return pins.map(
    ({ name, version, marker }) => `${name} ${version}${marker === undefined ? '' : ` ; ${marker}`}`,
  );
}

/** The files that `pip download` takes for one target, which is asked for exactly these versions. */
async function pipDownload(python: string, platform: string, pins: readonly string[]): Promise<string[]> {
  const out = await mkdtemp(join(dir, 'download-'));
  const tags = platformTags(parseWheelPlatform(platform)).map((tag) => `--platform=${tag}`);
  const args = [
    '-m',
    'pip',
    'download',
    '--quiet',
    '--no-deps',
    '--only-binary=:all:',
    '--index-url',
    index.url,
  ];
  const on = [`--python-version=${python}`, '--implementation=cp', ...tags, `--dest=${out}`];
  await run(join(dirname(peer('uv')), 'python3'), [...args, ...on, ...pins], { env });
  return readdir(out);
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-python-lock-'));
  index = await startPackageIndex();
  env = {
    PATH: `${dirname(peer('uv'))}:${process.env.PATH ?? ''}`,
    HOME: dir,
    UV_CACHE_DIR: join(dir, 'uv-cache'),
    PIP_CACHE_DIR: join(dir, 'pip-cache'),
    NO_PROXY: '127.0.0.1',
  };
  index.put(
    'app',
    taggedWheel({
      name: 'app',
      version: '1.0',
      requires: [
        'old-python ; python_version < "3.11"',
        'native>=1',
        'arm-only ; platform_machine == "aarch64"',
        'colour ; extra == "tty"',
        'win ; sys_platform == "win32"',
      ],
      lines: ['Provides-Extra: tty'],
    }),
  );
  for (const name of ['old-python', 'arm-only', 'colour']) {
    index.put(name, taggedWheel({ name, version: '1.0' }), taggedWheel({ name, version: '1.1rc1' }));
  }
  const native = { name: 'native', version: '1.5', requiresPython: '>=3.8' };
  index.put(
    'native',
    ...['cp310-cp310', 'cp311-cp311'].flatMap((tag) => [
      taggedWheel(native, `${tag}-manylinux_2_17_x86_64.manylinux2014_x86_64`),
      taggedWheel(native, `${tag}-musllinux_1_1_x86_64`),
    ]),
    taggedWheel(native, 'cp38-abi3-manylinux_2_5_x86_64.manylinux1_x86_64'),
    taggedWheel(native, 'cp38-abi3-manylinux_2_28_aarch64'),
    taggedWheel({ ...native, version: '2.0' }, 'cp312-cp312-manylinux_2_39_x86_64'),
  );
});

afterEach(async () => {
  await index.close();
  await rm(dir, { recursive: true, force: true });
});

describe('Python packages resolved by uv', () => {
  it('are for each target the very files that pip downloads there', async () => {
    await put('r.txt', 'app[tty]\n-c c.txt\n');
    await put('c.txt', 'colour<2\n');
    const python = await lockNow(`  requirements: [r.txt]\n${TARGETS}  indexes: ["${index.url}"]\n`);
    expect(pinsOf(python)).toEqual([
      'app 1.0',
      'arm-only 1.0 ; platform_machine == "aarch64"',
      'colour 1.0',
      'native 1.5',
      'old-python 1.0 ; python_version == "3.10"',
    ]);
    const downloaded = new Set<string>();
    for (const version of PYTHONS) {
      for (const platform of PLATFORMS) {
        const wanted = python.pins
          .filter(({ name }) => name !== 'old-python' || version === '3.10')
          .filter(({ name }) => name !== 'arm-only' || platform === 'linux/arm64')
          .map((p) => `${p.name}==${p.version}`);
        for (const file of await pipDownload(version, platform, wanted)) downloaded.add(file);
      }
    }
    expect(python.files.map((f) => f.file).sort()).toEqual([...downloaded].sort());
  });

  it('stay as they are locked when newer ones are published, and move when asked', async () => {
    const body = (more: string) =>
      `  packages: [app${more}]\n  pythons: ["3.11"]\n  indexes: ["${index.url}"]\n`;
    await lockNow(body(''));
    index.put('native', taggedWheel({ name: 'native', version: '1.6' }));
    expect(pinsOf(await lockNow(body(', colour')))).toEqual(['app 1.0', 'colour 1.0', 'native 1.5']);
    expect(pinsOf(await lockNow(body(', colour'), ['native']))).toEqual([
      'app 1.0',
      'colour 1.0',
      'native 1.6',
    ]);
  });

  it('agree where only the C library tells targets apart', async () => {
    index.put('native', taggedWheel({ name: 'native', version: '1.9' }, 'cp311-cp311-musllinux_1_2_x86_64'));
    const python = await lockNow(
      `  packages: [native]\n  pythons: ["3.11"]\n  platforms: [manylinux2014_x86_64, musllinux_1_2_x86_64]\n  indexes: ["${index.url}"]\n`,
    );
    expect(pinsOf(python)).toEqual(['native 1.5']);
    expect(python.files.map((f) => f.file)).toEqual([
      'native-1.5-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl',
      'native-1.5-cp311-cp311-musllinux_1_1_x86_64.whl',
    ]);
  });

  it('come from the index that has them first, and from folders and files beside the manifest', async () => {
    const own = await startPackageIndex({ login });
    try {
      own.put('colour', taggedWheel({ name: 'colour', version: '0.9' }));
      await put('netrc', 'machine 127.0.0.1 login bob password hunter2\n');
      env = { ...env, NETRC: join(dir, 'netrc') };
      const local = taggedWheel({ name: 'local', version: '3.0' });
      const found = taggedWheel({ name: 'found', version: '4.0' });
      for (const { file, bytes } of [local, found]) await put(file, bytes);
      await put('r.txt', `colour\n./${local.file}\nfound\n--find-links .\n`);
      const python = await lockNow(
        `  requirements: [r.txt]\n  pythons: ["3.11"]\n  indexes: ["${own.url}", "${index.url}"]\n`,
      );
      expect(python.files.map((f) => [f.name, f.version, f.source])).toEqual([
        ['colour', '0.9', { url: `http://${own.host}/files/colour-0.9-py3-none-any.whl` }],
        ['found', '4.0', { path: found.file }],
        ['local', '3.0', { path: local.file }],
      ]);
    } finally {
      await own.close();
    }
  });

  it('that do not fit together are told in its words', async () => {
    const work = lockNow(`  packages: ["native>=7"]\n  pythons: ["3.11"]\n  indexes: ["${index.url}"]\n`);
    await expect(work).rejects.toMatchObject({
      code: 'PACKAGE_UNRESOLVED',
      message: expect.stringMatching(/for Python 3\.11 on linux\/amd64: .*native>=7/),
    });
  });
});

describe('Python packages resolved by pip', () => {
  it('are those that uv finds, for the Python that pip runs in; nothing in the folder is imported', async () => {
    const own = join(dirname(peer('uv')), 'python3');
    const { stdout } = await run(own, ['-c', 'import sys;print("%d.%d"%sys.version_info[:2])']);
    await put('platform.py', 'raise SystemExit("imported")\n');
    await put('pip.py', 'raise SystemExit("imported")\n');
    const body = `  packages: ["app[tty]"]\n  pythons: ["${stdout.trim()}"]\n  platforms: [${process.arch === 'arm64' ? 'linux/arm64' : 'linux/amd64'}]\n  indexes: ["${index.url}"]\n`;
    const byPip = await lockNow(`${body}  resolver: pip\n`);
    await rm(join(dir, 'versions.lock'));
    expect(await lockNow(`${body}  resolver: uv\n`)).toEqual(byPip);
    expect(byPip.pins.map((p) => p.name)).toContain('native');
  });

  it('are not for another Python, whose markers it would judge wrongly', async () => {
    const work = lockNow('  packages: [app]\n  pythons: ["3.99"]\n  resolver: pip\n');
    await expect(work).rejects.toMatchObject({
      code: 'RESOLVER_MISSING',
      hint: expect.stringContaining('uv'),
    });
  });
});
