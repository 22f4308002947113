import { type Digest, digestOfHex, hexOf } from '../../core/digest.ts';
import { SealiftError } from '../../core/errors.ts';
import { GIB, LIMITS } from '../../core/limits.ts';
import { collect } from '../../io/verify.ts';
import type { OnConflict, PackageItem, Target } from '../target.ts';
import { hashThere } from './hash-there.ts';
import type { ListedFile, PythonIndex } from './python-index.ts';
import { planPython } from './python-run.ts';
import type { WebServer } from './server.ts';

export interface DevpiTargetOptions {
  /** Its base is that of devpi: `http://devpi.local:3141/`. */
  readonly server: WebServer;
  /** `user/index`. */
  readonly index: string;
  /** Make the index when it is missing. */
  readonly create: boolean;
  readonly onConflict: OnConflict;
}

/** devpi writes one upload after the other. */
const PARALLEL = 2;

/** Where pip finds an index of devpi. */
export function devpiIndexUrl(base: URL, index: string): URL {
  return new URL(`${index}/+simple/`, base);
}

/** An index of devpi as a target: wheels and source archives. */
export function devpiTarget(options: DevpiTargetOptions): Target {
  const { server, index, create, onConflict } = options;
  if (!/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/.test(index)) {
    throw new SealiftError('USAGE', `${index.slice(0, 200)}: not an index of devpi, which is USER/INDEX`);
  }
  const name = `pypi ${server.url(index).href}`;
  return {
    kind: 'pypi',
    name,
    isSeenAtOnce: true,
    accepts: (item) => item.kind === 'package',
    plan: (items, run) =>
      planPython(items, {
        ...run,
        server,
        index: new DevpiIndex(server, { index, name, create }),
        onConflict,
        parallel: PARALLEL,
      }),
  };
}

/**
 * How an index is made. No bases: pip then gets the loaded files and asks nobody else. Not volatile: what is there
 * stays as it is, and the same file sent twice is fine.
 */
const NEW_INDEX = { type: 'stage', bases: [], volatile: false };

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}

class DevpiIndex implements PythonIndex {
  readonly name: string;
  readonly uploadPath: string;
  readonly most = {
    bytes: GIB,
    hint: 'devpi takes up to 1 GiB at once: start devpi-server with a larger --max-request-body-size; a proxy before it has a limit of its own (nginx: client_max_body_size 0)',
  };
  readonly #server: WebServer;
  readonly #index: string;
  readonly #create: boolean;
  #isMissing = false;

  constructor(
    server: WebServer,
    of: { readonly index: string; readonly name: string; readonly create: boolean },
  ) {
    this.name = of.name;
    this.uploadPath = `${of.index}/`;
    this.#server = server;
    this.#index = of.index;
    this.#create = of.create;
  }

  /** A JSON answer; undefined where devpi itself says that there is none. */
  async #ask(path: string): Promise<unknown> {
    const headers = { accept: 'application/json' };
    const response = await this.#server.send({ method: 'GET', path, headers });
    const what = this.#server.url(path).pathname;
    if (response.status !== 200 && response.status !== 404) throw await this.#server.fail(response, what);
    const bytes = await collect(response.body, {
      limit: LIMITS.simplePage,
      what: this.#server.url(path).href,
    });
    const body = parsedJson(bytes.toString('utf8'));
    if (typeof body !== 'object' || body === null) {
      throw new SealiftError('TARGET_UNREACHABLE', `${this.name}: what answers is no devpi`, {
        hint: 'check the address (http://HOST:3141/USER/INDEX), its port, and proxies in between',
        details: { status: response.status },
      });
    }
    return response.status === 404 ? undefined : field(body, 'result');
  }

  async check(): Promise<readonly string[]> {
    const config = await this.#ask(`${this.#index}?no_projects=`);
    if (config === undefined) {
      this.#isMissing = true;
      if (this.#create) return ['it is not there yet and is made, without bases, not volatile'];
      throw new SealiftError('TARGET_FAILED', `${this.name}: there is no such index`, {
        hint: `write \`create: true\` in the file of the site, or run \`devpi index -c ${this.#index} bases= volatile=False\``,
      });
    }
    if (field(config, 'type') !== 'stage') {
      throw new SealiftError('TARGET_FAILED', `${this.name}: a mirror, which takes no uploads`, {
        hint: 'name an index of the type stage',
      });
    }
    const bases = field(config, 'bases');
    if (!Array.isArray(bases) || bases.length === 0) return [];
    const names = bases.map((base) => String(base).slice(0, 100)).join(', ');
    return [
      `it also shows what ${names} has; only files of its own count as present, and pip may take files from there`,
    ];
  }

  async prepare(): Promise<void> {
    if (!this.#isMissing) return;
    const response = await this.#server.send({
      method: 'PUT',
      path: this.#index,
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: Buffer.from(JSON.stringify(NEW_INDEX)),
    });
    if (response.status < 300 || response.status === 409) {
      await response.body.dump();
      return;
    }
    const error = await this.#server.fail(response, `making the index ${this.#index}`);
    const [user = ''] = this.#index.split('/');
    if ((await this.#ask(user)) !== undefined) throw error;
    throw new SealiftError(error.code, `${error.message} (there is no user ${user})`, {
      hint: `make the user first, who gets a password: \`devpi user -c ${user}\`; or name an index of a user who is there`,
      details: error.details ?? {},
    });
  }

  /** Its own files only: those of its bases are elsewhere, and go away with them. */
  async files(project: string): Promise<ReadonlyMap<string, ListedFile>> {
    const files = new Map<string, ListedFile>();
    if (this.#isMissing && !this.#create) return files;
    const versions = await this.#ask(`${this.#index}/${encodeURIComponent(project)}?ignore_bases=`);
    if (typeof versions !== 'object' || versions === null) return files;
    for (const version of Object.values(versions)) {
      const links = field(version, '+links');
      for (const link of Array.isArray(links) ? (links as readonly unknown[]) : []) {
        const file = field(link, 'rel') === 'releasefile' ? this.#fileOf(link) : undefined;
        if (file !== undefined) files.set(file.fileName, file);
        if (files.size > LIMITS.simpleFiles) {
          throw new SealiftError('REGISTRY_ANSWER_INVALID', `${this.name}: ${project} has too many files`);
        }
      }
    }
    return files;
  }

  /** Links name the address that devpi has for others; what counts is their path. */
  #fileOf(link: unknown): ListedFile | undefined {
    const href = field(link, 'href');
    if (typeof href !== 'string' || !URL.canParse(href)) return undefined;
    const { pathname } = new URL(href);
    const own = `/${this.#index}/+f/`;
    const at = pathname.indexOf(own);
    const fileName = decoded(pathname.split('/').at(-1) ?? '');
    if (at < 0 || fileName === undefined || fileName === '') return undefined;
    // `sha256=<hex>`; newer ones also have all hashes by their names.
    const spec = field(link, 'hash_spec');
    const [, stated] = /^sha256=([0-9a-f]{64})$/.exec(typeof spec === 'string' ? spec : '') ?? [];
    const hex = stated ?? field(field(link, 'hashes'), 'sha256');
    const sha256 = typeof hex === 'string' && /^[0-9a-f]{64}$/.test(hex) ? digestOfHex(hex) : undefined;
    return { fileName, path: pathname.slice(at + 1), sha256 };
  }

  async digestOf(file: ListedFile): Promise<Digest> {
    return hashThere(this.#server, file.path);
  }

  /** devpi files by the SHA-256. */
  urlOf({ content }: PackageItem, fileName: string): URL {
    const hex = hexOf(content.digest);
    const path = `${this.#index}/+f/${hex.slice(0, 3)}/${hex.slice(3, 16)}/${encodeURIComponent(fileName)}`;
    return this.#server.url(path);
  }

  async remove(files: readonly ListedFile[]): Promise<void> {
    for (const file of files) {
      // An index that is not volatile gives nothing away without this.
      const path = `${file.path}?force=`;
      const headers = { accept: 'application/json' };
      const response = await this.#server.send({ method: 'DELETE', path, headers });
      if (response.status !== 200 && response.status !== 404) {
        throw await this.#server.fail(response, `removal of ${file.fileName}`);
      }
      await response.body.dump();
    }
  }
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
