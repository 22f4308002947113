import { spawn } from 'node:child_process';

export interface ProcessResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a small program with text on its standard input and gathers its output, at most `limit` bytes of each stream.
 * @throws the system's error when it cannot be started; a timeout ends it with code 124
 */
export function runProcess(
  file: string,
  args: readonly string[],
  options: {
    readonly input?: string;
    readonly timeoutMs: number;
    readonly limit: number;
    readonly env: Readonly<Record<string, string | undefined>>;
  },
): Promise<ProcessResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: 'pipe', env: { ...options.env } });
    const out: string[] = ['', ''];
    const gather = (index: 0 | 1) => (chunk: Buffer) => {
      out[index] = ((out[index] ?? '') + chunk.toString('utf8')).slice(0, options.limit);
    };
    child.stdout.on('data', gather(0));
    child.stderr.on('data', gather(1));
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, options.timeoutMs);
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code: timedOut ? 124 : (code ?? 1), stdout: out[0] ?? '', stderr: out[1] ?? '' });
    });
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}
