import type { SecureContext } from 'node:tls';
import type { Agent, Dispatcher } from 'undici';
import { LIMITS } from '../core/limits.ts';
import { secureContextFor, type TlsOptions } from './certificates.ts';
import { type HttpProxy, proxyChooser } from './proxy.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** How one address is reached. */
export interface Way {
  /** Differs where the trust, the login or the proxy differ. */
  readonly key: string;
  /** Options of node:tls. */
  readonly settings: { readonly rejectUnauthorized?: false; readonly secureContext?: SecureContext };
  /** For https a tunnel through it, for http it is asked with the whole URL. */
  readonly proxy: HttpProxy | undefined;
}

/** What lives as long as the client. */
interface Kept {
  readonly dispatcher: Dispatcher;
  close(): Promise<unknown>;
}

const POOL = {
  connections: LIMITS.connectionsPerHost,
  pipelining: 1,
  keepAliveTimeout: 30_000,
  headersTimeout: LIMITS.headersMs,
  bodyTimeout: LIMITS.idleMs,
} as const;

/** Values that are made once for each key; a failure is forgotten. */
function remembered<T>(map: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  made.catch(() => map.delete(key));
  return made;
}

/** Finds the way to each address and keeps the connections of the general client. Close it to end them. */
export class Ways {
  readonly #env: Env;
  readonly #proxyFor: (url: URL) => HttpProxy | undefined;
  readonly #ways = new Map<string, Promise<Way>>();
  readonly #kept = new Map<string, Promise<Kept>>();

  constructor(env: Env) {
    this.#env = env;
    this.#proxyFor = proxyChooser(env);
  }

  /** @throws USAGE for a proxy variable, and what is wrong with the files of certificates */
  async wayTo(url: URL, tls: TlsOptions): Promise<Way> {
    const proxy = this.#proxyFor(url);
    if (url.protocol === 'http:') return { key: 'http', settings: {}, proxy };
    const { insecure = false, caFile, clientCert, clientKey } = tls;
    // certs.d may have a folder for each host, so the host is a part of the key.
    const key = JSON.stringify([url.host, insecure, caFile, clientCert, clientKey, proxy?.url.href]);
    return remembered(this.#ways, key, async () => {
      const secureContext = await secureContextFor(url, { tls, env: this.#env });
      const settings = {
        ...(insecure ? ({ rejectUnauthorized: false } as const) : {}),
        ...(secureContext === undefined ? {} : { secureContext }),
      };
      return { key, settings, proxy };
    });
  }

  /** The general client for a way. It is loaded when it is needed: that costs more than many a whole command. */
  async dispatcherFor(way: Way, url: URL): Promise<Dispatcher> {
    const make =
      url.protocol === 'https:' && way.proxy !== undefined ? tunneled(way, way.proxy) : straight(way);
    return (await remembered(this.#kept, way.key, make)).dispatcher;
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    const all = await Promise.allSettled(this.#kept.values());
    this.#kept.clear();
    await Promise.all(all.map((made) => (made.status === 'fulfilled' ? made.value.close() : undefined)));
  }
}

function connectOptions(way: Way): NonNullable<Agent.Options['connect']> & object {
  return { timeout: LIMITS.connectMs, ...way.settings };
}

function straight(way: Way): () => Promise<Kept> {
  return async () => {
    const { Agent } = await import('undici');
    const agent = new Agent({ ...POOL, connect: connectOptions(way) });
    return { dispatcher: agent, close: () => agent.destroy() };
  };
}

function tunneled(way: Way, proxy: HttpProxy): () => Promise<Kept> {
  return async () => {
    const [{ Agent }, { openTunnel }] = await Promise.all([import('undici'), import('./tunnel.ts')]);
    const tunnel = openTunnel(proxy, { tls: { timeout: LIMITS.connectMs, ...way.settings } });
    const agent = new Agent({ ...POOL, connect: tunnel.connect });
    return { dispatcher: agent, close: () => Promise.all([agent.destroy(), tunnel.close()]) };
  };
}
