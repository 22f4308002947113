import { createHash } from 'node:crypto';
import { connect, createServer, type Server } from 'node:net';
import { hostname, userInfo } from 'node:os';
import { errnoOf } from './files.ts';

/** Who holds something: a process of this machine. */
export interface Holder {
  readonly pid: number;
  readonly host: string;
  readonly user: string;
  /** When the process began: ISO 8601, UTC. */
  readonly since: string;
  /** The verb alone, `sealift load`: never arguments, which may hold secrets. */
  readonly command: string;
}

/** Gives back what was held. */
export type Release = () => Promise<void>;

/** How long a holder may take to say who it is; one that is stopped (SIGSTOP) never does. */
const ANSWER_MS = 1_000;
const ANSWER_LIMIT = 4_096;

/**
 * Holds a name on this machine until it is released or the process ends, however it ends. The mark is an abstract
 * socket (unix(7)), which the system takes away with its process, so a kill leaves nothing. It answers everyone who
 * connects with one JSON line: who holds it and since when. Where there are no abstract sockets (not on Linux, or in
 * another network namespace) nothing is kept away.
 * @param name of any length; it is hashed
 * @param options.command the verb: `sealift pack`
 * @returns the release, or the holder that is in the way; one that does not answer is `unknown`
 */
export async function hold(
  name: string,
  options: { readonly command: string },
): Promise<{ readonly release: Release } | { readonly holder: Holder | 'unknown' }> {
  if (process.platform !== 'linux') return { release: async () => {} };
  const mark = `\0sealift-${createHash('sha256').update(name).digest('hex').slice(0, 40)}`;
  const line = `${JSON.stringify(self(options.command))}\n`;
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.end(line);
  });
  // The holder that is in the way may end between our try and our question: then the name is free.
  for (let tries = 3; ; tries -= 1) {
    try {
      await listening(server, mark);
      return { release: () => new Promise((resolve) => server.close(() => resolve())) };
    } catch (error) {
      if (errnoOf(error) !== 'EADDRINUSE') return { release: async () => {} };
    }
    const holder = await askHolder(mark);
    if (holder !== 'gone' || tries <= 1) return { holder: holder === 'gone' ? 'unknown' : holder };
  }
}

function self(command: string): Holder {
  // When the process began: a fact of it, so that no clock is read.
  const since = new Date(performance.timeOrigin).toISOString();
  return { pid: process.pid, host: hostname(), user: userName(), since, command };
}

/** A container's user may have no name. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? '');
  }
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path }, () => {
      server.off('error', reject);
      server.unref();
      resolve();
    });
  });
}

function askHolder(path: string): Promise<Holder | 'unknown' | 'gone'> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect({ path });
    socket.setEncoding('utf8');
    socket.setTimeout(ANSWER_MS, () => {
      resolve('unknown');
      socket.destroy();
    });
    socket.on('data', (part: string) => {
      text += part;
      if (text.length > ANSWER_LIMIT) socket.destroy();
    });
    socket.once('error', (error) => resolve(errnoOf(error) === 'ECONNREFUSED' ? 'gone' : 'unknown'));
    socket.once('close', () => resolve(parseHolder(text)));
  });
}

/** Any process may have taken the name: what it says is shown only where it has the right shape. */
function parseHolder(text: string): Holder | 'unknown' {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return 'unknown';
    const { pid, host, user, since, command }: Record<string, unknown> = { ...value };
    const words = [host, user, since, command];
    if (typeof pid !== 'number' || !Number.isSafeInteger(pid)) return 'unknown';
    if (!words.every((w) => typeof w === 'string' && /^[\x20-\x7e]{1,200}$/.test(w))) return 'unknown';
    return { pid, host: String(host), user: String(user), since: String(since), command: String(command) };
  } catch {
    return 'unknown';
  }
}

/** A holder as the end of a sentence: `sealift pack, process 4711 of user root on host7, since 2026-…`. */
export function holderText(holder: Holder | 'unknown'): string {
  if (holder === 'unknown') return 'a process that does not say who it is';
  const { command, pid, user, host, since } = holder;
  return `${command}, process ${pid} of user ${user} on ${host}, since ${since}`;
}
