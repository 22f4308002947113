import { buildConnector, Pool } from 'undici';
import { LIMITS } from '../core/limits.ts';
import type { HttpProxy } from './proxy.ts';
import { proxyFailure, proxyRefusal } from './proxy-errors.ts';

/**
 * Connections to https servers through a proxy (CONNECT, RFC 9110 9.3.6). undici's ProxyAgent is not used: it turns
 * every refusal into one error without a status, and asks a proxy that closes the connection without end.
 */
export interface Tunnel {
  readonly connect: buildConnector.connector;
  close(): Promise<void>;
}

/** @param options.tls for the server at the end; the proxy itself has the system's trust */
export function openTunnel(proxy: HttpProxy, options: { readonly tls: buildConnector.BuildOptions }): Tunnel {
  const pool = new Pool(proxy.url, {
    connect: { timeout: LIMITS.connectMs },
    headersTimeout: LIMITS.tunnelMs,
    pipelining: 1,
  });
  const secure = buildConnector(options.tls);
  const headers = {
    ...(proxy.authorization === undefined ? {} : { 'proxy-authorization': proxy.authorization }),
  };
  const reach = async (target: string) => {
    try {
      return await pool.connect({ path: target, headers: { host: target, ...headers } });
    } catch (error) {
      throw proxyFailure(proxy, error);
    }
  };
  const connect: buildConnector.connector = (to, callback) => {
    const { host = to.hostname } = to;
    const target = to.port === '' ? `${host}:443` : host;
    reach(target).then(
      ({ statusCode, socket }) => {
        if (statusCode >= 200 && statusCode < 300) {
          // The socket of a tunnel is the connection itself; its type says stream only because of HTTP upgrades.
          secure({ ...to, httpSocket: socket as buildConnector.Options['httpSocket'] & object }, callback);
          return;
        }
        socket.on('error', () => {}).destroy();
        callback(proxyRefusal(proxy, { status: statusCode, target }), null);
      },
      (error: unknown) => callback(error instanceof Error ? error : new Error(String(error)), null),
    );
  };
  return { connect, close: () => pool.destroy() };
}
