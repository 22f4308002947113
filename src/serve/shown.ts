import type { Digest } from '../core/digest.ts';
import type { Body, Span } from './answer.ts';
import type { Referrer } from './repository.ts';

/** Content of known size that a client may read. */
export interface ShownContent {
  /** Bytes. */
  readonly size: number;
  open(span: Span): Promise<Body>;
}

export interface ShownManifest extends ShownContent {
  readonly mediaType: string;
}

/** One repository as clients read it. */
export interface ShownRepository {
  /** As it stands in the path of the request. */
  readonly name: string;
  blob(digest: Digest): Promise<ShownContent | undefined>;
  manifest(digest: Digest): Promise<ShownManifest | undefined>;
  /** What a tag points to. */
  tag(tag: string): Promise<Digest | undefined>;
  /** All tags, sorted by code unit; undefined where there is no such repository. */
  tags(): Promise<readonly string[] | undefined>;
  /** The manifests that name `subject`, whether or not the subject itself is here. */
  referrers(subject: Digest): Promise<readonly Referrer[]>;
  /** Why something that belongs here is not there; undefined where nothing is known of it. */
  whyAbsent?(digest: Digest): string | undefined;
}

/** The repositories of a registry as clients read them. */
export interface ShownRegistry {
  /**
   * A repository, whether or not it is there.
   * @param namespace the registry in whose place the client asks (`ns=`, as containerd does of mirrors); null: none
   */
  repository(name: string, namespace: string | null): ShownRepository;
  /** The names of all repositories that hold something, sorted by code unit. */
  names(): Promise<readonly string[]>;
}
