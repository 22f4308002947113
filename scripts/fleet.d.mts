/** Types of fleet.mjs, which is plain JavaScript so that the demonstration runs without a build. */

/**
 * What an image is like: an OCI index, a Docker manifest list, an OCI index with attestations (`unknown/unknown`), an
 * index whose second and later platforms stand in an index of their own, one manifest without an index (the first
 * platform), or an artifact with an empty config.
 */
export type FleetKind = 'oci' | 'docker' | 'attested' | 'nested' | 'single' | 'docker-single' | 'artifact';

export interface FleetOptions {
  /** How many. Default 3; 12 for `makeBigFleet`. */
  readonly images?: number;
  /** Default linux/amd64 and linux/arm64. */
  readonly platforms?: readonly string[];
  /** Compressed bytes, about, of the layers that each image has for itself, per platform. */
  readonly layerSizes?: readonly number[];
  /** How many different base layers the images share; 0 for none. Default 1; 3 for `makeBigFleet`. */
  readonly sharedBases?: number;
  /** Compressed bytes, about, of a base layer. */
  readonly baseSize?: number;
  /** Another seed gives other content. Default 1. */
  readonly seed?: number;
  /** Given to the images in turn. Default oci, docker. */
  readonly kinds?: readonly FleetKind[];
  /** Before each repository name. Default `fleet/`. */
  readonly prefix?: string;
  /**
   * Which delivery of the same product. From 2 on, every fourth image has another last layer and another tag, and all
   * else is as in the first. Default 1.
   */
  readonly delivery?: number;
}

export interface FleetManifest {
  readonly mediaType: string;
  readonly bytes: Buffer;
  readonly digest: `sha256:${string}`;
  /** `os/architecture[/variant]`; absent for an index and for an artifact. */
  readonly platform?: string;
}

export interface FleetBlob {
  readonly mediaType: string;
  /** Bytes. */
  readonly size: number;
  /** Makes the bytes again; they are not kept. */
  readonly bytes: () => Buffer;
}

export interface FleetImage {
  /** The repository, without a host. */
  readonly name: string;
  readonly tag: string;
  readonly kind: FleetKind;
  /** The root: an index, or the manifest itself where there is no index. */
  readonly index: FleetManifest;
  /** Everything below the root, children before parents. */
  readonly manifests: readonly FleetManifest[];
  /** Platform → digest of its manifest, without attestations. */
  readonly platforms: Readonly<Record<string, `sha256:${string}`>>;
  /** Configs and layers by digest. */
  readonly blobs: ReadonlyMap<`sha256:${string}`, FleetBlob>;
}

export interface Pushed {
  readonly blobsSent: number;
  readonly blobsPresent: number;
  readonly bytesSent: number;
}

/** Images one after another, each made when it is asked for. */
export function eachImage(options?: FleetOptions): Generator<FleetImage, void, undefined>;

/** A small fleet, all at once: by default 3 images of a few hundred KiB. */
export function makeFleet(options?: FleetOptions): FleetImage[];

/** By default 12 images for two platforms, more than 300 MB in all. Images are made while they are walked through. */
export function makeBigFleet(options?: FleetOptions): Generator<FleetImage, void, undefined>;

/**
 * Pushes an image over plain HTTP: blobs that are not there, manifests by digest, the root by its tag.
 * @throws Error with the status and the start of the answer
 */
export function pushImage(
  hostPort: string,
  image: FleetImage,
  options?: {
    /** Default: the image's name. */
    readonly repository?: string;
    /** Default: the image's tag. */
    readonly tag?: string;
    /** For every request, for example Authorization. */
    readonly headers?: Readonly<Record<string, string>>;
  },
): Promise<Pushed>;
