import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import type { ReadOptions } from '../oci/content.ts';
import type { ManifestContent, Registry } from '../oci/registry.ts';

/** A repository on a source registry, before mirrors: `docker.io`, `library/nginx`. */
export interface Repository {
  readonly host: string;
  readonly repository: string;
}

/** A place that has content of a registry: the registry itself, a mirror, an archive. Content is verified. */
export interface Endpoint {
  /** For notes and messages. */
  readonly name: string;
  /** Read on this machine: a connection that breaks there says that something is gone. */
  readonly isLocal: boolean;
  /** @param reference a tag or a digest. @throws CONTENT_NOT_FOUND … as Registry.getManifest */
  getManifest(of: Repository, reference: string): Promise<ManifestContent>;
  /** The digest of a tag, or undefined when it has none. */
  resolve(of: Repository, reference: string): Promise<Digest | undefined>;
  /** What a tag points to, unverified; undefined when it has none. */
  describe(of: Repository, tag: string): Promise<Descriptor | undefined>;
  /** What it lists as referring to a manifest, unverified. */
  referrers(of: Repository, subject: Digest): Promise<readonly Descriptor[]>;
  listTags(of: Repository): Promise<string[]>;
  readBlob(of: Repository, descriptor: Descriptor, options: ReadOptions): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/** A registry as an endpoint. @param prefix path before every repository; '' for none */
export function registryEndpoint(registry: Registry, prefix: string): Endpoint {
  const place = ({ repository }: Repository): string =>
    prefix === '' ? repository : `${prefix}/${repository}`;
  return {
    name: registry.host,
    isLocal: false,
    getManifest: (of, reference) => registry.getManifest(place(of), reference),
    resolve: (of, reference) => registry.resolve(place(of), reference),
    describe: (of, tag) => registry.describe(place(of), tag),
    referrers: async (of, subject) => (await registry.referrers(place(of), subject)).list,
    listTags: (of) => registry.listTags(place(of)),
    readBlob: (of, descriptor, options) => registry.readBlob(place(of), descriptor, options),
    close: async () => {},
  };
}
