/** A folder that is a whole system for a chroot: a shell, the C library and nothing else; and a network of its own. Needs root. */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { peer, type RunResult, run } from './peers.ts';

/** What belongs to glibc itself. */
const LIBC = ['libc.so.6', 'libm.so.6', 'libdl.so.2', 'libpthread.so.0', 'librt.so.1'];
export const CXX = ['libstdc++.so.6', 'libgcc_s.so.1'];
const LIBRARIES = '/lib/x86_64-linux-gnu';
const LOADER = '/lib64/ld-linux-x86-64.so.2';

export interface BareSystem {
  readonly root: string;
  /** Runs a line of its shell in the chroot, in a network of its own; it never throws for an exit code. */
  sh(line: string): Promise<RunResult>;
  /** Copies a file to a path in the system. */
  put(from: string, to: string): Promise<void>;
  /** Runs a program of this machine in the system's network. */
  outside(file: string, args: readonly string[]): Promise<RunResult>;
  /** Starts one there that ends with the system; resolves with what `ready` finds on its output. */
  daemon(file: string, args: readonly string[], ready: RegExp): Promise<string>;
  close(): Promise<void>;
}

/** @param options.libc whether there is a C library; `options.cxx` the C++ library too */
export async function bareSystem(options: {
  readonly libc: boolean;
  readonly cxx: boolean;
}): Promise<BareSystem> {
  const root = await mkdtemp(join(tmpdir(), 'sealift-bare-'));
  const put = async (from: string, to: string): Promise<void> => {
    await mkdir(dirname(join(root, to)), { recursive: true });
    await copyFile(from, join(root, to));
  };
  await put(peer('busybox'), 'bin/sh');
  await mkdir(join(root, 'tmp'));
  if (options.libc) await put(LOADER, LOADER);
  const names = [...(options.libc ? LIBC : []), ...(options.cxx ? CXX : [])];
  for (const name of names) await put(await libraryPath(name), join(LIBRARIES, name));
  const network = await startNetwork();
  const enter = [`--net=/proc/${network.pid}/ns/net`];
  const daemons: ChildProcess[] = [];
  return {
    root,
    put,
    sh: (line) => {
      const shell = ['env', '-i', 'PATH=/usr/sbin:/usr/bin:/bin', 'chroot', root, '/bin/sh', '-c', line];
      return run('nsenter', [...enter, ...shell], { check: false });
    },
    outside: (file, args) => run('nsenter', [...enter, file, ...args]),
    daemon: (file, args, ready) => {
      const child = spawn('nsenter', [...enter, 'setpriv', '--pdeathsig', 'KILL', file, ...args], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      daemons.push(child);
      return said(child, ready);
    },
    close: async () => {
      for (const child of [...daemons, network]) await end(child);
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** Where this machine has a library. */
export async function libraryPath(name: string): Promise<string> {
  const places = [LIBRARIES, '/usr/lib/x86_64-linux-gnu', '/lib64', '/usr/lib64'];
  for (const place of places) {
    const path = join(place, name);
    if ((await readFile(path).catch(() => undefined)) !== undefined) return path;
  }
  throw new Error(`this machine has no ${name}`);
}

/** A network with nothing but loopback. It is there as long as its process, which ends when nobody holds its input. */
async function startNetwork(): Promise<ChildProcess> {
  const child = spawn('unshare', ['--net', 'sh', '-c', 'ip link set lo up && echo ready && exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await said(child, /ready/);
  return child;
}

/** What a program says on either output, as soon as it matches. */
function said(child: ChildProcess, ready: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const hear = (chunk: Buffer): void => {
      text += chunk.toString();
      const [, found = ''] = ready.exec(text) ?? [];
      if (ready.test(text)) resolve(found);
    };
    child.stdout?.on('data', hear);
    child.stderr?.on('data', hear);
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`ended with ${code}: ${text.slice(-2_000)}`)));
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGKILL');
  await ended;
}
