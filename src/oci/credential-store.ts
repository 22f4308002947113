import { mkdir, readlink, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { errnoOf, writeFileAtomic } from '../io/files.ts';
import { setJsonMember } from '../io/json-text.ts';
import { inTurn } from '../io/turn.ts';
import {
  type AuthFile,
  dockerConfigPath,
  helperFor,
  normalizeKey,
  parseAuthFile,
  readConfigText,
  serverKey,
} from './auth-files.ts';
import { eraseFromHelper, getFromHelper, storeInHelper } from './credential-helper.ts';

/** Where a login was put, or taken from. */
export interface StoredLogin {
  /** docker's configuration file. */
  readonly file: string;
  /** The name of the credential helper that has the secret; undefined when the file itself has it. */
  readonly helper: string | undefined;
}

interface ConfigFile {
  /** The file itself where docker's path is a link to it. */
  readonly path: string;
  readonly text: string;
  readonly auth: AuthFile;
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
}

/** Follows links to the file that they mean, which need not be there. */
async function realFile(path: string): Promise<string> {
  let at = path;
  for (let hops = 0; hops < 40; hops++) {
    try {
      at = resolve(dirname(at), await readlink(at));
    } catch {
      return at;
    }
  }
  throw new SealiftError('FILE_UNREADABLE', `${path}: a link that leads in a circle`);
}

async function openConfig(path: string): Promise<ConfigFile> {
  const text = (await readConfigText(path)) ?? '';
  const owner = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  return { path, text: text.trim() === '' ? '{}' : text, auth: parseAuthFile(text, path), owner };
}

function changed(config: ConfigFile, key: string, entry: unknown): ConfigFile {
  try {
    return { ...config, text: setJsonMember(config.text, { outer: 'auths', key }, entry) };
  } catch {
    throw new SealiftError('AUTH_REQUIRED', `${config.path}: not a docker configuration`, {
      hint: 'repair the file: it must hold a JSON object, whose `auths` is an object',
    });
  }
}

/** Works on docker's file while no other login does, and writes it when its text changed: for its owner only. */
async function editConfig<T>(
  context: Context,
  edit: (config: ConfigFile) => Promise<{ readonly config: ConfigFile; readonly result: T }>,
): Promise<T> {
  const path = await realFile(dockerConfigPath(context.env));
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const busy = (mark: string): SealiftError =>
    new SealiftError('AUTH_FILE_BUSY', `${path}: another login is changing it`, {
      hint: `wait for it to end; when there is none, remove ${mark}`,
    });
  return inTurn(
    path,
    async () => {
      const before = await openConfig(path);
      const { config, result } = await edit(before);
      if (config.text !== before.text) {
        await writeFileAtomic(path, config.text, { mode: 0o600, owner: before.owner });
      }
      return result;
    },
    { context, busy },
  );
}

/**
 * Writes a login as `docker login` does: to the helper that docker's configuration names for the host, else into the
 * file. Everything else in the file stays as it is.
 * @param host `docker.io` for Docker Hub
 * @throws AUTH_REQUIRED for a broken configuration or helper, AUTH_FILE_BUSY, FILE_UNREADABLE, DISK_FULL
 */
export function storeLogin(
  host: string,
  login: { readonly username: string; readonly password: string },
  context: Context,
): Promise<StoredLogin> {
  const key = serverKey(host);
  const { username, password } = login;
  return editConfig<StoredLogin>(context, async (config) => {
    const helper = helperFor(config.auth, host);
    if (helper === undefined) {
      const auth = Buffer.from(`${username}:${password}`).toString('base64');
      return {
        config: changed(config, key, { auth }),
        result: { file: config.path, helper },
      };
    }
    await storeInHelper(helper, { server: key, username, secret: password }, context);
    // An empty entry, so that docker lists the host; a secret that was there before goes.
    return { config: changed(config, key, {}), result: { file: config.path, helper } };
  });
}

/**
 * Takes a host's login out of docker's file, whatever way its key is written, and out of its helper.
 * @returns undefined when there was none
 * @throws as `storeLogin`
 */
export async function removeLogin(host: string, context: Context): Promise<StoredLogin | undefined> {
  if ((await readConfigText(dockerConfigPath(context.env))) === undefined) return undefined;
  return editConfig<StoredLogin | undefined>(context, async (config) => {
    const names = new Set([serverKey(host), host, ...aliasesOf(host)]);
    const keys = [...config.auth.auths.keys()].filter((key) => names.has(normalizeKey(key)));
    const helper = helperFor(config.auth, host);
    const erased = helper === undefined ? false : await erase(helper, serverKey(host), context);
    const result = keys.length === 0 && !erased ? undefined : { file: config.path, helper };
    return { config: keys.reduce((c, key) => changed(c, key, undefined), config), result };
  });
}

function aliasesOf(host: string): string[] {
  return host === 'docker.io' ? ['index.docker.io', 'registry-1.docker.io'] : [];
}

async function erase(helper: string, server: string, context: Context): Promise<boolean> {
  if ((await getFromHelper(helper, server, context)) === undefined) return false;
  await eraseFromHelper(helper, server, context);
  return true;
}
