/**
 * A stand-in for Nexus, whose docker format is closed source: it puts what Nexus does differently (registry.md 2.8) before
 * a real registry, and answers the administration that a load and `site` ask.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import {
  type AdminState,
  adminState,
  answerAdmin,
  dockerRepository,
  isAdminPath,
  type StandInRepository,
  type Who,
} from './nexus-stand-in-admin.ts';
import { type DockerState, StandInDocker, type Trap } from './nexus-stand-in-docker.ts';
import { type Ask, answer, answerJson, answerPage, refuse } from './nexus-stand-in-wire.ts';

export { dockerRepository, type StandInRepository } from './nexus-stand-in-admin.ts';
export { TRAPS, type Trap } from './nexus-stand-in-docker.ts';

export interface StandInOptions {
  /** `host:port` of the registry behind, over plain HTTP and open for everybody. Default: none, for its administration alone. */
  readonly upstream?: string;
  /** Default none. Changed later through `traps`. */
  readonly traps?: Iterable<Trap>;
  /** Default one hosted docker repository, `docker-hosted`, with `pathEnabled` and ALLOW. The first one gets the connector. */
  readonly repositories?: readonly StandInRepository[];
  /** User names with their passwords; `admin` may do everything, others not administer. Default: everybody may do everything. */
  readonly users?: Readonly<Record<string, string>>;
  /** PEM; both ports then speak TLS. */
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** One request that was answered. */
export interface StandInRecord {
  readonly port: 'main' | 'connector';
  readonly method: string;
  /** With its query. */
  readonly url: string;
  readonly status: number;
  /** The scheme of its Authorization; '' without one. */
  readonly login: string;
}

export interface Port {
  /** `127.0.0.1:port` */
  readonly host: string;
  /** `http(s)://127.0.0.1:port` */
  readonly url: string;
}

export interface NexusStandIn {
  readonly main: Port;
  /** The docker connector of the first docker repository: no repository in the names. */
  readonly connector: Port;
  readonly traps: Set<Trap>;
  readonly admin: AdminState;
  readonly docker: DockerState;
  readonly requests: StandInRecord[];
  /** Moves the connector to another repository. */
  connect(repository: string): void;
  /** Changes the settings of a repository. */
  set(repository: string, storage: Partial<StandInRepository['storage']>): void;
  close(): Promise<void>;
}

interface House {
  readonly options: StandInOptions;
  readonly admin: AdminState;
  readonly traps: ReadonlySet<Trap>;
  readonly docker: StandInDocker;
  /** The repository of the connector. */
  readonly connected: () => string;
}

const TOKEN = 'DockerToken.';

/** Who a request is from; undefined when its login is wrong. */
function whoIs(request: IncomingMessage, users: StandInOptions['users']): Who | undefined {
  const nobody: Who = { user: undefined, guarded: users !== undefined };
  const [scheme = '', value = ''] = (request.headers.authorization ?? '').split(' ');
  if (users === undefined || scheme === '') return nobody;
  const text = Buffer.from(value.replace(TOKEN, ''), 'base64').toString('utf8');
  const [user = '', ...password] = text.split(':');
  const isToken = scheme === 'Bearer' && value.startsWith(TOKEN);
  if (isToken && text === 'anonymous') return nobody;
  const isRight = Object.hasOwn(users, user) && users[user] === password.join(':');
  return (scheme === 'Basic' || isToken) && isRight ? { ...nobody, user } : undefined;
}

/** The challenge of a connector, with the forms that Nexus is known for (A8). */
function challenge(ask: Ask, house: House): string {
  const host = ask.request.headers.host ?? '';
  const { traps, options, admin } = house;
  if (!admin.realms.includes('DockerToken')) return 'BASIC realm="Sonatype Nexus Repository Manager"';
  const scheme = options.tls === undefined ? 'http' : 'https';
  let realm = `${scheme}://${host}/v2/token`;
  if (traps.has('realm-null')) realm = `null://${host}/v2/token`;
  if (traps.has('realm-port')) realm = `${scheme}://${host}:${host.split(':')[1]}/v2/token`;
  if (traps.has('realm-http')) realm = `http://${host}/v2/token`;
  return `Bearer realm="${realm}",service="${scheme}://${host}/v2/token"`;
}

/** Whether somebody may do this; else it is answered here. */
function mayEnter(ask: Ask, house: House, repository: StandInRepository | undefined): boolean {
  const who = whoIs(ask.request, house.options.users);
  if (ask.path === '/v2/token') {
    const isAnonymous = who?.user === undefined && house.admin.anonymous.enabled;
    if (who === undefined || (who.user === undefined && !isAnonymous)) {
      answer(ask, 401);
      return false;
    }
    const basic = ask.request.headers.authorization?.split(' ')[1];
    const token = `${TOKEN}${basic ?? Buffer.from('anonymous').toString('base64')}`;
    answerJson(ask, 200, { token, expires_in: 300 });
    return false;
  }
  const isRead = ask.method === 'GET' || ask.method === 'HEAD';
  const isOpen = isRead && house.admin.anonymous.enabled && repository?.docker?.forceBasicAuth !== true;
  if (who !== undefined && (!who.guarded || who.user !== undefined || isOpen)) return true;
  ask.request.resume();
  ask.response.setHeader('www-authenticate', challenge(ask, house));
  refuse(ask, 401, [{ code: 'UNAUTHORIZED', message: 'access to the requested resource is not authorized' }]);
  return false;
}

async function serve(ask: Ask, house: House, port: 'main' | 'connector'): Promise<void> {
  const { options, admin, docker } = house;
  const secure = options.tls !== undefined;
  if (port === 'main' && isAdminPath(ask.path)) {
    const who = whoIs(ask.request, options.users);
    if (who === undefined) answer(ask, 401);
    else {
      const url = `${secure ? 'https' : 'http'}://${ask.request.headers.host}`;
      await answerAdmin(ask, { state: admin, url, who });
    }
    return;
  }
  if (!ask.path.startsWith('/v2')) {
    answerPage(ask, ask.path === '/' ? 200 : 404, 'Nexus Repository Manager');
    return;
  }
  const repository = port === 'main' ? undefined : house.connected();
  const isRouted =
    port === 'connector' ||
    (house.traps.has('path-routing') &&
      [...admin.repositories.values()].some((r) => r.docker?.pathEnabled === true));
  if (isRouted && !mayEnter(ask, house, admin.repositories.get(repository ?? ''))) return;
  await docker.answer(ask, { repository, secure });
}

function listener(
  house: House,
  port: 'main' | 'connector',
  requests: StandInRecord[],
): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    const { method = '', url = '' } = request;
    const { pathname, searchParams } = new URL(url, 'http://stand-in');
    const ask: Ask = { request, response, method, path: decodeURIComponent(pathname), query: searchParams };
    request.on('error', () => {});
    response.on('error', () => {});
    response.once('close', () => {
      const login = (request.headers.authorization ?? '').split(' ')[0] ?? '';
      requests.push({ port, method, url, status: response.headersSent ? response.statusCode : 0, login });
    });
    serve(ask, house, port).catch(() => response.destroy());
  };
}

async function listen(server: Server, secure: boolean): Promise<Port> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const host = `127.0.0.1:${port}`;
  return { host, url: `${secure ? 'https' : 'http'}://${host}` };
}

/** Starts a stand-in on two free ports. */
export async function startNexusStandIn(options: StandInOptions = {}): Promise<NexusStandIn> {
  const repositories = options.repositories ?? [dockerRepository('docker-hosted', { pathEnabled: true })];
  const admin = adminState(repositories);
  const first = repositories.find((r) => r.format === 'docker')?.name ?? '';
  const state: DockerState = {
    upstream: options.upstream ?? '127.0.0.1:9',
    primary: first,
    traps: new Set(options.traps),
    admin,
    lost: new Set(),
    bodyLimit: 1024 * 1024,
    commitMs: 20,
    commitAsks: 2,
    blobs: new Map(),
    running: new Set(),
    mostRunning: 0,
    pending: new Map(),
  };
  let connected = first;
  const docker = new StandInDocker(state);
  const house: House = { options, admin, traps: state.traps, docker, connected: () => connected };
  const requests: StandInRecord[] = [];
  const { tls } = options;
  const make = (port: 'main' | 'connector'): Server => {
    const handle = listener(house, port, requests);
    return tls === undefined ? createServer(handle) : createTlsServer({ ...tls }, handle);
  };
  const [main, connector] = [make('main'), make('connector')];
  return {
    main: await listen(main, tls !== undefined),
    connector: await listen(connector, tls !== undefined),
    traps: state.traps,
    admin,
    docker: state,
    requests,
    connect: (repository) => {
      connected = repository;
    },
    set: (name, storage) => {
      const old = admin.repositories.get(name);
      if (old === undefined) throw new Error(`no repository ${name}`);
      admin.repositories.set(name, { ...old, storage: { ...old.storage, ...storage } });
    },
    close: async () => {
      const closed = [main, connector].map(
        (server) => new Promise<void>((resolve) => server.close(() => resolve())),
      );
      for (const server of [main, connector]) server.closeAllConnections();
      await Promise.all(closed);
    },
  };
}
