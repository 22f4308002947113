import { randomBytes } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError, kindOf, readFileLimited, syncFolder } from '../io/files.ts';
import { publicKeyFile } from '../trust/public-key.ts';
import { makeKey, parseSecretKey, type SecretKey, unlock } from '../trust/secret-key.ts';

/** Gives the password of a key: typed, from the environment or from standard input. */
export type AskPassword = (what: string) => Promise<string>;

export interface KeygenOptions {
  /** Without suffix: the files are NAME.key and NAME.pub. */
  readonly out: string;
  /** Gives the new password; undefined for a key without one. */
  readonly password: AskPassword | undefined;
}

export interface KeygenResult {
  readonly secretPath: string;
  readonly publicPath: string;
  readonly keyId: string;
  /** The public key in one line. */
  readonly publicKey: string;
  readonly isEncrypted: boolean;
}

/**
 * Writes a new file, synced. A file that is there is never overwritten, and of one that cannot be written wholly nothing is
 * left. @throws DISK_FULL, FILE_UNREADABLE
 */
async function writeNew(path: string, text: string, mode: number): Promise<void> {
  try {
    const handle = await open(path, 'wx', mode);
    try {
      // Whatever the umask says.
      await handle.chmod(mode);
      await handle.writeFile(text);
      await handle.sync();
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw diskError(error, path, { side: 'destination' });
  }
}

async function refuseThere(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    if ((await kindOf(path)) === undefined) continue;
    throw new SealiftError('TARGET_CONFLICT', `${path} is there already: a key is never overwritten`, {
      hint: 'choose another name with -o, or move the old key away if nothing needs it any more',
    });
  }
}

/**
 * Makes a key pair in minisign's formats: NAME.key, readable by its owner only, and NAME.pub.
 * @throws USAGE, TARGET_CONFLICT where one of the files is there, MEMORY_LACKING, DISK_FULL
 */
export async function keygen(options: KeygenOptions, context: Context): Promise<KeygenResult> {
  if (options.out === '' || options.out.endsWith('/')) {
    throw new SealiftError('USAGE', `-o ${JSON.stringify(options.out)}: a name of the two files is missing`, {
      hint: 'name them without suffix: `-o keys/release` makes keys/release.key and keys/release.pub',
    });
  }
  const out = resolve(options.out);
  const [secretPath, publicPath] = [`${out}.key`, `${out}.pub`];
  await refuseThere([secretPath, publicPath]);
  const password = await options.password?.(secretPath);
  const { secret, file } = await makeKey(randomBytes(72), password, { signal: context.signal });
  await writeNew(secretPath, file, 0o600);
  try {
    await writeNew(publicPath, publicKeyFile(secret.public), 0o644);
  } catch (error) {
    await rm(secretPath, { force: true });
    throw error;
  }
  await syncFolder(resolve(out, '..'));
  const { id, text } = secret.public;
  return { secretPath, publicPath, keyId: id, publicKey: text, isEncrypted: password !== undefined };
}

/** The key that shall sign: read, and unlocked before the work starts. */
export interface SigningKey {
  /** Path of the secret key file. */
  readonly path: string;
  /** Gives its password where it has one. */
  readonly password: AskPassword;
}

/** @throws KEY_INVALID, KEY_PASSWORD_WRONG, MEMORY_LACKING, FILE_NOT_FOUND */
export async function openKey({ path, password }: SigningKey, context: Context): Promise<SecretKey> {
  const bytes = await readFileLimited(path, {
    limit: LIMITS.signatureText,
    missing: 'FILE_NOT_FOUND',
    hint: 'make a key with `sealift keygen`, or with `minisign -G`',
  });
  const file = parseSecretKey(bytes, path);
  const given = file.isEncrypted ? await password(path) : undefined;
  return unlock(file, given, { signal: context.signal });
}
