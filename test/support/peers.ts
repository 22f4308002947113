/** Starts the real programs that the peer tests run against. `scripts/peers` installs them and knows where they are. */
import { type ChildProcess, execFile, execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import * as grpc from '@grpc/grpc-js';
import type { Context } from '../../src/core/events.ts';
import {
  type Daemon,
  inOwnDirectory,
  removeOwnDirectory,
  startDaemon,
  stopDaemon,
  untilReady,
} from './daemon.ts';

const installer = fileURLToPath(new URL('../../scripts/peers', import.meta.url));
const readyWithin = 60_000;
const outputLimit = 256 * 1024 * 1024;

const located = new Map<string, string>();

/** The path of a real program; throws an error that says how to install it when it is missing. */
export function peer(name: string): string {
  let path = located.get(name);
  if (path === undefined) {
    try {
      path = execFileSync(installer, ['path', name], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      }).trim();
    } catch (cause) {
      throw new Error(`the program ${name} is missing; run \`scripts/peers install ${name}\``, { cause });
    }
    located.set(name, path);
  }
  return path;
}

export interface RunOptions {
  readonly cwd?: string;
  /** Added to the environment of the tests; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Given on standard input, which is empty and closed otherwise. */
  readonly input?: string | Uint8Array;
  /** Throw when the exit code is not 0. Default true. */
  readonly check?: boolean;
  /** Milliseconds until the program is killed. Default: no limit. */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
  /** 128 plus the signal's number when a signal ended the program, as in a shell. */
  readonly code: number;
}

/** Runs a program to its end. Throws when it cannot be started or is aborted, and on a failure unless `check` is false. */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { cwd, env, input, check = true, timeout = 0, signal } = options;
  const settings = {
    encoding: 'utf8' as const,
    maxBuffer: outputLimit,
    env: { ...process.env, ...env },
    timeout,
    ...(cwd === undefined ? {} : { cwd }),
    ...(signal === undefined ? {} : { signal }),
  };
  return new Promise((resolve, reject) => {
    const child = execFile(file, args, settings, (error, stdout, stderr) => {
      const code = exitCode(child);
      if (code === undefined || signal?.aborted || error?.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') {
        reject(error ?? new Error(`${file} could not be run`));
      } else if (check && code !== 0) {
        reject(
          new Error(`${[file, ...args].join(' ')} exited with ${code}\n${stderr || stdout}`, {
            cause: error,
          }),
        );
      } else {
        resolve({ stdout, stderr, code });
      }
    });
    // A program that does not read its input must not fail the test with EPIPE.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

function exitCode(child: ChildProcess): number | undefined {
  if (child.signalCode !== null) return 128 + constants.signals[child.signalCode];
  // A program that could not be started has a negative code here, or none.
  return child.exitCode !== null && child.exitCode >= 0 ? child.exitCode : undefined;
}

export interface RegistryOptions {
  /** `docker-registry` is distribution 2.8 (the default), `registry3` is distribution 3. */
  readonly program?: 'docker-registry' | 'registry3';
  /** Where the content is kept. It outlives `stop()`; without it a temporary directory is used and removed. */
  readonly dir?: string;
  /** The port on 127.0.0.1, to come back at the same address. Default: a free one. */
  readonly port?: number;
  /** User names with their passwords. Without it everybody may do everything. */
  readonly users?: Readonly<Record<string, string>>;
}

export interface Registry {
  /** Host and port, without a scheme. */
  readonly url: string;
  readonly dir: string;
  /** Every request so far, a line each, in Apache's combined format. The last line may come a moment after its response. */
  accessLog(): string;
  stop(): Promise<void>;
}

/** Starts a registry over plain HTTP on 127.0.0.1 that keeps its content on disk and allows deletes. */
export function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  return inOwnDirectory((own) => startRegistryIn(own, options));
}

async function startRegistryIn(own: string, options: RegistryOptions): Promise<Registry> {
  const { program = 'docker-registry', port = 0, users } = options;
  const dir = options.dir ?? join(own, 'content');
  const config = join(own, 'config.yml');
  const files = { stdout: join(own, 'access.log'), log: join(own, 'registry.log') };
  const htpasswd = join(own, 'htpasswd');
  if (users !== undefined) await writeFile(htpasswd, await htpasswdLines(users));
  await mkdir(dir, { recursive: true });
  // JSON is YAML.
  const settings = {
    version: '0.1',
    log: { level: 'info', accesslog: { disabled: false } },
    storage: { filesystem: { rootdirectory: dir }, delete: { enabled: true } },
    // A fixed secret lets an upload go on after a restart.
    http: { addr: `127.0.0.1:${port}`, secret: 'not a secret' },
    ...(users === undefined ? {} : { auth: { htpasswd: { realm: 'peers', path: htpasswd } } }),
  };
  await writeFile(config, JSON.stringify(settings));

  const daemon = startDaemon([peer(program), 'serve', config], files);
  // The registry chooses the free port itself and says it once it listens. So no other process can take the port in
  // between, and no request of ours stands in the access log.
  const url = await untilReady(
    daemon,
    async () => /listening on (127\.0\.0\.1:\d+)/.exec(await readFile(files.log, 'utf8'))?.[1],
  );

  return {
    url,
    dir,
    accessLog: () => readFileSync(files.stdout, 'utf8'),
    async stop() {
      await stopDaemon(daemon, 'SIGTERM');
      await removeOwnDirectory(own);
    },
  };
}

/** Registries accept only bcrypt. Node has none, but the C library of Debian has it and perl is always there. */
async function htpasswdLines(users: Readonly<Record<string, string>>): Promise<string> {
  let lines = '';
  for (const [user, password] of Object.entries(users)) {
    const script = 'print crypt(<STDIN>, q($2y$05$abcdefghijklmnopqrstuu))';
    const { stdout } = await run('perl', ['-e', script], { input: password });
    lines += `${user}:${stdout}\n`;
  }
  return lines;
}

export interface Containerd {
  /** The path of the socket, for `ctr --address` and for CRI. */
  readonly socket: string;
  readonly root: string;
  /** The path of the `ctr` that belongs to this version. */
  readonly program: string;
  /** Runs `ctr` on this containerd; throws when it fails. Begin with `-n NAMESPACE` for another namespace than `default`. */
  ctr(...args: string[]): Promise<RunResult>;
  /** The same containerd with the same content again; SIGKILL is a crash. Default SIGTERM. */
  restart(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts a containerd with its own content and socket. Needs root. 2.2 also answers CRI's image service on the socket.
 * @param options.hosts the folder of hosts.toml that CRI of 2.2 asks
 * @param options.isIsolated whether namespaces do not share content
 */
export function startContainerd(
  version: '1.6' | '2.2',
  options: { readonly hosts?: string; readonly isIsolated?: boolean } = {},
): Promise<Containerd> {
  return inOwnDirectory((own) => startContainerdIn(own, version, options));
}

async function startContainerdIn(
  own: string,
  version: '1.6' | '2.2',
  { hosts, isIsolated = false }: { readonly hosts?: string; readonly isIsolated?: boolean },
): Promise<Containerd> {
  const [name, program] =
    version === '1.6' ? (['containerd', peer('ctr')] as const) : (['containerd2', peer('ctr2')] as const);
  const root = join(own, 'root');
  const socket = join(own, 'c.sock');
  const config = join(own, 'config.toml');
  const log = join(own, 'containerd.log');
  const registry =
    hosts === undefined
      ? ''
      : `[plugins."io.containerd.cri.v1.images".registry]\n  config_path = "${hosts}"\n`;
  const apart = isIsolated
    ? `[plugins."io.containerd.metadata.v1.bolt"]\n  content_sharing_policy = "isolated"\n`
    : '';
  const settings =
    version === '1.6' ? settings16(own, root, socket) : settings22(own, root, socket) + registry;
  await writeFile(config, settings + apart);

  const ctr = (args: readonly string[], check: boolean) =>
    run(program, ['--address', socket, ...args], { check });
  async function start(): Promise<Daemon> {
    const daemon = startDaemon([peer(name), '--config', config], { stdout: log, log });
    await untilReady(daemon, async () => ((await ctr(['version'], false)).code === 0 ? true : undefined));
    return daemon;
  }

  let daemon = await start();
  return {
    socket,
    root,
    program,
    ctr: (...args) => ctr(args, true),
    async restart(signal = 'SIGTERM') {
      await stopDaemon(daemon, signal);
      daemon = await start();
    },
    async stop() {
      await stopDaemon(daemon, 'SIGTERM');
      await unmountBelow(own);
      await removeOwnDirectory(own);
    },
  };
}

// Every path that containerd would otherwise share with the machine is moved into the test's own directory.
function settings16(own: string, root: string, socket: string): string {
  return `version = 2
root = "${root}"
state = "${own}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "${socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "${own}/opt"
`;
}

function settings22(own: string, root: string, socket: string): string {
  return `version = 3
root = "${root}"
state = "${own}/state"
imports = []
[grpc]
  address = "${socket}"
[ttrpc]
  address = "${socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${own}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.runtime".cni]
  conf_dir = "${own}/cni"
`;
}

/** A containerd that was killed while it unpacked a layer leaves its mount behind. */
async function unmountBelow(dir: string): Promise<void> {
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  for (const line of mounts.split('\n')) {
    const target = line.split(' ')[4];
    if (target?.startsWith(`${dir}/`)) await run('umount', ['--lazy', target], { check: false });
  }
}

export interface CriImage {
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  readonly size: bigint;
}

/** Asks CRI's image service (`runtime.v1.ImageService`), as kubelet does. */
async function askCri(socket: string, method: string, request: Uint8Array): Promise<Buffer> {
  const client = new grpc.Client(`unix:${socket}`, grpc.credentials.createInsecure(), {
    // Without it the host name would be whatever the library makes of a socket's path, and Go's server refuses a path.
    'grpc.default_authority': 'localhost',
  });
  try {
    return await new Promise<Buffer>((resolve, reject) => {
      client.makeUnaryRequest(
        `/runtime.v1.ImageService/${method}`,
        (bytes: Buffer) => bytes,
        (bytes: Buffer) => bytes,
        Buffer.from(request),
        { deadline: Date.now() + readyWithin },
        (error, value) => (value === undefined ? reject(error ?? new Error('empty answer')) : resolve(value)),
      );
    });
  } finally {
    client.close();
  }
}

/** What kubelet would see: the images in the namespace `k8s.io`. */
export async function listCriImages(socket: string): Promise<CriImage[]> {
  const images: CriImage[] = [];
  eachField(await askCri(socket, 'ListImages', Buffer.alloc(0)), (field, reader) => {
    if (field !== 1) return false;
    images.push(decodeImage(reader.bytes()));
    return true;
  });
  return images;
}

/** Has an image pulled as kubelet does. Throws when that fails. */
export async function pullCriImage(socket: string, name: string): Promise<void> {
  const spec = new BinaryWriter().tag(1, 2).string(name).finish();
  await askCri(socket, 'PullImage', new BinaryWriter().tag(1, 2).bytes(spec).finish());
}

function decodeImage(bytes: Uint8Array): CriImage {
  let id = '';
  const repoTags: string[] = [];
  const repoDigests: string[] = [];
  let size = 0n;
  eachField(bytes, (field, reader) => {
    if (field === 1) id = reader.string();
    else if (field === 2) repoTags.push(reader.string());
    else if (field === 3) repoDigests.push(reader.string());
    else if (field === 4) size = BigInt(reader.uint64());
    else return false;
    return true;
  });
  return { id, repoTags, repoDigests, size };
}

/** Walks the fields of one message; a field that `take` does not read is skipped. */
function eachField(bytes: Uint8Array, take: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (!take(field, reader)) reader.skip(wireType);
  }
}

/** A context of the real clock that shows nothing. */
export function quietContext(): Context {
  const { signal } = new AbortController();
  return { signal, emit: () => {}, env: {}, now: Date.now, random: Math.random };
}
