import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { SealiftError } from '../core/errors.ts';

export interface ProcessResult {
  /** 124 when the time was over, as the `timeout` program says it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProcessOptions {
  readonly input?: string;
  readonly timeoutMs: number;
  /** Bytes that are kept of each output stream; the rest is read and dropped. */
  readonly limit: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The folder that it starts in; default that of this process. */
  readonly cwd?: string;
  readonly signal?: AbortSignal;
}

/** Gathers the first `limit` bytes of a stream; characters are put together at the end, where no chunk cuts one. */
function gather(stream: Readable, limit: number): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    if (size < limit) chunks.push(chunk.subarray(0, limit - size));
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

/**
 * Runs a small program with text on its standard input and gathers its output. When the time is over or the work is
 * stopped the program is killed, and nothing waits for children of its own that still hold its output open.
 * @throws the system's error when it cannot be started, ABORTED
 */
export function runProcess(
  file: string,
  args: readonly string[],
  options: ProcessOptions,
): Promise<ProcessResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: 'pipe',
      env: { ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const stdout = gather(child.stdout, options.limit);
    const stderr = gather(child.stderr, options.limit);
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
      settle();
    };
    const kill = (settle: () => void): void => {
      child.kill('SIGKILL');
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream.destroy();
      end(settle);
    };
    const onAbort = (): void => kill(() => reject(new SealiftError('ABORTED', 'stopped')));
    const finish = (code: number): void => resolve({ code, stdout: stdout(), stderr: stderr() });
    const timer = setTimeout(() => kill(() => finish(124)), options.timeoutMs);
    child.on('error', (error) => end(() => reject(error)));
    child.on('close', (code) => end(() => finish(code ?? 1)));
    // A program that does not read its input closes it early; its exit code tells what it means.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    options.signal?.addEventListener('abort', onAbort, { once: true });
    if (options.signal?.aborted === true) onAbort();
  });
}
