import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { backoffMs, type HttpResponse, retryAfterMs, withoutQuery } from '../io/http.ts';
import { isNetworkError } from '../io/network-errors.ts';
import { sleep, throwIfAborted } from '../io/pool.ts';
import { retriedStatus } from './answers.ts';
import type { RegistryWire } from './wire.ts';

/** The upload session's URL; a scheme that only a proxy got wrong is put right (registry.md 1.4 point 3). */
function uploadUrl(location: string, base: URL, host: string): URL {
  const invalid = (why: string): SealiftError =>
    new SealiftError(
      'REGISTRY_ANSWER_INVALID',
      `${host}: upload location "${withoutQuery(location)}" ${why}`,
      { side: 'destination' },
    );
  if (!URL.canParse(location, base.href)) throw invalid('is not a URL');
  const url = new URL(location, base);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw invalid('is not http or https');
  if (url.hostname === base.hostname && url.protocol !== base.protocol) {
    url.protocol = base.protocol;
    url.port = base.port;
  }
  if (base.protocol === 'https:' && url.protocol === 'http:') throw invalid('is plain http on another host');
  return url;
}

/** Opens an upload session. */
async function startUpload(wire: RegistryWire, repository: string, what: string): Promise<URL> {
  const url = wire.url(`/v2/${repository}/blobs/uploads/`);
  const started = await wire.send(
    { method: 'POST', url, contentLength: 0, body: new Uint8Array() },
    { repository, access: 'push' },
  );
  if (started.status !== 202) throw await wire.fail(started, what, 'destination');
  await started.body.dump();
  const { location } = started.headers;
  if (location !== undefined) return uploadUrl(location, url, wire.host);
  throw new SealiftError('REGISTRY_ANSWER_INVALID', `${wire.host}: ${what}: an upload without Location`, {
    side: 'destination',
  });
}

/** One blob to send. */
export interface Upload {
  readonly repository: string;
  readonly descriptor: Descriptor;
  /** The blob's bytes from the start; called again for every try. */
  readonly open: () => AsyncIterable<Uint8Array>;
}

function putBlob(wire: RegistryWire, session: URL, upload: Upload): Promise<HttpResponse> {
  const { repository, descriptor, open } = upload;
  const url = new URL(session);
  url.searchParams.set('digest', descriptor.digest);
  return wire.send(
    {
      method: 'PUT',
      url,
      headers: { 'content-type': 'application/octet-stream' },
      contentLength: descriptor.size,
      body: descriptor.size === 0 ? new Uint8Array() : open,
      tries: 1,
    },
    { repository, access: 'push' },
  );
}

/**
 * Uploads a blob in one PUT (POST, then PUT with the digest). A session that broke is not used again: the whole starts
 * over from POST (registry.md 1.4 point 7).
 * @throws what `open`'s stream throws (a bad source), AUTH_DENIED, REGISTRY_FAILED, NETWORK_FAILED
 */
export async function uploadBlob(wire: RegistryWire, upload: Upload): Promise<void> {
  const { context } = wire;
  const what = `${upload.repository} blob ${upload.descriptor.digest}`;
  for (let attempt = 1; ; attempt++) {
    const session = await startUpload(wire, upload.repository, what);
    let waitMs = backoffMs(attempt, context.random);
    let reason = 'the upload broke';
    try {
      const done = await putBlob(wire, session, upload);
      if (done.status === 201 || done.status === 204) {
        await done.body.dump();
        return;
      }
      const failure = await wire.fail(done, what, 'destination');
      if (!retriedStatus(done.status) || attempt >= LIMITS.tries) throw failure;
      waitMs = retryAfterMs(done.headers['retry-after'], context.now()) ?? waitMs;
      reason = `HTTP ${done.status}`;
    } catch (error) {
      throwIfAborted(context.signal);
      if (!isNetworkError(error) || attempt >= LIMITS.tries) throw error;
    }
    context.emit({ type: 'retry', what, reason, waitMs: Math.round(waitMs) });
    await sleep(waitMs, context.signal);
  }
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
  if (response.status === 202 && location !== undefined) await cancelUpload(wire, repository, location);
  return false;
}

async function cancelUpload(wire: RegistryWire, repository: string, location: string): Promise<void> {
  try {
    const url = uploadUrl(location, wire.url(`/v2/${repository}/blobs/uploads/`), wire.host);
    const gone = await wire.send({ method: 'DELETE', url, tries: 1 }, { repository, access: 'push' });
    await gone.body.dump();
  } catch {
    // Cancelling is a courtesy: some registries want the delete scope for it (registry.md A4).
    throwIfAborted(wire.context.signal);
  }
}
