import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Naming } from '../core/naming.ts';
import { isNetworkError } from '../io/network-errors.ts';
import { eachBounded } from '../io/pool.ts';
import type { BlobIntake, ContentReader, PassingContent } from '../oci/content.ts';
import type { ManifestContent, Registry } from '../oci/registry.ts';
import type { Substitute } from '../oci/sparse.ts';
import { type BlobWork, BlobWorks, planBlobs } from './registry-blobs.ts';
import { findElsewhere } from './registry-elsewhere.ts';
import { heldOrThere, registryIntake } from './registry-intake.ts';
import {
  noteReplaced,
  type PlacedEntry,
  placeOf,
  planNames,
  RegistryEntry,
  refuseCollisions,
} from './registry-plan.ts';
import { Attachments } from './registry-referrers.ts';
import { isRefusal, LOST_BLOB, SPARSE_REFUSED } from './registry-refusals.ts';
import { acceptedOf, type IndexPolicy, readManifest, type Shapes, shapesOf } from './registry-shapes.ts';
import { type Upload, uploader } from './registry-upload.ts';
import {
  emptyTally,
  failEntry,
  type Item,
  type Tally,
  type Target,
  type TargetOptions,
  type TargetRun,
} from './target.ts';

/** Blobs sent at once, and items whose manifests are put at once. */
const BLOBS_PARALLEL = 8;
const ITEMS_PARALLEL = 4;

export interface RegistryTargetOptions {
  readonly registry: Registry;
  /** Path below which everything is put; '' for none. */
  readonly prefix: string;
  readonly naming: Naming;
  readonly indexPolicy: IndexPolicy;
}

/** A registry as a target: images, charts and files, each under its name. */
export function registryTarget(options: RegistryTargetOptions): Target {
  const { registry, prefix } = options;
  return {
    kind: 'registry',
    name: `registry ${registry.host}${prefix === '' ? '' : `/${prefix}`}`,
    address: `${registry.origin}${prefix === '' ? '' : `/${prefix}`}`,
    // No client of a package index finds anything there.
    accepts: (item) => item.kind !== 'package',
    plan: (items, run) => planRegistry(items, { ...options, ...run }),
  };
}

type Options = RegistryTargetOptions & TargetOptions;

/** An entry with its place; a name that the target cannot have is the item's own failure. */
function placedEntry(item: Item, options: Options): PlacedEntry {
  const { host } = options.registry;
  try {
    return new RegistryEntry(item, { host, place: placeOf(item, options) });
  } catch (error) {
    const entry = new RegistryEntry(item, { host, place: { repository: '', tag: undefined } });
    entry.isNew = false;
    failEntry(entry, error);
    return entry;
  }
}

async function planRegistry(items: readonly Item[], options: Options): Promise<TargetRun> {
  const { registry, context } = options;
  const entries = items.map((item) => placedEntry(item, options));
  refuseCollisions(entries);
  await registry.ping();
  const shapes = new Map<Item, Shapes>();
  for (const entry of entries) {
    const shape = await shapesOf(entry.item, options);
    if (shape.filtered.size === 0) continue;
    shapes.set(entry.item, shape);
    entry.accepted = acceptedOf(entry.item, shape, options.indexPolicy);
  }
  const ask = { registry, signal: context.signal };
  const run = new RegistryRun(entries, { options, shapes });
  await planNames(entries.filter(isOpen), { ...ask, isComplete: run.isComplete });
  run.works = await planBlobs(entries.filter(isOpen), ask);
  return run;
}

function isOpen(entry: PlacedEntry): boolean {
  return entry.state === 'write';
}

/** What a name shall lead to; its bytes where the bundle does not have them. */
type Top = Pick<ManifestContent, 'descriptor'> & Partial<ManifestContent>;

class RegistryRun implements TargetRun {
  readonly entries: readonly PlacedEntry[];
  readonly tally: Tally = emptyTally();
  readonly #options: Options;
  /** What to do about blobs, once it is planned. */
  works: BlobWorks | undefined;
  readonly #upload: Upload;
  readonly #attachments: Attachments;
  /** Of items of which something was left out. */
  readonly #shapes: ReadonlyMap<Item, Shapes>;
  /** What to put under the tag where it is not the item's own root: after the manifests are there. */
  readonly #tops = new Map<PlacedEntry, Top>();
  /** Blobs that are nowhere at hand and in none of the repositories that need them: another one that has each. */
  #elsewhere: ReadonlyMap<Digest, string> = new Map();
  /** True once the registry refused an index with absent children. */
  #strict: boolean;

  constructor(
    entries: readonly PlacedEntry[],
    parts: {
      readonly options: Options;
      readonly shapes: ReadonlyMap<Item, Shapes>;
    },
  ) {
    this.entries = entries;
    this.#options = parts.options;
    this.#shapes = parts.shapes;
    const { registry, source, context } = parts.options;
    const passing = parts.options.passing === true;
    this.#upload = uploader({ registry, context, tally: this.tally, passing });
    this.#attachments = new Attachments({
      registry,
      source,
      signal: context.signal,
      upload: (repository, descriptor) => {
        const from = this.#elsewhere.get(descriptor.digest);
        return this.#upload(repository, descriptor, this.#supplierOf(descriptor, { from }));
      },
      tally: this.tally,
    });
    this.#strict = parts.options.indexPolicy === 'filtered' || parts.options.indexPolicy === 'single';
  }

  /** Indexes of the item that the registry has in another form when its name leads to `top`. */
  #gone(entry: PlacedEntry, top: Digest | undefined): ReadonlySet<Digest> {
    if (top === undefined || top === entry.item.root.digest) return new Set();
    return new Set(this.#shapes.get(entry.item)?.filtered.keys());
  }

  readonly isComplete = (entry: PlacedEntry, found: Digest): Promise<boolean> =>
    this.#attachments.isPresent(entry, this.#gone(entry, found));

  #open(): PlacedEntry[] {
    return this.entries.filter(isOpen);
  }

  async needs(isAbsent: (digest: Digest) => boolean): Promise<Digest[]> {
    const { works } = this;
    const attached = await this.#attachments.needs(this.#open(), isAbsent);
    const lacking = [...new Set([...(works?.needs(isAbsent) ?? []), ...attached])];
    if (lacking.length === 0) return [];
    const { registry, context } = this.#options;
    const own = this.entries.map(({ place }) => place.repository).filter((name) => name !== '');
    const usersOf = (digest: Digest): readonly string[] => works?.find(digest)?.wanted ?? [];
    this.#elsewhere = await findElsewhere(lacking, { registry, signal: context.signal, own, usersOf });
    return lacking.filter((digest) => !this.#elsewhere.has(digest));
  }

  async writeBlobs(): Promise<void> {
    const { context } = this.#options;
    const { works } = this;
    if (works === undefined) return;
    await eachBounded(works.inOrder(), { limit: BLOBS_PARALLEL, signal: context.signal }, async (blob) => {
      const work = works.at(blob);
      this.tally.blobsPresent += work.present.length;
      await this.#writeBlob(work);
    });
    this.works = undefined;
  }

  async intake(): Promise<BlobIntake> {
    const works = this.works ?? new BlobWorks([]);
    this.works = undefined;
    for (const blob of works.inOrder()) this.tally.blobsPresent += works.at(blob).present.length;
    return registryIntake(works, {
      entries: this.#open(),
      registry: this.#options.registry,
      write: (work, blob) => this.#writeBlob(work, blob),
      upload: this.#upload,
      fail: (entry, error) => this.#fail([entry], error),
    });
  }

  /**
   * One blob into every repository that lacks it: uploaded once, mounted elsewhere where the registry does that.
   * @param passing where it is read when it comes by itself
   */
  async #writeBlob(work: BlobWork, passing?: PassingContent): Promise<void> {
    const { registry } = this.#options;
    let from = work.present[0] ?? this.#elsewhere.get(work.descriptor.digest);
    for (const repository of work.wanted) {
      try {
        if (from !== undefined && (await registry.mountBlob(repository, work.descriptor.digest, from))) {
          this.tally.blobsMounted += 1;
        } else
          await this.#upload(
            repository,
            work.descriptor,
            this.#supplierOf(work.descriptor, { passing, from }),
          );
        from ??= repository;
      } catch (error) {
        // A repository that refuses is the failure of what goes there, not of others with the same blob.
        await this.#fail(
          work.users.filter(({ place }) => place.repository === repository),
          error,
        );
      }
    }
  }

  /** Records a failure. A registry that is gone fails as a whole: nobody waits for the rest. @throws TARGET_UNREACHABLE */
  async #fail(entries: readonly PlacedEntry[], error: unknown): Promise<void> {
    if (isNetworkError(error)) await this.#options.registry.ping(LIMITS.connectMs);
    for (const entry of entries) failEntry(entry, error);
  }

  /** Who has a blob: what passes by itself, or the bundle, or where that leaves it out another repository here. */
  #supplierOf(
    { digest }: Descriptor,
    where: { readonly passing?: PassingContent | undefined; readonly from: string | undefined },
  ): ContentReader {
    const { registry, source, isAbsent } = this.#options;
    const { passing, from } = where;
    if (passing !== undefined) return heldOrThere(passing, { registry, from });
    if (from === undefined || isAbsent?.(digest) !== true) return source;
    return { open: (descriptor, options) => registry.readBlob(from, descriptor, options) };
  }

  async writeManifests(): Promise<void> {
    const limits = { limit: ITEMS_PARALLEL, signal: this.#options.context.signal };
    await eachBounded(this.#open(), limits, async (entry) => {
      try {
        const { descriptor, bytes } = await this.#putGraph(entry);
        const isCarried = entry.item.graph.nodes.has(descriptor.digest);
        if (descriptor.digest !== entry.item.root.digest) {
          this.#tops.set(entry, isCarried ? { descriptor } : { descriptor, bytes });
        }
        await this.#attachments.put(entry, this.#gone(entry, entry.pushedDigest));
      } catch (error) {
        await this.#fail([entry], error);
      }
    });
  }

  /** Children first; returns what the name shall point to. */
  async #putGraph(entry: PlacedEntry): Promise<ManifestContent> {
    const shapes = this.#shapes.get(entry.item);
    let top: ManifestContent | undefined;
    for (const node of entry.item.graph.nodes.values()) {
      if (node.kind !== 'manifest' && node.kind !== 'index') continue;
      const { descriptor } = node;
      if (shapes?.filtered.has(descriptor.digest) !== true) {
        top = await this.#put(entry, await this.#content(descriptor));
        continue;
      }
      const substitute = shapes.filtered.get(descriptor.digest);
      top = (await this.#putSparse(entry, { node: descriptor, substitute, single: shapes.single })) ?? top;
    }
    if (top === undefined) throw new SealiftError('INTERNAL', `${entry.item.name}: an empty graph`);
    return top;
  }

  async #content(descriptor: Descriptor): Promise<ManifestContent> {
    return { descriptor, bytes: await readManifest(descriptor, this.#options) };
  }

  async #putSparse(
    entry: PlacedEntry,
    about: {
      readonly node: Descriptor;
      /** undefined: nothing below this index is carried. */
      readonly substitute: Substitute | undefined;
      readonly single: Descriptor | undefined;
    },
  ): Promise<ManifestContent | undefined> {
    const policy = this.#options.indexPolicy;
    if (!this.#strict) {
      try {
        return await this.#put(entry, await this.#content(about.node));
      } catch (error) {
        if (policy === 'original' || !isRefusal(error, SPARSE_REFUSED)) throw error;
        this.#strict = true;
      }
    }
    if (about.substitute === undefined) return undefined;
    const content =
      about.single !== undefined && policy !== 'filtered'
        ? await this.#content(about.single)
        : await this.#put(entry, about.substitute);
    if (about.node.digest === entry.item.root.digest) {
      noteReplaced(entry, { pushed: content.descriptor.digest, context: this.#options.context });
    }
    return content;
  }

  async #put(entry: PlacedEntry, content: ManifestContent): Promise<ManifestContent> {
    const { registry } = this.#options;
    const { repository } = entry.place;
    const { digest } = content.descriptor;
    if (!entry.isNew && (await registry.resolve(repository, digest)) === digest) {
      this.tally.manifestsPresent += 1;
      return content;
    }
    try {
      await registry.putManifest(repository, digest, content);
    } catch (error) {
      if (!isRefusal(error, LOST_BLOB) || !(await this.#sendAgain(entry, digest))) throw error;
      await registry.putManifest(repository, digest, content);
    }
    this.tally.manifestsWritten += 1;
    entry.added?.manifests.push(digest);
    return content;
  }

  /** Some registries say that a blob is there and then do not find it (nexus-public #264): its bytes are sent once more. */
  async #sendAgain(entry: PlacedEntry, digest: Digest): Promise<boolean> {
    const node = entry.item.graph.nodes.get(digest);
    if (node?.kind !== 'manifest') return false;
    for (const child of node.children)
      await this.#upload(entry.place.repository, child, this.#options.source);
    entry.notes.push(`the registry had lost blobs of ${digest}; they were sent again`);
    return true;
  }

  async commit(): Promise<void> {
    const { registry, context } = this.#options;
    await eachBounded(this.#open(), { limit: ITEMS_PARALLEL, signal: context.signal }, async (entry) => {
      const top: Top = this.#tops.get(entry) ?? { descriptor: entry.item.root };
      const { repository, tag } = entry.place;
      try {
        await this.#attachments.name(entry, this.#gone(entry, entry.pushedDigest));
        const { descriptor, bytes } = top;
        const { digest } = descriptor;
        if (tag !== undefined) {
          const content = bytes === undefined ? await this.#content(descriptor) : { descriptor, bytes };
          await registry.putManifest(repository, tag, content);
        }
        const found = await registry.resolve(repository, tag ?? digest);
        if (found !== digest) {
          throw new SealiftError('TARGET_FAILED', `${entry.as}: is ${found ?? 'absent'} after the push`, {
            hint: 'somebody else may push the same tag, or the registry is behind a cache; run the load again',
          });
        }
        entry.state = 'written';
      } catch (error) {
        await this.#fail([entry], error);
      }
    });
  }

  async close(): Promise<void> {}
}
