import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { type ErrorCode, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { parseMirror } from '../core/mirror.ts';
import { type TlsOptions, tlsOptionsOf } from '../io/certificates.ts';
import type { HttpClient } from '../io/http.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { Quota } from '../io/rate-limit.ts';
import { collect } from '../io/verify.ts';
import type { NextStream } from '../oci/content.ts';
import { openImageArchive } from '../oci/image-archive.ts';
import type { ImagePlace } from '../oci/image-store.ts';
import { recompressing } from '../oci/recompress.ts';
import { type HostConfig, type ManifestContent, Registry } from '../oci/registry.ts';
import { type Endpoint, type Repository, registryEndpoint } from './endpoint.ts';
import { askInTurn, type Supply } from './in-turn.ts';
import { spooled } from './spooled.ts';
import { StoreEndpoint } from './store-endpoint.ts';
import { type WebAccess, WebLogins } from './web-logins.ts';

export type { Repository } from './endpoint.ts';

/** What the manifest says about registry hosts. Plain data: paths of mirrors are absolute. */
export type RegistriesConfig = Readonly<
  Record<string, HostConfig & { readonly mirrors?: readonly string[] }>
>;

/** Notes about mirrors in one run. */
const MAX_NOTES = 100;

/** Failures that say that a mirror is not what it should be: it is not asked again in this run. */
const WRONG: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ARCHIVE_INVALID',
  'CONTENT_DIGEST_MISMATCH',
  'CONTENT_SIZE_MISMATCH',
  'DISK_FULL',
  'FILE_NOT_FOUND',
  'FILE_UNREADABLE',
]);

/** Failures of the system that say that nobody is there, whatever is asked. */
const GONE: ReadonlySet<unknown> = new Set([
  'EAI_AGAIN',
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
]);

/** Every registry that content is fetched from, each with its mirrors; content is asked of the original last. */
export class Registries {
  readonly #http: HttpClient;
  readonly #context: Context;
  readonly #config: RegistriesConfig;
  readonly #mayRecompress: (of: Repository) => boolean;
  readonly #clients = new Map<string, Registry>();
  readonly #logins: WebLogins;
  /** By what the manifest calls them; '' before the host itself. */
  readonly #known = new Map<string, Endpoint>();
  readonly #wrong = new Set<Endpoint>();
  /** Hosts that could not be reached for a question that may stay open. */
  readonly #unreachable = new Map<string, SealiftError>();
  /** Where nobody was after all tries: the next manifest or blob is not waited for as long again. */
  readonly #gone = new Map<Endpoint, SealiftError>();
  /** What was said of mirrors, each once. */
  readonly #noted = new Set<string>();

  constructor(options: {
    readonly http: HttpClient;
    readonly context: Context;
    readonly config: RegistriesConfig;
    /** Whether images of a repository that `docker save` wrote may be made anew; default none. */
    readonly mayRecompress?: (of: Repository) => boolean;
  }) {
    this.#http = options.http;
    this.#context = options.context;
    this.#config = options.config;
    this.#mayRecompress = options.mayRecompress ?? (() => false);
    this.#logins = new WebLogins(options.context);
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

  /** TLS settings and login for an address that is not in a registry: of a chart repository, or a file's. */
  accessTo(url: URL, repository: string | undefined): Promise<WebAccess> {
    return this.#logins.accessTo(url, { repository, tls: this.tlsOf(url) });
  }

  /** Hosts that the manifest names. */
  get hosts(): ReadonlySet<string> {
    return new Set(Object.keys(this.#config));
  }

  #endpoint(key: string, make: () => Endpoint): Endpoint {
    const known = this.#known.get(key) ?? make();
    this.#known.set(key, known);
    return known;
  }

  #mirror(text: string): Endpoint {
    return this.#endpoint(text, () => {
      const mirror = parseMirror(text);
      if (mirror === undefined) {
        throw new SealiftError('MANIFEST_INVALID', `"${text.slice(0, 200)}" is not a mirror`);
      }
      if (mirror.kind === 'registry') {
        return registryEndpoint(this.#client(mirror.host, mirror.scheme), mirror.prefix);
      }
      const { signal } = this.#context;
      const open = async (): Promise<ImagePlace> => {
        if (mirror.kind === 'archive') {
          const archive = await openImageArchive(mirror.path, { signal });
          return archive.kind === 'docker-archive' ? recompressing(archive, { signal }) : archive;
        }
        // Rarely needed, so it is not loaded with every run.
        const { openContainerd } = await import('../oci/containerd/store.ts');
        return openContainerd(mirror, { signal });
      };
      return new StoreEndpoint(text, { open, context: this.#context, mayRecompress: this.#mayRecompress });
    });
  }

  #endpoints({ host }: Repository): Endpoint[] {
    const mirrors = (this.#config[host]?.mirrors ?? []).map((text) => this.#mirror(text));
    const origin = this.#endpoint(`//${host}`, () => registryEndpoint(this.#client(host), ''));
    return [...mirrors.filter((m) => !this.#wrong.has(m)), origin];
  }

  /** An endpoint that may be asked. @throws what it failed with before, where nobody was there */
  #there(endpoint: Endpoint): Endpoint {
    const gone = this.#gone.get(endpoint);
    if (gone !== undefined) throw gone;
    return endpoint;
  }

  /** Our failure of an endpoint, remembered where nobody was there. @throws ABORTED, and what is a bug */
  #failure(endpoint: Endpoint, error: unknown): SealiftError {
    throwIfAborted(this.#context.signal);
    if (!(error instanceof SealiftError)) throw error;
    if (isGone(error) && !this.#gone.has(endpoint)) this.#gone.set(endpoint, error);
    return error;
  }

  /** Says once what a mirror lacks; one that gives wrong content is left out from now on. */
  #note(mirror: Endpoint, error: SealiftError): void {
    const gone = this.#gone.get(mirror);
    // Several may have been asking it at once; the first has said it.
    if (gone !== undefined && gone !== error) return;
    const isBroken = mirror.isLocal && error.code.startsWith('NETWORK_');
    const isWrong = isBroken || WRONG.has(error.code);
    if (isWrong && this.#wrong.has(mirror)) return;
    if (isWrong) this.#wrong.add(mirror);
    const isOut = isWrong || gone !== undefined;
    const message = `mirror ${mirror.name}: ${error.message}${isOut ? '; it is not asked again' : ''}`;
    if (this.#noted.has(message) || this.#noted.size >= MAX_NOTES) return;
    this.#noted.add(message);
    this.#context.emit({ type: 'note', message });
  }

  /** Asks one endpoint after the other; the last one's failure, or that it has nothing, is the answer. */
  async #ask<T>(of: Repository, work: (endpoint: Endpoint) => Promise<T>): Promise<T> {
    const endpoints = this.#endpoints(of);
    const before: SealiftError[] = [];
    for (const [i, endpoint] of endpoints.entries()) {
      const isOrigin = i === endpoints.length - 1;
      try {
        const answer = await work(this.#there(endpoint));
        if (answer !== undefined || isOrigin) return answer;
      } catch (thrown) {
        const error = this.#failure(endpoint, thrown);
        if (isOrigin) throw withMirrors(error, before);
        before.push(error);
        this.#note(endpoint, error);
      }
    }
    throw new SealiftError('INTERNAL', `${of.host}: no endpoint`);
  }

  /** A manifest by tag or digest, verified. @throws as Registry.getManifest */
  getManifest(of: Repository, reference: string): Promise<ManifestContent> {
    return this.#ask(of, (endpoint) => endpoint.getManifest(of, reference));
  }

  /** What the host itself tells about its limit on pulls; undefined where it tells nothing or mirrors are asked first. */
  async quota(of: Repository, reference: string): Promise<Quota | undefined> {
    if (this.#endpoints(of).length > 1) return undefined;
    return this.#client(of.host).quota(of.repository, reference);
  }

  /** The digest that a tag has now, or undefined when there is no such tag. */
  resolve(of: Repository, reference: string): Promise<Digest | undefined> {
    return this.#ask(of, (endpoint) => endpoint.resolve(of, reference));
  }

  /** What a tag points to, as a HEAD says; undefined when no endpoint has it. @throws as Registry.describe */
  describe(of: Repository, tag: string): Promise<Descriptor | undefined> {
    return this.#probe(of, (endpoint) => endpoint.describe(of, tag));
  }

  /** What refers to a manifest, by the first endpoint that knows of any. @throws as Registry.referrers */
  async referrers(of: Repository, subject: Digest): Promise<readonly Descriptor[]> {
    const found = await this.#probe(of, async (endpoint) => {
      const list = await endpoint.referrers(of, subject);
      return list.length === 0 ? undefined : list;
    });
    return found ?? [];
  }

  /** Asks what need not be there. A host that cannot be reached is not tried again for every such question. */
  async #probe<T>(of: Repository, work: (endpoint: Endpoint) => Promise<T>): Promise<T> {
    const before = this.#unreachable.get(of.host);
    if (before !== undefined) throw before;
    try {
      return await this.#ask(of, work);
    } catch (error) {
      if (error instanceof SealiftError && error.code.startsWith('NETWORK_')) {
        this.#unreachable.set(of.host, error);
      }
      throw error;
    }
  }

  /** All tags of a repository. The original is asked first, because a mirror knows only the tags it was asked for. */
  async listTags(of: Repository): Promise<string[]> {
    const mirrors = this.#endpoints(of);
    const origin = mirrors.pop();
    const failures: SealiftError[] = [];
    for (const endpoint of origin === undefined ? [] : [origin, ...mirrors]) {
      try {
        return await this.#there(endpoint).listTags(of);
      } catch (thrown) {
        const error = this.#failure(endpoint, thrown);
        failures.push(error);
        if (endpoint !== origin) this.#note(endpoint, error);
      }
    }
    throw withMirrors(failures[0], failures.slice(1));
  }

  /** Those who may have a blob: mirrors in their order, then the registry. */
  supplies(of: Repository, descriptor: Descriptor): Supply[] {
    const { signal } = this.#context;
    const endpoints = this.#endpoints(of);
    return endpoints.map((endpoint, i) => ({
      name: endpoint.name,
      open: (offset, into) => {
        const options = { signal, offset, ...(into === undefined ? {} : { into }) };
        return this.#there(endpoint).readBlob(of, descriptor, options);
      },
      failed: (error) => {
        this.#failure(endpoint, error);
        if (i < endpoints.length - 1) this.#note(endpoint, error);
      },
    }));
  }

  /** A blob for somebody who can take bytes back (`askInTurn`). */
  ask(of: Repository, descriptor: Descriptor): NextStream {
    const { signal } = this.#context;
    const sum = (all: readonly SealiftError[]): SealiftError => withMirrors(all.at(-1), all.slice(0, -1));
    return askInTurn(this.supplies(of, descriptor), { signal, sum });
  }

  /** A blob of bounded size, verified before its first byte is given. @throws as `spooled` */
  read(of: Repository, descriptor: Descriptor): AsyncGenerator<Uint8Array> {
    const what = `${of.host}/${of.repository} blob ${descriptor.digest}`;
    return spooled(this.ask(of, descriptor), { descriptor, what, signal: this.#context.signal });
  }

  /** A small blob whole; wrong bytes of a mirror are asked for again elsewhere. @throws CONTENT_TOO_LARGE, as `ask` in the end */
  async readWhole(of: Repository, descriptor: Descriptor, limit: number): Promise<Buffer> {
    const what = `${of.host}/${of.repository} blob ${descriptor.digest}`;
    const next = this.ask(of, descriptor);
    for (let source = next(); ; ) {
      try {
        return await collect(source(0), { limit, what });
      } catch (error) {
        source = next(error);
      }
    }
  }

  /** Closes what mirrors hold open: files, sockets. */
  async close(): Promise<void> {
    await Promise.all([...this.#known.values()].map((endpoint) => endpoint.close()));
  }
}

/** Whether nobody is at an endpoint itself, and not only where it sent us. */
function isGone({ details }: SealiftError): boolean {
  return GONE.has(details?.system) && details?.redirected !== true;
}

/** The failure of the original, with what its mirrors said: one of them may be what the user counted on. */
function withMirrors(error: SealiftError | undefined, mirrors: readonly SealiftError[]): SealiftError {
  if (error === undefined) return new SealiftError('INTERNAL', 'nobody was asked');
  if (mirrors.length === 0) return error;
  const { code, message, hint, details, side } = error;
  const hints = [...new Set([hint, ...mirrors.map((m) => m.hint)])].filter((h) => h !== undefined);
  return new SealiftError(code, `${message}; mirrors: ${mirrors.map((m) => m.message).join('; ')}`, {
    cause: error,
    ...(hints.length === 0 ? {} : { hint: hints.join('; or ') }),
    ...(details === undefined ? {} : { details }),
    ...(side === undefined ? {} : { side }),
  });
}
