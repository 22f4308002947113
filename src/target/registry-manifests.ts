import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { backoffMs } from '../io/http.ts';
import { sleep, type Turns } from '../io/pool.ts';
import type { ManifestContent } from '../oci/registry.ts';
import type { Substitute } from '../oci/sparse.ts';
import type { RegistryTargetOptions } from './registry.ts';
import { putOrFind } from './registry-conflicts.ts';
import { noteReplaced, type PlacedEntry } from './registry-plan.ts';
import { isRefusal, LOST_BLOB, SPARSE_REFUSED } from './registry-refusals.ts';
import { readManifest, type Shapes } from './registry-shapes.ts';
import type { Item, Tally, TargetOptions } from './target.ts';

/** Puts the manifests of entries by their digests: children first, and what stands for a sparse index where that is refused. */
export class ManifestWriter {
  readonly #options: RegistryTargetOptions & TargetOptions;
  readonly #shapes: ReadonlyMap<Item, Shapes>;
  readonly #tally: Tally;
  /** Sends a blob once more that the registry says it has. */
  readonly #resend: (repository: string, descriptor: Descriptor) => Promise<void>;
  /** Images under several tags of one repository are the same manifests. */
  readonly #puts: Turns;
  /** True once the registry refused an index with absent children. */
  #strict: boolean;

  constructor(parts: {
    readonly options: RegistryTargetOptions & TargetOptions;
    readonly shapes: ReadonlyMap<Item, Shapes>;
    readonly tally: Tally;
    readonly resend: (repository: string, descriptor: Descriptor) => Promise<void>;
    readonly puts: Turns;
  }) {
    this.#options = parts.options;
    this.#shapes = parts.shapes;
    this.#tally = parts.tally;
    this.#resend = parts.resend;
    this.#puts = parts.puts;
    this.#strict = parts.options.indexPolicy === 'filtered' || parts.options.indexPolicy === 'single';
  }

  /** A manifest of the bundle. */
  async content(descriptor: Descriptor): Promise<ManifestContent> {
    return { descriptor, bytes: await readManifest(descriptor, this.#options) };
  }

  /** Returns what the name shall point to. */
  async putGraph(entry: PlacedEntry): Promise<ManifestContent> {
    const shapes = this.#shapes.get(entry.item);
    let top: ManifestContent | undefined;
    for (const node of entry.item.graph.nodes.values()) {
      if (node.kind !== 'manifest' && node.kind !== 'index') continue;
      const { descriptor } = node;
      if (shapes?.filtered.has(descriptor.digest) !== true) {
        top = await this.#put(entry, await this.content(descriptor));
        continue;
      }
      const substitute = shapes.filtered.get(descriptor.digest);
      top = (await this.#putSparse(entry, { node: descriptor, substitute, single: shapes.single })) ?? top;
    }
    if (top === undefined) throw new SealiftError('INTERNAL', `${entry.item.name}: an empty graph`);
    return top;
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
        return await this.#put(entry, await this.content(about.node));
      } catch (error) {
        if (policy === 'original' || !isRefusal(error, SPARSE_REFUSED)) throw error;
        this.#strict = true;
      }
    }
    if (about.substitute === undefined) return undefined;
    const content =
      about.single !== undefined && policy !== 'filtered'
        ? await this.content(about.single)
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
      this.#tally.manifestsPresent += 1;
      return content;
    }
    const there = await this.#putPatiently(entry, content);
    this.#tally[there ? 'manifestsPresent' : 'manifestsWritten'] += 1;
    if (!there) entry.added?.manifests.push(digest);
    return content;
  }

  /**
   * Some registries say that a blob is there and then do not find it: those that commit late find it a moment later
   * (nexus-public #423), those that lost it only when it is sent once more (#264).
   * @returns whether the registry had the manifest already
   */
  async #putPatiently(entry: PlacedEntry, content: ManifestContent): Promise<boolean> {
    const { registry, context } = this.#options;
    const { repository } = entry.place;
    const { digest } = content.descriptor;
    const node = entry.item.graph.nodes.get(digest);
    const put = (): Promise<boolean> =>
      this.#puts(`${repository} ${digest}`, async () => {
        const { there } = await putOrFind(registry, { repository, reference: digest }, { content, context });
        return there;
      });
    try {
      return await put();
    } catch (error) {
      if (node?.kind !== 'manifest' || !isRefusal(error, LOST_BLOB)) throw error;
    }
    const waitMs = backoffMs(1, context.random);
    const what = `${repository} manifest ${digest}`;
    context.emit({ type: 'retry', what, reason: 'blobs are not found', waitMs: Math.round(waitMs) });
    await sleep(waitMs, context.signal);
    try {
      return await put();
    } catch (error) {
      if (!isRefusal(error, LOST_BLOB)) throw error;
    }
    for (const child of node.children) await this.#resend(repository, child);
    entry.notes.push(`the registry had lost blobs of ${digest}; they were sent again`);
    try {
      return await put();
    } catch (error) {
      throw isRefusal(error, LOST_BLOB) ? lostForGood(error, digest) : error;
    }
  }
}

/** The registry has the record of a blob and not its bytes, and takes no others. */
function lostForGood(error: unknown, digest: Digest): SealiftError {
  const { message, details } = error instanceof SealiftError ? error : { message: `${digest}`, details: {} };
  return new SealiftError('REGISTRY_FAILED', message, {
    hint: 'the registry says that it has these blobs, and does not find them: its owner must repair it (Nexus: task "Repair - Reconcile component database from blob store", or delete the blobs and allow redeploys)',
    cause: error,
    ...(details === undefined ? {} : { details }),
    side: 'destination',
  });
}
