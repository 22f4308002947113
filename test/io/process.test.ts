import { describe, expect, it } from 'vitest';
import { runProcess } from '../../src/io/process.ts';
import { failureOf } from './server.ts';

const env = { PATH: process.env.PATH };
const base = { timeoutMs: 30_000, limit: 1000, env };

function script(text: string): [string, string[]] {
  return [process.execPath, ['-e', text]];
}

describe('a small program', () => {
  it('gets its input and gives its output and code', async () => {
    const [file, args] = script(
      "process.stdin.on('data', (d) => process.stdout.write('got ' + d)); console.error('warn'); process.exitCode = 3",
    );
    expect(await runProcess(file, args, { ...base, input: 'x' })).toEqual({
      code: 3,
      stdout: 'got x',
      stderr: 'warn\n',
    });
  });

  it('sees only the environment that it is given', async () => {
    const [file, args] = script('console.log(JSON.stringify(process.env))');
    const { stdout } = await runProcess(file, args, { ...base, env: { ONLY: 'this', NOT: undefined } });
    expect(JSON.parse(stdout)).toEqual({ ONLY: 'this' });
  });

  it('may say more than is kept', async () => {
    const [file, args] = script(
      "process.stdout.write('x'.repeat(3e6)); process.stderr.write('y'.repeat(3e6))",
    );
    const { code, stdout, stderr } = await runProcess(file, args, base);
    expect([code, stdout, stderr]).toEqual([0, 'x'.repeat(1000), 'y'.repeat(1000)]);
  });

  it('may write a character in two parts', async () => {
    const [file, args] = script(
      "const b = Buffer.from('한'); process.stdout.write(b.subarray(0, 1)); setTimeout(() => process.stdout.write(b.subarray(1)), 50)",
    );
    expect((await runProcess(file, args, base)).stdout).toBe('한');
  });

  it('may leave without reading its input', async () => {
    const [file, args] = script('process.exit(0)');
    expect((await runProcess(file, args, { ...base, input: 'x'.repeat(5e6) })).code).toBe(0);
  });

  it('that takes too long is ended with code 124, its children or not', async () => {
    // The child of the shell keeps the output open after the shell was killed.
    const result = await runProcess('/bin/sh', ['-c', 'echo begin; sleep 20 & wait'], {
      ...base,
      timeoutMs: 200,
    });
    expect(result).toMatchObject({ code: 124, stdout: 'begin\n' });
  }, 10_000);

  it('ends when the work is stopped', async () => {
    const stop = new AbortController();
    const work = runProcess('/bin/sh', ['-c', 'sleep 20 & wait'], { ...base, signal: stop.signal });
    setTimeout(() => stop.abort(), 50);
    expect(await failureOf(work)).toMatchObject({ code: 'ABORTED' });
    const late = runProcess('/bin/sh', ['-c', 'sleep 20'], { ...base, signal: stop.signal });
    expect(await failureOf(late)).toMatchObject({ code: 'ABORTED' });
  }, 10_000);

  it('that is not there is an error of the system', async () => {
    expect(await failureOf(runProcess('no-such-program-here', [], base))).toMatchObject({ code: 'ENOENT' });
  });
});
