/**
 * A slow link between this process and a network namespace: netem on a veth pair where the kernel has it, else a program
 * that passes the packets of two TUN devices on. Needs root and `ip netns`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type RunResult, run } from './peers.ts';

const RELAY = resolve(import.meta.dirname, 'packet-link.py');
const SAMPLE_EVERY_MS = 20;

/** Each direction by itself. */
export interface LinkSpec {
  readonly delayMs: number;
  readonly mbitPerSecond: number;
  readonly lossPercent: number;
  /** Chooses what is lost, where the kernel does not. */
  readonly seed: number;
}

/** What went over the link while a program ran at its far side. */
export interface Transfer {
  readonly code: number | null;
  readonly stderr: string;
  /** From its first packet to its end, in milliseconds. */
  readonly ms: number;
  /** Bytes of all packets that arrived, in the direction that had more. */
  readonly bytes: number;
  /** Used part of the link, 0 to 1: in `ms`, and between the first third, when TCP has found its speed, and the last tenth of the bytes. */
  readonly whole: number;
  readonly middle: number;
}

export interface SlowLink {
  /** How it is made, for people. */
  readonly how: string;
  /** This process's address. */
  readonly address: string;
  /** The congestion control of TCP at both ends. */
  readonly congestion: string;
  /** Runs a program at the far side. */
  run(file: string, args: readonly string[], options: { readonly cwd: string }): Promise<Transfer>;
  close(): Promise<void>;
}

async function ip(...args: readonly string[]): Promise<RunResult> {
  return await run('ip', args);
}

async function isDone(file: string, args: readonly string[]): Promise<boolean> {
  return await run(file, args, { check: false }).then(
    ({ code }) => code === 0,
    () => false,
  );
}

/** Names and addresses of both sides, different for each process. */
function namesOf(pid: number) {
  const net = `198.18.${(pid >> 6) & 255}.${(pid & 63) * 4}`.split('.').map(Number);
  const at = (host: number): string => [...net.slice(0, 3), (net[3] ?? 0) + host].join('.');
  const tail = pid % 1_000_000;
  return {
    space: `sealift-${pid}`,
    near: `sln${tail}`,
    far: `slf${tail}`,
    nearIp: at(1),
    farIp: at(2),
    net: `${at(0)}/30`,
  };
}

type Names = ReturnType<typeof namesOf>;

/** A veth pair with netem at both ends; false when the kernel has none. */
async function openNetem({ space, near, far }: Names, spec: LinkSpec): Promise<boolean> {
  await ip('link', 'add', near, 'type', 'veth', 'peer', 'name', far);
  await ip('link', 'set', far, 'netns', space);
  const inside = ['netns', 'exec', space];
  const rules = ['delay', `${spec.delayMs}ms`, 'rate', `${spec.mbitPerSecond}mbit`];
  const netem = ['root', 'netem', ...rules, 'loss', `${spec.lossPercent}%`, 'limit', '2000'];
  // Whole segments would be lost by dozens.
  await isDone('ip', ['link', 'set', near, 'gso_max_segs', '1']);
  await isDone('ip', [...inside, 'ip', 'link', 'set', far, 'gso_max_segs', '1']);
  const both =
    (await isDone('tc', ['qdisc', 'add', 'dev', near, ...netem])) &&
    (await isDone('ip', [...inside, 'tc', 'qdisc', 'add', 'dev', far, ...netem]));
  if (!both) await ip('link', 'del', near);
  return both;
}

/** Starts the relay with both devices. @throws when there is no python3, no TUN, or not the right for it */
async function openTun({ space, near, far }: Names, spec: LinkSpec): Promise<ChildProcess> {
  const figures = [spec.delayMs, spec.mbitPerSecond, spec.lossPercent, spec.seed].map(String);
  const relay = spawn('python3', [RELAY, near, far, ...figures], { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  relay.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  await new Promise<void>((ready, reject) => {
    relay.once('error', reject);
    relay.once('close', () => reject(new Error(said.trim().split('\n').at(-1))));
    relay.stdout.once('data', () => ready());
  });
  await ip('link', 'set', far, 'netns', space);
  return relay;
}

/** BBR does not take every lost packet for a full link. It is chosen for this link alone. */
async function chooseCongestion({ space, near, net, nearIp }: Names): Promise<string> {
  const path = '/proc/sys/net/ipv4/tcp_congestion_control';
  const route = ['route', 'replace', net, 'dev', near, 'scope', 'link', 'src', nearIp, 'congctl', 'bbr'];
  const chosen =
    (await isDone('ip', ['netns', 'exec', space, 'sh', '-c', `echo bbr > ${path}`])) &&
    (await isDone('ip', route));
  return chosen ? 'bbr' : readFileSync(path, 'utf8').trim();
}

/** Bytes of the packets that arrived at each side. */
interface Sample {
  readonly at: number;
  readonly far: number;
  readonly near: number;
}

/** What a device took in, as the namespace of a process sees it; undefined when the process is gone. */
function receivedBy(pid: number | 'self', device: string): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/net/dev`, 'utf8');
    const bytes = new RegExp(`${device}: *(\\d+)`).exec(text)?.[1];
    return bytes === undefined ? undefined : Number(bytes);
  } catch {
    return undefined;
  }
}

function sampleOf(pid: number | undefined, names: Names): Sample | undefined {
  const far = pid === undefined ? undefined : receivedBy(pid, names.far);
  const near = receivedBy('self', names.near);
  return far === undefined || near === undefined ? undefined : { at: performance.now(), far, near };
}

function transferOf(samples: readonly Sample[], end: number, bytesPerMs: number) {
  const [first, last] = [samples[0], samples.at(-1)];
  if (first === undefined || last === undefined) throw new Error('no traffic was seen');
  const key = last.far - first.far > last.near - first.near ? 'far' : 'near';
  const bytes = last[key] - first[key];
  const when = (part: number): Sample => samples.find((s) => s[key] - first[key] >= part * bytes) ?? last;
  const begin = when(1e-9).at;
  const [a, b] = [when(1 / 3), when(0.9)];
  const ms = end - begin;
  return {
    ms,
    bytes,
    whole: bytes / ms / bytesPerMs,
    middle: (b[key] - a[key]) / (b.at - a.at) / bytesPerMs,
  };
}

function runFar(
  names: Names,
  command: { readonly file: string; readonly args: readonly string[]; readonly cwd: string },
  bytesPerMs: number,
): Promise<Transfer> {
  // `ip netns exec` becomes the program, so the process is the program's own.
  const child = spawn('ip', ['netns', 'exec', names.space, command.file, ...command.args], {
    cwd: command.cwd,
    env: { PATH: process.env.PATH ?? '', HOME: command.cwd },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const samples: Sample[] = [];
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const timer = setInterval(() => {
    const sample = sampleOf(child.pid, names);
    if (sample !== undefined) samples.push(sample);
  }, SAMPLE_EVERY_MS);
  return new Promise((settle, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      clearInterval(timer);
      try {
        settle({ code, stderr, ...transferOf(samples, performance.now(), bytesPerMs) });
      } catch (error) {
        reject(new Error(`${command.file}: ${stderr}`, { cause: error }));
      }
    });
  });
}

/** Opens a link; a text says why it cannot be opened here. */
export async function openSlowLink(spec: LinkSpec): Promise<SlowLink | string> {
  const names = namesOf(process.pid);
  const { space, near, far, nearIp, farIp } = names;
  let relay: ChildProcess | undefined;
  const close = async (): Promise<void> => {
    relay?.stdin?.end();
    // A veth pair goes with its namespace.
    await isDone('ip', ['netns', 'del', space]);
  };
  if (!(await isDone('ip', ['netns', 'add', space]))) return '`ip netns` does not work here';
  try {
    const isNetem = await openNetem(names, spec);
    if (!isNetem) relay = await openTun(names, spec);
    await ip('addr', 'add', `${nearIp}/30`, 'dev', near);
    await ip('link', 'set', near, 'up');
    await ip('netns', 'exec', space, 'ip', 'addr', 'add', `${farIp}/30`, 'dev', far);
    await ip('netns', 'exec', space, 'ip', 'link', 'set', far, 'up');
    const bytesPerMs = (spec.mbitPerSecond * 1e6) / 8 / 1000;
    return {
      how: isNetem ? 'netem of the kernel' : 'no netem in this kernel: packets through TUN, in user space',
      address: nearIp,
      congestion: await chooseCongestion(names),
      run: (file, args, { cwd }) => runFar(names, { file, args, cwd }, bytesPerMs),
      close,
    };
  } catch (error) {
    await close();
    return error instanceof Error ? error.message : String(error);
  }
}
