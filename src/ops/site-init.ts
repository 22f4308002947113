import { writeFile } from 'node:fs/promises';
import { dirname, relative, resolve } from 'node:path';
import { isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { TlsOptions } from '../io/certificates.ts';
import { diskError, errnoOf, kindOf } from '../io/files.ts';
import { type AskLogin, siteCredentials } from '../site/credentials.ts';
import type { NexusFacts, ServerFacts, SiteFacts } from '../site/init-text.ts';
import { withHttp } from './session.ts';
import { isNamed } from './site.ts';

export interface SiteInitOptions {
  /** Of a Nexus. */
  readonly url?: string;
  /** The file; one that is there is never replaced. */
  readonly out: string;
  /** Of an index of devpi. */
  readonly devpi?: string;
  /** The socket of containerd; true looks for it where kubernetes distributions have it. */
  readonly containerd?: string | true;
  readonly chartTree?: string;
  readonly files?: string;
  readonly tls: TlsOptions;
  readonly askLogin?: AskLogin;
}

export interface SiteInitResult {
  readonly path: string;
  readonly text: string;
  /** What was chosen and why, a line each. */
  readonly choices: readonly string[];
  /** Names of the targets. */
  readonly targets: readonly string[];
}

/** Where distributions have it (registry.md 3.1). */
const SOCKETS = [
  '/run/containerd/containerd.sock',
  '/run/k3s/containerd/containerd.sock',
  '/var/snap/microk8s/common/run/containerd.sock',
  '/run/k0s/containerd.sock',
];

async function findSocket(): Promise<string> {
  for (const path of SOCKETS) if ((await kindOf(path)) === 'other') return path;
  throw new SealiftError('FILE_NOT_FOUND', `no containerd was found at ${SOCKETS.join(', ')}`, {
    hint: 'name its socket: --containerd SOCKET',
  });
}

/** The start of the variables that have a login already. */
function variablesOf({ env }: Context): string | undefined {
  return env.NEXUS_USERNAME && env.NEXUS_PASSWORD ? 'NEXUS' : undefined;
}

/** Paths as they stand in the file: relative to its folder. */
function tlsFor(tls: TlsOptions, folder: string): ServerFacts['tls'] {
  const entries = Object.entries(tls).filter(([, value]) => value !== undefined);
  return Object.fromEntries(
    entries.map(([key, value]) => [key, typeof value === 'string' ? pathFrom(folder, value) : value]),
  );
}

function pathFrom(folder: string, path: string): string {
  return relative(folder, resolve(path)) || '.';
}

function refuseTaken(path: string): SealiftError {
  return new SealiftError('USAGE', `${path} is there already, and is never replaced`, {
    hint: 'write another one with -o FILE and compare them, or move it away',
  });
}

/**
 * Writes a site's file from what a Nexus says that it has.
 * @throws USAGE for a file that is there, AUTH_REQUIRED, AUTH_DENIED, TARGET_UNREACHABLE; then nothing is written
 */
export async function siteInit(options: SiteInitOptions, context: Context): Promise<SiteInitResult> {
  const path = resolve(options.out);
  if (await isNamed(path)) throw refuseTaken(path);
  const folder = dirname(path);
  const choices: string[] = [];
  const server = { variables: variablesOf(context), tls: tlsFor(options.tls, folder) };
  const found =
    options.url === undefined ? undefined : await lookAt(options.url, { options, context, choices });
  const at = (one: string | undefined): string | undefined => one && pathFrom(folder, one);
  const facts: SiteFacts = {
    nexus: found && { ...found, ...server },
    devpi:
      options.devpi === undefined
        ? undefined
        : { url: options.devpi, name: 'devpi', variables: undefined, tls: server.tls },
    containerd:
      options.containerd === true ? await findSocket() : options.containerd && resolve(options.containerd),
    chartTree: at(options.chartTree),
    files: at(options.files),
  };
  const [{ siteText }, { parseSiteFile }] = await Promise.all([
    import('../site/init-text.ts'),
    import('../site/load.ts'),
  ]);
  const text = siteText(facts);
  // What is written is what a load will read: a word that it would not take is told now.
  const { targets } = parseSiteFile(text, path);
  try {
    await writeFile(path, text, { flag: 'wx' });
  } catch (error) {
    throw errnoOf(error) === 'EEXIST' ? refuseTaken(path) : diskError(error, path);
  }
  return { path, text, choices, targets: targets.map(({ name }) => name) };
}

async function lookAt(
  text: string,
  about: {
    readonly options: SiteInitOptions;
    readonly context: Context;
    readonly choices: string[];
  },
): Promise<NexusFacts | undefined> {
  const { options, context, choices } = about;
  const [{ isServerUrl }, { NexusAdmin }, { WebServer }, { nexusFacts }] = await Promise.all([
    import('../site/words.ts'),
    import('../target/web/nexus-admin.ts'),
    import('../target/web/server.ts'),
    import('./nexus-facts.ts'),
  ]);
  const wrong = isServerUrl(text);
  if (wrong !== undefined) throw new SealiftError('USAGE', wrong.message, wrong);
  const base = new URL(`${text.replace(/\/+$/, '')}/`);
  const prefix = variablesOf(context);
  const choice = prefix === undefined ? undefined : ({ kind: 'env', prefix } as const);
  const credentials = siteCredentials(
    { name: base.href, choice, addresses: [base] },
    { context, ask: options.askLogin },
  );
  return withHttp(context, async (http) => {
    const admin = new NexusAdmin(new WebServer({ http, context, base, tls: options.tls, credentials }));
    try {
      const facts = await nexusFacts(admin, choices);
      if (facts.docker.length + facts.helm.length + facts.pypi.length + facts.raw.length > 0) return facts;
      throw new SealiftError(
        'TARGET_FAILED',
        `${base.host}: no repository that could be written to the file (${choices.join('; ')})`,
        {
          hint: 'use the login of an administrator, who sees how docker repositories are reached, or write the file by hand',
        },
      );
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError) || !error.code.startsWith('NETWORK_'))
        throw error;
      throw new SealiftError('TARGET_UNREACHABLE', error.message, {
        cause: error,
        hint: `check the address; \`curl ${base.href}service/rest/v1/status\` must answer on this machine`,
      });
    }
  });
}
