import { type Digest, isDigest } from '../../core/digest.ts';
import { SealiftError } from '../../core/errors.ts';
import { LIMITS, MIB } from '../../core/limits.ts';
import { parseSimplePage } from '../../python/simple-page.ts';
import type { OnConflict, PackageItem, Target } from '../target.ts';
import { hashThere } from './hash-there.ts';
import { NexusAdmin } from './nexus-admin.ts';
import type { ListedFile, PythonIndex } from './python-index.ts';
import { planPython } from './python-run.ts';
import type { WebServer } from './server.ts';

export interface PypiTargetOptions {
  /** Its base is that of Nexus: `https://nexus.local/`. */
  readonly server: WebServer;
  /** A hosted repository of the format pypi. */
  readonly repository: string;
  readonly onConflict: OnConflict;
  /** Uploads at a time; default 4, at most LIMITS.writers. */
  readonly parallel?: number;
}

/** Above this the search is asked first; below it reading the file costs no more than asking. */
const SMALL = 4 * MIB;

/** Where pip finds a repository of Nexus. */
export function pypiIndexUrl(base: URL, repository: string): URL {
  return new URL(`repository/${encodeURIComponent(repository)}/simple/`, base);
}

/** A PyPI hosted repository of Nexus as a target: wheels and source archives (registry.md 2.7). */
export function pypiTarget(options: PypiTargetOptions): Target {
  const { server, repository, onConflict, parallel = 4 } = options;
  const name = `pypi ${server.url(`repository/${encodeURIComponent(repository)}`).href}`;
  return {
    kind: 'pypi',
    name,
    isSeenAtOnce: true,
    accepts: (item) => item.kind === 'package',
    plan: (items, run) =>
      planPython(items, {
        ...run,
        server,
        index: new NexusIndex(server, { repository, name }),
        onConflict,
        parallel: Math.min(parallel, LIMITS.writers),
      }),
  };
}

class NexusIndex implements PythonIndex {
  readonly name: string;
  readonly uploadPath: string;
  readonly #server: WebServer;
  readonly #admin: NexusAdmin;
  readonly #repository: string;

  constructor(server: WebServer, of: { readonly repository: string; readonly name: string }) {
    this.name = of.name;
    this.uploadPath = `repository/${encodeURIComponent(of.repository)}/`;
    this.#server = server;
    this.#admin = new NexusAdmin(server);
    this.#repository = of.repository;
  }

  /** Whoever may write to a repository also sees it in the list. */
  async check(): Promise<readonly string[]> {
    const all = await this.#admin.repositories();
    const own = all.find(({ name }) => name === this.#repository);
    if (own?.format === 'pypi' && own.type === 'hosted') return [];
    const hosted = all.filter(({ format, type }) => format === 'pypi' && type === 'hosted');
    const right =
      hosted.length === 0
        ? 'there is no hosted one: `create: true` in the file of the site makes it'
        : `hosted ones are ${hosted.map(({ name }) => name).join(', ')}`;
    const why =
      own === undefined
        ? 'there is no such repository, or this login may not see it'
        : `it is a ${own.type} repository of the format ${own.format}`;
    throw new SealiftError(
      'TARGET_FAILED',
      `${this.name}: ${why}; a hosted one of the format pypi is needed`,
      {
        hint: `Python packages are uploaded to hosted repositories: ${right}`,
      },
    );
  }

  async prepare(): Promise<void> {}

  async files(project: string): Promise<ReadonlyMap<string, ListedFile>> {
    const path = `${this.uploadPath}simple/${encodeURIComponent(project)}/`;
    const text = await this.#server.text(path, LIMITS.simplePage);
    if (text === undefined) return new Map();
    const contentType = text.trimStart().startsWith('{') ? 'application/json' : 'text/html';
    const files = parseSimplePage(text, { url: this.#server.url(path).href, contentType });
    return new Map(
      files.map(({ file, url, sha256, md5 }) => [
        file,
        { fileName: file, path: this.#below(new URL(url)), sha256, md5 },
      ]),
    );
  }

  /** Links name the address that Nexus has for others; what counts is the path in the repository. */
  #below({ pathname }: URL): string {
    const at = pathname.indexOf('/packages/');
    return `${this.uploadPath}${pathname.slice(at < 0 ? 1 : at + 1)}`;
  }

  /** Older servers list MD5 only. The search knows all hashes, but late: its MD5 must be that of the page. */
  async digestOf(file: ListedFile, item: PackageItem): Promise<Digest> {
    const found = item.content.size <= SMALL ? undefined : await this.#searched(file, item);
    if (found !== undefined) return found;
    return hashThere(this.#server, file.path);
  }

  async #searched(file: ListedFile, { project }: PackageItem): Promise<Digest | undefined> {
    const { md5 } = file;
    if (md5 === undefined) return undefined;
    try {
      for (const asset of await this.#admin.search({ repository: this.#repository, md5 })) {
        const sha256 = `sha256:${asset.checksum?.sha256 ?? ''}`;
        const isSame = asset.path.endsWith(`/${file.fileName}`) && asset.path.includes(`/${project}/`);
        if (isSame && asset.checksum?.md5 === md5 && isDigest(sha256)) return sha256;
      }
    } catch (error) {
      // Some servers have no search index, and some logins may not search.
      if (!(error instanceof SealiftError) || error.code === 'ABORTED') throw error;
    }
    return undefined;
  }

  urlOf({ project, version }: PackageItem, fileName: string): URL {
    const path = ['packages', project, version, fileName].map(encodeURIComponent).join('/');
    return this.#server.url(`${this.uploadPath}${path}`);
  }

  async remove(files: readonly ListedFile[]): Promise<void> {
    const paths = new Set(files.map(({ path }) => decodeURIComponent(path.slice(this.uploadPath.length))));
    for await (const { id, path } of this.#admin.assets(this.#repository)) {
      // Newer servers have a slash in front.
      if (paths.has(path.replace(/^\//, ''))) await this.#admin.remove('assets', id);
    }
  }
}
