import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { keyPassword } from '../../src/cli/key-password.ts';
import { failureOf } from '../io/server.ts';

const { signal } = new AbortController();

function asking(more: { isTTY?: boolean; isNew?: boolean; stdin?: boolean; env?: string }): {
  readonly input: PassThrough;
  readonly shown: () => string;
  readonly password: Promise<string>;
} {
  const input = Object.assign(new PassThrough(), { isTTY: more.isTTY === true });
  const output = new PassThrough();
  const env = more.env === undefined ? {} : { SEALIFT_KEY_PASSWORD: more.env };
  const ask = keyPassword({
    passwordStdin: more.stdin === true,
    isNew: more.isNew === true,
    signal,
    env,
    input,
    output,
  });
  return { input, shown: () => String(output.read() ?? ''), password: ask('a.key') };
}

describe('the password of a key', () => {
  it('is typed unseen, a new one twice', async () => {
    const { input, shown, password } = asking({ isTTY: true, isNew: true });
    input.write('geheim\r');
    await new Promise((resolve) => setImmediate(resolve));
    input.write('geheim\r');
    expect(await password).toBe('geheim');
    expect(shown()).not.toContain('geheim');
  });

  it('is refused when the second one is another', async () => {
    const { input, password } = asking({ isTTY: true, isNew: true });
    input.write('geheim\r');
    await new Promise((resolve) => setImmediate(resolve));
    input.write('geheimm\r');
    expect(await failureOf(password)).toMatchObject({ code: 'USAGE' });
  });

  it('comes from standard input before the environment, and from there before a person is asked', async () => {
    const piped = asking({ stdin: true, env: 'other' });
    piped.input.end('geheim\n');
    expect(await piped.password).toBe('geheim');
    expect(await asking({ isTTY: true, env: 'geheim' }).password).toBe('geheim');
  });

  it('is not waited for where there is nobody to ask', async () => {
    const failure = await failureOf(asking({}).password);
    expect(failure).toMatchObject({ code: 'USAGE', hint: expect.stringContaining('SEALIFT_KEY_PASSWORD') });
  });

  it('is one line, wherever it comes from', async () => {
    expect(await failureOf(asking({ env: 'a\nb' }).password)).toMatchObject({ code: 'USAGE' });
    const piped = asking({ stdin: true });
    piped.input.end('a\nb\n');
    expect(await failureOf(piped.password)).toMatchObject({ code: 'USAGE' });
  });
});
