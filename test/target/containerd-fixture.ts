/** Small generated images, and a reader of their content that tells what was read and can go bad. */
import { createCipheriv, createHash } from 'node:crypto';
import type { Descriptor } from '../../src/core/descriptor.ts';
import type { Digest } from '../../src/core/digest.ts';
import type { Context, Event } from '../../src/core/events.ts';
import { MEDIA } from '../../src/core/media.ts';
import { formatPlatform, parsePlatform } from '../../src/core/platform.ts';
import { parseReference } from '../../src/core/reference.ts';
import { digestOf, verified } from '../../src/io/verify.ts';
import type { ContentReader } from '../../src/oci/content.ts';
import { collectGraph, isSparse } from '../../src/oci/graph.ts';
import type { ImageItem } from '../../src/target/target.ts';

/** Bytes that do not repeat, the same for the same seed. */
export function noise(seed: string, size: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

export interface Store {
  readonly blobs: Map<Digest, Buffer>;
  readonly reader: ContentReader;
  /** Every opening: digest and offset. */
  readonly opened: { readonly digest: Digest; readonly offset: number }[];
  add(bytes: Uint8Array, mediaType: string): Descriptor;
}

/**
 * A bundle in memory. Its reader gives chunks of 64 KiB and checks what is read from the start, as a bundle does.
 * @param options.before is awaited before every chunk, with the offset at which it starts
 */
export function createStore(
  options: { readonly before?: (digest: Digest, offset: number) => Promise<void> | void } = {},
): Store {
  const blobs = new Map<Digest, Buffer>();
  const opened: { digest: Digest; offset: number }[] = [];
  async function* chunks(descriptor: Descriptor, from: number): AsyncGenerator<Uint8Array> {
    const bytes = blobs.get(descriptor.digest) ?? Buffer.alloc(0);
    for (let at = from; at < bytes.length; at += 65_536) {
      await options.before?.(descriptor.digest, at);
      yield bytes.subarray(at, at + 65_536);
    }
  }
  return {
    blobs,
    opened,
    add(bytes, mediaType) {
      const digest = digestOf(bytes);
      blobs.set(digest, Buffer.from(bytes));
      return { mediaType, digest, size: bytes.length };
    },
    reader: {
      open(descriptor, { offset = 0 }) {
        opened.push({ digest: descriptor.digest, offset });
        const { digest, size } = descriptor;
        const all = chunks(descriptor, offset);
        return offset === 0 ? verified(all, { digest, size, what: `blob ${digest}` }) : all;
      },
    },
  };
}

export interface ImageOptions {
  readonly platforms?: readonly string[];
  /** Of these only some are carried. Default: all. */
  readonly carried?: readonly string[];
  /** Seeds of the layers that every platform has; each platform adds its own. */
  readonly layers?: readonly string[];
  /** Bytes of each layer. */
  readonly layerSize?: number;
  /** A plain manifest instead of an index; for one platform. */
  readonly plain?: boolean;
}

/** An item, and the digest of each platform that is carried. */
export type MadeImage = ImageItem & { readonly platforms: Readonly<Record<string, string>> };

/** Adds an image to the store and gives the item that a load of it gets. */
export async function makeImage(store: Store, ref: string, options: ImageOptions = {}): Promise<MadeImage> {
  const { platforms = ['linux/amd64', 'linux/arm64'], layerSize = 5000 } = options;
  const carried = options.carried ?? platforms;
  const json = (value: unknown, mediaType: string): Descriptor =>
    store.add(Buffer.from(JSON.stringify(value)), mediaType);

  const manifests = platforms.map((platform) => {
    const { os, architecture, variant } = parsePlatform(platform);
    const layers = [...(options.layers ?? [ref]), `${ref} ${platform}`].map((seed) =>
      store.add(noise(seed, layerSize), 'application/vnd.oci.image.layer.v1.tar'),
    );
    const config = json(
      {
        os,
        architecture,
        ...(variant === undefined ? {} : { variant }),
        config: { Labels: { ref } },
        rootfs: { type: 'layers', diff_ids: layers.map((l) => l.digest) },
      },
      MEDIA.ociConfig,
    );
    const manifest = json(
      { schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers },
      MEDIA.ociManifest,
    );
    return { ...manifest, platform: parsePlatform(platform) };
  });
  const [first] = manifests;
  if (first === undefined) throw new Error('an image needs a platform');
  const root =
    options.plain === true
      ? { mediaType: first.mediaType, digest: first.digest, size: first.size }
      : json({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests }, MEDIA.ociIndex);

  const graph = await collectGraph(root, {
    read: async ({ digest }) => store.blobs.get(digest) ?? Buffer.alloc(0),
    keep: (child) => child.platform !== undefined && carried.includes(formatPlatform(child.platform)),
  });
  // What is not carried is not in the bundle either.
  for (const left of manifests) if (!graph.nodes.has(left.digest)) store.blobs.delete(left.digest);
  return {
    kind: 'image',
    name: ref,
    reference: parseReference(ref),
    graph,
    root,
    sparse: isSparse(graph),
    platforms: Object.fromEntries(
      manifests
        .filter((m) => carried.includes(formatPlatform(m.platform)))
        .map((m) => [formatPlatform(m.platform), m.digest]),
    ),
  };
}

export interface TestContext extends Context {
  readonly events: Event[];
  stop(): void;
}

/** A context whose clock stands and whose waits have no length. */
export function createContext(): TestContext {
  const controller = new AbortController();
  const events: Event[] = [];
  return {
    signal: controller.signal,
    emit: (event) => events.push(event),
    env: {},
    // A real containerd compares the end of a lease with its own clock.
    now: Date.now,
    random: () => 0,
    events,
    stop: () => controller.abort(),
  };
}
