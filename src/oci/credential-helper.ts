import { isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { type ProcessResult, runProcess } from '../io/process.ts';
import { type Env, recordOf } from './auth-files.ts';

/** Programs that keep secrets for docker: `docker-credential-<name> get|store|erase`, text on stdin and stdout. */

/** A helper that wants a person to type something will not get an answer. */
const HELPER_MS = 30_000;

/** The password of the key that signs is nothing that a helper should know. */
const NOT_FOR_HELPERS = 'SEALIFT_KEY_PASSWORD';

/** What a helper prints, beside a non-zero code, for a server that it does not know (docker-credential-helpers). */
const NOT_FOUND = 'credentials not found in native keychain';

export interface HelperOptions {
  readonly env: Env;
  readonly signal?: AbortSignal;
}

/** True for the name of a program without a path. */
function isHelperName(name: string): boolean {
  return /^[a-zA-Z0-9._-]+$/.test(name);
}

async function runHelper(
  name: string,
  verb: 'get' | 'store' | 'erase',
  options: HelperOptions & { readonly input: string },
): Promise<ProcessResult> {
  const program = `docker-credential-${name}`;
  let answer: ProcessResult;
  try {
    answer = await runProcess(program, [verb], {
      input: options.input,
      timeoutMs: HELPER_MS,
      limit: LIMITS.token,
      env: { ...options.env, [NOT_FOR_HELPERS]: undefined },
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
  } catch (cause) {
    if (isAbort(cause)) throw cause;
    throw new SealiftError('AUTH_REQUIRED', `${program}: cannot be started`, {
      cause,
      hint: 'install the credential helper that the docker configuration names, or remove it there',
    });
  }
  if (answer.code === 124) {
    throw new SealiftError('AUTH_REQUIRED', `${program}: no answer in ${HELPER_MS / 1000} s`, {
      hint: `run \`${program} ${verb}\` by hand: it may wait for a password that unlocks it`,
    });
  }
  return answer;
}

/** User and secret of a server. */
export interface HelperSecret {
  readonly username: string;
  readonly secret: string;
}

/**
 * Asks a helper for a server's secret; undefined when it has none.
 * @param options.onRefusal is told when it fails for another reason than having none; its own words are not repeated
 * @throws AUTH_REQUIRED when it cannot be started, does not end, or answers something that is not JSON
 */
export async function getFromHelper(
  name: string,
  server: string,
  options: HelperOptions & { readonly onRefusal?: (message: string) => void },
): Promise<HelperSecret | undefined> {
  if (!isHelperName(name)) return undefined;
  const answer = await runHelper(name, 'get', { ...options, input: server });
  if (answer.code !== 0) {
    if (!(answer.stdout + answer.stderr).includes(NOT_FOUND)) {
      options.onRefusal?.(
        `docker-credential-${name} failed for ${server} (exit ${answer.code}): going on without a login from it`,
      );
    }
    return undefined;
  }
  try {
    const { Username, Secret } = recordOf(JSON.parse(answer.stdout));
    if (typeof Username !== 'string' || typeof Secret !== 'string' || Secret === '') return undefined;
    return { username: Username, secret: Secret };
  } catch {
    throw new SealiftError('AUTH_REQUIRED', `docker-credential-${name}: the answer is not JSON`);
  }
}

/** @throws AUTH_REQUIRED when the helper refuses; its own words are not repeated */
async function change(
  name: string,
  verb: 'store' | 'erase',
  options: HelperOptions & { readonly input: string },
): Promise<ProcessResult> {
  if (isHelperName(name)) return runHelper(name, verb, options);
  throw new SealiftError('AUTH_REQUIRED', `"${name.slice(0, 100)}" is not the name of a credential helper`, {
    hint: 'correct credsStore and credHelpers in the docker configuration',
  });
}

function refusedBy(name: string, verb: string, code: number): SealiftError {
  const program = `docker-credential-${name}`;
  return new SealiftError('AUTH_REQUIRED', `${program} ${verb} failed with exit code ${code}`, {
    hint: `run \`${program} list\` by hand to see what is wrong, or remove it from the docker configuration`,
  });
}

/** Gives a secret to a helper. @throws AUTH_REQUIRED */
export async function storeInHelper(
  name: string,
  secret: HelperSecret & { readonly server: string },
  options: HelperOptions,
): Promise<void> {
  const { server: ServerURL, username: Username, secret: Secret } = secret;
  const input = JSON.stringify({ ServerURL, Username, Secret });
  const { code } = await change(name, 'store', { ...options, input });
  if (code !== 0) throw refusedBy(name, 'store', code);
}

/** Takes a server out of a helper that has it. @throws AUTH_REQUIRED */
export async function eraseFromHelper(name: string, server: string, options: HelperOptions): Promise<void> {
  const { code, stdout, stderr } = await change(name, 'erase', { ...options, input: server });
  if (code !== 0 && !(stdout + stderr).includes(NOT_FOUND)) throw refusedBy(name, 'erase', code);
}
