import { resolve } from 'node:path';
import { type Fault, faultOf, isAbort } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { readPair } from '../io/certificates.ts';
import { readFileLimited } from '../io/files.ts';
import { type Access, accessLine, type LineFile, type LinePlace, openLineFile } from '../serve/access-log.ts';
import { answerFrom } from '../serve/library.ts';
import { type Doorkeeper, doorkeeperOf, parsePasswordFile } from '../serve/password-file.ts';
import { startServer } from '../serve/server.ts';
import { addressOf, doubtsAbout, parseListen } from './serve-address.ts';
import { type OpenLibrary, openLibrary } from './serve-library.ts';
import { type ServedFacts, type Snippet, snippetsOf, snippetText } from './serve-snippets.ts';
import { policyOf, type TrustOptions } from './trust.ts';

export interface ServeOptions extends TrustOptions {
  /** Paths of bundles, of their volumes, of folders where these lie, or patterns. */
  readonly bundles: readonly string[];
  /** `HOST:PORT`, `:PORT` for all networks; port 0 is any free one. Default `127.0.0.1:5000`. */
  readonly listen?: string;
  /** PEM files: the certificate with those that lead to its CA, and its key. Default: plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** A htpasswd file of bcrypt hashes: who may read. Default: everybody. */
  readonly authFile?: string;
  /** Where each request is told: a file that is added to, one that is open, or somebody who takes each line (false: he did not). */
  readonly accessLog?: LinePlace | ((line: string) => unknown);
}

/** What a server did from its start to its end. */
export interface ServeResult {
  readonly url: string;
  readonly bundles: OpenLibrary['bundles'];
  readonly requests: number;
  /** Body bytes that were sent. */
  readonly bytes: number;
  /** Different addresses that asked. */
  readonly clients: number;
  /** Requests that were refused (4xx), and that failed (5xx, or an answer that was cut off for a fault of ours). */
  readonly refused: number;
  readonly failed: number;
  /** Answers that were still running when the time to end was over. */
  readonly cut: number;
  /** Lines that the log file did not take. */
  readonly logLinesLost: number;
  /** What could not be read, or had wrong bytes; each once. */
  readonly damage: readonly Fault[];
}

/** Bundles that are being served. */
export interface Serving {
  /** `http://127.0.0.1:5000` */
  readonly url: string;
  readonly bundles: OpenLibrary['bundles'];
  readonly images: number;
  readonly charts: number;
  readonly files: number;
  readonly packages: number;
  /** How each client is told to ask here, and all of it as text. */
  readonly snippets: readonly Snippet[];
  readonly text: string;
  /** Settles when the context's signal is aborted or `close` is called, and everything has ended. */
  readonly ended: Promise<ServeResult>;
  /** Ends as the signal does. */
  close(): Promise<ServeResult>;
}

/** Remembered addresses of clients, for their number. */
const CLIENTS = 100_000;

async function readDoorkeeper(path: string | undefined): Promise<Doorkeeper | undefined> {
  if (path === undefined) return undefined;
  const bytes = await readFileLimited(path, { limit: LIMITS.passwordFile, missing: 'FILE_NOT_FOUND' });
  return doorkeeperOf(parsePasswordFile(bytes.toString('utf8'), path));
}

/** Counts what was answered. */
function createTally() {
  const clients = new Set<string>();
  const counted = { requests: 0, bytes: 0, refused: 0, failed: 0 };
  return {
    add({ client, status, bytes, error }: Access): void {
      counted.requests += 1;
      counted.bytes += bytes;
      if (error !== undefined || status >= 500) counted.failed += 1;
      else if (status >= 400) counted.refused += 1;
      if (clients.size < CLIENTS) clients.add(client);
    },
    result: () => ({ ...counted, clients: clients.size }),
  };
}

/** Tells each damage once, however often somebody asks for it. */
function createDamage(context: Context) {
  const told = new Map<string, Fault>();
  return {
    add(error: unknown): void {
      if (isAbort(error)) return;
      const fault = faultOf(error);
      if (told.has(fault.message) || told.size >= LIMITS.requestLog) return;
      told.set(fault.message, fault);
      context.emit({ type: 'warning', fault });
    },
    faults: () => [...told.values()],
  };
}

/** Where lines of the access log go, and how it is ended. */
async function openLog(to: ServeOptions['accessLog'], context: Context): Promise<LineFile> {
  if (typeof to === 'string' || typeof to === 'object') {
    const onFailure = (error: unknown): void => context.emit({ type: 'warning', fault: faultOf(error) });
    return await openLineFile(typeof to === 'string' ? resolve(to) : to, { onFailure });
  }
  let lost = 0;
  return {
    get lost() {
      return lost;
    },
    write: (line) => {
      if (to?.(line) === false) lost += 1;
    },
    close: async () => {},
  };
}

/**
 * Serves bundles read only, straight from where they lie: an OCI registry, a chart repository at `/charts/`, a Python index at
 * `/simple/` and the files at `/files/`. Nothing is written but the access log.
 * @throws USAGE for the address or the password file; every fault of a bundle's structure or signature; TARGET_NAME_COLLISION
 */
export async function serve(options: ServeOptions, context: Context): Promise<Serving> {
  const listen = parseListen(options.listen ?? '127.0.0.1:5000');
  const doorkeeper = await readDoorkeeper(options.authFile);
  const tls = options.tls === undefined ? undefined : await readPair(options.tls.cert, options.tls.key);
  const stop = new AbortController();
  const damage = createDamage(context);
  const paths = options.bundles.map((path) => resolve(path));
  const policy = await policyOf(options, context);
  const how = { context, policy, signal: stop.signal, onDamage: damage.add };
  const library = await openLibrary(paths, how);
  const log = await openLog(options.accessLog, context).catch(async (error) => {
    await library.close();
    throw error;
  });
  const tally = createTally();
  let facts: ServedFacts | undefined;
  const parts = { ...library, doorkeeper, welcome: () => (facts === undefined ? '' : snippetText(facts)) };
  try {
    const server = await startServer({
      listen,
      tls,
      now: context.now,
      answer: (exchange) => answerFrom(parts, exchange),
      onAccess: (access) => {
        tally.add(access);
        log.write(accessLine(access));
      },
    });
    for (const fault of library.warnings) context.emit({ type: 'warning', fault });
    const { authFile } = options;
    const url = addressOf(server, { host: listen.host, tls });
    const about = { listen, url, tls, isPrivate: authFile !== undefined, now: context.now() };
    for (const message of doubtsAbout(about)) context.emit({ type: 'note', message });
    facts = { url, isPrivate: doorkeeper !== undefined, ...library.examples };
    const finish = async (): Promise<ServeResult> => {
      const cut = await server.close({ graceMs: LIMITS.serveEndMs, onCut: () => stop.abort() });
      await log.close();
      await library.close();
      const { bundles } = library;
      return { url, bundles, ...tally.result(), cut, logLinesLost: log.lost, damage: damage.faults() };
    };
    return servingOf({ url, library, facts }, { finish, signal: context.signal });
  } catch (error) {
    await log.close();
    await library.close();
    throw error;
  }
}

function servingOf(
  about: { readonly url: string; readonly library: OpenLibrary; readonly facts: ServedFacts },
  run: { readonly finish: () => Promise<ServeResult>; readonly signal: AbortSignal },
): Serving {
  const { url, library, facts } = about;
  const { bundles, images, charts, files, packages } = library;
  let end = (): void => {};
  const asked = new Promise<void>((done) => {
    end = done;
  });
  const ended = asked.then(run.finish);
  run.signal.addEventListener('abort', end, { once: true });
  if (run.signal.aborted) end();
  return {
    url,
    bundles,
    images,
    charts,
    files,
    packages,
    snippets: snippetsOf(facts),
    text: snippetText(facts),
    ended,
    close: () => {
      run.signal.removeEventListener('abort', end);
      end();
      return ended;
    },
  };
}
