import { z } from 'zod';
import { SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { errorText, type HttpResponse } from '../../io/http.ts';
import type { WebServer } from './server.ts';

/** Formats of repositories that are loaded into. `oci` is the newer one of `docker` (registry.md 2.1). */
export const NEXUS_FORMATS = ['docker', 'oci', 'helm', 'pypi', 'raw'] as const;
export type NexusFormat = (typeof NEXUS_FORMATS)[number];

const text = z.string().max(4096);
const count = z.number().nonnegative();

const repositorySchema = z.object({
  name: text.min(1),
  format: text.min(1),
  /** `hosted`, `proxy` or `group`. */
  type: text.min(1),
  url: text.nullish(),
  online: z.boolean().nullish(),
});

const settingsSchema = repositorySchema.extend({
  storage: z
    .object({
      blobStoreName: text.nullish(),
      strictContentTypeValidation: z.boolean().nullish(),
      /** ALLOW, ALLOW_ONCE ("disable redeploy") or DENY (read-only). */
      writePolicy: text.nullish(),
      latestPolicy: z.boolean().nullish(),
    })
    .nullish(),
  docker: z.lazy(() => connectorSchema).nullish(),
  oci: z.lazy(() => connectorSchema).nullish(),
  /** Members of a group, the first one asked first. */
  group: z.object({ memberNames: z.array(text).max(LIMITS.nexusRepositories).nullish() }).nullish(),
});

/** How a docker or OCI repository is reached (registry.md 2.8). */
const connectorSchema = z.object({
  httpPort: count.nullish(),
  httpsPort: count.nullish(),
  subdomain: text.nullish(),
  pathEnabled: z.boolean().nullish(),
  /** False is what the screen calls "allow anonymous docker pull". */
  forceBasicAuth: z.boolean().nullish(),
  v1Enabled: z.boolean().nullish(),
});

const blobStoreSchema = z.object({
  name: text.min(1),
  type: text.nullish(),
  unavailable: z.boolean().nullish(),
  blobCount: z.number().nullish(),
  totalSizeInBytes: z.number().nullish(),
  availableSpaceInBytes: z.number().nullish(),
  softQuota: z.object({ type: text.nullish(), limit: z.number().nullish() }).nullish(),
});

const assetSchema = z.object({
  id: text,
  path: text,
  repository: text,
  format: text,
  downloadUrl: text.nullish(),
  /** By the name of the hash: md5, sha1, sha256, sha512. */
  checksum: z.record(z.string(), text.nullable()).nullish(),
  contentType: text.nullish(),
  fileSize: count.nullish(),
  lastModified: text.nullish(),
});

const componentSchema = z.object({
  id: text.min(1),
  assets: z.array(assetSchema).max(LIMITS.nexusPageItems),
});

const pageOf = <T>(item: z.ZodType<T>) =>
  z.object({ items: z.array(item).max(LIMITS.nexusPageItems), continuationToken: text.nullish() });

const quotaSchema = z.object({
  isViolation: z.boolean().nullish(),
  message: text.nullish(),
  blobStoreName: text.nullish(),
});

const eulaSchema = z.object({ accepted: z.boolean().nullish() });
const anonymousSchema = z.object({ enabled: z.boolean().nullish() });

/** A repository as everybody sees it who may read it. */
export type NexusRepository = z.infer<typeof repositorySchema>;
/** What only administrators see of it. */
export type NexusSettings = z.infer<typeof settingsSchema>;
export type NexusConnector = z.infer<typeof connectorSchema>;
export type NexusBlobStore = z.infer<typeof blobStoreSchema>;
export type NexusAsset = z.infer<typeof assetSchema>;
export type NexusComponent = z.infer<typeof componentSchema>;
export type NexusQuota = z.infer<typeof quotaSchema>;

/** What a server says of itself. */
export interface NexusStatus {
  /** False for 503: it starts, stops, or its database is away. */
  readonly isUp: boolean;
  /** `3.71.0-06`; undefined where a proxy hides it. */
  readonly version: string | undefined;
  /** `OSS`, `PRO`, `COMMUNITY`. */
  readonly edition: string | undefined;
}

const ADMIN_HINT =
  'this needs the rights of an administrator there (nx-admin, or nx-repository-admin): use such a login, or have it done by whoever has one';

/** What to do about a repository that cannot be made, by the status. */
const CREATE_HINTS: Readonly<Record<number, string>> = {
  400: 'correct this in the file of the site, or make the repository by hand and leave out `create`',
  404: 'this server has no repositories of this format: leave it out of the file of the site',
  405: 'this server does not offer this format (high availability): leave it out of the file of the site',
};

/**
 * Nexus's own API (registry.md 2.2, 2.3). Every answer is checked and has a limit. Without the rights of an administrator
 * only `status`, `writable`, `repositories` and `assets` answer; the others throw AUTH_REQUIRED or AUTH_DENIED.
 */
export class NexusAdmin {
  readonly server: WebServer;

  constructor(server: WebServer) {
    this.server = server;
  }

  /** Whether it is up, and what it is. @throws TARGET_UNREACHABLE, also where no Nexus answers */
  async status(): Promise<NexusStatus> {
    const response = await this.#probe('status');
    const [, version, edition] = /^Nexus\/(\S+)(?:\s+\((\w+)\))?/.exec(response.headers.server ?? '') ?? [];
    return { isUp: response.status === 200, version, edition };
  }

  /** Whether it takes writes now: false for its read-only mode and for a full disk. @throws TARGET_UNREACHABLE */
  async writable(): Promise<boolean> {
    return (await this.#probe('status/writable')).status === 200;
  }

  /** A status is told by its number alone; what the answers hold is nobody's business. */
  async #probe(name: string): Promise<HttpResponse> {
    // Its 503 is an answer: no tries against it.
    const response = await this.server.send({ method: 'GET', path: `service/rest/v1/${name}`, tries: 1 });
    const isNexus = /^Nexus\//.test(response.headers.server ?? '');
    // Nobody needs a login for this, but a wrong one is refused all the same.
    if (response.status === 401) throw await this.server.fail(response, 'asked for its status');
    const isPageOf = /^\s*</.test(await errorText(response));
    const isAnswer = response.status === 200 ? !isPageOf : response.status === 503 && (isNexus || !isPageOf);
    if (isAnswer) return response;
    throw new SealiftError(
      'TARGET_UNREACHABLE',
      `${this.server.base.href}: HTTP ${response.status} for its status: no Nexus answers there`,
      {
        hint: 'write the address of Nexus itself, with its context path where it has one (https://nexus.local/ or https://host/nexus/), not of a docker connector',
        details: { status: response.status },
      },
    );
  }

  /** Every repository that this login may see, of any format. @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED */
  async repositories(): Promise<NexusRepository[]> {
    const list = z.array(repositorySchema).max(LIMITS.nexusRepositories);
    return (await this.#ask('repositories', list, 'the list of repositories')) ?? [];
  }

  /** The settings of a repository; undefined where there is none. Servers before 3.31 have only the list of all. */
  async settings({ name, format, type }: NexusRepository): Promise<NexusSettings | undefined> {
    const what = `the settings of ${name}`;
    const path = `repositories/${encodeURIComponent(format)}/${encodeURIComponent(type)}/${encodeURIComponent(name)}`;
    const found = await this.#read(path, settingsSchema.partial(), what);
    if (found !== undefined) return settingsSchema.parse({ name, format, type, ...found });
    const list = z.array(settingsSchema).max(LIMITS.nexusRepositories);
    return (await this.#read('repositorySettings', list, what))?.find((one) => one.name === name);
  }

  /** Whether it knows a format at all: a repository that is not there is told in words, a format with none. */
  async offers(format: NexusFormat): Promise<boolean> {
    const path = `service/rest/v1/repositories/${format}/hosted/sealift-is-not-there`;
    const response = await this.server.send({ method: 'GET', path });
    const said = await errorText(response);
    return response.status !== 404 || said.trim() !== '';
  }

  /**
   * Makes a hosted repository.
   * @param body as `hostedSettings` makes it
   * @throws AUTH_REQUIRED, AUTH_DENIED, TARGET_FAILED with what the server says about the settings
   */
  async create(format: NexusFormat, body: Readonly<Record<string, unknown>>): Promise<void> {
    const what = `making the ${format} repository ${String(body.name)}`;
    const response = await this.server.send({
      method: 'POST',
      path: `service/rest/v1/repositories/${format}/hosted`,
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: Buffer.from(JSON.stringify(body)),
      tries: 1,
    });
    if (response.status === 201 || response.status === 204) {
      await response.body.dump();
      return;
    }
    throw await this.#refusal(response, what);
  }

  /** All assets of a repository, page by page, consistent with what was written (not the search index). */
  assets(repository: string): AsyncGenerator<NexusAsset> {
    return this.#pages('assets', repository, assetSchema);
  }

  /** The first page of them, and whether it is all; undefined where there is no such repository. */
  async firstAssets(
    repository: string,
  ): Promise<{ readonly items: readonly NexusAsset[]; readonly isAll: boolean } | undefined> {
    const path = `assets?repository=${encodeURIComponent(repository)}`;
    const page = await this.#ask(path, pageOf(assetSchema), `the assets of ${repository}`);
    return page === undefined ? undefined : { items: page.items, isAll: page.continuationToken == null };
  }

  /** The same by component: the files of one version of a project or chart. */
  components(repository: string): AsyncGenerator<NexusComponent> {
    return this.#pages('components', repository, componentSchema);
  }

  /** Deletes a repository with all that it has; that there is none is fine. @throws AUTH_DENIED where this login may not */
  async removeRepository(name: string): Promise<void> {
    const path = `service/rest/v1/repositories/${encodeURIComponent(name)}`;
    const response = await this.server.send({ method: 'DELETE', path });
    const isDone = response.status === 404 || (response.status >= 200 && response.status < 300);
    if (!isDone) throw await this.#refusal(response, `removing the repository ${name}`);
    await response.body.dump();
  }

  /** Deletes a component with all its files, or one file; that there is none is fine. @throws as `WebServer.fail` */
  async remove(kind: 'components' | 'assets', id: string): Promise<void> {
    const path = `service/rest/v1/${kind}/${encodeURIComponent(id)}`;
    const response = await this.server.send({ method: 'DELETE', path });
    const isDone = response.status === 404 || (response.status >= 200 && response.status < 300);
    if (!isDone) throw await this.server.fail(response, `DELETE ${kind}`);
    await response.body.dump();
  }

  async *#pages<T>(list: 'assets' | 'components', repository: string, item: z.ZodType<T>): AsyncGenerator<T> {
    let token: string | undefined;
    for (let page = 0; page < LIMITS.nexusPages; page++) {
      const more = token === undefined ? '' : `&continuationToken=${encodeURIComponent(token)}`;
      const path = `${list}?repository=${encodeURIComponent(repository)}${more}`;
      const found = await this.#ask(path, pageOf(item), `the ${list} of ${repository}`);
      if (found === undefined) return;
      yield* found.items;
      const next = found.continuationToken ?? undefined;
      if (next === undefined || next === token) return;
      token = next;
    }
  }

  /**
   * The assets of a repository that have some bytes, by the search index: fast, and some time behind what was written.
   * @param of the hash of the bytes, by the name of the hash; hex digits
   */
  async search(
    of: { readonly repository: string } & (
      | { readonly md5: string }
      | { readonly sha1: string }
      | { readonly sha256: string }
    ),
  ): Promise<NexusAsset[]> {
    const query = new URLSearchParams({ ...of }).toString();
    return (await this.#ask(`search/assets?${query}`, pageOf(assetSchema), 'the search'))?.items ?? [];
  }

  /** An asset as it is now, which an older answer told of; undefined where it is gone. */
  asset(id: string): Promise<NexusAsset | undefined> {
    return this.#ask(`assets/${encodeURIComponent(id)}`, assetSchema, 'a file');
  }

  async blobStores(): Promise<NexusBlobStore[]> {
    const list = z.array(blobStoreSchema).max(LIMITS.nexusRepositories);
    return (await this.#read('blobstores', list, 'the blob stores')) ?? [];
  }

  /** Whether a blob store's soft quota is passed; undefined where it has none. It warns only, and refuses nothing. */
  quotaStatus(blobStore: string): Promise<NexusQuota | undefined> {
    const path = `blobstores/${encodeURIComponent(blobStore)}/quota-status`;
    return this.#read(path, quotaSchema, `the quota of ${blobStore}`);
  }

  /** The realms that may answer a login, in order: `DockerToken` is docker's bearer tokens. */
  async activeRealms(): Promise<string[]> {
    const list = z.array(text).max(LIMITS.nexusPageItems);
    return (await this.#read('security/realms/active', list, 'the active realms')) ?? [];
  }

  /** Whether somebody without a login may read; undefined where the server does not say. */
  async anonymous(): Promise<boolean | undefined> {
    const found = await this.#read('security/anonymous', anonymousSchema, 'the anonymous access');
    return found?.enabled ?? undefined;
  }

  /** Whether the licence of the Community Edition is accepted (3.77 and later need it); undefined where there is none to accept. */
  async eula(): Promise<boolean | undefined> {
    const found = await this.#read('system/eula', eulaSchema, 'the licence');
    return found?.accepted ?? undefined;
  }

  async #read<T>(path: string, schema: z.ZodType<T>, what: string): Promise<T | undefined> {
    try {
      return await this.#ask(path, schema, what);
    } catch (error) {
      throw error instanceof SealiftError ? forAdmins(error, `${this.server.base.host}: ${what}`) : error;
    }
  }

  /** What everybody may ask who may read. */
  async #ask<T>(path: string, schema: z.ZodType<T>, what: string): Promise<T | undefined> {
    const body = await this.server.json(`service/rest/v1/${path}`, LIMITS.nexusAnswer);
    if (body === undefined) return undefined;
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
    const [issue] = parsed.error.issues;
    const where = issue === undefined ? '' : ` (${issue.path.join('.')}: ${issue.message})`;
    throw new SealiftError(
      'REGISTRY_ANSWER_INVALID',
      `${this.server.base.host}: ${what}: not what Nexus answers${where}`,
      { hint: 'check the address, and proxies in between' },
    );
  }

  async #refusal(response: HttpResponse, what: string): Promise<SealiftError> {
    const error = forAdmins(await this.server.fail(response, what), `${this.server.base.host}: ${what}`);
    const hint = CREATE_HINTS[response.status];
    if (hint === undefined) return error;
    const { message, details = {} } = error;
    return new SealiftError('TARGET_FAILED', message, { hint, details, cause: error });
  }
}

/** A refusal of something that only administrators may, with what to do about it. */
function forAdmins(error: SealiftError, about: string): SealiftError {
  // 401 is about the login itself; 403 is a login, or nobody, without the right.
  const isDenied = error.code === 'AUTH_DENIED' || error.code === 'AUTH_REQUIRED';
  if (!isDenied || error.details?.status !== 403) return error;
  const hint = error.code === 'AUTH_REQUIRED' ? (error.hint ?? ADMIN_HINT) : ADMIN_HINT;
  const message = `${about}: only for administrators (HTTP 403)`;
  return new SealiftError(error.code, message, { hint, details: { status: 403 }, cause: error });
}
