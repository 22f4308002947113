import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { throwIfAborted } from '../io/pool.ts';
import { withoutQuery } from '../io/redirect.ts';
import type { RegistryWire } from './wire.ts';

/** An upload that a registry opened. */
export interface UploadSession {
  readonly repository: string;
  /** Where the next request goes; every answer may move it (distribution-spec, "Pushing a blob in chunks"). */
  url: URL;
  /** Fewest bytes of every chunk but the last, as the registry says (`OCI-Chunk-Min-Length`); 0 when it does not. */
  readonly minChunk: number;
}

/**
 * The URL that a `Location` means. What a proxy in between got wrong is put right: the scheme of the same host, and a
 * port that it dropped (registry.md 1.4 point 3). A wrong scheme is warned about, once.
 * @throws REGISTRY_ANSWER_INVALID for what is no http(s) address, and for plain http on another host
 */
function uploadUrl(location: string, base: URL, wire: RegistryWire): URL {
  const invalid = (why: string): SealiftError =>
    new SealiftError(
      'REGISTRY_ANSWER_INVALID',
      `${wire.host}: upload location "${withoutQuery(location)}" ${why}`,
      { hint: 'the registry or a proxy before it is set up wrongly; ask its owner', side: 'destination' },
    );
  if (!URL.canParse(location, base.href)) throw invalid('is not a URL');
  const url = new URL(location, base);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw invalid('is not http or https');
  if (url.hostname === base.hostname && url.protocol !== base.protocol) {
    wire.warn(
      `its upload addresses say ${url.protocol}// although it is reached by ${base.protocol}//; corrected`,
    );
  }
  if (url.hostname === base.hostname && (url.protocol !== base.protocol || url.port === '')) {
    url.protocol = base.protocol;
    url.port = base.port;
  }
  if (base.protocol === 'https:' && url.protocol === 'http:') throw invalid('is plain http on another host');
  return url;
}

/** Moves a session to where an answer says; without a Location it stays. */
export function moveSession(wire: RegistryWire, session: UploadSession, location: string | undefined): void {
  if (location !== undefined) session.url = uploadUrl(location, session.url, wire);
}

/** Answers of places that take no uploads at all. */
const NO_UPLOADS = new Set([400, 404, 405, 501]);

/** A refusal of the first request of an upload, which is about the place, not about the blob. */
function notTaken(error: SealiftError): SealiftError {
  const { status, policy } = error.details ?? {};
  if (typeof status !== 'number' || !NO_UPLOADS.has(status) || policy !== undefined) return error;
  return new SealiftError('REGISTRY_FAILED', error.message, {
    hint: 'nothing can be uploaded there: with Nexus give the address of a hosted repository, because a proxy and a group take no uploads; elsewhere the project or the path may not exist, or be read-only',
    cause: error,
    ...(error.details === undefined ? {} : { details: error.details }),
    side: 'destination',
  });
}

/**
 * Opens an upload session.
 * @throws AUTH_REQUIRED, AUTH_DENIED, REGISTRY_FAILED, REGISTRY_ANSWER_INVALID, NETWORK_FAILED
 */
export async function startUpload(
  wire: RegistryWire,
  repository: string,
  what: string,
): Promise<UploadSession> {
  const url = wire.url(`/v2/${repository}/blobs/uploads/`);
  const started = await wire.send(
    { method: 'POST', url, contentLength: 0, body: new Uint8Array() },
    { repository, access: 'push' },
  );
  if (started.status !== 202) throw notTaken(await wire.fail(started, what, 'destination'));
  await started.body.dump();
  const { location } = started.headers;
  const stated = Number(started.headers['oci-chunk-min-length'] ?? 0);
  const minChunk = Number.isSafeInteger(stated) && stated > 0 ? Math.min(stated, LIMITS.uploadMinChunk) : 0;
  if (location !== undefined) return { repository, url: uploadUrl(location, url, wire), minChunk };
  throw new SealiftError('REGISTRY_ANSWER_INVALID', `${wire.host}: ${what}: an upload without Location`, {
    hint: 'the registry or a proxy before it is set up wrongly; ask its owner',
    side: 'destination',
  });
}

/** Bytes that a session holds by the `Range` of an answer, `0-<end>`. Empty sessions say `0-0`, as distribution does. */
export function heldBytes(range: string | undefined): number | undefined {
  const end = /^(?:bytes=)?0-(\d{1,15})$/.exec(range ?? '')?.[1];
  if (end === undefined) return undefined;
  return end === '0' ? 0 : Number(end) + 1;
}

/**
 * Asks a session how many bytes it holds, after a cut.
 * @returns undefined when the registry no longer knows it, or does not tell
 */
export async function askHeldBytes(wire: RegistryWire, session: UploadSession): Promise<number | undefined> {
  const { repository, url } = session;
  const answer = await wire.send({ method: 'GET', url }, { repository, access: 'push' });
  await answer.body.dump();
  if (answer.status !== 204 && answer.status !== 200) return undefined;
  moveSession(wire, session, answer.headers.location);
  return heldBytes(answer.headers.range);
}

/** Gives a session up. A courtesy: some registries want the delete scope for it (registry.md A4), so nothing here is a failure. */
export async function cancelUpload(wire: RegistryWire, session: UploadSession): Promise<void> {
  const { repository, url } = session;
  try {
    const signal = AbortSignal.timeout(LIMITS.courtesyMs);
    const gone = await wire.send({ method: 'DELETE', url, tries: 1, signal }, { repository, access: 'push' });
    await gone.body.dump();
  } catch {
    throwIfAborted(wire.context.signal);
  }
}

/** Gives up an upload that was opened instead of a mount. */
export async function cancelStray(wire: RegistryWire, repository: string, location: string): Promise<void> {
  const base = wire.url(`/v2/${repository}/blobs/uploads/`);
  let url: URL;
  try {
    url = uploadUrl(location, base, wire);
  } catch {
    return;
  }
  await cancelUpload(wire, { repository, url, minChunk: 0 });
}
