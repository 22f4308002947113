/** What the stand-in for Nexus says and passes on: answers, bodies, and requests to the registry behind it. */
import { Agent, type IncomingMessage, request, type ServerResponse } from 'node:http';

/** One request to the stand-in. */
export interface Ask {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly method: string;
  /** Decoded, without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
}

/** Bodies that the stand-in reads whole: manifests and JSON. */
const WHOLE = 16 * 1024 * 1024;

export function wholeBody(ask: Ask): Promise<Buffer> {
  return bytesOf(ask.request);
}

/** All bytes of a message. */
export async function bytesOf(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > WHOLE) throw new Error('the body is too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Reads a body to its end and forgets it, as a server does that only then refuses. */
export async function dropBody(ask: Ask): Promise<void> {
  for await (const _ of ask.request as AsyncIterable<Buffer>);
}

export function answer(
  ask: Ask,
  status: number,
  more: { readonly headers?: Readonly<Record<string, string>>; readonly body?: string | Buffer } = {},
): void {
  const { response, method } = ask;
  if (response.headersSent || response.destroyed) return;
  const body = Buffer.from(more.body ?? '');
  response.writeHead(status, { 'content-length': body.length, ...more.headers });
  response.end(method === 'HEAD' ? undefined : body);
}

export function answerJson(
  ask: Ask,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  answer(ask, status, {
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
}

/** A web page, as Nexus and proxies answer where no registry is. */
export function answerPage(ask: Ask, status: number, text: string): void {
  const body = `<!DOCTYPE html>\n<html><head><title>${status} - Nexus Repository</title></head><body><h1>${text}</h1></body></html>\n`;
  answer(ask, status, { headers: { 'content-type': 'text/html' }, body });
}

/** A registry's refusal; Nexus says what is wrong in `detail`. */
export function refuse(
  ask: Ask,
  status: number,
  errors: readonly { readonly code: string; readonly message: string; readonly detail?: unknown }[],
): void {
  answerJson(ask, status, { errors });
}

const agent = new Agent({ keepAlive: true });

export interface UpstreamAnswer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly message: IncomingMessage;
}

/** Asks the registry behind the stand-in. The answer's body must be read or resumed. */
export function askUpstream(
  upstream: string,
  about: {
    readonly method: string;
    /** Encoded, with its query. */
    readonly path: string;
    readonly headers?: Readonly<Record<string, string | string[] | undefined>>;
    readonly body?: Buffer | IncomingMessage;
  },
): Promise<UpstreamAnswer> {
  const [hostname, port] = upstream.split(':');
  const headers = Object.fromEntries(
    Object.entries(about.headers ?? {}).filter(([name, value]) => name !== 'host' && value !== undefined),
  );
  return new Promise((resolve, reject) => {
    const asked = request({ agent, hostname, port, method: about.method, path: about.path, headers });
    asked.once('response', (message) =>
      resolve({ status: message.statusCode ?? 500, headers: message.headers, message }),
    );
    asked.once('error', reject);
    const { body } = about;
    if (body === undefined || Buffer.isBuffer(body)) asked.end(body);
    else {
      body.once('close', () => {
        if (!body.complete) asked.destroy(new Error('the client went away'));
      });
      body.pipe(asked);
    }
  });
}

/** Like `askUpstream`, for who wants only status and headers. */
export async function headUpstream(
  upstream: string,
  about: Parameters<typeof askUpstream>[1],
): Promise<Pick<UpstreamAnswer, 'status' | 'headers'>> {
  const { status, headers, message } = await askUpstream(upstream, about);
  message.resume();
  return { status, headers };
}

/** Passes an answer on with other headers; undefined takes one away. */
export function passOn(
  ask: Ask,
  from: UpstreamAnswer,
  more: { readonly status?: number; readonly headers?: Readonly<Record<string, string | undefined>> } = {},
): void {
  const { response, method } = ask;
  const own = { connection: undefined, 'keep-alive': undefined, ...more.headers };
  const headers = Object.entries({ ...from.headers, ...own }).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as const],
  );
  if (response.headersSent || response.destroyed) {
    from.message.resume();
    return;
  }
  response.writeHead(more.status ?? from.status, Object.fromEntries(headers));
  if (method === 'HEAD') {
    from.message.resume();
    response.end();
  } else {
    from.message.once('error', () => response.destroy());
    from.message.pipe(response);
  }
}
