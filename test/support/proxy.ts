/** A real HTTP proxy for tests: tunnels (CONNECT) and whole-URL requests; it knows where made-up host names lie. */
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

export interface TestProxy {
  readonly host: string;
  readonly url: string;
  /** `CONNECT name:port`, `GET http://name/path`. */
  readonly asked: readonly string[];
  /** The `proxy-authorization` of each. */
  readonly logins: readonly (string | undefined)[];
}

export interface ProxyRules {
  /** `name:port` → `127.0.0.1:port`; others are used as they are. */
  readonly hosts?: Readonly<Record<string, string>>;
  /** `user:password` that it wants. */
  readonly login?: string;
  /** Answers this to everything instead of passing it on; `cut` closes the connection, `silent` never answers. */
  readonly refuse?: number | 'cut' | 'silent';
}

/** Starts a proxy on a free port; it is closed, with its tunnels, when the test ends. */
export async function startProxy(rules: ProxyRules = {}): Promise<TestProxy> {
  const asked: string[] = [];
  const logins: (string | undefined)[] = [];
  const sockets = new Set<Socket>();
  const wanted =
    rules.login === undefined ? undefined : `Basic ${Buffer.from(rules.login).toString('base64')}`;

  const refusalFor = (incoming: IncomingMessage): ProxyRules['refuse'] => {
    asked.push(`${incoming.method} ${incoming.url}`);
    logins.push(incoming.headers['proxy-authorization']);
    if (wanted !== undefined && incoming.headers['proxy-authorization'] !== wanted) return 407;
    return rules.refuse;
  };
  const placeOf = (host: string): { readonly host: string; readonly port: number } => {
    const [name = '', port = '80'] = (rules.hosts?.[host] ?? host).split(':');
    return { host: name, port: Number(port) };
  };

  const pass = (incoming: IncomingMessage, response: ServerResponse): void => {
    const refusal = refusalFor(incoming);
    if (refusal === 'silent') return;
    if (refusal === 'cut') return void incoming.socket.destroy();
    if (refusal !== undefined) return void response.writeHead(refusal).end('<html>the proxy says no');
    const url = new URL(incoming.url ?? '');
    const { 'proxy-authorization': _, ...headers } = incoming.headers;
    const onward = request(
      { ...placeOf(url.host), method: incoming.method, path: `${url.pathname}${url.search}`, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on('error', () => response.destroy());
    incoming.pipe(onward);
  };

  const tunnel = (incoming: IncomingMessage, socket: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => {});
    const refusal = refusalFor(incoming);
    if (refusal === 'silent') return;
    if (refusal === 'cut') return void socket.destroy();
    if (refusal !== undefined) return void socket.end(`HTTP/1.1 ${refusal} No\r\ncontent-length: 0\r\n\r\n`);
    const onward = connect(placeOf(incoming.url ?? ''), () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      socket.pipe(onward).pipe(socket);
    });
    sockets.add(onward);
    onward.on('error', () => socket.destroy());
  };

  const server = createServer(pass);
  server.on('connect', (incoming, socket) => tunnel(incoming, socket as Socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    for (const socket of sockets) socket.destroy();
    await closed;
  });
  const { port } = server.address() as AddressInfo;
  return { host: `127.0.0.1:${port}`, url: `http://127.0.0.1:${port}`, asked, logins };
}
