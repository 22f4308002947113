/** Runs the real program and looks at it from outside while it runs: peak memory and open files, as the kernel counts them. */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const BIN = resolve(import.meta.dirname, '../../bin/sealift.js');
const LOOK_EVERY_MS = 5;

export interface Measured {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Highest resident set (`VmHWM` of proc(5)), KiB. It only grows, so looking now and then loses next to nothing. */
  readonly peakKib: number;
  /** Highest number of open file descriptors that was seen. */
  readonly openFiles: number;
  readonly ms: number;
}

function peakOf(pid: number): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function filesOf(pid: number): number {
  try {
    return readdirSync(join('/proc', String(pid), 'fd')).length;
  } catch {
    return 0;
  }
}

/** Runs `sealift ARGS…` to its end. Only on Linux. */
export function measureProgram(
  args: readonly string[],
  options: { readonly cwd: string; readonly env?: Readonly<Record<string, string>> },
): Promise<Measured> {
  const begin = performance.now();
  const env = { PATH: process.env.PATH ?? '', HOME: options.cwd, ...options.env };
  const child = spawn(process.execPath, [BIN, ...args], {
    cwd: options.cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr, peakKib, openFiles] = ['', '', 0, 0];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const timer = setInterval(() => {
    if (child.pid === undefined) return;
    peakKib = Math.max(peakKib, peakOf(child.pid));
    openFiles = Math.max(openFiles, filesOf(child.pid));
  }, LOOK_EVERY_MS);
  return new Promise((settle, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      clearInterval(timer);
      settle({ code, stdout, stderr, peakKib, openFiles, ms: performance.now() - begin });
    });
  });
}
