import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'];

const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, '0');

/**
 * Bytes of a connection that are sent or wait to be sent, and that the other side has not acknowledged. Node calls them
 * written; only Linux tells more (`tx_queue`, proc_pid_net(5)).
 * @returns undefined where nobody tells, or two connections have the same ports
 */
export async function unacknowledged(
  socket: Pick<Socket, 'localPort' | 'remotePort'>,
): Promise<number | undefined> {
  const { localPort, remotePort } = socket;
  if (localPort === undefined || remotePort === undefined || process.platform !== 'linux') return undefined;
  const row = new RegExp(`:${hex(localPort)} [0-9A-F]+:${hex(remotePort)} [0-9A-F]{2} ([0-9A-F]{8}):`, 'g');
  const texts = await Promise.all(TABLES.map((path) => readFile(path, 'latin1').catch(() => '')));
  const found = texts.flatMap((text) => [...text.matchAll(row)].map(([, queued = '']) => queued));
  return found.length === 1 ? Number.parseInt(found[0] ?? '', 16) : undefined;
}
