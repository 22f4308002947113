import type { Readable } from 'node:stream';
import { openRemote } from '../bundle/remote.ts';
import { openRemoteFile, type RemoteFile } from '../bundle/remote-file.ts';
import type { StreamEnd } from '../bundle/stream-end.ts';
import { openStream, type StreamedBundle } from '../bundle/stream-reader.ts';
import { errorOf } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { artifactKeeper, type LsResult, lsBundle } from './ls.ts';
import { withHttp } from './session.ts';
import { pipeSource } from './stdin.ts';
import { judgeEnd } from './stream-trust.ts';

/** Lists a bundle that comes through a pipe; it is read to its end, where the signature stands. */
export async function lsPipe(
  input: Readable,
  { others, context }: { readonly others: readonly string[]; readonly context: Context },
): Promise<LsResult> {
  const source = pipeSource(input, { others, context });
  const { artifacts, tell } = artifactKeeper();
  try {
    const bundle = await openStream(source, { tell });
    await bundle.passBlobs(async () => {}, { sha256: () => false });
    const end = await bundle.end();
    if (end.faults.length > 0) throw errorOf(end.faults, `${source.what}: the bundle is damaged`);
    const signedBy = await signerOf(end, bundle);
    return lsBundle({ bundle, artifacts, path: source.what, size: source.position, signedBy });
  } finally {
    source.close();
  }
}

/** Lists a bundle on a server; nothing is fetched but its beginning and its end. */
export function lsRemote(address: string, context: Context): Promise<LsResult> {
  return withHttp(context, async (http) => {
    const { artifacts, tell } = artifactKeeper();
    const file = await openRemoteFile(address, { http, context });
    const { head, end } = await openRemote(file, { signal: context.signal, tell });
    if (end.faults.length > 0) throw errorOf(end.faults, `${file.what}: the bundle is damaged`);
    const signedBy = await signerOf(end, head, file);
    return lsBundle({ bundle: head, artifacts, path: file.what, size: file.size, signedBy });
  });
}

/** The key id that its signature names; nothing is checked. @param file where one may lie beside it */
async function signerOf(
  end: StreamEnd,
  { what, lock, lockDigest }: StreamedBundle,
  file?: RemoteFile,
): Promise<string | null> {
  const { name, version } = lock;
  const facts = { name, version, lock: lockDigest };
  const beside = file === undefined ? {} : { file };
  return (await judgeEnd(end, { what, facts, policy: undefined, ...beside })).keyId;
}
