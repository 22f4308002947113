import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import { LIMITS } from '../core/limits.ts';
import type { Answer, Body, Exchange } from './answer.ts';
import { PIECE, streamOf } from './content.ts';

/** Says that nobody is there to take the rest. */
class ClientGone extends Error {}

/** Answers that are owed on each connection. */
const owed = new WeakMap<Socket, Set<ServerResponse>>();

/**
 * Sees to it that an answer hears (`close`) of the end of its connection also while others are before it on the same one
 * (pipelining): Node tells that one alone whose turn it is.
 */
export function closeWithConnection({ socket }: IncomingMessage, response: ServerResponse): void {
  const others = owed.get(socket);
  const all = others ?? new Set<ServerResponse>();
  all.add(response);
  response.once('close', () => all.delete(response));
  if (others !== undefined) return;
  owed.set(socket, all);
  socket.once('close', () => {
    for (const waiting of [...all].filter((each) => each.socket === null)) {
      waiting.destroy();
      waiting.emit('close');
    }
  });
}

/** Waits until the answers before this one on the same connection have been sent. @throws ClientGone */
function turnOf(to: ServerResponse): Promise<void> {
  return new Promise((resolve, reject) => {
    if (to.destroyed) reject(new ClientGone('closed'));
    else if (to.socket !== null) resolve();
    else {
      to.once('socket', () => resolve());
      to.once('close', () => reject(new ClientGone('closed')));
    }
  });
}

/** Settles when what is begun has left for the client, so that its memory may be used again. */
function taken(
  to: ServerResponse,
  options: { readonly stallMs: number; readonly begin: (done: (error?: Error | null) => void) => void },
): Promise<void> {
  const { stallMs, begin } = options;
  return new Promise((resolve, reject) => {
    const settle = (error?: Error | null): void => {
      clearTimeout(timer);
      to.off('close', onClose);
      if (error === undefined || error === null) resolve();
      else reject(error);
    };
    const onClose = (): void => settle(new ClientGone('closed'));
    const tooSlow = new Error(`the client took nothing for ${stallMs / 1000} s`);
    const timer = setTimeout(() => settle(tooSlow), stallMs);
    to.once('close', onClose);
    if (to.destroyed) onClose();
    else
      begin((error) =>
        settle(error === undefined || error === null ? undefined : new ClientGone(error.message)),
      );
  });
}

/** How an answer goes out. */
interface Way {
  readonly exchange: Exchange;
  readonly to: ServerResponse;
  readonly stallMs: number;
  /** Bytes that the headers say will come; undefined where they do not. */
  readonly announced: number | undefined;
  /** Writes the status and the headers. */
  readonly writeHead: () => void;
}

/** Sends a stream, of which no piece is asked for before the last one has left. The status goes out with the first piece. */
async function pour(body: Body, { exchange, to, stallMs, announced, writeHead }: Way): Promise<void> {
  const pieces = body[Symbol.asyncIterator]();
  try {
    let piece = await pieces.next();
    writeHead();
    while (piece.done !== true) {
      const { value } = piece;
      await taken(to, { stallMs, begin: (done) => to.write(value, done) });
      exchange.sent += value.length;
      // Neither the disk nor the socket need ever make this wait: without a breath one client would have it all.
      await setImmediate();
      piece = await pieces.next();
    }
  } finally {
    await pieces.return?.();
  }
  if (announced !== undefined && exchange.sent !== announced) {
    throw new Error(`${exchange.sent} of ${announced} bytes were there to send`);
  }
}

const NO_BYTES = Buffer.alloc(0);

/** Sends an answer to its end. */
async function sendAll(answer: Answer, way: Way): Promise<void> {
  const { exchange, to, stallMs, writeHead } = way;
  const { body, status } = answer;
  let last: Uint8Array = NO_BYTES;
  await turnOf(to);
  if (body === undefined || exchange.method === 'HEAD' || status === 204 || status === 304) writeHead();
  else if (!(body instanceof Uint8Array)) await pour(body, way);
  else if (body.length > PIECE) await pour(streamOf(body, { start: 0, length: body.length }), way);
  else {
    writeHead();
    exchange.sent += body.length;
    last = body;
  }
  await taken(to, { stallMs, begin: (done) => to.end(last, () => done()) });
}

/**
 * Sends an answer. A client that went away in the middle is not an error.
 * @param options.stallMs how long the client may take for one piece. Default LIMITS.servedChunkMs
 * @throws what the body failed with before anything of it went out: then another answer can be given. After that the
 * connection is cut, and `exchange.failure` says why.
 */
export async function send(
  answer: Answer,
  options: { readonly exchange: Exchange; readonly to: ServerResponse; readonly stallMs?: number },
): Promise<void> {
  const { exchange, to, stallMs = LIMITS.servedChunkMs } = options;
  const { body, status, headers } = answer;
  const bodiless = exchange.method === 'HEAD' || status === 204 || status === 304;
  const length = body instanceof Uint8Array ? body.length : body === undefined && !bodiless ? 0 : undefined;
  const all: Record<string, string> = {
    ...(length === undefined ? {} : { 'content-length': `${length}` }),
    ...headers,
  };
  const { 'content-length': stated } = all;
  const announced = stated === undefined ? undefined : Number(stated);
  try {
    await sendAll(answer, { exchange, to, stallMs, announced, writeHead: () => to.writeHead(status, all) });
  } catch (error) {
    if (!to.headersSent && !to.destroyed && !(error instanceof ClientGone)) throw error;
    if (!(error instanceof ClientGone)) exchange.failure = error;
    // The status line is out: a cut connection is the only way to tell the client that the rest will not come.
    to.destroy();
  }
}
