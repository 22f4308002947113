import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { referrersTag } from '../core/referrer.ts';
import type { Turns } from '../io/pool.ts';
import { collect } from '../io/verify.ts';
import type { ContentReader } from '../oci/content.ts';
import { parseManifest } from '../oci/manifest.ts';
import { addReferrers, referrerOf } from '../oci/referrers.ts';
import type { ManifestContent, Registry } from '../oci/registry.ts';
import { putOrFind } from './registry-conflicts.ts';
import type { PlacedEntry } from './registry-plan.ts';
import type { Item, ReferrerItem, Tally } from './target.ts';

/** What the registry can and cannot take of what travels with an image. */
interface Split {
  /** Those whose subject is there, subjects before what is about them. */
  readonly taken: readonly ReferrerItem[];
  readonly left: readonly ReferrerItem[];
}

/** One manifest that names a subject, as the subject's list must name it. */
interface Listed {
  readonly descriptor: Descriptor;
  readonly content: ManifestContent;
  /** The registry said when it was put that it lists it. */
  readonly indexed: boolean;
}

/** @param gone digests of the image that the registry has in another form (registry.md 1.6) */
function splitReferrers(item: Item, gone: ReadonlySet<Digest>): Split {
  const all = item.kind === 'image' ? (item.referrers ?? []) : [];
  const there = new Set([...item.graph.nodes.keys()].filter((d) => !gone.has(d)));
  const taken: ReferrerItem[] = [];
  let left: readonly ReferrerItem[] = all;
  for (let before = -1; before !== left.length; ) {
    before = left.length;
    const next = left.filter((r) => there.has(r.subject));
    for (const r of next) there.add(r.root.digest);
    taken.push(...next);
    left = left.filter((r) => !next.includes(r));
  }
  return { taken, left };
}

/** What a registry decides about content, as opposed to what goes wrong on the way. */
function isRefused(error: unknown): error is SealiftError {
  if (!(error instanceof SealiftError) || error.side !== 'destination') return false;
  const status = error.details?.status;
  return status === 400 || status === 404 || status === 405 || status === 415;
}

/** Puts what travels with images beside them: manifests by digest, cosign's tags, and the lists that lead to them. */
export class Attachments {
  readonly #registry: Registry;
  readonly #source: ContentReader;
  readonly #context: Context;
  readonly #upload: (repository: string, descriptor: Descriptor) => Promise<void>;
  readonly #tally: Tally;
  readonly #replaces: boolean;
  readonly #listed = new Map<PlacedEntry, Map<Digest, Listed[]>>();
  /** Lists of one subject are changed one after the other: the fallback tag is read, added to and written. */
  readonly #turns = new Map<string, Promise<void>>();
  readonly #puts: Turns;

  constructor(tools: {
    readonly registry: Registry;
    readonly source: ContentReader;
    readonly context: Context;
    readonly upload: (repository: string, descriptor: Descriptor) => Promise<void>;
    readonly tally: Tally;
    /** Whether tags that lead to something else are written over. */
    readonly replaces: boolean;
    /** Images under several tags of one repository have the same manifests about them. */
    readonly puts: Turns;
  }) {
    this.#registry = tools.registry;
    this.#source = tools.source;
    this.#context = tools.context;
    this.#upload = tools.upload;
    this.#tally = tools.tally;
    this.#replaces = tools.replaces;
    this.#puts = tools.puts;
  }

  async #content(descriptor: Descriptor): Promise<ManifestContent> {
    const bytes = this.#source.open(descriptor, { signal: this.#context.signal });
    const what = descriptor.digest;
    return { descriptor, bytes: await collect(bytes, { limit: LIMITS.manifest, what }) };
  }

  /** Which of these blobs of what travels with images their repositories lack. */
  async needs(entries: readonly PlacedEntry[], isAbsent: (digest: Digest) => boolean): Promise<Digest[]> {
    const needed: Digest[] = [];
    for (const { item, place } of entries) {
      const graphs = item.kind === 'image' ? (item.referrers ?? []).map(({ graph }) => graph) : [];
      for (const digest of graphs.flatMap(({ nodes }) => [...nodes.keys()]).filter(isAbsent)) {
        if (!(await this.#registry.hasBlob(place.repository, digest))) needed.push(digest);
      }
    }
    return needed;
  }

  /** Puts blobs and manifests by digest; nothing leads to them yet. What the registry refuses is a note. */
  async put(entry: PlacedEntry, gone: ReadonlySet<Digest>): Promise<void> {
    const { item } = entry;
    const { taken, left } = splitReferrers(item, gone);
    if (left.length > 0) {
      const about = [...new Set(left.map((r) => r.subject))].join(', ');
      entry.notes.push(
        `${left.length} signatures or referrers are not transferable: they are about ${about}, which this registry has in another form`,
      );
    }
    if (!gone.has(item.root.digest)) this.#remember(entry, await this.#content(item.root), false);
    for (const referrer of new Map(taken.map((r) => [r.root.digest, r])).values()) {
      try {
        await this.#putGraph(entry, referrer);
      } catch (error) {
        if (!isRefused(error)) throw error;
        entry.notes.push(`${referrer.root.digest} about ${referrer.subject} was refused: ${error.message}`);
      }
    }
  }

  async #putGraph(entry: PlacedEntry, { graph, root }: ReferrerItem): Promise<void> {
    const { repository } = entry.place;
    for (const { descriptor, kind } of graph.nodes.values()) {
      const { digest } = descriptor;
      if (kind === 'config' || kind === 'blob') {
        if (await this.#registry.hasBlob(repository, digest)) this.#tally.blobsPresent += 1;
        else await this.#upload(repository, descriptor);
        continue;
      }
      const content = await this.#content(descriptor);
      const put = (): Promise<boolean> => this.#putOne(entry, content);
      const indexed = await this.#puts(`${repository} ${digest}`, put);
      if (digest === root.digest) this.#remember(entry, content, indexed);
    }
  }

  /** @returns whether the registry says that it lists it */
  async #putOne(entry: PlacedEntry, content: ManifestContent): Promise<boolean> {
    const { repository } = entry.place;
    const { digest } = content.descriptor;
    const isKnown = (await this.#registry.resolve(repository, digest)) === digest;
    const place = { repository, reference: digest };
    const put = isKnown
      ? { indexed: false, there: true }
      : await putOrFind(this.#registry, place, { content, context: this.#context });
    this.#tally[put.there ? 'manifestsPresent' : 'manifestsWritten'] += 1;
    if (!put.there) entry.added?.manifests.push(digest);
    return put.indexed;
  }

  #remember(entry: PlacedEntry, content: ManifestContent, indexed: boolean): void {
    const referrer = referrerOf(parseManifest(content.bytes, content.descriptor), content.descriptor);
    if (referrer === undefined) return;
    const lists = this.#listed.get(entry) ?? new Map<Digest, Listed[]>();
    const listed = { descriptor: referrer.descriptor, content, indexed };
    lists.set(referrer.subject, [...(lists.get(referrer.subject) ?? []), listed]);
    this.#listed.set(entry, lists);
  }

  /** Makes what was put findable: cosign's tags, then the lists. */
  async name(entry: PlacedEntry, gone: ReadonlySet<Digest>): Promise<void> {
    const { repository } = entry.place;
    try {
      for (const { root, tag } of splitReferrers(entry.item, gone).taken) {
        const put = (): Promise<void> => this.#tag(entry, { root, tag: tag ?? '' });
        if (tag !== undefined) await this.#puts(`${repository}:${tag}`, put);
      }
      for (const [subject, listed] of this.#listed.get(entry) ?? []) {
        await this.#inTurn(`${repository} ${subject}`, () => this.#list(repository, subject, listed));
      }
    } catch (error) {
      if (!isRefused(error)) throw error;
      entry.notes.push(`what is about the image cannot all be found there: ${error.message}`);
    }
  }

  async #tag(
    entry: PlacedEntry,
    { root, tag }: { readonly root: Descriptor; readonly tag: string },
  ): Promise<void> {
    const { repository } = entry.place;
    const found = await this.#registry.resolve(repository, tag);
    if (found === root.digest) return;
    if (found !== undefined) {
      const fate = this.#replaces ? `becomes ${root.digest}` : 'stays so';
      entry.notes.push(`${repository}:${tag} is ${found} there and ${fate}`);
      if (!this.#replaces) return;
    }
    const content = await this.#content(root);
    await putOrFind(this.#registry, { repository, reference: tag }, { content, context: this.#context });
    if (found === undefined) entry.added?.names.push(tag);
  }

  #inTurn(key: string, work: () => Promise<void>): Promise<void> {
    const turn = (this.#turns.get(key) ?? Promise.resolve()).then(work);
    this.#turns.set(
      key,
      turn.catch(() => {}),
    );
    return turn;
  }

  /** Has a subject's list name what was put: by the registry itself, or in the index of the fallback tag. */
  async #list(repository: string, subject: Digest, listed: readonly Listed[]): Promise<void> {
    const { by, list } = await this.#registry.referrers(repository, subject);
    const known = new Set(list.map((d) => d.digest));
    const lacking: Descriptor[] = [];
    for (const { descriptor, content, indexed } of listed) {
      if (known.has(descriptor.digest)) continue;
      // A registry with the API that lists something only when it is put may have got it before it had the API.
      const again = by === 'api' && !indexed;
      const done = again
        ? (
            await putOrFind(
              this.#registry,
              { repository, reference: descriptor.digest },
              { content, context: this.#context },
            )
          ).indexed
        : indexed;
      if (by === 'tag' || !done) lacking.push(descriptor);
    }
    if (lacking.length > 0) await this.#addToTag(repository, referrersTag(subject), lacking);
  }

  /**
   * Adds to the index of the fallback tag. Who adds at the same time overwrites it, so it is looked at again and what
   * was lost is added to what is there now (registry.md 1.5). If-Match would not spare the look: distribution 2.8 and 3 give
   * an ETag and take any If-Match.
   */
  async #addToTag(repository: string, tag: string, lacking: readonly Descriptor[]): Promise<void> {
    for (let tries = 0; tries < LIMITS.tries; tries += 1) {
      const made = addReferrers(await this.#existing(repository, tag), lacking);
      if (made === undefined) return;
      await this.#registry.putManifest(repository, tag, made);
      if ((await this.#registry.resolve(repository, tag)) === made.descriptor.digest) return;
    }
    throw new SealiftError('TARGET_FAILED', `${repository}:${tag} does not keep what is added to it`, {
      hint: 'somebody else may write the same list all the time, or the registry is behind a cache; run the load again',
      side: 'destination',
    });
  }

  async #existing(repository: string, tag: string): Promise<Buffer | undefined> {
    if ((await this.#registry.describe(repository, tag)) === undefined) return undefined;
    return (await this.#registry.getManifest(repository, tag)).bytes;
  }

  /** Whether everything that the registry can take is there and found. */
  async isPresent(entry: PlacedEntry, gone: ReadonlySet<Digest>): Promise<boolean> {
    const { repository } = entry.place;
    for (const { root, subject, tag } of splitReferrers(entry.item, gone).taken) {
      const { digest } = root;
      if ((await this.#registry.resolve(repository, tag ?? digest)) !== digest) return false;
      if (tag !== undefined) continue;
      const { list } = await this.#registry.referrers(repository, subject);
      if (!list.some((d) => d.digest === digest)) return false;
    }
    return true;
  }
}
