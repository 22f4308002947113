/** The real servers of a benchmark: docker-registry and containerd, each in its own folder, and a proxy that counts. */
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { locate, need } from './tools.mjs';

const READY_MS = 30_000;
const STOP_MS = 15_000;
const running = new Set();

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A port of 127.0.0.1 that was free a moment ago. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function startDaemon(argv, log) {
  const out = openSync(log, 'a');
  // When this process is killed, the kernel ends the daemon too.
  const setpriv = locate('setpriv');
  const [program, ...args] = setpriv === undefined ? argv : [setpriv, '--pdeathsig', 'KILL', ...argv];
  const env = { ...process.env, OTEL_TRACES_EXPORTER: 'none' };
  const child = spawn(program, args, { stdio: ['ignore', out, out], env });
  closeSync(out);
  running.add(child);
  child.once('exit', () => running.delete(child));
  child.once('error', () => running.delete(child));
  return child;
}

async function untilReady(child, { log, probe }) {
  const deadline = Date.now() + READY_MS;
  while (!(await probe())) {
    if (!running.has(child) || Date.now() > deadline) {
      child.kill('SIGKILL');
      throw new Error(`a server did not start\n${readFileSync(log, 'utf8').slice(-2000)}`);
    }
    await sleep(20);
  }
}

async function stopDaemon(child) {
  if (!running.has(child)) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await ended;
  clearTimeout(timer);
}

/**
 * A docker-registry over plain HTTP on `port`, with its content in `content`. It writes no access log: that would be
 * work which no peer asked for.
 */
export async function startRegistry({ dir, port, content = join(dir, 'content') }) {
  const log = join(dir, 'registry.log');
  const config = join(dir, 'config.yml');
  await mkdir(dir, { recursive: true });
  await mkdir(content, { recursive: true });
  // JSON is YAML.
  const settings = {
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: content }, delete: { enabled: true } },
    http: { addr: `127.0.0.1:${port}`, secret: 'not a secret' },
  };
  await writeFile(config, JSON.stringify(settings));
  const child = startDaemon([need('docker-registry'), 'serve', config], log);
  const answers = async () => {
    const response = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined);
    await response?.arrayBuffer();
    return response?.status === 200;
  };
  await untilReady(child, { log, probe: answers });
  return { host: `127.0.0.1:${port}`, content, stop: () => stopDaemon(child) };
}

/** A registry that can be emptied: each load begins with a new process and an empty folder at the same address. */
export async function emptyRegistry({ dir, port }) {
  let server;
  return {
    host: `127.0.0.1:${port}`,
    content: join(dir, 'content'),
    async fresh() {
      await server?.stop();
      await rm(dir, { recursive: true, force: true });
      server = await startRegistry({ dir, port });
    },
    async stop() {
      await server?.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

const containerdSettings = (dir) => `version = 2
root = "${dir}/root"
state = "${dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "${dir}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "${dir}/opt"
`;

/** A containerd that can be emptied, in the same way. Needs root. */
export async function emptyContainerd({ dir }) {
  const socket = join(dir, 'c.sock');
  const ctr = need('ctr');
  let child;
  const answers = async () => {
    try {
      execFileSync(ctr, ['--address', socket, 'version'], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  };
  const end = async () => {
    if (child !== undefined) await stopDaemon(child);
    await rm(dir, { recursive: true, force: true });
  };
  return {
    socket,
    ctr,
    async fresh() {
      await end();
      await mkdir(dir, { recursive: true });
      const config = join(dir, 'config.toml');
      const log = join(dir, 'containerd.log');
      await writeFile(config, containerdSettings(dir));
      child = startDaemon([need('containerd'), '--config', config, '--log-level', 'error'], log);
      await untilReady(child, { log, probe: answers });
    },
    stop: end,
  };
}
