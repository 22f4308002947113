/** Real Nexus and devpi servers for the tests. `scripts/peers` installs them. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, inject } from 'vitest';
import { inOwnDirectory, removeOwnDirectory, startDaemon, stopDaemon, untilReady } from './daemon.ts';
import type { Nexus, NexusFormat, NexusVersion, SharedNexus } from './nexus-server.ts';
import { startOwnNexus } from './nexus-server.ts';
import { peer, run } from './peers.ts';

const readyWithin = 290_000;

declare module 'vitest' {
  interface ProvidedContext {
    nexusServers: readonly SharedNexus[];
  }
}

/**
 * A Nexus of that version: the one that all files of the project `nexus` share, elsewhere a new one. Make repositories with
 * names that nobody else has, and remove them. Throws when it cannot be had.
 */
export async function startNexus(version: NexusVersion): Promise<Nexus> {
  const shared = inject('nexusServers')?.find(({ name }) => name === version);
  if (shared === undefined) return startOwnNexus(version);
  if (shared.missing !== undefined) throw new Error(shared.missing);
  return { ...shared, close: async () => {} };
}

/**
 * Declares the tests once for each server that has these formats. Where a server is missing they are skipped, and the line
 * of the setup says why.
 * @param options.except a version on which they take too long
 */
export function onEachNexus(
  formats: readonly NexusFormat[],
  body: (nexus: SharedNexus) => void,
  options: { readonly except?: NexusVersion } = {},
): void {
  for (const server of inject('nexusServers')) {
    if (server.name === options.except) continue;
    // A format that a version has not is no test left out; a server of which nothing is known is.
    if (server.formats.length > 0 && !formats.every((f) => server.formats.includes(f))) continue;
    describe.skipIf(server.missing !== undefined)(`on Nexus ${server.name}`, () => body(server));
  }
}

export interface Devpi {
  /** Ends in a slash. */
  readonly url: string;
  readonly user: string;
  readonly password: string;
  /** `root/prod`; it is there unless `startDevpi` was told to leave it out. */
  readonly index: string;
  /** What `pip --index-url` takes. */
  readonly simple: string;
  close(): Promise<void>;
}

/**
 * Starts an empty devpi-server on a free port of 127.0.0.1, which knows no mirror of PyPI. Throws when it is not installed.
 * @param options.makeIndex false leaves out the index
 */
export function startDevpi(options: { readonly makeIndex?: boolean } = {}): Promise<Devpi> {
  return inOwnDirectory(async (own) => {
    const [user, password, index] = ['root', 'not-a-secret', 'root/prod'];
    const dir = join(own, 'server');
    const log = join(own, 'log');
    await mkdir(dir);
    await run(peer('devpi-init'), ['--serverdir', dir, '--root-passwd', password, '--no-root-pypi']);
    const daemon = startDaemon(
      [peer('devpi-server'), '--serverdir', dir, '--host', '127.0.0.1', '--port', '0'],
      { stdout: log, log },
    );
    const url = await untilReady(
      daemon,
      async () => {
        const said = /Serving on (http:\/\/127\.0\.0\.1:\d+)/.exec(await readFile(log, 'utf8'))?.[1];
        return said === undefined ? undefined : `${said}/`;
      },
      readyWithin,
    );
    if (options.makeIndex ?? true) await makeDevpiIndex(url, { user, password, index });
    return {
      url,
      user,
      password,
      index,
      simple: `${url}${index}/+simple/`,
      async close() {
        await stopDaemon(daemon);
        await removeOwnDirectory(own);
      },
    };
  });
}

async function makeDevpiIndex(
  url: string,
  { user, password, index }: { readonly user: string; readonly password: string; readonly index: string },
): Promise<void> {
  const json = { accept: 'application/json', 'content-type': 'application/json' };
  const login = await fetch(`${url}+login`, {
    method: 'POST',
    headers: json,
    body: JSON.stringify({ user, password }),
  });
  const { result }: { result: { password: string } } = JSON.parse(await login.text());
  const token = Buffer.from(`${user}:${result.password}`).toString('base64');
  const made = await fetch(`${url}${index}`, {
    method: 'PUT',
    headers: { ...json, 'x-devpi-auth': token },
    body: JSON.stringify({ type: 'stage', bases: [], volatile: false }),
  });
  if (!made.ok) throw new Error(`${index} was not made: ${made.status} ${await made.text()}`);
}
