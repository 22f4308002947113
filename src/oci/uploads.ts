import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS, MIB } from '../core/limits.ts';
import { backoffMs, type HttpResponse } from '../io/http.ts';
import { isNetworkError, reasonOf } from '../io/network-errors.ts';
import { sleep, throwIfAborted } from '../io/pool.ts';
import { retryAfterMs } from '../io/rate-limit.ts';
import { retriedStatus } from './answers.ts';
import { noteTooLarge, SessionLost, sendChunks, smallerChunk, type UploadWay } from './chunks.ts';
import { BlobCursor, type Sent, sendBody, type Upload } from './upload-body.ts';
import { cancelStray, cancelUpload, startUpload, type UploadSession } from './upload-session.ts';
import type { RegistryWire } from './wire.ts';

export type { Upload } from './upload-body.ts';

/** Refusals that say that other bytes arrived than were sent: once more from the start. */
const WRONG_BYTES = new Set(['DIGEST_INVALID', 'BLOB_UPLOAD_INVALID', 'SIZE_INVALID']);

/** One blob on its way, over all its tries. */
interface Job {
  readonly wire: RegistryWire;
  readonly way: UploadWay;
  readonly upload: Upload;
  readonly what: string;
  /** Bytes that were gone when whole uploads broke, in order. */
  readonly cuts: number[];
  /** Chunk size for this blob only, after its whole uploads broke. */
  chunk: number | undefined;
  wrongBytes: number;
  /** The registry has it from somebody else. */
  isOthers: boolean;
}

/** Why one session did not end well, when another may. */
interface Failure {
  readonly error: unknown;
  readonly reason: string;
  /** The session may still be there, and a request more does no harm. */
  readonly cancel: boolean;
  /** How long the registry wants us to wait. */
  readonly waitMs?: number;
  /** Goes on at once in another way (smaller parts), and does not count as a try. */
  readonly free?: boolean;
}

/** Uploads to one registry; remembers what the way there lets through. */
export interface Uploader {
  /**
   * Uploads a blob: POST, then one PUT with the digest. Where a registry or a proxy refuses so much at once (413, or two
   * breaks of a large one), it goes in chunks by PATCH, and later blobs to this host start so. A session that broke is
   * cancelled and the whole starts over from POST (registry.md 1.4 points 3, 4 and 7, A6). An upload that is refused because
   * somebody else sent the blob, or is taken and committed later, is waited for (2.8).
   * @returns whether it is these bytes that the registry took; false: others were faster
   * @throws what `open`'s stream throws (a bad source), AUTH_DENIED, REGISTRY_FAILED, NETWORK_FAILED
   */
  write(upload: Upload): Promise<boolean>;
}

/** Makes the uploader of a registry. */
export function createUploader(wire: RegistryWire): Uploader {
  const way: UploadWay = { chunk: undefined };
  return { write: (upload) => writeBlob(wire, way, upload) };
}

async function writeBlob(wire: RegistryWire, way: UploadWay, upload: Upload): Promise<boolean> {
  const { context } = wire;
  const what = `${upload.repository} blob ${upload.descriptor.digest}`;
  const job: Job = { wire, way, upload, what, cuts: [], chunk: undefined, wrongBytes: 0, isOthers: false };
  for (let attempt = 1; ; ) {
    const session = await startUpload(wire, upload.repository, what);
    let failure: Failure | undefined;
    try {
      failure = await trySession(job, session);
    } catch (error) {
      if (!context.signal.aborted) await cancelUpload(wire, session);
      throw error;
    }
    if (failure === undefined) return !job.isOthers;
    if (failure.cancel) await cancelUpload(wire, session);
    if (failure.free === true) continue;
    if (attempt >= LIMITS.tries) throw failure.error;
    const waitMs = failure.waitMs ?? backoffMs(attempt, context.random);
    context.emit({ type: 'retry', what, reason: failure.reason, waitMs: Math.round(waitMs) });
    await sleep(waitMs, context.signal);
    attempt += 1;
  }
}

/** One session from its first byte to its end. @returns undefined when the blob is there. @throws what cannot be cured */
async function trySession(job: Job, session: UploadSession): Promise<Failure | undefined> {
  const { size } = job.upload.descriptor;
  const chunk = Math.max(Math.min(job.chunk ?? size, job.way.chunk ?? size), session.minChunk);
  return size > chunk ? inChunks(job, session, chunk) : inOne(job, session);
}

function endUrl(job: Job, session: UploadSession): URL {
  const url = new URL(session.url);
  url.searchParams.set('digest', job.upload.descriptor.digest);
  return url;
}

async function inOne(job: Job, session: UploadSession): Promise<Failure | undefined> {
  const { wire, upload } = job;
  const { repository, open, descriptor } = upload;
  const sent: Sent = { opened: 0, bytes: 0 };
  let answer: HttpResponse;
  try {
    answer = await sendBody(
      wire,
      { method: 'PUT', url: endUrl(job, session), repository, length: descriptor.size, body: open },
      sent,
    );
  } catch (error) {
    throwIfAborted(wire.context.signal);
    if (!isNetworkError(error)) throw error;
    if (sent.bytes === descriptor.size && (await isThere(job))) return undefined;
    noteCut(job, sent.bytes);
    return { error, reason: reasonOf(error), cancel: true };
  }
  if (answer.status === 413) {
    const smaller = noteTooLarge(job.way, descriptor.size);
    const error = await wire.fail(answer, job.what, 'destination');
    // A registry that wants larger chunks than are let through cannot be helped.
    if (smaller === undefined || session.minChunk >= descriptor.size) throw error;
    return { error, reason: 'HTTP 413', cancel: true, free: true };
  }
  return ended(job, answer, { resent: sent.opened > 1 });
}

async function inChunks(job: Job, session: UploadSession, chunk: number): Promise<Failure | undefined> {
  const { wire, upload, what, way } = job;
  const cursor = new BlobCursor(upload);
  try {
    await sendChunks(wire, { session, cursor, size: upload.descriptor.size, way, chunk, what });
    const answer = await wire.send(
      { method: 'PUT', url: endUrl(job, session), contentLength: 0, body: new Uint8Array() },
      { repository: upload.repository, access: 'push' },
    );
    if (answer.status === 404 && (await isThere(job))) {
      // The answer to an earlier try of this PUT was lost.
      await answer.body.dump();
      return undefined;
    }
    const failure = await ended(job, answer, { resent: false });
    if (failure === undefined && job.chunk !== undefined && sameCuts(job.cuts)) way.chunk ??= job.chunk;
    return failure;
  } catch (error) {
    throwIfAborted(wire.context.signal);
    if (!(error instanceof SessionLost)) throw error;
    const lost = new SealiftError('REGISTRY_FAILED', `${wire.host}: ${what}: ${error.message}`, {
      hint: 'the registry forgets uploads while they run; run the same command again',
      side: 'destination',
    });
    return { error: lost, reason: error.message, cancel: false };
  } finally {
    await cursor.close();
  }
}

/** What the answer to the last PUT means. */
async function ended(
  job: Job,
  answer: HttpResponse,
  about: { readonly resent: boolean },
): Promise<Failure | undefined> {
  const { status, headers } = answer;
  if (status === 201 || status === 204) {
    await answer.body.dump();
    refuseOther(job, headers['docker-content-digest']);
    return undefined;
  }
  const error = await job.wire.fail(answer, job.what, 'destination');
  const { serverCode: code, policy } = error.details ?? {};
  if (status === 202 && (await appears(job, LIMITS.tries))) return undefined;
  // Nexus takes a blob once, and while it takes it refuses all others that bring it (nexus-public #967).
  const mayBeThere = status === 400 && code === 'BLOB_UPLOAD_INVALID' && policy !== 'read-only';
  if (mayBeThere && (await appears(job, policy === 'once' ? LIMITS.tries : 1))) {
    job.isOthers = true;
    return undefined;
  }
  const wrong = status === 400 && typeof code === 'string' && WRONG_BYTES.has(code);
  if (wrong) job.wrongBytes += 1;
  // A token that ran out in the middle, and what a half-filled session makes of the second sending (A6).
  const again = retriedStatus(status) || status === 401 || (wrong && (about.resent || job.wrongBytes < 2));
  if (!again || (policy === 'read-only' && status === 400)) throw error;
  const waitMs = retryAfterMs(headers['retry-after'], job.wire.context.now());
  const reason = `HTTP ${status}`;
  return {
    error,
    reason,
    cancel: status !== 404 && status !== 429,
    ...(waitMs === undefined ? {} : { waitMs }),
  };
}

/** A registry must refuse bytes that are not the digest's; one that stores them under another tells so here. */
function refuseOther({ wire, what, upload }: Job, stored: string | undefined): void {
  if (stored === undefined || !stored.startsWith('sha256:') || stored === upload.descriptor.digest) return;
  throw new SealiftError('REGISTRY_FAILED', `${wire.host}: ${what} was stored as ${stored.slice(0, 90)}`, {
    hint: 'bytes changed on the way or in the registry; run the same command again',
    details: { stored: stored.slice(0, 90) },
    side: 'destination',
  });
}

/** Whether the registry has the blob: it may have, when only its answer to the last byte was lost. */
async function isThere(job: Job): Promise<boolean> {
  const { wire, upload } = job;
  const { repository, descriptor } = upload;
  const url = wire.url(`/v2/${repository}/blobs/${descriptor.digest}`);
  try {
    const answer = await wire.send({ method: 'HEAD', url, tries: 1 }, { repository, access: 'pull' });
    await answer.body.dump();
    return answer.status === 200;
  } catch {
    throwIfAborted(wire.context.signal);
    return false;
  }
}

/** Waits for a blob that the registry is about to have. @param asks questions, at least one */
async function appears(job: Job, asks: number): Promise<boolean> {
  const { wire, what } = job;
  for (let ask = 1; ; ask += 1) {
    if (await isThere(job)) return true;
    if (ask >= asks) return false;
    const waitMs = backoffMs(ask, wire.context.random);
    wire.context.emit({ type: 'retry', what, reason: 'not there yet', waitMs: Math.round(waitMs) });
    await sleep(waitMs, wire.context.signal);
  }
}

/** What a socket may have taken that nobody received. */
const IN_SOCKETS = 8 * MIB;

/** Two breaks at about one byte speak of a limit in between, not of a bad moment. */
function sameCuts(cuts: readonly number[]): boolean {
  const [a = 0, b = 0] = cuts.slice(-2);
  return Math.abs(a - b) <= Math.max(IN_SOCKETS, a / 10);
}

/** After the second break of a large blob it goes in chunks, which keep what arrived. */
function noteCut(job: Job, bytes: number): void {
  job.cuts.push(bytes);
  const [a = 0, b = 0] = job.cuts.slice(-2);
  if (job.upload.descriptor.size > MIB && a > 0 && b > 0) job.chunk = smallerChunk(Math.min(a, b));
}

/**
 * Asks the registry to link a blob from another of its repositories (distribution-spec "Mounting a blob").
 * @returns true when it did; false when it opened an upload instead or refused, also when it refused the login: an
 *   ordinary upload needs no right on the other repository
 */
export async function mountBlob(
  wire: RegistryWire,
  mount: { readonly repository: string; readonly digest: Digest; readonly from: string },
): Promise<boolean> {
  const { repository, digest, from } = mount;
  const url = wire.url(`/v2/${repository}/blobs/uploads/`);
  url.searchParams.set('mount', digest);
  url.searchParams.set('from', from);
  let response: HttpResponse;
  try {
    response = await wire.send(
      { method: 'POST', url, contentLength: 0, body: new Uint8Array(), tries: 2 },
      { repository, access: 'push', mountFrom: from },
    );
  } catch (error) {
    if (error instanceof SealiftError && error.code.startsWith('AUTH_')) return false;
    throw error;
  }
  await response.body.dump();
  if (response.status === 201) return true;
  const { location } = response.headers;
  if (response.status === 202 && location !== undefined) await cancelStray(wire, repository, location);
  return false;
}
