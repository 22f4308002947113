import type { Digest } from '../core/digest.ts';
import { isAbort, SealiftError } from '../core/errors.ts';
import { KIB, MIB } from '../core/limits.ts';
import { ByteSource } from '../io/byte-source.ts';
import { tarHeaderLength } from '../io/tar.ts';
import { verified } from '../io/verify.ts';
import type { ContentReader } from '../oci/content.ts';
import type { BundleInfo } from './documents.ts';
import { blobName, type FoundEntry } from './entries.ts';
import { PUT_AGAIN } from './hints.ts';
import { B3SUMS } from './names.ts';
import { asBundleFault, interruptible, type TellArtifact } from './reader.ts';
import type { RemoteFile } from './remote-file.ts';
import { readEnd, type StreamEnd } from './stream-end.ts';
import { openStream, type StreamedBundle } from './stream-reader.ts';
import { StreamTar } from './stream-tar.ts';

/** A bundle in a file on a server: its documents, its manifests and its end were read; each blob is asked for by itself. */
export interface RemoteBundle extends ContentReader {
  readonly what: string;
  /** What came of it; nothing more of this stream can be read. */
  readonly head: StreamedBundle;
  readonly end: StreamEnd;
  has(digest: Digest): boolean;
}

/** The first part that is asked for; each one after it is twice as long, up to the last. Bytes. */
const FIRST_PART = 256 * KIB;
const LARGEST_PART = 8 * MIB;

const VOLUME =
  'this is a volume, and volumes are not read from a server: join them there with `cat`, or copy them';

interface Reading {
  readonly signal: AbortSignal;
}

/** All of a file in order, over one connection. */
export function wholeOf(file: RemoteFile, { signal }: Reading): ByteSource {
  return sourceOf(file, file.bytes(0), { position: 0, signal });
}

function sourceOf(
  { what }: RemoteFile,
  bytes: AsyncIterable<Buffer>,
  about: { readonly position: number; readonly signal: AbortSignal },
): ByteSource {
  const iterator = bytes[Symbol.asyncIterator]();
  const input = { [Symbol.asyncIterator]: () => iterator };
  const close = (): void => void iterator.return?.().catch(() => {});
  return new ByteSource(input, { ...about, what, again: PUT_AGAIN, close });
}

/** The beginning of a file in parts that are not much longer than what is read of it. */
async function* beginning(file: RemoteFile): AsyncGenerator<Buffer> {
  for (let at = 0, length = FIRST_PART; at < file.size; length = Math.min(2 * length, LARGEST_PART)) {
    const end = Math.min(at + length, file.size);
    yield* file.bytes(at, end);
    at = end;
  }
}

async function readHead(
  file: RemoteFile,
  { signal, tell }: Reading & { readonly tell?: TellArtifact },
): Promise<StreamedBundle> {
  const source = sourceOf(file, beginning(file), { position: 0, signal });
  try {
    return await openStream(source, tell === undefined ? {} : { tell });
  } finally {
    source.close();
  }
}

/** B3SUMS, the signature and the end of the archive; what came before is compared with that list. */
async function readTail(file: RemoteFile, head: StreamedBundle, { signal }: Reading): Promise<StreamEnd> {
  const { entries } = head.plan;
  const sums = entries.find(B3SUMS);
  if (sums === undefined) throw new SealiftError('INTERNAL', 'a plan without B3SUMS');
  const position = sums.offset - tarHeaderLength(sums.size);
  const source = sourceOf(file, file.bytes(position), { position, signal });
  try {
    return await readEnd(new StreamTar(source), { entries, hashes: head.hashes, isPartial: true });
  } finally {
    source.close();
  }
}

/** What keeps a bundle from being read is no fault of whoever wants a blob of it. */
async function* asUnreachable(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* bytes;
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    const { message, hint, details } = error;
    throw new SealiftError('BUNDLE_UNREACHABLE', message, {
      side: 'source',
      cause: error,
      ...(hint === undefined ? {} : { hint }),
      ...(details === undefined ? {} : { details }),
    });
  }
}

function blobOf(head: StreamedBundle, digest: Digest): FoundEntry {
  const entry = head.plan.entries.findBlob(digest);
  if (entry !== undefined) return entry;
  throw new SealiftError('BUNDLE_ENTRY_MISSING', `${head.what}: no ${blobName(digest)}`, { side: 'source' });
}

/** What cannot hold a bundle of this length is told before it is read. @throws BUNDLE_TRUNCATED */
export function refuseShort({ what, size }: RemoteFile, info: Pick<BundleInfo, 'size'>): void {
  if (size >= info.size) return;
  throw new SealiftError('BUNDLE_TRUNCATED', `${what}: has ${size} of ${info.size} bytes`, {
    hint: /\.\d{3,6}$/.test(what) ? VOLUME : PUT_AGAIN,
    details: { expected: info.size, found: size },
    side: 'source',
  });
}

/**
 * Opens a bundle on a server and reads what is not the content of its blobs, which is checked as in a stream; where each
 * blob lies follows from that, and its bytes are verified by its digest when they are read.
 * @throws as `openStream` and `RemoteFile.bytes`
 */
export async function openRemote(
  file: RemoteFile,
  options: Reading & { readonly tell?: TellArtifact },
): Promise<RemoteBundle> {
  const head = await readHead(file, options);
  const { info, plan, manifests } = head;
  const { what } = file;
  refuseShort(file, info);
  const end = await readTail(file, head, options);
  return {
    what,
    head,
    end,
    has: (digest) => plan.entries.indexOfBlob(digest) >= 0,
    open(descriptor, { signal, offset = 0 }) {
      const kept = manifests.read(descriptor.digest);
      if (kept !== undefined) return once(kept.subarray(offset));
      const entry = blobOf(head, descriptor.digest);
      const range = file.bytes(entry.offset + offset, entry.offset + entry.size);
      const bytes = interruptible(asUnreachable(range), signal);
      const wanted = { ...descriptor, what: `${what}: ${entry.name}` };
      return asBundleFault(offset > 0 ? bytes : verified(bytes, wanted), entry);
    },
  };
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
