import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compareVersions, highest, readElf } from '../../scripts/tool/elf.mjs';
import { ROOT } from './program.ts';

/** The launcher of the tarballs (scripts/tool) with a Node that only says what it was given. The real one: test/peers. */

const NODE = '#!/bin/sh\n[ "$1" = --version ] && exit 0\nprintf "%s\\n" "$@"\n';
const SHELLS = ['/bin/sh', '/bin/dash', '/bin/bash', '/bin/busybox'].filter((path) => existsSync(path));

let dir: string;
let home: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift launcher '));
  home = join(dir, 'a folder', 'sealift-1.2.3-linux-x64');
  put('sealift', launcher());
  put('runtime/node', NODE);
});

afterEach(() => rm(dir, { recursive: true }));

function launcher(facts: Readonly<Record<string, string>> = {}): string {
  const all = { ARCH: 'x64', MACHINE: machine(), LOADER: '/bin/sh', GLIBC: '2.28', ...facts };
  const text = readFileSync(join(ROOT, 'scripts/tool/launcher.sh'), 'utf8');
  return Object.entries(all).reduce((done, [name, value]) => done.replace(`@${name}@`, value), text);
}

function machine(): string {
  return spawnSync('uname', ['-m'], { encoding: 'utf8' }).stdout.trim();
}

function put(path: string, text: string): void {
  const at = join(home, path);
  mkdirSync(dirname(at), { recursive: true });
  writeFileSync(at, text);
  chmodSync(at, 0o755);
}

function start(
  file: string,
  options: { readonly cwd?: string; readonly path?: string; readonly shell?: string } = {},
): { readonly code: number | null; readonly stdout: string; readonly stderr: string } {
  const words = [file, 'ls', 'a b', ''];
  const [program = '', ...args] =
    options.shell === undefined
      ? words
      : [options.shell, ...(options.shell.endsWith('busybox') ? ['sh'] : []), ...words];
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd: options.cwd ?? dir,
    encoding: 'utf8',
    env: { PATH: options.path ?? '/usr/bin:/bin' },
  });
  return { code: status, stdout, stderr };
}

const said = (script: string): string => `${script}\nls\na b\n\n`;

describe('the launcher', () => {
  it.each(SHELLS)('starts the Node beside it with every word as it was given, in %s', (shell) => {
    const script = `${home}/program/bin/sealift.js`;
    expect(start(join(home, 'sealift'), { shell })).toEqual({ code: 0, stdout: said(script), stderr: '' });
  });

  it('finds its folder through symbolic links, from anywhere', () => {
    symlinkSync('a folder/sealift-1.2.3-linux-x64/sealift', join(dir, 'relative'));
    symlinkSync(join(dir, 'relative'), join(home, 'absolute'));
    const script = `${dir}/a folder/sealift-1.2.3-linux-x64/program/bin/sealift.js`;
    expect(start(join(home, 'absolute'), { cwd: '/' })).toMatchObject({ stdout: said(script), stderr: '' });
    expect(start('absolute', { path: `${home}:/usr/bin:/bin` }).stdout).toBe(said(script));
  });

  it('needs nothing on the PATH', () => {
    expect(start('./sealift', { cwd: home, path: '/nonexistent', shell: '/bin/sh' })).toMatchObject({
      code: 0,
      stderr: '',
    });
    expect(start('sealift', { cwd: home, path: '/nonexistent', shell: '/bin/sh' }).code).toBe(0);
  });

  it('says that it is a link where nothing tells where that leads', () => {
    symlinkSync(join(home, 'sealift'), join(dir, 'link'));
    const shell = SHELLS.find((path) => !path.endsWith('busybox'));
    const ran = start(join(dir, 'link'), { path: '/nonexistent', ...(shell === undefined ? {} : { shell }) });
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain(`error[TOOL_CANNOT_RUN]: ${dir}/link is a link, and without readlink`);
  });

  const trapping = SHELLS.filter((path) => /dash|busybox/.test(path));
  it.each(trapping)('explains also what the shell itself cannot start, in %s', (shell) => {
    put('runtime/node', '#!/nonexistent\n');
    const ran = start(join(home, 'sealift'), { shell });
    expect(ran.code).toBe(1);
    expect(ran.stderr).toMatch(
      /error\[TOOL_CANNOT_RUN\]: the Node inside does not start: .+\nhint: .+noexec\n$/,
    );
  });

  it('asks Node itself before it believes that something is wrong', () => {
    put('sealift', launcher({ LOADER: '/nonexistent', GLIBC: '2.99' }));
    expect(start(join(home, 'sealift'))).toMatchObject({ code: 0, stderr: '' });
  });

  it.each([
    [
      'the machine is another',
      { MACHINE: 'riscv64', ARCH: 'other' },
      /for other \(riscv64\), this machine is /,
    ],
    ['there is no glibc', { LOADER: '/nonexistent' }, /\/nonexistent is missing: this system has no glibc/],
  ])('says what is wrong when %s', (_, facts, message) => {
    put('sealift', launcher({ LOADER: '/nonexistent', ...facts }));
    put('runtime/node', '#!/bin/sh\nexit 1\n');
    const ran = start(join(home, 'sealift'));
    expect(ran).toMatchObject({ code: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^error\[TOOL_CANNOT_RUN\]: .+\nhint: .+\n$/);
    expect(ran.stderr).toMatch(message);
  });

  it('says that files are missing or may not be run', async () => {
    chmodSync(join(home, 'runtime/node'), 0o644);
    expect(start(join(home, 'sealift')).stderr).toContain('runtime/node may not be executed\nhint: ');
    await rm(join(home, 'runtime/node'));
    expect(start(join(home, 'sealift')).stderr).toContain('runtime/node is missing\nhint: ');
  });
});

describe('what a program needs of a machine', () => {
  it.runIf(process.platform === 'linux')('is read from its ELF file', () => {
    const elf = readElf(readFileSync(process.execPath));
    expect(elf.machine).toBe(process.arch);
    expect(elf.loader).toMatch(/^\/lib.*\/ld-/);
    expect(elf.needed).toContain('libc.so.6');
    expect(elf.versions['libc.so.6']).toContainEqual(expect.stringMatching(/^GLIBC_2\.\d+$/));
  });

  it('is not read from anything else', () => {
    expect(() => readElf(Buffer.from('#!/bin/sh\n'))).toThrow('not an ELF file');
    expect(() => readElf(Buffer.alloc(100))).toThrow('not an ELF file');
  });

  it('is compared by number', () => {
    expect(highest(['GLIBC_2.9', 'GLIBC_2.28', 'GLIBC_2.2.5', 'GLIBC_PRIVATE', 'GCC_4.2'], 'GLIBC')).toEqual([
      2, 28,
    ]);
    expect(highest(['GCC_4.2'], 'GLIBC')).toBeUndefined();
    expect(compareVersions([2, 2, 5], [2, 2])).toBeGreaterThan(0);
  });
});
