import type { Descriptor } from '../../core/descriptor.ts';
import { type Digest, isDigest } from '../../core/digest.ts';
import { type ErrorCode, SealiftError } from '../../core/errors.ts';
import { verified } from '../../io/verify.ts';
import { fullName, type ImagePlace, notThere, type StoredImage } from '../image-store.ts';
import { ContainerdClient } from './client.ts';
import { statusOf } from './failure.ts';
import { STATUS } from './grpc.ts';
import { knock } from './socket.ts';
import type { ImageRecord } from './wire.ts';

/** The codes of a containerd that is loaded into, where it is read from. */
const AS_SOURCE: Readonly<Partial<Record<ErrorCode, ErrorCode>>> = {
  NETWORK_TIMEOUT: 'NETWORK_TIMEOUT',
  TARGET_FAILED: 'NETWORK_FAILED',
  TARGET_UNREACHABLE: 'NETWORK_FAILED',
};

function asSource(error: unknown): unknown {
  if (!(error instanceof SealiftError) || error.code === 'ABORTED') return error;
  const { code, message, hint, details } = error;
  return new SealiftError(AS_SOURCE[code] ?? code, message, {
    cause: error,
    side: 'source',
    ...(hint === undefined ? {} : { hint }),
    ...(details === undefined ? {} : { details }),
  });
}

async function source<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asSource(error);
  }
}

/** One image for each root, with all its names. CRI's own records (`sha256:<config>`) name nothing. */
function imagesOf(records: readonly ImageRecord[]): StoredImage[] {
  const images = new Map<Digest, StoredImage>();
  for (const { name: said, target } of records) {
    const { digest, mediaType, size } = target;
    if (!isDigest(digest)) continue;
    const name = said.startsWith('sha256:') ? undefined : fullName(said);
    const known = images.get(digest);
    images.set(digest, {
      root: { mediaType, digest, size },
      names: [...new Set([...(known?.names ?? []), ...(name === undefined ? [] : [name])])],
      said: [...(known?.said ?? []), said],
    });
  }
  return [...images.values()];
}

/** Passes at most `size` bytes: a server that sends more is stopped. */
async function* atMost(
  bytes: AsyncIterable<Uint8Array>,
  of: { readonly size: number; readonly what: string },
): AsyncGenerator<Uint8Array> {
  let left = of.size;
  for await (const chunk of bytes) {
    left -= chunk.length;
    if (left < 0) {
      throw new SealiftError('CONTENT_SIZE_MISMATCH', `${of.what}: more than the expected ${of.size} bytes`, {
        side: 'source',
      });
    }
    yield chunk;
  }
}

/**
 * The images of one namespace of a containerd, read over its socket: records by name, content by digest.
 * @param place.socket absolute path
 * @throws NETWORK_FAILED when it does not answer, CONTENT_NOT_FOUND when the namespace has no image
 */
export async function openContainerd(
  place: { readonly socket: string; readonly namespace: string },
  options: { readonly signal: AbortSignal },
): Promise<ImagePlace> {
  const { socket, namespace } = place;
  const { signal } = options;
  const name = `containerd ${socket} ${namespace}`;
  await source(() => knock(socket, signal));
  const client = new ContainerdClient(socket, namespace);
  const lacksHint = `containerd keeps only what its own platform needs, and with discard_unpacked_layers no layers at all: \`ctr -n ${namespace} content fetch --all-platforms IMAGE\` completes an image where it can be pulled`;
  try {
    const records = await source(() => client.listImages(signal));
    if (records.length === 0) {
      throw new SealiftError('CONTENT_NOT_FOUND', `${name}: no image is in this namespace`, {
        hint: `\`ctr -a ${socket} namespaces ls\` lists the namespaces; kubelet's is k8s.io, docker's moby`,
        side: 'source',
      });
    }
    return {
      name,
      images: imagesOf(records),
      lacksHint,
      sizeOf: async (digest) => (await source(() => client.info(digest, signal)))?.size,
      async *open(descriptor: Descriptor, { signal: stop, offset = 0 }) {
        const { digest, size } = descriptor;
        const what = `${name}: ${digest}`;
        const bytes = atMost(client.openRead(digest, { offset, signal: stop }), {
          size: size - offset,
          what,
        });
        try {
          yield* offset > 0 ? bytes : verified(bytes, { digest, size, what });
        } catch (error) {
          if (statusOf(error) === STATUS.NOT_FOUND) throw notThere(name, digest, { hint: lacksHint });
          throw asSource(error);
        }
      },
      close: async () => client.close(),
    };
  } catch (error) {
    client.close();
    throw error;
  }
}
