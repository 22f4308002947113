import type { Descriptor } from '../core/descriptor.ts';
import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { MANIFEST_ACCEPT } from '../core/media.ts';
import {
  backoffMs,
  errorText,
  type HttpClient,
  type HttpRequest,
  type HttpResponse,
  isLoopback,
  isNetworkError,
  networkError,
} from '../io/http.ts';
import { sleep, throwIfAborted } from '../io/pool.ts';
import { resumableBytes } from '../io/resume.ts';
import { collect, digestOf, Verifier } from '../io/verify.ts';
import { parseTags, retriedStatus, statusError } from './answers.ts';
import { RegistryAuth } from './auth.ts';
import { manifestMediaType } from './manifest.ts';

/** How to reach one registry, where it differs from HTTPS with the system's trust. */
export interface HostConfig {
  /** Plain HTTP; the default only on loopback hosts. */
  readonly plainHttp?: boolean;
  /** Accept any certificate. */
  readonly insecure?: boolean;
  /** PEM file with CAs. */
  readonly caFile?: string;
}

export interface RegistryOptions {
  readonly http: HttpClient;
  readonly context: Context;
  readonly config?: HostConfig;
}

export interface ManifestContent {
  readonly descriptor: Descriptor;
  /** Exactly as received. */
  readonly bytes: Buffer;
}

type Access = 'pull' | 'push';

/** A client of one registry (OCI distribution spec 1.1). Content that it returns is verified; what it sends is what it was given. */
export class Registry {
  readonly host: string;
  readonly #http: HttpClient;
  readonly #context: Context;
  readonly #config: HostConfig;
  readonly #base: URL;
  readonly #auth: RegistryAuth;

  /** @param host as in a reference: `docker.io`, `quay.io`, `10.0.0.1:5000` */
  constructor(host: string, options: RegistryOptions) {
    this.host = host;
    this.#http = options.http;
    this.#context = options.context;
    this.#config = options.config ?? {};
    const api = host === 'docker.io' ? 'registry-1.docker.io' : host;
    const named = new URL(`https://${api}`);
    const plain = this.#config.plainHttp ?? isLoopback(named.hostname);
    this.#base = new URL(`${plain ? 'http' : 'https'}://${api}`);
    this.#auth = new RegistryAuth({
      http: this.#http,
      context: this.#context,
      host,
      origin: this.#base,
      tls: this.#config,
    });
  }

  /** Sends one request with authorization; a 401 is answered once with what the server asks for. */
  async #send(
    req: Omit<HttpRequest, 'tls'>,
    about: { readonly repository: string; readonly access: Access; readonly mountFrom?: string },
  ): Promise<HttpResponse> {
    const actions = about.access === 'push' ? 'pull,push' : 'pull';
    const scopes =
      about.repository === ''
        ? []
        : [
            `repository:${about.repository}:${actions}`,
            ...(about.mountFrom === undefined ? [] : [`repository:${about.mountFrom}:pull`]),
          ];
    const local = req.url.origin === this.#base.origin;
    for (let attempt = 0; ; attempt++) {
      const authorization = local ? await this.#auth.header(scopes, about.repository) : undefined;
      const response = await this.#http.request({
        ...req,
        tls: this.#config,
        headers: { ...req.headers, ...(authorization === undefined ? {} : { authorization }) },
      });
      if (response.status !== 401 || attempt > 0 || response.url.origin !== this.#base.origin)
        return response;
      await response.body.dump();
      await this.#auth.learn(response.headers['www-authenticate'], scopes, about.repository);
    }
  }

  #url(path: string): URL {
    return new URL(path, this.#base);
  }

  async #fail(response: HttpResponse, what: string, side: 'source' | 'destination'): Promise<SealiftError> {
    const text = await errorText(response);
    return statusError(response, { text, what: `${this.host}: ${what}`, host: this.host, side });
  }

  /** Asks whether a registry answers here at all. @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED */
  async ping(): Promise<void> {
    const url = this.#url('/v2/');
    let response: HttpResponse;
    try {
      response = await this.#send({ method: 'GET', url, tries: 2 }, { repository: '', access: 'pull' });
    } catch (error) {
      if (!isNetworkError(error) && !(error instanceof SealiftError && error.code.startsWith('NETWORK_')))
        throw error;
      throw new SealiftError(
        'TARGET_UNREACHABLE',
        error instanceof Error ? error.message : `${this.host}: no answer`,
        {
          cause: error,
          hint: `check the address; \`curl ${url.href}\` must answer on this machine (plain HTTP needs plainHttp or http://)`,
        },
      );
    }
    const text = await errorText(response);
    if (response.status === 200 || response.status === 401) return;
    const html = /^\s*</.test(text) ? ' with a web page' : '';
    throw new SealiftError('TARGET_UNREACHABLE', `${url.href} answered HTTP ${response.status}${html}`, {
      hint: 'this is not a registry endpoint; with Nexus use the port of the docker repository (its connector), not 8081',
    });
  }

  /**
   * Reads a manifest by tag or digest, whole and verified. By tag the bytes' own digest is returned; a different
   * Docker-Content-Digest is refused (registry.md 1.3).
   * @throws CONTENT_NOT_FOUND, AUTH_REQUIRED, AUTH_DENIED, CONTENT_DIGEST_MISMATCH, REGISTRY_RATE_LIMITED …
   */
  async getManifest(repository: string, reference: string): Promise<ManifestContent> {
    const response = await this.#send(
      {
        method: 'GET',
        url: this.#url(`/v2/${repository}/manifests/${reference}`),
        headers: { accept: MANIFEST_ACCEPT },
      },
      { repository, access: 'pull' },
    );
    const joiner = reference.startsWith('sha256:') ? '@' : ':';
    const what = `${this.host}/${repository}${joiner}${reference}`;
    if (response.status !== 200)
      throw await this.#fail(response, `${repository}${joiner}${reference}`, 'source');
    const bytes = await collect(response.body, { limit: LIMITS.manifest, what }).catch((error: unknown) => {
      throw networkError(error, this.#base.origin);
    });
    const digest = digestOf(bytes);
    const expected = isDigest(reference) ? reference : response.headers['docker-content-digest'];
    if (expected !== undefined && isDigest(expected) && expected !== digest) {
      throw new SealiftError('CONTENT_DIGEST_MISMATCH', `${what}: expected ${expected}, found ${digest}`, {
        hint: 'a proxy or mirror in between changes content; fetch from the registry itself',
        side: 'source',
      });
    }
    const mediaType = manifestMediaType(bytes, response.headers['content-type'], what);
    return { bytes, descriptor: { mediaType, digest, size: bytes.length } };
  }

  /**
   * The digest of a tag or of a manifest digest on the registry, or undefined when it is not there. HEAD first; a HEAD
   * that fails or says too little is asked again by GET (old Nexus, registry.md 1.3).
   */
  async resolve(repository: string, reference: string): Promise<Digest | undefined> {
    const about = { repository, access: 'pull' } as const;
    const url = this.#url(`/v2/${repository}/manifests/${reference}`);
    const headers = { accept: MANIFEST_ACCEPT };
    const head = await this.#send({ method: 'HEAD', url, headers, tries: 2 }, about);
    await head.body.dump();
    const stated = head.headers['docker-content-digest'];
    if (head.status === 200 && stated !== undefined && isDigest(stated)) return stated;
    if (head.status === 401 || head.status === 403)
      throw await this.#fail(head, `${repository}:${reference}`, 'source');
    try {
      return (await this.getManifest(repository, reference)).descriptor.digest;
    } catch (error) {
      if (error instanceof SealiftError && error.code === 'CONTENT_NOT_FOUND') return undefined;
      throw error;
    }
  }

  /**
   * All tags of a repository, up to LIMITS.tags. Of a `Link: …; rel="next"` only `last` is taken and the path rebuilt,
   * because Nexus sends links that lead nowhere (nexus-public #1011).
   */
  async listTags(repository: string): Promise<string[]> {
    const tags: string[] = [];
    for (let last: string | undefined; ; ) {
      const url = this.#url(`/v2/${repository}/tags/list`);
      url.searchParams.set('n', '1000');
      if (last !== undefined) url.searchParams.set('last', last);
      const response = await this.#send({ method: 'GET', url }, { repository, access: 'pull' });
      if (response.status !== 200) throw await this.#fail(response, `${repository} tags`, 'source');
      const what = `${this.host}/${repository} tags`;
      tags.push(...parseTags(await collect(response.body, { limit: LIMITS.manifest, what }), what));
      const link = /<([^>]*)>\s*;\s*rel="?next/.exec(response.headers.link ?? '')?.[1];
      const next = link === undefined ? undefined : new URL(link, url).searchParams.get('last');
      if (next === null || next === undefined || next === last || tags.length >= LIMITS.tags) return tags;
      last = next;
    }
  }

  /** Whether the repository holds the blob. */
  async hasBlob(repository: string, digest: Digest): Promise<boolean> {
    const response = await this.#send(
      { method: 'HEAD', url: this.#url(`/v2/${repository}/blobs/${digest}`) },
      { repository, access: 'pull' },
    );
    await response.body.dump();
    if (response.status === 200) return true;
    if (response.status === 404) return false;
    throw await this.#fail(response, `${repository} blob ${digest}`, 'destination');
  }

  /**
   * Streams a blob from byte `offset`. A cut is healed inside: the stream goes on from the last byte by Range, or skips
   * what it had when the server ignores Range. From the start it is verified; from an offset the caller verifies.
   * @throws CONTENT_NOT_FOUND, CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH, NETWORK_FAILED after LIMITS.tries without progress
   */
  async *readBlob(
    repository: string,
    descriptor: Descriptor,
    options: { readonly signal: AbortSignal; readonly offset?: number },
  ): AsyncGenerator<Uint8Array> {
    const path = `${repository} blob ${descriptor.digest}`;
    const what = `${this.host}/${path}`;
    const start = options.offset ?? 0;
    const verifier = start === 0 ? new Verifier({ ...descriptor, what }) : undefined;
    const url = this.#url(`/v2/${repository}/blobs/${descriptor.digest}`);
    const open = async (at: number): Promise<HttpResponse> => {
      const headers = at > 0 ? { range: `bytes=${at}-` } : {};
      const about = { repository, access: 'pull' } as const;
      const response = await this.#send({ method: 'GET', url, headers, signal: options.signal }, about);
      if (response.status === 200 || response.status === 206) return response;
      throw await this.#fail(response, path, 'source');
    };
    const bytes = resumableBytes({ what, size: descriptor.size, start, context: this.#context, open });
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
  async mountBlob(repository: string, digest: Digest, from: string): Promise<boolean> {
    const url = this.#url(`/v2/${repository}/blobs/uploads/`);
    url.searchParams.set('mount', digest);
    url.searchParams.set('from', from);
    const response = await this.#send(
      { method: 'POST', url, contentLength: 0, body: new Uint8Array(), tries: 2 },
      { repository, access: 'push', mountFrom: from },
    );
    await response.body.dump();
    if (response.status === 201) return true;
    if (response.status === 202 && response.headers.location !== undefined) {
      await this.#cancelUpload(repository, response.headers.location, url);
    }
    return false;
  }

  async #cancelUpload(repository: string, location: string, base: URL): Promise<void> {
    try {
      const url = this.#uploadUrl(location, base);
      const gone = await this.#send({ method: 'DELETE', url, tries: 1 }, { repository, access: 'push' });
      await gone.body.dump();
    } catch {
      // Cancelling is a courtesy: some registries want the delete scope for it (registry.md A4).
    }
  }

  /** The upload session's URL; a scheme that only a proxy got wrong is put right (registry.md 1.4 point 3). */
  #uploadUrl(location: string, base: URL): URL {
    const url = new URL(location, base);
    if (url.hostname === base.hostname && url.protocol !== base.protocol) {
      url.protocol = base.protocol;
      url.port = base.port;
    }
    if (url.protocol !== 'http:' && url.protocol !== 'https:') {
      throw new SealiftError(
        'REGISTRY_ANSWER_INVALID',
        `${this.host}: upload location "${location.slice(0, 200)}"`,
      );
    }
    return url;
  }

  /**
   * Uploads a blob in one PUT (POST, then PUT with the digest). `open` is called again for a retry: a session that
   * broke is not used again, the whole starts over from POST.
   * @throws what `open`'s stream throws (a bad source), AUTH_DENIED, REGISTRY_FAILED, NETWORK_FAILED
   */
  async writeBlob(
    repository: string,
    descriptor: Descriptor,
    open: () => AsyncIterable<Uint8Array>,
  ): Promise<void> {
    const about = { repository, access: 'push' } as const;
    const startUrl = this.#url(`/v2/${repository}/blobs/uploads/`);
    const what = `${repository} blob ${descriptor.digest}`;
    for (let attempt = 1; ; attempt++) {
      const started = await this.#send(
        { method: 'POST', url: startUrl, contentLength: 0, body: new Uint8Array() },
        about,
      );
      const location = started.headers.location;
      if (started.status !== 202 || location === undefined)
        throw await this.#fail(started, what, 'destination');
      await started.body.dump();
      const url = this.#uploadUrl(location, startUrl);
      url.searchParams.set('digest', descriptor.digest);
      try {
        const done = await this.#send(
          {
            method: 'PUT',
            url,
            headers: { 'content-type': 'application/octet-stream' },
            contentLength: descriptor.size,
            body: descriptor.size === 0 ? new Uint8Array() : open,
            tries: 1,
          },
          about,
        );
        if (done.status === 201 || done.status === 204) {
          await done.body.dump();
          return;
        }
        const failure = await this.#fail(done, what, 'destination');
        if (!retriedStatus(done.status) || attempt >= LIMITS.tries) throw failure;
      } catch (error) {
        throwIfAborted(this.#context.signal);
        if (!isNetworkError(error) || attempt >= LIMITS.tries) throw error;
      }
      const waitMs = backoffMs(attempt, this.#context.random);
      this.#context.emit({ type: 'retry', what, reason: 'the upload broke', waitMs: Math.round(waitMs) });
      await sleep(waitMs, this.#context.signal);
    }
  }

  /**
   * Puts a manifest's original bytes under a tag or its digest.
   * @throws TARGET_FAILED when the registry stored it under another digest, REGISTRY_FAILED and what it says otherwise
   */
  async putManifest(
    repository: string,
    reference: string,
    content: { readonly bytes: Uint8Array; readonly descriptor: Descriptor },
  ): Promise<void> {
    const response = await this.#send(
      {
        method: 'PUT',
        url: this.#url(`/v2/${repository}/manifests/${reference}`),
        headers: { 'content-type': content.descriptor.mediaType },
        body: content.bytes,
        contentLength: content.bytes.length,
      },
      { repository, access: 'push' },
    );
    if (response.status !== 201 && response.status !== 200 && response.status !== 202) {
      throw await this.#fail(response, `${repository} manifest ${reference}`, 'destination');
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
  }
}
