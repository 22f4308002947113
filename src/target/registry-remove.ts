import { type Digest, hexOf, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { isIndexType } from '../core/media.ts';
import { isRepository, isTag } from '../core/reference.ts';
import { eachBounded } from '../io/pool.ts';
import { parseManifest } from '../oci/manifest.ts';
import type { Registry } from '../oci/registry.ts';
import { type AddedItem, type Removal, type RemoveOptions, removing } from './removal.ts';

/** Repositories that are worked on at once. */
const PARALLEL = 4;

interface Place {
  readonly registry: Registry;
}

/** The repository of `host[:port]/repository:tag` or `…@digest`. @throws TARGET_CONFLICT for a name of another registry */
function repositoryOf({ as }: AddedItem, { host }: Registry): string {
  const rest = as.startsWith(`${host}/`) ? as.slice(host.length + 1) : '';
  const [, repository = ''] = /^([^:@]+)[:@]/.exec(rest) ?? [];
  if (isRepository(repository)) return repository;
  throw new SealiftError('TARGET_CONFLICT', `${as}: is no name in ${host}`, {
    hint: 'the receipt was changed, or is of another registry',
  });
}

/** One repository, and what a load added to it. */
class RepositoryRemoval {
  readonly #registry: Registry;
  readonly #repository: string;
  readonly #options: RemoveOptions;
  /** Tags that go, by the digest that they lead to. */
  readonly #going = new Map<string, Digest>();

  constructor(registry: Registry, repository: string, options: RemoveOptions) {
    this.#registry = registry;
    this.#repository = repository;
    this.#options = options;
  }

  async run(items: readonly AddedItem[]): Promise<Removal[]> {
    const judged: Removal[] = [];
    for (const item of items) judged.push(await removing(item, (removal) => this.#judge(removal)));
    const going = judged.filter(({ state }) => state === 'remove');
    if (going.length === 0) return judged;
    const manifests = new Set<Digest>(going.flatMap(({ item }) => [item.content, ...item.added.manifests]));
    const kept = await this.#kept(manifests);
    for (const removal of going) {
      const stays = removal.item.added.manifests.filter((digest) => kept.has(digest)).length;
      if (stays > 0) removal.notes.push(`${stays} of its manifests stay: other tags lead to them`);
    }
    if (this.#options.dryRun) return judged;
    for (const removal of going) {
      const done = await removing(removal.item, () => this.#remove(removal, kept));
      Object.assign(removal, done, { notes: [...removal.notes, ...done.notes] });
    }
    return judged;
  }

  /** Whether its tags still lead to what the load put there. */
  async #judge({ item, notes }: Removal): Promise<Removal['state']> {
    const own = new Set<string>([item.content, ...item.added.manifests]);
    const going: [string, Digest][] = [];
    let others = 0;
    for (const tag of item.added.names.filter(isTag)) {
      const found = await this.#registry.resolve(this.#repository, tag);
      if (found === undefined) continue;
      if (own.has(found)) going.push([tag, found]);
      else {
        others += 1;
        notes.push(`${this.#repository}:${tag} is ${found} now, and stays`);
      }
    }
    for (const [tag, digest] of going) this.#going.set(tag, digest);
    if (going.length > 0) return 'remove';
    if (others > 0) return 'changed';
    // Without a tag it is found by its digest alone.
    if (!item.added.manifests.includes(item.content)) return 'gone';
    const found = await this.#registry.resolve(this.#repository, item.content);
    return found === undefined ? 'gone' : 'remove';
  }

  /**
   * Everything that a tag leads to which stays: it is somebody's. A list of referrers (registry.md 1.5) goes when it is
   * about something that goes and lists nothing else.
   */
  async #kept(going: ReadonlySet<Digest>): Promise<ReadonlySet<Digest>> {
    const kept = new Set<Digest>();
    for (const digest of going)
      if (this.#options.counted?.has(digest) === true) await this.#reach(digest, kept);
    for (const tag of await this.#registry.listTags(this.#repository)) {
      if (this.#going.has(tag)) continue;
      const found = await this.#registry.resolve(this.#repository, tag);
      if (found === undefined) continue;
      const reached = new Set<Digest>();
      await this.#reach(found, reached);
      const subject = tag.startsWith('sha256-') ? `sha256:${tag.slice('sha256-'.length)}` : '';
      const isList = isDigest(subject) && going.has(subject);
      if (isList && [...reached].every((digest) => digest === found || going.has(digest))) {
        this.#going.set(tag, found);
      } else for (const digest of reached) kept.add(digest);
    }
    return kept;
  }

  async #reach(digest: Digest, reached: Set<Digest>): Promise<void> {
    if (reached.has(digest)) return;
    reached.add(digest);
    const { bytes, descriptor } = await this.#registry.getManifest(this.#repository, digest);
    if (!isIndexType(descriptor.mediaType)) return;
    const parsed = parseManifest(bytes, descriptor);
    for (const child of parsed.kind === 'index' ? parsed.manifests : []) {
      const isThere = (await this.#registry.resolve(this.#repository, child.digest)) !== undefined;
      if (isThere) await this.#reach(child.digest, reached);
      else reached.add(child.digest);
    }
  }

  /** Tags first, then manifests from the root down: an index before what it names. */
  async #remove({ item }: Removal, kept: ReadonlySet<Digest>): Promise<Removal['state']> {
    const own = new Set([item.content, ...item.added.manifests].map((digest) => `sha256-${hexOf(digest)}`));
    const lists = [...this.#going.keys()].filter((tag) => own.has(tag));
    const tags = item.added.names.filter((tag) => this.#going.has(tag));
    for (const tag of [...tags, ...lists]) await this.#removeTag(tag, { item, kept });
    const all = new Set<Digest>([item.content, ...[...item.added.manifests].reverse()]);
    for (const digest of all) {
      if (kept.has(digest) || (digest === item.content && !item.added.manifests.includes(digest))) continue;
      if ((await this.#registry.deleteManifest(this.#repository, digest)) === 'unsupported')
        throw this.#cannot(digest);
    }
    return 'removed';
  }

  async #removeTag(
    tag: string,
    { item, kept }: { readonly item: AddedItem; readonly kept: ReadonlySet<Digest> },
  ): Promise<void> {
    const digest = this.#going.get(tag);
    if (digest === undefined) return;
    this.#going.delete(tag);
    if ((await this.#registry.deleteManifest(this.#repository, tag)) !== 'unsupported') return;
    // Many registries delete by digest only, and every tag of it goes along.
    const isOurs = item.added.manifests.includes(digest) || !item.added.names.includes(tag);
    if (!isOurs || kept.has(digest)) {
      const why = isOurs ? 'another name leads to the same manifest' : 'its manifest was there before';
      throw this.#cannot(tag, `${why}, and this registry cannot delete one tag alone`);
    }
    if ([...this.#going.values()].includes(digest)) return;
    if ((await this.#registry.deleteManifest(this.#repository, digest)) === 'unsupported')
      throw this.#cannot(tag);
  }

  #cannot(what: string, why = 'this registry does not delete'): SealiftError {
    return new SealiftError('TARGET_FAILED', `${this.#registry.host}/${this.#repository} ${what}: ${why}`, {
      hint: 'allow it there (distribution: REGISTRY_STORAGE_DELETE_ENABLED=true; Nexus: the right to delete), or remove it with the tools of the registry',
      side: 'destination',
    });
  }
}

/**
 * Takes tags and manifests out of a registry that a load added: only where they are still what it put there, and nothing
 * that a tag which stays leads to. Blobs are left to the registry's own garbage collection.
 * @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED
 */
export async function removeFromRegistry(
  { registry }: Place,
  items: readonly AddedItem[],
  options: RemoveOptions,
): Promise<Removal[]> {
  await registry.ping();
  const removals: Removal[] = [];
  const byRepository = new Map<string, AddedItem[]>();
  for (const item of items) {
    const refused = await removing(item, async () => {
      const repository = repositoryOf(item, registry);
      byRepository.set(repository, [...(byRepository.get(repository) ?? []), item]);
      return 'remove';
    });
    if (refused.state === 'failed') removals.push(refused);
  }
  const limits = { limit: PARALLEL, signal: options.context.signal };
  await eachBounded([...byRepository], limits, async ([repository, own]) => {
    removals.push(...(await runRepository(registry, { repository, own, options })));
  });
  return removals;
}

async function runRepository(
  registry: Registry,
  work: { readonly repository: string; readonly own: readonly AddedItem[]; readonly options: RemoveOptions },
): Promise<Removal[]> {
  const { repository, own, options } = work;
  let done: Removal[] | undefined;
  const [first] = own;
  if (first === undefined) return [];
  const failed = await removing(first, async () => {
    done = await new RepositoryRemoval(registry, repository, options).run(own);
    return 'removed';
  });
  return done ?? own.map((item) => ({ ...failed, item }));
}
