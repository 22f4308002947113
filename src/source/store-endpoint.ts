import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { parseReference } from '../core/reference.ts';
import { collect } from '../io/verify.ts';
import type { ReadOptions } from '../oci/content.ts';
import { type ImagePlace, notThere, type StoredImage } from '../oci/image-store.ts';
import { manifestMediaType } from '../oci/manifest.ts';
import { RECOMPRESSED } from '../oci/recompress.ts';
import type { ManifestContent } from '../oci/registry.ts';
import type { Endpoint, Repository } from './endpoint.ts';

interface Named {
  readonly image: StoredImage;
  readonly tag: string | undefined;
}

/** The images of one repository, each once for each of its tags. */
function ofRepository(store: ImagePlace, of: Repository): Named[] {
  return store.images.flatMap((image) =>
    image.names.map(parseReference).flatMap((name) => {
      const isSame = name.host === of.host && name.repository === of.repository;
      return isSame ? [{ image, tag: name.tag }] : [];
    }),
  );
}

function show(of: Repository, reference: string): string {
  return `${of.host}/${of.repository}${isDigest(reference) ? '@' : ':'}${reference}`;
}

/** What a store has instead of a manifest that was asked for by digest. */
function insteadOf(store: ImagePlace, of: Repository, digest: Digest): SealiftError {
  const made = [
    ...new Set(ofRepository(store, of).flatMap(({ image }) => image.made ?? [])),
    ...new Set(
      ofRepository(store, of).flatMap(({ image }) => (image.made === undefined ? image.root.digest : [])),
    ),
  ];
  const hint = store.lacksHint === undefined ? {} : { hint: store.lacksHint };
  if (made.length === 0) return notThere(store.name, digest, hint);
  return new SealiftError(
    'CONTENT_NOT_FOUND',
    `${store.name}: no ${show(of, digest)}; it has ${made.slice(0, 3).join('; ')}`,
    { side: 'source', details: { digest, has: made }, ...hint },
  );
}

/** The image that a tag names. */
function tagged(store: ImagePlace, of: Repository, tag: string): StoredImage | undefined {
  const found = ofRepository(store, of).filter((n) => n.tag === tag);
  const roots = new Set(found.map((n) => n.image.root.digest));
  if (roots.size <= 1) return found[0]?.image;
  throw new SealiftError(
    'CONTENT_NOT_FOUND',
    `${store.name}: ${roots.size} images are called ${show(of, tag)}`,
    {
      hint: 'name the image by its digest',
      side: 'source',
    },
  );
}

function refuseMade(store: ImagePlace, image: StoredImage, what: string): void {
  if (image.made === undefined) return;
  throw new SealiftError(
    'CONTENT_NOT_FOUND',
    `${store.name}: has ${what} only as docker saved it, without its manifest (${image.made})`,
    {
      hint: 'docker save keeps no manifest and uncompresses layers, so the digest of the registry is lost: save it with `skopeo copy` into an oci-archive, or take it with `sealift lock --recompress`, under a digest of its own',
      side: 'source',
    },
  );
}

interface StoreOptions {
  /** Is called once, with the first question. */
  readonly open: () => Promise<ImagePlace>;
  readonly context: Context;
  /** Whether images of a repository that `docker save` wrote may be made anew. */
  readonly mayRecompress: (of: Repository) => boolean;
}

/**
 * Images of an archive or a containerd as an endpoint. Tags are found by full names only; content is found by its digest, whatever
 * repository it is asked of.
 */
export class StoreEndpoint implements Endpoint {
  readonly name: string;
  readonly isLocal = true;
  readonly #options: StoreOptions;
  #opened: Promise<ImagePlace> | undefined;
  /** Images that were made anew: what they were called, and are called now. */
  readonly #made = new Map<Digest, Digest>();

  constructor(name: string, options: StoreOptions) {
    this.name = name;
    this.#options = options;
  }

  #store(): Promise<ImagePlace> {
    this.#opened ??= this.#options.open();
    return this.#opened;
  }

  async #recompress(from: ImagePlace, image: StoredImage): Promise<Digest> {
    const known = this.#made.get(image.root.digest);
    if (known !== undefined || from.recompress === undefined) return known ?? image.root.digest;
    const message = `${this.name}: compresses the layers of ${image.said.slice(0, 3).join(', ')} anew, which takes a while`;
    this.#options.context.emit({ type: 'note', message });
    const { digest } = await from.recompress(image);
    this.#made.set(image.root.digest, digest);
    return digest;
  }

  /** The size of content; images of the repository are made anew until one has it. */
  async #sizeOf(from: ImagePlace, of: Repository, digest: Digest): Promise<number | undefined> {
    const known = await from.sizeOf(digest);
    if (known !== undefined || from.recompress === undefined || !this.#options.mayRecompress(of))
      return known;
    for (const { image } of ofRepository(from, of)) {
      if (image.made === undefined) continue;
      await this.#recompress(from, image);
      const size = await from.sizeOf(digest);
      if (size !== undefined) return size;
    }
    return undefined;
  }

  async #read(of: Repository, digest: Digest): Promise<ManifestContent> {
    const from = await this.#store();
    const size = await this.#sizeOf(from, of, digest);
    if (size === undefined) throw insteadOf(from, of, digest);
    const what = `${this.name}: ${digest}`;
    if (size > LIMITS.manifest) {
      throw new SealiftError('CONTENT_TOO_LARGE', `${what}: ${size} bytes are no manifest`, {
        side: 'source',
      });
    }
    const { signal } = this.#options.context;
    const stream = from.open({ mediaType: '', digest, size }, { signal });
    const bytes = await collect(stream, { limit: LIMITS.manifest, what });
    return {
      bytes,
      descriptor: { mediaType: manifestMediaType(bytes, undefined, what), digest, size },
      ...([...this.#made.values()].includes(digest) ? { recompressed: RECOMPRESSED } : {}),
    };
  }

  async resolve(of: Repository, reference: string): Promise<Digest | undefined> {
    const from = await this.#store();
    if (isDigest(reference)) return (await from.sizeOf(reference)) === undefined ? undefined : reference;
    const image = tagged(from, of, reference);
    if (image?.made !== undefined && from.recompress !== undefined && this.#options.mayRecompress(of)) {
      return this.#recompress(from, image);
    }
    if (image !== undefined) refuseMade(from, image, show(of, reference));
    return image?.root.digest;
  }

  async getManifest(of: Repository, reference: string): Promise<ManifestContent> {
    const digest = isDigest(reference) ? reference : await this.resolve(of, reference);
    if (digest !== undefined) return this.#read(of, digest);
    throw new SealiftError('CONTENT_NOT_FOUND', `${this.name}: no ${show(of, reference)}`, {
      side: 'source',
    });
  }

  async describe(of: Repository, tag: string): Promise<Descriptor | undefined> {
    const digest = await this.resolve(of, tag);
    return digest === undefined ? undefined : (await this.#read(of, digest)).descriptor;
  }

  /** Such a place keeps no list of what refers to what; the registry behind it is asked. */
  async referrers(): Promise<readonly Descriptor[]> {
    return [];
  }

  async listTags(of: Repository): Promise<string[]> {
    const tags = new Set(ofRepository(await this.#store(), of).flatMap(({ tag }) => tag ?? []));
    if (tags.size > 0) return [...tags];
    throw new SealiftError('CONTENT_NOT_FOUND', `${this.name}: no ${of.host}/${of.repository}`);
  }

  async *readBlob(
    of: Repository,
    descriptor: Descriptor,
    { signal, offset = 0 }: ReadOptions,
  ): AsyncGenerator<Uint8Array> {
    const from = await this.#store();
    await this.#sizeOf(from, of, descriptor.digest);
    yield* from.open(descriptor, { signal, offset });
  }

  async close(): Promise<void> {
    const from = await this.#opened?.catch(() => undefined);
    await from?.close();
  }
}
