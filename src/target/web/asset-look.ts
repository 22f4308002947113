import { createHash } from 'node:crypto';
import { isAbort, SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { mapBounded } from '../../io/pool.ts';
import type { TargetOptions } from '../target.ts';
import type { AssetEntry, AssetPlace } from './asset.ts';
import { storedBytes } from './hash-there.ts';
import { NexusAdmin, type NexusAsset } from './nexus-admin.ts';

/** What is under the name of an entry. `found`: `algorithm:hex`, where it is known. */
export type Seen =
  | { readonly state: 'absent' | 'same' }
  | { readonly state: 'other'; readonly found: string | undefined };

/** Nexus's ETag of a file is its SHA-1 (registry.md 2.4); 3.30 sends none, and storage behind it has tags of its own. */
function sha1Of(etag: string | undefined): string | undefined {
  return /^(?:W\/)?"(?:\{SHA1\{)?([0-9a-f]{40})(?:\}\})?"$/.exec(etag ?? '')?.[1];
}

/** Compares by one hash. */
function compared(algorithm: string, expected: string, found: string): Seen {
  return found === expected ? { state: 'same' } : { state: 'other', found: `${algorithm}:${found}` };
}

/**
 * Finds out whether files are on a Nexus already. What is small is read and hashed: that is one request, and no server
 * lacks it. Of the rest HEAD gives the size and, on newer servers, the SHA-1. Of a large one the server is asked for its
 * SHA-256, so that neither side has to read it. (The list of all assets has ten on a page: each page costs as much as
 * reading 27 small files.)
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
    return mapBounded(entries, limits, async (entry) => {
      try {
        return await this.#ask(entry);
      } catch (error) {
        if (!(error instanceof SealiftError) || (await fatal(error))) throw error;
        return error;
      }
    });
  }

  async #ask(entry: AssetEntry): Promise<Seen> {
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
    if (fits) return this.#settle(entry, sha1);
    const isSmall = Number(size) <= LIMITS.assetOther;
    const read = isSmall ? await this.#read(entry) : undefined;
    return read ?? { state: 'other', found: sha1 === undefined ? undefined : `sha1:${sha1}` };
  }

  /** Reads what is there and hashes it; something much longer than what it should be is not read to its end. */
  async #read(entry: AssetEntry): Promise<Seen> {
    const most = Math.max(entry.blob.size, LIMITS.assetOther);
    const sha256 = createHash('sha256');
    let size = 0;
    try {
      for await (const chunk of storedBytes(this.#place.server, entry.path)) {
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
   * Something of the right size: by the digests that are known, the server's, then ours. Only where neither leads anywhere
   * a large file is read back.
   * @param sha1 by its ETag
   */
  async #settle(entry: AssetEntry, sha1: string | undefined): Promise<Seen> {
    const sha256 = entry.blob.digest.slice('sha256:'.length);
    const isLarge = entry.blob.size > LIMITS.assetCompared;
    const stated = isLarge ? await this.#pointed(entry, { sha256 }) : undefined;
    if (stated?.sha256 != null) return compared('sha256', sha256, stated.sha256.toLowerCase());
    if (!isLarge && sha1 === undefined) return this.#read(entry);
    const own = entry.sha1 ?? (await this.#ownSha1(entry));
    if (own !== undefined && sha1 !== undefined) return compared('sha1', own, sha1);
    const older = own === undefined ? undefined : await this.#pointed(entry, { sha1: own });
    if (older?.sha1 != null && own !== undefined) return compared('sha1', own, older.sha1.toLowerCase());
    return this.#read(entry);
  }

  /**
   * The checksums of a file as they are now. The search index may be behind, or not there: it only tells where to ask.
   */
  async #pointed(
    { name }: AssetEntry,
    hash: { readonly sha1: string } | { readonly sha256: string },
  ): Promise<NexusAsset['checksum']> {
    const { server, repository } = this.#place;
    const admin = new NexusAdmin(server);
    const isOurs = (asset: NexusAsset): boolean =>
      asset.repository === repository && asset.path.replace(/^\//, '') === name;
    try {
      const hint = (await admin.search({ repository, ...hash })).find(isOurs);
      const asset = hint === undefined ? undefined : await admin.asset(hint.id);
      return asset !== undefined && isOurs(asset) ? asset.checksum : undefined;
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError)) throw error;
      return undefined;
    }
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
