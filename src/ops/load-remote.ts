import { openRemote, type RemoteBundle, wholeOf } from '../bundle/remote.ts';
import { openRemoteFile, type RemoteFile } from '../bundle/remote-file.ts';
import { openStream } from '../bundle/stream-reader.ts';
import { errorOf, type Fault, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { HttpClient } from '../io/http.ts';
import type { ContentReader } from '../oci/content.ts';
import { missingBase } from './left-out.ts';
import { graphKeeper, type Source } from './load-source.ts';
import { judgeEnd } from './stream-trust.ts';
import { policyOf, refuseUntrusted, type TrustOptions } from './trust.ts';
import { readAll } from './verify-stream.ts';

/** Reads every byte once more, in order. */
async function checkWhole(
  file: RemoteFile,
  { head }: RemoteBundle,
  context: Context,
): Promise<{ readonly faults: readonly Fault[] }> {
  const source = wholeOf(file, context);
  try {
    const bundle = await openStream(source);
    if (bundle.lockDigest === head.lockDigest) return await readAll(bundle, { deep: true, context });
    throw new SealiftError('BUNDLE_CHECKSUM_MISMATCH', `${file.what}: changed while it was read`);
  } finally {
    source.close();
  }
}

/** What is wrong with one blob is wrong with the bundle: all other reads end with the same fault, also those that wait. */
function endingAll({ open }: ContentReader, stop: AbortController): ContentReader['open'] {
  let wrong: unknown;
  return async function* (descriptor, options) {
    try {
      yield* open(descriptor, options);
    } catch (error) {
      if (!isAbort(error)) {
        wrong ??= error;
        stop.abort();
      }
      throw wrong ?? error;
    }
  };
}

/**
 * Opens a bundle on a server to be loaded in place: each target fetches the blobs that it lacks, and only those. Its requests
 * are counted apart from those to the targets: where both are one host, an upload would hold the place that the bytes wait
 * for which it sends.
 * @throws as `openRemoteFile` and `openRemote`, and what is judged of its signature
 */
export async function remoteSource(
  address: string,
  options: TrustOptions,
  context: Context,
): Promise<Source> {
  const wrong = new AbortController();
  const linked: Context = { ...context, signal: AbortSignal.any([context.signal, wrong.signal]) };
  const http = new HttpClient(linked);
  try {
    const source = await openTrusted(address, options, { http, context: linked });
    return { ...source, open: endingAll(source, wrong) };
  } catch (error) {
    await http.close();
    throw error;
  }
}

async function openTrusted(
  address: string,
  options: TrustOptions,
  { http, context }: { readonly http: HttpClient; readonly context: Context },
): Promise<Source> {
  const policy = await policyOf(options, context);
  const file = await openRemoteFile(address, { http, context });
  const graphs = graphKeeper();
  const bundle = await openRemote(file, { signal: context.signal, tell: graphs.tell });
  const { what, end, head } = bundle;
  const { info, lock, lockDigest } = head;
  const { name, version } = lock;
  const facts = { name, version, lock: lockDigest };
  const trust = await judgeEnd(end, { what, facts, policy, file });
  refuseUntrusted(trust, what);
  if (end.faults.length > 0) throw errorOf(end.faults, `${what}: the bundle is damaged`);
  return {
    path: what,
    about: { format: 'bundle', ...facts, signedBy: trust.state === 'trusted' ? trust.keyId : null },
    items: graphs.items(lock),
    lock: { bundle: name, read: async () => head.lockBytes() },
    open: bundle.open,
    check: () => checkWhole(file, bundle, context),
    leftOut:
      info.base === null
        ? undefined
        : {
            isAbsent: (digest) => !bundle.has(digest),
            missing: (digests) =>
              missingBase({ info, medium: { path: what }, suppliers: [] }, digests, 'the target'),
          },
    close: () => http.close(),
  };
}
