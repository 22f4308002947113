import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { backoffMs, type HttpResponse } from '../io/http.ts';
import { isNetworkError, reasonOf } from '../io/network-errors.ts';
import { sleep, throwIfAborted } from '../io/pool.ts';
import { retryAfterMs } from '../io/rate-limit.ts';
import { countCuts } from '../io/resume.ts';
import { retriedStatus } from './answers.ts';
import { type BlobCursor, sendBody } from './upload-body.ts';
import { askHeldBytes, heldBytes, moveSession, type UploadSession } from './upload-session.ts';
import type { RegistryWire } from './wire.ts';

/** What is known about the way to a registry, over all uploads to it. */
export interface UploadWay {
  /** Bytes: larger blobs are sent in chunks of this. Undefined while nothing was refused. */
  chunk: number | undefined;
}

/** One upload in chunks. */
export interface ChunkedUpload {
  readonly session: UploadSession;
  readonly cursor: BlobCursor;
  /** Bytes of the blob. */
  readonly size: number;
  readonly way: UploadWay;
  /** Bytes of the first chunk. */
  readonly chunk: number;
  /** For messages. */
  readonly what: string;
}

/** The registry forgot an upload, or counts other bytes: it begins again from POST (registry.md 1.4 point 7). */
export class SessionLost extends Error {
  override readonly name = 'SessionLost';
}

/** Half of a body that was too much: a power of two within the limits of a chunk. */
export function smallerChunk(bytes: number): number {
  const power = 2 ** Math.floor(Math.log2(Math.max(bytes / 2, 1)));
  return Math.min(Math.max(power, LIMITS.uploadChunkFloor), LIMITS.uploadChunk);
}

/**
 * Remembers that a body of `bytes` was too large for the way (413).
 * @returns the chunk to go on with; undefined when it cannot get smaller
 */
export function noteTooLarge(way: UploadWay, bytes: number): number | undefined {
  if (bytes <= LIMITS.uploadChunkFloor) return undefined;
  const smaller = smallerChunk(bytes);
  way.chunk = Math.min(way.chunk ?? smaller, smaller);
  return way.chunk;
}

interface Part {
  readonly start: number;
  /** Before this byte. */
  readonly end: number;
}

/** A chunked upload while it runs. */
interface Run {
  readonly wire: RegistryWire;
  readonly upload: ChunkedUpload;
  readonly broke: (at: number) => number | undefined;
  chunk: number;
}

/**
 * Sends all bytes of a blob by PATCH (distribution-spec, "Pushing a blob in chunks"; registry.md 1.4 point 4); the PUT
 * that ends the upload is the caller's. After a cut or a 416 the session is asked how far it is, and goes on from there.
 * A chunk that is refused as too large, or that breaks twice at one place, is halved.
 * @throws SessionLost; what the source throws; AUTH_DENIED, REGISTRY_FAILED, NETWORK_FAILED, NETWORK_TIMEOUT
 */
export async function sendChunks(wire: RegistryWire, upload: ChunkedUpload): Promise<void> {
  const run: Run = { wire, upload, broke: countCuts(0), chunk: upload.chunk };
  const { size, session } = upload;
  for (let at = 0; at < size; ) {
    const end = Math.min(at + Math.max(run.chunk, session.minChunk), size);
    const part = { start: at, end };
    let answer: HttpResponse;
    try {
      answer = await patch(wire, upload, part);
    } catch (error) {
      throwIfAborted(wire.context.signal);
      if (!isNetworkError(error)) throw error;
      at = await afterCut(run, part, error);
      continue;
    }
    at = await afterAnswer(run, part, answer);
  }
}

function patch(wire: RegistryWire, upload: ChunkedUpload, part: Part): Promise<HttpResponse> {
  const { session, cursor } = upload;
  const request = {
    method: 'PATCH',
    url: session.url,
    repository: session.repository,
    headers: { 'content-range': `${part.start}-${part.end - 1}` },
    length: part.end - part.start,
    body: () => cursor.bytes(part.start, part.end),
  } as const;
  return sendBody(wire, request, { opened: 0, bytes: 0 });
}

/** From which byte it goes on after an answer. */
async function afterAnswer(run: Run, part: Part, answer: HttpResponse): Promise<number> {
  const { wire, upload } = run;
  const { status, headers } = answer;
  if (status === 201 || status === 202 || status === 204) {
    await answer.body.dump();
    moveSession(wire, upload.session, headers.location);
    const held = heldBytes(headers.range) ?? part.end;
    if (held <= part.start || held > part.end) throw new SessionLost(`the registry counts ${held} bytes`);
    return held;
  }
  if (status === 413) {
    await shrink(run, part, answer);
    return await held(run);
  }
  const again = retriedStatus(status) || status === 401 || status === 409;
  const cuts = again ? run.broke(part.start) : undefined;
  if (cuts === undefined) throw await wire.fail(answer, upload.what, 'destination');
  await answer.body.dump();
  const asked = retryAfterMs(headers['retry-after'], wire.context.now());
  const waitMs = asked ?? backoffMs(cuts, wire.context.random);
  await wait(run, { at: part.start, reason: `HTTP ${status}`, waitMs });
  return await held(run);
}

/** From which byte it goes on after the wire broke. */
async function afterCut(run: Run, part: Part, error: unknown): Promise<number> {
  const cuts = run.broke(part.start);
  if (cuts === undefined) throw error;
  const waitMs = backoffMs(cuts, run.wire.context.random);
  await wait(run, { at: part.start, reason: reasonOf(error), waitMs });
  const at = await held(run);
  if (at === part.start && cuts > 1) run.chunk = smallerChunk(part.end - part.start);
  return at;
}

async function wait(
  run: Run,
  why: { readonly at: number; readonly reason: string; readonly waitMs: number },
): Promise<void> {
  const { context } = run.wire;
  const { at, reason, waitMs } = why;
  context.emit({
    type: 'retry',
    what: `${run.upload.what} at byte ${at}`,
    reason,
    waitMs: Math.round(waitMs),
  });
  await sleep(waitMs, context.signal);
}

/** Bytes that the session holds. @throws SessionLost */
async function held(run: Run): Promise<number> {
  const bytes = await askHeldBytes(run.wire, run.upload.session);
  if (bytes === undefined || bytes > run.upload.size) throw new SessionLost('the session is gone');
  return bytes;
}

/** Goes on with a smaller chunk. @throws when nothing smaller is allowed */
async function shrink(run: Run, part: Part, answer: HttpResponse): Promise<void> {
  const { wire, upload } = run;
  const bytes = part.end - part.start;
  const { minChunk } = upload.session;
  const smaller = noteTooLarge(upload.way, bytes);
  if (smaller === undefined) throw await wire.fail(answer, upload.what, 'destination');
  await answer.body.dump();
  if (minChunk >= bytes) {
    throw new SealiftError(
      'REGISTRY_FAILED',
      `${wire.host}: ${upload.what}: the registry wants chunks of at least ${minChunk} bytes, and ${bytes} bytes are refused as too many (HTTP 413)`,
      {
        hint: 'a proxy limits the size of uploads: raise it (nginx: client_max_body_size 0)',
        details: { status: 413 },
        side: 'destination',
      },
    );
  }
  run.chunk = smaller;
}
