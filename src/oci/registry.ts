import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { MANIFEST_ACCEPT } from '../core/media.ts';
import { referrersTag } from '../core/referrer.ts';
import type { HttpClient, HttpResponse } from '../io/http.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { Quota } from '../io/rate-limit.ts';
import { resumableBytes, WRONG_CONTENT } from '../io/resume.ts';
import { digestOf, Verifier } from '../io/verify.ts';
import { parseRepositories, parseTags, statedDescriptor } from './answers.ts';
import type { ReadOptions } from './content.ts';
import type { CredentialSource } from './credentials.ts';
import { deleteManifest } from './deletes.ts';
import { ManifestHeads } from './heads.ts';
import { manifestMediaType } from './manifest.ts';
import { listNames } from './name-lists.ts';
import { ping } from './ping.ts';
import { askQuota } from './quota.ts';
import { askReferrers, listedReferrers } from './referrers.ts';
import { createUploader, mountBlob, type Uploader } from './uploads.ts';
import { type HostConfig, RegistryWire } from './wire.ts';

export type { HostConfig } from './wire.ts';

export interface RegistryOptions {
  readonly http: HttpClient;
  readonly context: Context;
  readonly config?: HostConfig;
  /** Default: those of the environment and the credential files. */
  readonly credentials?: CredentialSource;
}

export interface ManifestContent {
  readonly descriptor: Descriptor;
  /** Exactly as received. */
  readonly bytes: Buffer;
  /** Why it is not what a registry has: it was made anew here. */
  readonly recompressed?: string;
}

/** A blob to upload. */
export interface BlobContent {
  readonly open: () => AsyncIterable<Uint8Array>;
  readonly again?: boolean;
}

/** A client of one registry (OCI distribution spec 1.1). Content that it returns is verified; what it sends is what it was given. */
export class Registry {
  readonly host: string;
  readonly #wire: RegistryWire;
  readonly #heads: ManifestHeads;
  readonly #uploader: Uploader;
  readonly #lacking = new Map<string, Promise<boolean>>();
  /** Blobs that are being sent, to whatever repository; the promises never fail. */
  readonly #sending = new Map<Digest, Promise<unknown>>();
  /** Whether the host has a referrers API; undefined until its first answer, which counts for all repositories. */
  #hasReferrersApi: boolean | undefined;

  /** @param host as in a reference: `docker.io`, `quay.io`, `10.0.0.1:5000` */
  constructor(host: string, options: RegistryOptions) {
    this.host = host;
    this.#wire = new RegistryWire(host, { ...options, config: options.config ?? {} });
    this.#heads = new ManifestHeads(this.#wire);
    this.#uploader = createUploader(this.#wire);
  }

  /** Scheme, host and port that are asked. */
  get origin(): string {
    return this.#wire.base.origin;
  }

  /** Asks whether a registry answers here at all (`ping`). @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED */
  ping(withinMs?: number): Promise<void> {
    return ping(this.#wire, withinMs);
  }

  /**
   * Reads a manifest by tag or digest, whole and verified. By tag the bytes' own digest is returned; a different
   * Docker-Content-Digest is refused (registry.md 1.3). Wrong bytes are asked for once more.
   * @throws CONTENT_NOT_FOUND, AUTH_REQUIRED, AUTH_DENIED, CONTENT_DIGEST_MISMATCH, REGISTRY_RATE_LIMITED …
   */
  async getManifest(repository: string, reference: string): Promise<ManifestContent> {
    try {
      return await this.#getManifest(repository, reference);
    } catch (error) {
      // A byte that changed on the way is another one the next time.
      if (!(error instanceof SealiftError) || error.code !== 'CONTENT_DIGEST_MISMATCH') throw error;
      throwIfAborted(this.#wire.context.signal);
      return await this.#getManifest(repository, reference);
    }
  }

  async #getManifest(repository: string, reference: string): Promise<ManifestContent> {
    const joiner = reference.startsWith('sha256:') ? '@' : ':';
    const what = `${this.host}/${repository}${joiner}${reference}`;
    const { response, bytes } = await this.#wire.read(
      {
        url: this.#wire.url(`/v2/${repository}/manifests/${reference}`),
        headers: { accept: MANIFEST_ACCEPT },
      },
      { repository, access: 'pull', limit: LIMITS.manifest, what },
    );
    if (bytes === undefined) {
      throw await this.#wire.fail(response, `${repository}${joiner}${reference}`, 'source');
    }
    const digest = digestOf(bytes);
    const expected = isDigest(reference) ? reference : response.headers['docker-content-digest'];
    if (expected !== undefined && isDigest(expected) && expected !== digest) {
      throw new SealiftError('CONTENT_DIGEST_MISMATCH', `${what}: expected ${expected}, found ${digest}`, {
        hint: WRONG_CONTENT,
        side: 'source',
      });
    }
    this.#heads.saw({ repository, reference });
    const mediaType = manifestMediaType(bytes, response.headers['content-type'], what);
    return { bytes, descriptor: { mediaType, digest, size: bytes.length } };
  }

  /** What it tells about its limit on pulls (see askQuota). */
  quota(repository: string, reference: string): Promise<Quota | undefined> {
    return askQuota(this.#wire, { repository, reference });
  }

  /**
   * The digest of a tag or of a manifest digest on the registry, or undefined when it is not there. HEAD first; one that
   * fails, says too little or cannot be believed (`ManifestHeads`) is asked again by GET. With `askRepository` that is
   * not done where the whole repository is not there (`lacks`).
   * @throws AUTH_REQUIRED, AUTH_DENIED, REGISTRY_FAILED, REGISTRY_RATE_LIMITED, NETWORK_FAILED …
   */
  async resolve(
    repository: string,
    reference: string,
    options: { readonly askRepository?: boolean } = {},
  ): Promise<Digest | undefined> {
    const head = await this.#heads.ask({ repository, reference }, { untried: false });
    if (head === 'absent') return undefined;
    const stated = head?.['docker-content-digest'];
    if (stated !== undefined && isDigest(stated)) return stated;
    if (options.askRepository === true && (await this.lacks(repository))) return undefined;
    return (await this.#described(repository, reference))?.digest;
  }

  /**
   * What a tag points to that need not be there, as a HEAD says; undefined when there is no such tag. Asked by GET as
   * `resolve` does, but not where nothing was ever found. Nothing is verified: the descriptor is what the content must be.
   * @throws as `resolve`
   */
  async describe(repository: string, tag: string): Promise<Descriptor | undefined> {
    const head = await this.#heads.ask({ repository, reference: tag }, { untried: true });
    if (head === 'absent') return undefined;
    const stated = head === undefined ? undefined : statedDescriptor(head);
    return stated ?? (await this.#described(repository, tag));
  }

  /** What a GET says. */
  async #described(repository: string, reference: string): Promise<Descriptor | undefined> {
    try {
      return (await this.getManifest(repository, reference)).descriptor;
    } catch (error) {
      if (error instanceof SealiftError && error.code === 'CONTENT_NOT_FOUND') return undefined;
      throw error;
    }
  }

  /**
   * What the registry lists as referring to a manifest, by its API or else by the fallback tag (registry.md 1.5). That a
   * host has no API is learnt from its first answer. Nothing is verified: a listed manifest may be about something else.
   * @throws as `describe`, and OCI_MANIFEST_INVALID, CONTENT_TOO_LARGE for a list that is none or too long
   */
  async referrers(
    repository: string,
    subject: Digest,
  ): Promise<{ readonly by: 'api' | 'tag'; readonly list: readonly Descriptor[] }> {
    if (this.#hasReferrersApi !== false) {
      const list = await askReferrers(this.#wire, { repository, subject });
      // One that answered before has the API, whatever it says of this repository.
      this.#hasReferrersApi ??= list !== undefined;
      if (list !== undefined) return { by: 'api', list };
    }
    const tag = referrersTag(subject);
    if ((await this.describe(repository, tag)) === undefined) return { by: 'tag', list: [] };
    const { bytes } = await this.getManifest(repository, tag);
    return { by: 'tag', list: listedReferrers(bytes, `${this.host}/${repository}:${tag}`) };
  }

  /** All tags of a repository, at most LIMITS.tags. */
  listTags(repository: string): Promise<string[]> {
    const url = `/v2/${repository}/tags/list`;
    const about = { repository, what: `${repository} tags`, parse: parseTags, most: LIMITS.tags };
    return listNames(this.#wire, url, about);
  }

  /**
   * Its repositories, at most LIMITS.repositories (distribution's `_catalog`, which the specification leaves out).
   * @throws AUTH_REQUIRED, AUTH_DENIED, CONTENT_NOT_FOUND … where it does not tell them
   */
  listRepositories(): Promise<string[]> {
    const about = { repository: '', what: 'catalog', parse: parseRepositories, most: LIMITS.repositories };
    return listNames(this.#wire, '/v2/_catalog', about);
  }

  /**
   * Whether the registry says by itself that it has no tags and no repository of this name (NAME_UNKNOWN); asked once.
   * Blobs of a load that was stopped may be there all the same.
   */
  lacks(repository: string): Promise<boolean> {
    const known = this.#lacking.get(repository);
    if (known !== undefined) return known;
    const asked = this.#askLacks(repository);
    this.#lacking.set(repository, asked);
    return asked;
  }

  async #askLacks(repository: string): Promise<boolean> {
    const url = this.#wire.url(`/v2/${repository}/tags/list?n=1`);
    const answer = await this.#wire.send({ method: 'GET', url, tries: 2 }, { repository, access: 'pull' });
    if (answer.status === 404) {
      const { details } = await this.#wire.fail(answer, `${repository} tags`, 'destination');
      return details?.serverCode === 'NAME_UNKNOWN';
    }
    await answer.body.dump();
    return false;
  }

  /** Whether the repository holds the blob. */
  async hasBlob(repository: string, digest: Digest): Promise<boolean> {
    const response = await this.#wire.send(
      { method: 'HEAD', url: this.#wire.url(`/v2/${repository}/blobs/${digest}`) },
      { repository, access: 'pull' },
    );
    await response.body.dump();
    if (response.status === 200) return true;
    if (response.status === 404) return false;
    throw await this.#wire.fail(response, `${repository} blob ${digest}`, 'destination');
  }

  /**
   * Streams a blob from byte `offset`. A cut is healed inside: the stream goes on from the last byte by Range, or skips
   * what it had when the server ignores Range. From the start it is verified unless it is read `into` a receiver; from an offset the
   * caller verifies.
   * @throws CONTENT_NOT_FOUND, CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH, NETWORK_FAILED by the rule of `countCuts`
   */
  async *readBlob(
    repository: string,
    descriptor: Descriptor,
    options: ReadOptions,
  ): AsyncGenerator<Uint8Array> {
    const path = `${repository} blob ${descriptor.digest}`;
    const what = `${this.host}/${path}`;
    const start = options.offset ?? 0;
    const verifier =
      start === 0 && options.into === undefined
        ? new Verifier({ ...descriptor, what, hint: WRONG_CONTENT })
        : undefined;
    const into = options.into === undefined ? {} : { into: options.into };
    const url = this.#wire.url(`/v2/${repository}/blobs/${descriptor.digest}`);
    const open = async (at: number): Promise<HttpResponse> => {
      const headers = at > 0 ? { range: `bytes=${at}-` } : {};
      const about = { repository, access: 'pull' } as const;
      const response = await this.#wire.send(
        { method: 'GET', url, headers, signal: options.signal, ...into },
        about,
      );
      const { status } = response;
      if (status === 200 || status === 206 || (status === 416 && at > 0)) return response;
      throw await this.#wire.fail(response, path, 'source');
    };
    const { context } = this.#wire;
    const { size } = descriptor;
    const bytes = resumableBytes({ what, size, start, context, signal: options.signal, open, ...into });
    for await (const chunk of bytes) {
      verifier?.update(chunk);
      yield chunk;
    }
    verifier?.finish();
  }

  /**
   * Asks the registry to link a blob from another of its repositories (distribution-spec "Mounting a blob").
   * @returns true when it did; false when it opened an upload instead or refused
   */
  mountBlob(repository: string, digest: Digest, from: string): Promise<boolean> {
    return mountBlob(this.#wire, { repository, digest, from });
  }

  /**
   * Uploads a blob, whole or in chunks (`Uploader`), one upload of a digest at a time: Nexus keeps a blob once for all
   * images and refuses a second one that comes meanwhile (registry.md 2.8). Who waited and finds it there sends nothing.
   * @param content.open is called again for a retry, and must give the bytes from the start
   * @param content.again send it although the registry says that it has it
   * @returns whether these bytes were taken; false: the registry has it from another upload
   * @throws what `open`'s stream throws (a bad source), AUTH_DENIED, TARGET_READ_ONLY, REGISTRY_FAILED, NETWORK_FAILED
   */
  async writeBlob(
    repository: string,
    descriptor: Descriptor,
    content: (() => AsyncIterable<Uint8Array>) | BlobContent,
  ): Promise<boolean> {
    const { open, again = false } = typeof content === 'function' ? { open: content } : content;
    const { digest } = descriptor;
    for (let running = this.#sending.get(digest); running; running = this.#sending.get(digest)) {
      await running;
      if (!again && (await this.hasBlob(repository, digest))) return false;
    }
    const sent = this.#uploader.write({ repository, descriptor, open });
    const settled = sent.catch(() => {});
    this.#sending.set(digest, settled);
    try {
      return await sent;
    } finally {
      if (this.#sending.get(digest) === settled) this.#sending.delete(digest);
    }
  }

  /**
   * Puts a manifest's original bytes under a tag or its digest.
   * @returns `indexed`: the registry says that it lists the manifest among the referrers of its subject (`OCI-Subject`)
   * @throws TARGET_FAILED when the registry stored it under another digest, REGISTRY_FAILED and what it says otherwise
   */
  async putManifest(
    repository: string,
    reference: string,
    content: { readonly bytes: Uint8Array; readonly descriptor: Descriptor },
  ): Promise<{ readonly indexed: boolean }> {
    const response = await this.#wire.send(
      {
        method: 'PUT',
        url: this.#wire.url(`/v2/${repository}/manifests/${reference}`),
        headers: { 'content-type': content.descriptor.mediaType },
        body: content.bytes,
        contentLength: content.bytes.length,
      },
      { repository, access: 'push' },
    );
    if (response.status !== 201 && response.status !== 200 && response.status !== 202) {
      throw await this.#wire.fail(response, `${repository} manifest ${reference}`, 'destination');
    }
    await response.body.dump();
    const stored = response.headers['docker-content-digest'];
    if (stored !== undefined && stored !== content.descriptor.digest) {
      throw new SealiftError(
        'TARGET_FAILED',
        `${this.host}: ${repository} manifest ${content.descriptor.digest} was stored as ${stored.slice(0, 90)}`,
        { hint: 'the registry rewrites manifests; signatures and digests would break, so this is refused' },
      );
    }
    this.#heads.saw({ repository, reference });
    return { indexed: response.headers['oci-subject'] !== undefined };
  }

  /** Deletes a tag, or a manifest by its digest with all its tags (`deleteManifest`). */
  deleteManifest(repository: string, reference: string): ReturnType<typeof deleteManifest> {
    return deleteManifest(this.#wire, { repository, reference });
  }
}
