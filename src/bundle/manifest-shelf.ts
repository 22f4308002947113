import { deflateRawSync, inflateRawSync } from 'node:zlib';
import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS, MIB } from '../core/limits.ts';
import { NumberList } from '../core/number-list.ts';

/** Manifests lie together in pieces of memory of this size, or of their own where they are larger. */
const SLAB = MIB / 4;

/** Words that nearly every manifest has: each is compressed against them. */
const WORDS = Buffer.from(
  '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:","size":},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:","size":},{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:"}],"annotations":{"org.opencontainers.image.',
);

/**
 * Keeps manifests in memory, compressed, until everything else of a stream has come: nothing is written to a disk for
 * them. Their bytes must be verified before.
 */
export class ManifestShelf {
  readonly #digests = new DigestTable();
  readonly #slabs: Buffer[] = [];
  #filled = SLAB;
  #held = 0;
  /** Of each digest: its slab, and where in it its bytes begin and end. */
  readonly #places = new NumberList('int32');

  /** @throws CONTENT_TOO_LARGE when all together are more than LIMITS.streamedManifests */
  add(digest: Digest, bytes: Uint8Array): void {
    const packed = deflateRawSync(bytes, { dictionary: WORDS });
    this.#held += packed.length;
    if (this.#held > LIMITS.streamedManifests) {
      throw new SealiftError(
        'CONTENT_TOO_LARGE',
        `the manifests of this stream are more than ${LIMITS.streamedManifests} bytes, compressed`,
        {
          hint: 'copy the bundle to a file first: from there they are read when they are needed',
          side: 'source',
        },
      );
    }
    if (this.#filled + packed.length > (this.#slabs.at(-1)?.length ?? 0)) {
      this.#slabs.push(Buffer.allocUnsafeSlow(Math.max(SLAB, packed.length)));
      this.#filled = 0;
    }
    this.#slabs.at(-1)?.set(packed, this.#filled);
    this.#digests.add(digest);
    for (const number of [this.#slabs.length - 1, this.#filled, this.#filled + packed.length]) {
      this.#places.push(number);
    }
    this.#filled += packed.length;
  }

  /** How many there are. */
  get length(): number {
    return this.#digests.size;
  }

  /** The digest of the one that was put as so many, from 0. */
  at(index: number): Digest {
    return this.#digests.at(index);
  }

  /** The bytes of a manifest; undefined where it was never put. */
  read(digest: Digest): Buffer | undefined {
    const at = 3 * this.#digests.indexOf(digest);
    if (at < 0) return undefined;
    const slab = this.#slabs[this.#places.at(at)];
    const packed = slab?.subarray(this.#places.at(at + 1), this.#places.at(at + 2));
    return packed === undefined
      ? undefined
      : inflateRawSync(packed, { dictionary: WORDS, maxOutputLength: LIMITS.manifest });
  }
}
