import type { Server } from 'node:net';
import { SealiftError } from '../core/errors.ts';
import { errnoOf } from '../io/files.ts';

/** What to do about an address that cannot be had. */
function hintOf(code: string, port: number): string {
  if (code === 'EADDRINUSE') {
    return `choose another port, or end the program that has this one (\`ss -ltnp 'sport = :${port}'\` names it)`;
  }
  if (code === 'EACCES') return 'ports below 1024 belong to root: choose a higher one';
  return 'give an address of this machine; 127.0.0.1 is only for this machine, 0.0.0.0 for all networks';
}

/**
 * Begins to listen; no host means every address of this machine.
 * @returns `address:port`, as it stands in a URL
 * @throws USAGE when the address cannot be had
 */
export function listen(
  server: Server,
  options: { readonly port: number; readonly host: string },
): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const where = `${options.host}:${options.port}`;
      const hint = hintOf(errnoOf(cause), options.port);
      reject(new SealiftError('USAGE', `cannot listen on ${where}: ${cause.message}`, { cause, hint }));
    });
    // Without a host Node takes IPv6 and IPv4, or IPv4 where there is nothing else.
    server.listen({ port: options.port, ...(options.host === '' ? {} : { host: options.host }) }, () => {
      const address = server.address();
      if (address === null || typeof address === 'string') reject(new SealiftError('INTERNAL', 'no address'));
      else resolve(`${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`);
    });
  });
}
