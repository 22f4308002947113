import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { askLine, readLogin } from '../../src/cli/password.ts';
import { failureOf } from '../io/server.ts';

function terminal(isTTY: boolean): {
  input: PassThrough & { isTTY: boolean };
  output: PassThrough;
  shown: () => string;
} {
  const input = Object.assign(new PassThrough(), { isTTY });
  const output = new PassThrough();
  return { input, output, shown: () => String(output.read() ?? '') };
}

const { signal } = new AbortController();

describe('a password at a terminal', () => {
  it('is typed unseen, the user name seen; a slip can be rubbed out', async () => {
    const { input, output, shown } = terminal(true);
    const asked = readLogin({}, { input, output, signal });
    input.write('ann\r');
    await new Promise((resolve) => setImmediate(resolve));
    input.write('hunter2x\x7f\r');
    expect(await asked).toEqual({ username: 'ann', password: 'hunter2' });
    const text = shown();
    expect(text).toContain('User name: ');
    expect(text).toContain('Password (not shown): ');
    expect(text).not.toContain('hunter2');
  });

  it('is not echoed to who types as soon as the question stands there', async () => {
    const { input, output } = terminal(true);
    const done: string[] = [];
    Object.assign(input, { setRawMode: (on: boolean) => void done.push(on ? 'echo off' : 'echo on') });
    output.on('data', (chunk: Buffer) => void done.push(String(chunk)));
    const asked = askLine('? ', { input, output, hidden: true, signal });
    input.write('hunter2\r');
    expect(await asked).toBe('hunter2');
    expect(done).toEqual(['echo off', '? ', 'echo on', '\n']);
  });

  it('that ends without one, or with Ctrl-C, is a fault', async () => {
    const typed = [
      ['\x04', 'USAGE'],
      ['hunter2\x03', 'ABORTED'],
      ['\r', 'USAGE'],
    ] as const;
    for (const [keys, code] of typed) {
      const { input, output, shown } = terminal(true);
      const asked = readLogin({ username: 'ann' }, { input, output, signal });
      input.write(keys);
      expect(await failureOf(asked)).toMatchObject({ code });
      expect(shown()).not.toContain('hunter2');
    }
  });

  it('is not waited for when the program is stopped', async () => {
    const stop = new AbortController();
    const { input, output } = terminal(true);
    const asked = askLine('? ', { input, output, hidden: true, signal: stop.signal });
    stop.abort();
    expect(await failureOf(asked)).toMatchObject({ code: 'ABORTED' });
  });
});

describe('a password from standard input', () => {
  const piped = (text: string, passwordStdin = true) => {
    const { input, output } = terminal(false);
    input.end(text);
    return readLogin({ username: 'ann', passwordStdin }, { input, output, signal });
  };

  it('is all of it, without the line break at its end', async () => {
    for (const text of ['a b:c', 'a b:c\n', 'a b:c\r\n']) {
      expect(await piped(text)).toEqual({ username: 'ann', password: 'a b:c' });
    }
  });

  it('is refused when it is empty, several lines or no text, and without --password-stdin', async () => {
    for (const text of ['', '\n', 'hunter2\nhunter2\n', 'x'.repeat(200_000)]) {
      const failure = await failureOf(piped(text));
      expect(failure).toMatchObject({ code: 'USAGE' });
      expect(String(failure)).not.toContain('hunter2');
    }
    expect(await failureOf(piped('x', false))).toMatchObject({ code: 'USAGE' });
    const { input, output } = terminal(false);
    const nameless = readLogin({ passwordStdin: true }, { input, output, signal });
    expect(await failureOf(nameless)).toMatchObject({ code: 'USAGE' });
  });
});
