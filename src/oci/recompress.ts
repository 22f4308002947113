import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { MEDIA } from '../core/media.ts';
import { gzipSteady, STEADY_GZIP } from '../io/gzip-steady.ts';
import { throwIfAborted } from '../io/pool.ts';
import { Spool, type SpoolOptions } from '../io/spool.ts';
import { collect, digestOf, digestStream, verified } from '../io/verify.ts';
import type { ImagePlace, ImageStore, StoredImage } from './image-store.ts';
import { parseManifest } from './manifest.ts';

/** Why an image of `docker save` has another digest than in its registry, and what made it; for the lock. */
export const RECOMPRESSED = `docker save keeps neither the manifest nor compressed layers; ${STEADY_GZIP}`;

type Place = { readonly position: number; readonly length: number } | { readonly bytes: Buffer };

interface Work {
  readonly store: ImageStore;
  readonly options: SpoolOptions;
  readonly places: Map<Digest, Place>;
  /** By the digest of the plain layer: several images share layers. */
  readonly layers: Map<Digest, Descriptor>;
  spool: Promise<Spool> | undefined;
}

/** A compressor's fault would be found only where the image runs, so what it wrote is read again. */
async function checkUnpacked(
  spool: Spool,
  place: { readonly position: number; readonly length: number },
  digest: Digest,
): Promise<void> {
  let found: Digest | undefined;
  await pipeline(spool.read(place), createGunzip(), async (plain: AsyncIterable<Uint8Array>) => {
    found = (await digestStream(plain)).digest;
  });
  if (found === digest) return;
  throw new SealiftError('INTERNAL', `${digest}: what was compressed is something else: ${found}`);
}

async function compress(work: Work, layer: Descriptor): Promise<Descriptor> {
  const known = work.layers.get(layer.digest);
  if (known !== undefined) return known;
  const { store, options, places } = work;
  const { signal } = options;
  work.spool ??= Spool.open(
    { what: store.name, purpose: `to compress layers of ${store.name} anew` },
    options,
  );
  const spool = await work.spool;
  const position = spool.size;
  const written = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of gzipSteady(store.open(layer, { signal }))) {
      await spool.write(chunk);
      yield chunk;
    }
  };
  const made = await digestStream(written());
  const place = { position, length: made.size };
  await checkUnpacked(spool, place, layer.digest);
  places.set(made.digest, place);
  const descriptor = { mediaType: `${MEDIA.ociLayer}+gzip`, digest: made.digest, size: made.size };
  work.layers.set(layer.digest, descriptor);
  return descriptor;
}

async function make(work: Work, { root }: StoredImage): Promise<Descriptor> {
  const { store, options, places } = work;
  const what = `${store.name}: ${root.digest}`;
  const bytes = await collect(store.open(root, options), { limit: LIMITS.manifest, what });
  const parsed = parseManifest(bytes, root);
  if (parsed.kind !== 'manifest' || parsed.config === undefined) {
    throw new SealiftError('ARCHIVE_INVALID', `${what}: no image`);
  }
  const { mediaType, digest, size } = parsed.config;
  const layers: Descriptor[] = [];
  for (const layer of parsed.layers) {
    throwIfAborted(options.signal);
    layers.push(layer.mediaType === MEDIA.ociLayer ? await compress(work, layer) : layer);
  }
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      config: { mediaType, digest, size },
      layers: layers.map((l) => ({ mediaType: l.mediaType, digest: l.digest, size: l.size })),
    }),
  );
  const made = { mediaType: MEDIA.ociManifest, digest: digestOf(manifest), size: manifest.length };
  places.set(made.digest, { bytes: manifest });
  return made;
}

/**
 * An archive whose images can be made anew with compressed layers. Those lie in a temporary file until `close`; one
 * image is made at a time.
 */
export function recompressing(store: ImageStore, options: SpoolOptions): ImagePlace {
  const work: Work = { store, options, places: new Map(), layers: new Map(), spool: undefined };
  const made = new Map<Digest, Promise<Descriptor>>();
  let last: Promise<unknown> = Promise.resolve();
  return {
    name: store.name,
    images: store.images,
    recompress(image) {
      const known = made.get(image.root.digest);
      if (known !== undefined) return known;
      const next = last.then(() => make(work, image));
      last = next.catch(() => undefined);
      made.set(image.root.digest, next);
      return next;
    },
    sizeOf: async (digest) => {
      const place = work.places.get(digest);
      if (place === undefined) return store.sizeOf(digest);
      return 'bytes' in place ? place.bytes.length : place.length;
    },
    async *open(descriptor, { signal, offset = 0 }) {
      const place = work.places.get(descriptor.digest);
      if (place === undefined) yield* store.open(descriptor, { signal, offset });
      else if ('bytes' in place) yield place.bytes.subarray(offset);
      else {
        const { digest, size } = descriptor;
        const spool = await work.spool;
        if (spool === undefined) throw new SealiftError('INTERNAL', `${digest}: nothing was made`);
        const bytes = spool.read({ position: place.position + offset, length: place.length - offset });
        yield* offset > 0 ? bytes : verified(bytes, { digest, size, what: `${store.name}: ${digest}` });
      }
    },
    async close() {
      await last;
      const spool = await work.spool?.catch(() => undefined);
      await Promise.all([spool?.close(), store.close()]);
    },
  };
}
