/**
 * A hostile network: an HTTP proxy between a client and a registry that breaks requests and answers as a test says. It
 * looks like the registry itself: `Host` is passed on, so tokens and upload locations lead through it too.
 */
import {
  createServer,
  Agent as HttpAgent,
  type IncomingMessage,
  request,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';

/** One thing that goes wrong. Offsets and sizes are bytes of the body. */
export type WireFault =
  /** The answer ends after `after` bytes: the connection is closed, reset, or silent; or the answer claims to be whole. */
  | { readonly kind: 'cut' | 'reset' | 'stall' | 'truncate'; readonly after: number }
  /** One byte of the answer is another. */
  | { readonly kind: 'flip'; readonly at: number }
  /** Content-Length is off by so many bytes. */
  | { readonly kind: 'length'; readonly by: number }
  /** The answer drips: `pieces` single bytes, one every few milliseconds, then the rest. */
  | { readonly kind: 'slow'; readonly pieces: number }
  /** Another answer instead, when `after` bytes of the request's body came (default 0). `{host}` is the proxy's address. */
  | {
      readonly kind: 'answer';
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string;
      readonly after?: number;
    }
  /** The real answer with other headers (null takes one away), and perhaps another status. */
  | {
      readonly kind: 'rewrite';
      readonly status?: number;
      readonly headers: Readonly<Record<string, string | null>>;
    }
  /** The request's body breaks: the connection ends after `at` bytes, nothing is read any more, or a byte is another. */
  | { readonly kind: 'upload-cut' | 'upload-reset' | 'upload-stall' | 'upload-flip'; readonly at: number }
  /** Everything arrives, and the answer is lost. */
  | { readonly kind: 'lost-answer' };

/** A request as the proxy sees it. */
export interface Seen {
  readonly method: string;
  /** With the query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
}

export interface FaultProxy {
  /** `127.0.0.1:port` */
  readonly host: string;
  readonly url: string;
  /** `host:port` of the registry behind it; may be changed. */
  upstream: string;
  /** Chooses what happens to a request; undefined lets it pass. */
  decide: (seen: Seen) => WireFault | undefined;
  /** Faults that were chosen, in order: `cut GET /v2/…`. */
  readonly done: string[];
  /** Is told when a request with a fault is over; `happened` is false when the client went away before it came to that. */
  onFault: (fault: WireFault, happened: boolean) => void;
  /** Everything that came in an Authorization header, without its scheme. */
  readonly secrets: Set<string>;
  /** Ends all connections. */
  disconnect(): void;
  close(): Promise<void>;
}

/** The faults for one kind of request, in turn: the first for the first match, and so on; undefined entries pass. */
export function inTurn(
  matches: (seen: Seen) => boolean,
  faults: readonly (WireFault | undefined)[],
): FaultProxy['decide'] {
  let next = 0;
  return (seen) => (matches(seen) ? faults[next++] : undefined);
}

/** The same fault for every matching request. */
export function always(matches: (seen: Seen) => boolean, fault: WireFault): FaultProxy['decide'] {
  return (seen) => (matches(seen) ? fault : undefined);
}

interface Passing {
  readonly from: IncomingMessage;
  readonly to: ServerResponse;
  readonly fault: WireFault | undefined;
  /** Notes that the fault came to effect. */
  readonly hit: () => void;
}

const agent = new HttpAgent({ keepAlive: true });

async function closed(to: ServerResponse): Promise<void> {
  if (!to.closed) await new Promise((resolve) => to.once('close', resolve));
}

/** Passes the request's body on, with its faults. */
async function passBody(
  { from, to, fault, hit }: Passing,
  put: (chunk: Buffer) => Promise<void>,
): Promise<boolean> {
  const breaks = fault?.kind.startsWith('upload-') === true || (fault?.kind === 'answer' && fault.after);
  const at = fault !== undefined && 'at' in fault ? fault.at : fault?.kind === 'answer' ? fault.after : 0;
  let passed = 0;
  const chunks: AsyncIterable<Buffer> = from.iterator({ destroyOnReturn: false });
  for await (const chunk of chunks) {
    const inside = breaks && passed <= (at ?? 0) && passed + chunk.length > (at ?? 0);
    if (!inside) await put(chunk);
    else {
      const mark = (at ?? 0) - passed;
      hit();
      if (fault?.kind === 'upload-flip') {
        const wrong = Buffer.from(chunk);
        wrong[mark] = (wrong[mark] ?? 0) ^ 0x20;
        await put(wrong);
      } else {
        await put(chunk.subarray(0, mark));
        if (fault?.kind === 'upload-cut') from.socket.destroy();
        if (fault?.kind === 'upload-reset') from.socket.resetAndDestroy();
        if (fault?.kind === 'upload-stall') await closed(to);
        return false;
      }
    }
    passed += chunk.length;
  }
  return true;
}

function answerInstead(proxy: FaultProxy, { from, to, fault, hit }: Passing): void {
  if (fault?.kind !== 'answer') return;
  if (!to.destroyed) hit();
  from.resume();
  const fill = (text: string): string => text.replaceAll('{host}', proxy.host);
  const headers = Object.entries(fault.headers ?? {}).map(([name, value]) => [name, fill(value)]);
  const body = fill(fault.body ?? '');
  to.writeHead(fault.status, { 'content-length': Buffer.byteLength(body), ...Object.fromEntries(headers) });
  to.end(from.method === 'HEAD' ? undefined : body);
}

function write(to: ServerResponse, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    if (to.destroyed) resolve();
    else if (bytes.length === 0) resolve();
    else {
      to.once('close', resolve);
      to.write(bytes, () => {
        to.off('close', resolve);
        resolve();
      });
    }
  });
}

/** Sends the real answer's body, broken where the fault says so. */
async function sendBroken(answer: IncomingMessage, { from, to, fault, hit }: Passing): Promise<void> {
  let sent = 0;
  const end = fault !== undefined && 'after' in fault ? (fault.after ?? 0) : Number.POSITIVE_INFINITY;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    let part = chunk.subarray(0, Math.max(0, end - sent));
    if (fault?.kind === 'flip' && sent <= fault.at && fault.at < sent + chunk.length) {
      part = Buffer.from(part);
      part[fault.at - sent] = (part[fault.at - sent] ?? 0) ^ 0x20;
      hit();
    }
    if (fault?.kind === 'slow') {
      hit();
      for (let i = 0; i < Math.min(fault.pieces - sent, part.length); i++) {
        await write(to, part.subarray(i, i + 1));
        await new Promise((resolve) => setTimeout(resolve, 3));
      }
      part = part.subarray(Math.max(0, Math.min(fault.pieces - sent, part.length)));
    }
    await write(to, part);
    sent += chunk.length;
    if (sent >= end || to.destroyed) break;
  }
  if (end !== Number.POSITIVE_INFINITY && !to.destroyed) hit();
  if (fault?.kind === 'cut') from.socket.destroy();
  else if (fault?.kind === 'reset') from.socket.resetAndDestroy();
  else if (fault?.kind === 'stall') await closed(to);
  else to.end(() => fault?.kind === 'length' && from.socket.destroy());
}

function answerHeaders(answer: IncomingMessage, fault: WireFault | undefined): Record<string, string> {
  const headers = new Map<string, string>();
  for (const [name, value] of Object.entries(answer.headers)) {
    if (value !== undefined && name !== 'connection' && name !== 'keep-alive')
      headers.set(name, Array.isArray(value) ? value.join(', ') : value);
  }
  if (fault?.kind === 'truncate') headers.delete('content-length');
  if (fault?.kind === 'length') {
    headers.set('content-length', `${Math.max(0, Number(headers.get('content-length') ?? 0) + fault.by)}`);
  }
  for (const [name, value] of Object.entries(fault?.kind === 'rewrite' ? fault.headers : {})) {
    if (value === null) headers.delete(name);
    else headers.set(name, value);
  }
  return Object.fromEntries(headers);
}

async function pass(proxy: FaultProxy, passing: Passing): Promise<void> {
  const { from, to, fault, hit } = passing;
  if (fault?.kind === 'answer' && fault.after === undefined) return answerInstead(proxy, passing);
  const [hostname, port] = proxy.upstream.split(':');
  const { method, url: path, headers } = from;
  const asked = request({ agent, hostname, port, method, path, headers });
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    asked.once('response', resolve);
    asked.once('error', reject);
    to.once('close', () => {
      if (!to.writableFinished) asked.destroy();
      reject(new Error('the client went away'));
    });
  });
  answered.catch(() => {});
  const whole = await passBody(passing, async (chunk) => {
    if (!asked.write(chunk)) {
      await Promise.race([new Promise((resolve) => asked.once('drain', resolve)), answered.catch(() => {})]);
    }
  });
  if (!whole) {
    asked.destroy();
    answerInstead(proxy, passing);
    return;
  }
  asked.end();
  const answer = await answered;
  if (fault?.kind === 'lost-answer') {
    if (!to.destroyed) hit();
    answer.resume();
    from.socket.destroy();
    return;
  }
  const status = fault?.kind === 'rewrite' ? fault.status : undefined;
  if ((fault?.kind === 'rewrite' || fault?.kind === 'length') && !to.destroyed) hit();
  to.writeHead(status ?? answer.statusCode ?? 500, answerHeaders(answer, fault));
  await sendBroken(answer, passing);
}

/** Starts a proxy before `upstream` (`host:port`) on a free port. */
export async function startFaultProxy(upstream: string): Promise<FaultProxy> {
  const done: string[] = [];
  const secrets = new Set<string>();
  const server = createServer((from, to) => {
    const { method = '', url = '', headers } = from;
    const secret = headers.authorization?.replace(/^\S+\s+/, '');
    if (secret !== undefined) secrets.add(secret);
    const fault = proxy.decide({ method, url, headers });
    if (fault !== undefined) done.push(`${fault.kind} ${method} ${url.split('?')[0]}`);
    from.on('error', () => {});
    to.on('error', () => {});
    let happened = false;
    const hit = (): void => {
      happened = true;
    };
    const passed = pass(proxy, { from, to, fault, hit }).catch(() => to.destroy());
    if (fault !== undefined) void passed.finally(() => proxy.onFault(fault, happened));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const host = `127.0.0.1:${port}`;
  const proxy: FaultProxy = {
    host,
    url: `http://${host}`,
    upstream,
    decide: () => undefined,
    onFault: () => {},
    done,
    secrets,
    disconnect: () => server.closeAllConnections(),
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
  return proxy;
}
