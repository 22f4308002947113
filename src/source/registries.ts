import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { type TlsOptions, tlsOptionsOf } from '../io/certificates.ts';
import type { HttpClient } from '../io/http.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { ContentReader } from '../oci/content.ts';
import { type HostConfig, type ManifestContent, Registry } from '../oci/registry.ts';

/** What the manifest says about registry hosts. */
export type RegistriesConfig = Readonly<
  Record<string, HostConfig & { readonly mirrors?: readonly string[] }>
>;

/** A repository on a source registry, before mirrors: `docker.io`, `library/nginx`. */
export interface Repository {
  readonly host: string;
  readonly repository: string;
}

interface Endpoint {
  readonly registry: Registry;
  readonly repository: string;
}

const MIRROR = /^(?:(https?):\/\/)?([^/]+)(?:\/(.+))?$/;

/** Every registry that content is fetched from, each with its mirrors; content is asked of the original last. */
export class Registries {
  readonly #http: HttpClient;
  readonly #context: Context;
  readonly #config: RegistriesConfig;
  readonly #clients = new Map<string, Registry>();

  constructor(options: {
    readonly http: HttpClient;
    readonly context: Context;
    readonly config: RegistriesConfig;
  }) {
    this.#http = options.http;
    this.#context = options.context;
    this.#config = options.config;
  }

  /** @param scheme of a mirror that says it; else the configuration of the host decides */
  #client(host: string, scheme?: string): Registry {
    const key = `${scheme ?? ''}//${host}`;
    const known = this.#clients.get(key);
    if (known !== undefined) return known;
    const plain = scheme === undefined ? {} : { plainHttp: scheme === 'http' };
    const config = { ...this.#config[host], ...plain };
    const client = new Registry(host, { http: this.#http, context: this.#context, config });
    this.#clients.set(key, client);
    return client;
  }

  /** The TLS settings for any address: what is said of a host counts for chart repositories and files too. */
  tlsOf(url: URL): TlsOptions {
    const port = url.protocol === 'http:' ? 80 : 443;
    return tlsOptionsOf(this.#config[url.host] ?? this.#config[`${url.hostname}:${port}`] ?? {});
  }

  #endpoints(of: Repository): Endpoint[] {
    const mirrors = (this.#config[of.host]?.mirrors ?? []).map((mirror) => {
      const [, scheme, host = '', prefix] = MIRROR.exec(mirror) ?? [];
      const repository = prefix === undefined ? of.repository : `${prefix}/${of.repository}`;
      return { registry: this.#client(host, scheme), repository };
    });
    return [...mirrors, { registry: this.#client(of.host), repository: of.repository }];
  }

  /** Asks one endpoint after the other; the last one's failure, or that it has nothing, is the answer. */
  async #ask<T>(of: Repository, work: (endpoint: Endpoint) => Promise<T>): Promise<T> {
    const endpoints = this.#endpoints(of);
    for (const [i, endpoint] of endpoints.entries()) {
      try {
        const answer = await work(endpoint);
        if (answer !== undefined || i === endpoints.length - 1) return answer;
      } catch (error) {
        throwIfAborted(this.#context.signal);
        if (i === endpoints.length - 1 || !(error instanceof SealiftError)) throw error;
        this.#context.emit({ type: 'note', message: `mirror ${endpoint.registry.host}: ${error.message}` });
      }
    }
    throw new SealiftError('INTERNAL', `${of.host}: no endpoint`);
  }

  /** A manifest by tag or digest, verified. @throws as Registry.getManifest */
  getManifest(of: Repository, reference: string): Promise<ManifestContent> {
    return this.#ask(of, ({ registry, repository }) => registry.getManifest(repository, reference));
  }

  /** The digest that a tag has now, or undefined when there is no such tag. */
  resolve(of: Repository, reference: string): Promise<Digest | undefined> {
    return this.#ask(of, ({ registry, repository }) => registry.resolve(repository, reference));
  }

  /** All tags of a repository. The original is asked first, because a mirror knows only the tags it was asked for. */
  async listTags(of: Repository): Promise<string[]> {
    const [origin, ...mirrors] = this.#endpoints(of).reverse();
    if (origin === undefined) throw new SealiftError('INTERNAL', `${of.host}: no endpoint`);
    try {
      return await origin.registry.listTags(origin.repository);
    } catch (error) {
      if (!(error instanceof SealiftError)) throw error;
      for (const { registry, repository } of mirrors.reverse()) {
        throwIfAborted(this.#context.signal);
        const tags = await registry.listTags(repository).catch(() => undefined);
        if (tags !== undefined) return tags;
      }
      throw error;
    }
  }

  /** Blobs of one repository. A mirror is left for the next endpoint only before its first byte came. */
  reader(of: Repository): ContentReader {
    return { open: (descriptor, options) => this.#open(of, descriptor, options) };
  }

  async *#open(
    of: Repository,
    descriptor: Descriptor,
    options: { readonly signal: AbortSignal; readonly offset?: number },
  ): AsyncGenerator<Uint8Array> {
    const endpoints = this.#endpoints(of);
    for (const [i, { registry, repository }] of endpoints.entries()) {
      let begun = false;
      try {
        for await (const chunk of registry.readBlob(repository, descriptor, options)) {
          begun = true;
          yield chunk;
        }
        return;
      } catch (error) {
        throwIfAborted(this.#context.signal);
        if (begun || i === endpoints.length - 1 || !(error instanceof SealiftError)) throw error;
        this.#context.emit({ type: 'note', message: `mirror ${registry.host}: ${error.message}` });
      }
    }
  }
}
