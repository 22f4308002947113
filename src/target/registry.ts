import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Naming } from '../core/naming.ts';
import { isNetworkError } from '../io/network-errors.ts';
import { createTurns, eachBounded } from '../io/pool.ts';
import type { BlobIntake, ContentReader, PassingContent } from '../oci/content.ts';
import type { ManifestContent, Registry } from '../oci/registry.ts';
import { type BlobWork, BlobWorks, planBlobs } from './registry-blobs.ts';
import { type ConflictRule, putTag } from './registry-conflicts.ts';
import { findElsewhere } from './registry-elsewhere.ts';
import { heldOrThere, registryIntake } from './registry-intake.ts';
import { ManifestWriter } from './registry-manifests.ts';
import { type PlacedEntry, placeOf, planNames, RegistryEntry, refuseCollisions } from './registry-plan.ts';
import { Attachments } from './registry-referrers.ts';
import { acceptedOf, type IndexPolicy, type Shapes, shapesOf } from './registry-shapes.ts';
import { type Upload, uploader } from './registry-upload.ts';
import {
  emptyTally,
  failEntry,
  type Item,
  type OnConflict,
  type Tally,
  type Target,
  type TargetOptions,
  type TargetRun,
} from './target.ts';
import { untilWritable } from './writable.ts';

/** Blobs sent at once, and items whose manifests are put at once, where nothing else is asked for. */
const BLOBS_PARALLEL = 8;
const ITEMS_PARALLEL = 4;

/** Writers at once: as many as are asked for, at most LIMITS.writers. */
function writers(parallel: number | undefined, usual: number): number {
  return Math.max(1, Math.min(parallel ?? usual, LIMITS.writers));
}

export interface RegistryTargetOptions {
  readonly registry: Registry;
  /** Path below which everything is put; '' for none. */
  readonly prefix: string;
  readonly naming: Naming;
  readonly indexPolicy: IndexPolicy;
  /**
   * What to do with a tag that leads to something else; default `replace`, as registries do. A repository that refuses to
   * move it (Nexus's "Disable redeploy") makes it a conflict whatever is said here.
   */
  readonly onConflict?: OnConflict;
  /** Write over the tag `latest` whatever `onConflict` says, because it is meant to move (Nexus's latestPolicy); default false. */
  readonly movesLatest?: boolean;
  /** Uploads at once, 1 to LIMITS.writers; default 8, and 4 items whose manifests are put at once. */
  readonly parallel?: number;
  /** Whether the server takes writes now (Nexus's /status/writable); it is waited for before the first write. Default: nobody asks. */
  readonly writable?: () => Promise<boolean>;
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
  await planNames(entries.filter(isOpen), { ...ask, isComplete: run.isComplete, rule: ruleOf(options) });
  run.works = await planBlobs(entries.filter(isOpen), ask);
  return run;
}

function ruleOf({ onConflict = 'replace', movesLatest = false }: Options): ConflictRule {
  return { onConflict, movesLatest };
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
  readonly #manifests: ManifestWriter;

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
    const puts = createTurns();
    this.#attachments = new Attachments({
      registry,
      source,
      context,
      upload: (repository, descriptor) => {
        const from = this.#elsewhere.get(descriptor.digest);
        return this.#upload(repository, descriptor, this.#supplierOf(descriptor, { from }));
      },
      tally: this.tally,
      replaces: (parts.options.onConflict ?? 'replace') === 'replace',
      puts,
    });
    const { options, shapes } = parts;
    this.#manifests = new ManifestWriter({
      options,
      shapes,
      tally: this.tally,
      puts,
      resend: (repository, descriptor) => this.#upload(repository, descriptor, source, { again: true }),
    });
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
    const { context, parallel } = this.#options;
    const { works } = this;
    if (works === undefined) return;
    await this.#ready();
    const limits = { limit: writers(parallel, BLOBS_PARALLEL), signal: context.signal };
    await eachBounded(works.inOrder(), limits, async (blob) => {
      const work = works.at(blob);
      this.tally.blobsPresent += work.present.length;
      await this.#writeBlob(work);
    });
    this.works = undefined;
  }

  /** Waits until the server takes writes, where there is something to write. @throws TARGET_READ_ONLY */
  async #ready(): Promise<void> {
    const { writable, context, registry } = this.#options;
    if (writable === undefined || this.#open().length === 0) return;
    await untilWritable(writable, { name: registry.host, context });
  }

  async intake(): Promise<BlobIntake> {
    await this.#ready();
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
    const { descriptor } = work;
    let from = work.present[0] ?? this.#elsewhere.get(descriptor.digest);
    for (const repository of work.wanted) {
      try {
        const linked = await this.#link(repository, descriptor.digest, from);
        if (linked !== undefined) this.tally[linked] += 1;
        else await this.#upload(repository, descriptor, this.#supplierOf(descriptor, { passing, from }));
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

  /**
   * Has a repository get a blob from another one there. One that does not do that may still have it: Nexus keeps a blob
   * once for all images (registry.md 2.8).
   * @returns what to count; undefined: it must be sent
   */
  async #link(
    repository: string,
    digest: Digest,
    from: string | undefined,
  ): Promise<'blobsMounted' | 'blobsPresent' | undefined> {
    const { registry } = this.#options;
    if (from === undefined) return undefined;
    if (await registry.mountBlob(repository, digest, from)) return 'blobsMounted';
    return (await registry.hasBlob(repository, digest)) ? 'blobsPresent' : undefined;
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
    const { parallel, context } = this.#options;
    const limits = { limit: writers(parallel, ITEMS_PARALLEL), signal: context.signal };
    await eachBounded(this.#open(), limits, async (entry) => {
      try {
        const { descriptor, bytes } = await this.#manifests.putGraph(entry);
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

  async commit(): Promise<void> {
    const { registry, context, parallel } = this.#options;
    const limits = { limit: writers(parallel, ITEMS_PARALLEL), signal: context.signal };
    await eachBounded(this.#open(), limits, async (entry) => {
      const top: Top = this.#tops.get(entry) ?? { descriptor: entry.item.root };
      const { repository, tag } = entry.place;
      try {
        await this.#attachments.name(entry, this.#gone(entry, entry.pushedDigest));
        const { descriptor, bytes } = top;
        const { digest } = descriptor;
        if (tag !== undefined) {
          const known = bytes === undefined ? undefined : { descriptor, bytes };
          const content = known ?? (await this.#manifests.content(descriptor));
          if (!(await putTag(registry, entry, { content, context, rule: ruleOf(this.#options) }))) return;
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
