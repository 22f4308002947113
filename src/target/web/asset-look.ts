import { createHash } from 'node:crypto';
import { isAbort, SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { mapBounded } from '../../io/pool.ts';
import { resumableBytes } from '../../io/resume.ts';
import type { TargetOptions } from '../target.ts';
import type { AssetEntry, AssetPlace } from './asset.ts';
import { NexusAdmin } from './nexus-admin.ts';

/** What is under the name of an entry. `found`: `algorithm:hex`, where it is known. */
export type Seen =
  | { readonly state: 'absent' | 'same' }
  | { readonly state: 'other'; readonly found: string | undefined };

/** Something of the right size, of which no digest is known that could be compared. */
interface Unsure {
  readonly state: 'unsure';
  readonly sha1: string | undefined;
}

type Answer = Seen | Unsure;

/** Nexus's ETag of a file is its SHA-1 (registry.md 2.4); 3.30 sends none, and storage behind it has tags of its own. */
function sha1Of(etag: string | undefined): string | undefined {
  return /^(?:W\/)?"(?:\{SHA1\{)?([0-9a-f]{40})(?:\}\})?"$/.exec(etag ?? '')?.[1];
}

/** Compares by one hash. */
function compared(algorithm: string, expected: string, found: string): Seen {
  return found === expected ? { state: 'same' } : { state: 'other', found: `${algorithm}:${found}` };
}

/** The bytes of a file there, from one offset on; cuts are survived. @throws CONTENT_NOT_FOUND, and as `WebServer.fail` */
export function storedBytes(
  { server }: AssetPlace,
  entry: Pick<AssetEntry, 'path' | 'as'>,
  start = 0,
): AsyncGenerator<Buffer> {
  const { path, as } = entry;
  return resumableBytes({
    what: as,
    start,
    context: server.context,
    open: async (at) => {
      const headers = at === 0 ? {} : { range: `bytes=${at}-` };
      const response = await server.send({ method: 'GET', path, headers });
      if ([200, 206, 416].includes(response.status)) return response;
      if (response.status !== 404) throw await server.fail(response, `GET ${entry.as}`);
      await response.body.dump();
      throw new SealiftError('CONTENT_NOT_FOUND', `${as}: is not there`);
    },
  });
}

/**
 * Finds out whether files are on a Nexus already. What is small is read and hashed: that is one request, and no server
 * lacks it. Of the rest HEAD gives the size and, since about 3.60, the SHA-1. Where that is not enough and reading would
 * be much, the list of all assets is asked, which is as fresh as the files themselves; its pages are short (10).
 */
export class AssetLook {
  readonly #place: AssetPlace;
  readonly #options: TargetOptions;
  readonly #lanes: number;

  constructor(place: AssetPlace, options: TargetOptions & { readonly lanes: number }) {
    this.#place = place;
    this.#options = options;
    this.#lanes = options.lanes;
  }

  /**
   * @param entries with `sha1` where their bytes were just sent
   * @returns for each what is there, or why that cannot be said
   * @throws what concerns the whole server, as `fatal` decides
   */
  async all(
    entries: readonly AssetEntry[],
    fatal: (error: unknown) => Promise<boolean>,
  ): Promise<(Seen | SealiftError)[]> {
    const limits = { limit: this.#lanes, signal: this.#options.context.signal };
    const caught = async <T>(work: Promise<T>): Promise<T | SealiftError> => {
      try {
        return await work;
      } catch (error) {
        if (!(error instanceof SealiftError) || (await fatal(error))) throw error;
        return error;
      }
    };
    const answers = await mapBounded(entries, limits, (entry) => caught(this.#ask(entry)));
    const isUnsure = (_: AssetEntry, at: number): boolean => stateOf(answers[at]) === 'unsure';
    const listed = await this.#list(entries.filter(isUnsure));
    return mapBounded([...entries.keys()], limits, async (at) => {
      const [entry, answer] = [entries[at], answers[at]];
      if (entry === undefined || answer === undefined) throw new SealiftError('INTERNAL', 'a lost entry');
      if (answer instanceof SealiftError || answer.state !== 'unsure') return answer;
      return caught(this.#settle(entry, { answer, listed: listed.get(entry.name) }));
    });
  }

  /** One request. */
  async #ask(entry: AssetEntry): Promise<Answer> {
    if (entry.blob.size <= LIMITS.assetRead) return this.#read(entry);
    const { server } = this.#place;
    const response = await server.send({ method: 'HEAD', path: entry.path });
    const { status, headers } = response;
    if (status !== 200 && status !== 404) throw await server.fail(response, `HEAD ${entry.as}`);
    await response.body.dump();
    if (status === 404) return { state: 'absent' };
    const sha1 = sha1Of(headers.etag);
    const size = headers['content-length'];
    const fits = size === undefined || size === String(entry.blob.size);
    if (entry.sha1 !== undefined && sha1 !== undefined && fits) return compared('sha1', entry.sha1, sha1);
    if (fits) return { state: 'unsure', sha1 };
    const isSmall = Number(size) <= LIMITS.assetsRead;
    const read = isSmall ? await this.#read(entry) : undefined;
    return read ?? { state: 'other', found: sha1 === undefined ? undefined : `sha1:${sha1}` };
  }

  /** Reads what is there and hashes it; something much longer than what it should be is not read to its end. */
  async #read(entry: AssetEntry): Promise<Seen> {
    const most = Math.max(entry.blob.size, LIMITS.assetsRead);
    const sha256 = createHash('sha256');
    let size = 0;
    try {
      for await (const chunk of storedBytes(this.#place, entry)) {
        size += chunk.length;
        if (size > most) return { state: 'other', found: undefined };
        sha256.update(chunk);
      }
    } catch (error) {
      if (error instanceof SealiftError && error.code === 'CONTENT_NOT_FOUND') return { state: 'absent' };
      throw error;
    }
    return compared('sha256', entry.blob.digest.slice('sha256:'.length), sha256.digest('hex'));
  }

  /**
   * The checksums of some assets by name, where reading these would be much. It is no fault where they cannot be listed:
   * not everybody may, and a list has a limit.
   */
  async #list(
    entries: readonly AssetEntry[],
  ): Promise<ReadonlyMap<string, Readonly<Record<string, unknown>>>> {
    const found = new Map<string, Readonly<Record<string, unknown>>>();
    const bytes = entries.reduce((sum, { blob }) => sum + blob.size, 0);
    if (bytes <= LIMITS.assetsRead) return found;
    const wanted = new Set(entries.map(({ name }) => name));
    const { server, repository } = this.#place;
    let seen = 0;
    try {
      for await (const { path, checksum } of new NexusAdmin(server).assets(repository)) {
        const name = path.replace(/^\//, '');
        if (wanted.delete(name) && checksum !== undefined && checksum !== null) found.set(name, checksum);
        seen += 1;
        if (wanted.size === 0 || seen >= LIMITS.assetsListed) break;
      }
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    }
    return found;
  }

  async #settle(
    entry: AssetEntry,
    about: {
      readonly answer: Unsure;
      readonly listed: Readonly<Record<string, unknown>> | undefined;
    },
  ): Promise<Seen> {
    const { sha256, sha1 = about.answer.sha1 } = about.listed ?? {};
    const expected = entry.blob.digest.slice('sha256:'.length);
    if (typeof sha256 === 'string') return compared('sha256', expected, sha256.toLowerCase());
    const own = typeof sha1 === 'string' ? (entry.sha1 ?? (await this.#ownSha1(entry))) : undefined;
    if (own !== undefined && typeof sha1 === 'string') return compared('sha1', own, sha1.toLowerCase());
    return this.#read(entry);
  }

  /** Of the bytes of the bundle; undefined where they are not at hand. */
  async #ownSha1({ blob }: AssetEntry): Promise<string | undefined> {
    const { source, context, passing, isAbsent } = this.#options;
    if (passing === true || isAbsent?.(blob.digest) === true) return undefined;
    const sha1 = createHash('sha1');
    for await (const chunk of source.open(blob, { signal: context.signal })) sha1.update(chunk);
    return sha1.digest('hex');
  }
}

function stateOf(answer: Answer | SealiftError | undefined): string | undefined {
  return answer instanceof SealiftError ? undefined : answer?.state;
}
