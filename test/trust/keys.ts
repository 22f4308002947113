/** Keys for tests: made from a word, so that a test makes the same ones each time. */
import { createHash } from 'node:crypto';
import { SealiftError } from '../../src/core/errors.ts';
import { makeKey, type SecretKey } from '../../src/trust/secret-key.ts';

/** 72 bytes from a word. */
export function randomOf(word: string): Buffer {
  const half = (n: number): Buffer => createHash('sha512').update(`${word}${n}`).digest();
  return Buffer.concat([half(0), half(1)]).subarray(0, 72);
}

/** What libsodium takes for an interactive login, made smaller: milliseconds. */
export const SMALL_LIMITS = { ops: 32_768n, memory: 1_048_576n } as const;

/** A key and its two files. */
export async function keyOf(word: string): Promise<{ readonly secret: SecretKey; readonly file: string }> {
  return makeKey(randomOf(word), undefined, { signal: new AbortController().signal });
}

async function errorOf(work: () => unknown): Promise<SealiftError | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    if (error instanceof SealiftError) return error;
    throw error;
  }
}

/** The code of the error of some work; undefined when it has none. Anything but an error of ours passes on. */
export async function codeOf(work: () => unknown): Promise<string | undefined> {
  return (await errorOf(work))?.code;
}

export async function messageOf(work: () => unknown): Promise<string | undefined> {
  return (await errorOf(work))?.message;
}
