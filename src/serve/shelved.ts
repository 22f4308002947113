import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { imageRepository } from '../core/naming.ts';
import { isHost, isRepository, type Reference } from '../core/reference.ts';
import type { Graph } from '../oci/graph.ts';
import { parseManifest } from '../oci/manifest.ts';
import { referrerOf } from '../oci/referrers.ts';
import type { Referrer } from './repository.ts';
import type { ShownContent, ShownManifest, ShownRegistry, ShownRepository } from './shown.ts';
import type { Stock } from './stock.ts';

/** The bundle that something is in. */
export interface Origin {
  readonly path: string;
  /** Another bundle that was added before builds on it: where the two differ, that one counts. */
  readonly isSuperseded: boolean;
}

/** Who says what a tag means, for messages: what it is and the bundle that has it. */
interface Claim extends Origin {
  readonly digest: Digest;
  readonly by: string;
}

/** What is kept under one full name: `docker.io/library/nginx`, or `charts/podinfo`. */
class Holding {
  /** By the number of the digest: its media type. */
  readonly manifests = new Map<number, string>();
  readonly blobs = new Set<number>();
  readonly tags = new Map<string, Claim>();
  /** By subject; read when somebody asks. */
  referrers: Promise<ReadonlyMap<Digest, readonly Referrer[]>> | undefined;
}

/** How far a name on the registry counts before another: the full name, Docker Hub's and our own places, all others. */
type Rank = 0 | 1 | 2;

interface Part {
  readonly holding: Holding;
  readonly rank: Rank;
}

/** What one name of the registry shows. */
interface View {
  readonly parts: Part[];
  readonly tags: Map<string, Claim>;
}

/**
 * The repositories of all bundles that are served. An image has two names: its path with and without its host. Where images
 * of several hosts have the same path, Docker Hub's tag counts, as it does for `docker pull`; what is still ambiguous has
 * only its full name.
 */
export class ShelvedRegistry implements ShownRegistry {
  readonly #stock: Stock;
  readonly #digests = new DigestTable();
  readonly #holdings = new Map<string, Holding>();
  readonly #views = new Map<string, View>();
  #names: readonly string[] | undefined;
  /** Names that mean different bytes in two bundles. */
  readonly faults: Fault[] = [];
  /** Names that are not shown, or not as somebody may expect. */
  readonly warnings: Fault[] = [];

  constructor(stock: Stock) {
    this.#stock = stock;
  }

  /** Adds an image, or what travels with it; `tag` under which it is found, where it has one. */
  addImage(reference: Reference, graph: Graph, at: Origin & { readonly tag: string | undefined }): void {
    const full = `${reference.host}/${reference.repository}`;
    let holding = this.#holdings.get(full);
    if (holding === undefined) {
      holding = new Holding();
      this.#holdings.set(full, holding);
      this.#show(longName(reference), { holding, rank: 0 }, full);
      const isHub = reference.host === 'docker.io';
      this.#show(reference.repository, { holding, rank: isHub ? 1 : 2 }, full);
    }
    this.#fill(holding, graph);
    if (at.tag !== undefined) {
      const { path, isSuperseded } = at;
      this.#tag(holding, at.tag, { digest: graph.root.digest, by: `${full}:${at.tag}`, path, isSuperseded });
    }
  }

  /** Adds a chart or a file under the place where `load` puts it. */
  addArtifact(place: { readonly repository: string; readonly tag: string }, graph: Graph, at: Origin): void {
    const { repository, tag } = place;
    // A host has a dot, a colon or is localhost, so no image has this name.
    const key = `/${repository}`;
    let holding = this.#holdings.get(key);
    if (holding === undefined) {
      holding = new Holding();
      this.#holdings.set(key, holding);
      this.#show(repository, { holding, rank: 1 }, repository);
    }
    this.#fill(holding, graph);
    this.#tag(holding, tag, { digest: graph.root.digest, by: `${repository}:${tag}`, ...at });
  }

  /**
   * Adds a tag under which something that travels with an image is found. Where two bundles differ, the one that was given
   * first counts: what is signed later has a new list under the old name.
   */
  addAttached(reference: Reference, claim: Origin & { readonly tag: string; readonly digest: Digest }): void {
    const full = `${reference.host}/${reference.repository}`;
    const holding = this.#holdings.get(full);
    const { tag, digest, path, isSuperseded } = claim;
    if (holding === undefined) return;
    const known = holding.tags.get(tag);
    if (known === undefined) holding.tags.set(tag, { digest, by: `${full}:${tag}`, path, isSuperseded });
    else if (known.digest !== digest && !isSuperseded) {
      this.warnings.push(
        fault('TARGET_NAME_COLLISION', `${full}:${tag} is shown as ${known.path} has it, not as ${path}`),
      );
    }
  }

  #show(name: string | undefined, part: Part, what: string): void {
    if (name === undefined || !isRepository(name)) {
      this.warnings.push(
        fault(
          'REFERENCE_INVALID',
          `${what} cannot be shown as "${(name ?? what).slice(0, 300)}": too long for a name`,
        ),
      );
      return;
    }
    const view = this.#views.get(name) ?? { parts: [], tags: new Map<string, Claim>() };
    view.parts.push(part);
    this.#views.set(name, view);
  }

  #fill(holding: Holding, graph: Graph): void {
    for (const { descriptor, kind } of graph.nodes.values()) {
      const id = this.#digests.add(descriptor.digest);
      if (kind === 'config' || kind === 'blob') holding.blobs.add(id);
      else holding.manifests.set(id, descriptor.mediaType);
    }
  }

  #tag(holding: Holding, tag: string, claim: Claim): void {
    const known = holding.tags.get(tag);
    if (known === undefined) holding.tags.set(tag, claim);
    else if (known.digest !== claim.digest && !claim.isSuperseded) {
      const { by } = claim;
      const message = `${by} is ${known.digest} in ${known.path} and ${claim.digest} in ${claim.path}`;
      this.faults.push(
        fault('TARGET_NAME_COLLISION', message, {
          hint: 'serve the two bundles separately, each with its own --listen address',
        }),
      );
    }
  }

  /** Decides what each tag means under each name. To be called when everything was added. */
  finish(): void {
    for (const [name, { parts, tags }] of this.#views) {
      const ranks = new Map<string, Rank>();
      const contested = new Set<string>();
      for (const { holding, rank } of [...parts].sort((a, b) => a.rank - b.rank)) {
        for (const [tag, claim] of holding.tags) {
          const known = tags.get(tag);
          if (known === undefined) {
            tags.set(tag, claim);
            ranks.set(tag, rank);
          } else if (known.digest !== claim.digest) {
            const isTie = ranks.get(tag) === rank;
            if (isTie) contested.add(tag);
            const means = isTie ? 'nothing' : known.by;
            const message = `${name}:${tag} means ${means} here: ${known.by} and ${claim.by} are different`;
            this.warnings.push(
              fault('TARGET_NAME_COLLISION', message, { hint: 'ask for them with their host in the name' }),
            );
          }
        }
      }
      for (const tag of contested) tags.delete(tag);
    }
    this.#names = [...this.#views.keys()].sort();
  }

  /** The hosts that images come from, sorted. */
  hosts(): string[] {
    const hosts = [...this.#holdings.keys()].map((name) => name.slice(0, name.indexOf('/')));
    return [...new Set(hosts)].filter((host) => host !== '').sort();
  }

  async names(): Promise<readonly string[]> {
    return this.#names ?? [];
  }

  repository(name: string, namespace: string | null): ShownRepository {
    if (namespace === null) return this.#shown(name, this.#views.get(name));
    // Docker's own names for the Hub mean the same.
    const host = /^(?:index|registry-1)\.docker\.io$/.test(namespace) ? 'docker.io' : namespace;
    const long = isHost(host) ? longName({ host, repository: name }) : undefined;
    return this.#shown(name, long === undefined ? undefined : this.#views.get(long));
  }

  #shown(name: string, view: View | undefined): ShownRepository {
    const parts = view?.parts ?? [];
    const holds = (digest: Digest): boolean => {
      const id = this.#digests.indexOf(digest);
      return id >= 0 && parts.some(({ holding }) => holding.blobs.has(id) || holding.manifests.has(id));
    };
    return {
      name,
      blob: async (digest): Promise<ShownContent | undefined> => {
        const id = this.#digests.indexOf(digest);
        const isHere = id >= 0 && parts.some(({ holding }) => holding.blobs.has(id));
        return isHere ? this.#stock.content(digest) : undefined;
      },
      manifest: async (digest): Promise<ShownManifest | undefined> => {
        const id = this.#digests.indexOf(digest);
        const mediaType = parts
          .map(({ holding }) => holding.manifests.get(id))
          .find((type) => type !== undefined);
        const content = mediaType === undefined ? undefined : this.#stock.content(digest);
        return content === undefined || mediaType === undefined ? undefined : { ...content, mediaType };
      },
      tag: async (tag) => view?.tags.get(tag)?.digest,
      tags: async () => (view === undefined ? undefined : [...view.tags.keys()].sort()),
      referrers: async (subject) => {
        const lists = await Promise.all(parts.map(({ holding }) => this.#referrers(holding)));
        const found = lists.flatMap((bySubject) => bySubject.get(subject) ?? []);
        return [...new Map(found.map((each) => [each.digest, each])).values()];
      },
      whyAbsent: (digest) =>
        holds(digest)
          ? `${digest} belongs to ${name}, but none of the served bundles carries it: serve the base of the delta too`
          : undefined,
    };
  }

  #referrers(holding: Holding): Promise<ReadonlyMap<Digest, readonly Referrer[]>> {
    const known = holding.referrers;
    if (known !== undefined) return known;
    const reading = this.#readReferrers(holding);
    holding.referrers = reading;
    reading.catch(() => {
      holding.referrers = undefined;
    });
    return reading;
  }

  /** Every manifest that names a subject, by subject; in the order of their digests, so that a list is always the same. */
  async #readReferrers(holding: Holding): Promise<ReadonlyMap<Digest, readonly Referrer[]>> {
    const found = new Map<Digest, Referrer[]>();
    const manifests = [...holding.manifests].map(([id, mediaType]) => ({
      digest: this.#digests.at(id),
      mediaType,
    }));
    for (const { digest, mediaType } of manifests.sort((a, b) => (a.digest < b.digest ? -1 : 1))) {
      if (this.#stock.content(digest) === undefined) continue;
      const bytes = await this.#stock.read(digest);
      const own = { mediaType, digest, size: bytes.length };
      const referrer = referrerOf(parseManifest(bytes, own), own);
      if (referrer === undefined) continue;
      const { size, artifactType, annotations } = referrer.descriptor;
      const listed: Referrer = {
        digest,
        mediaType,
        size,
        ...(artifactType === undefined ? {} : { artifactType }),
        ...(annotations === undefined ? {} : { annotations }),
      };
      found.set(referrer.subject, [...(found.get(referrer.subject) ?? []), listed]);
    }
    return found;
  }
}

/** The name with the host in front; undefined where that is too long or no name. */
function longName(reference: Reference): string | undefined {
  try {
    return imageRepository(reference, { prefix: '', naming: 'keep-host' });
  } catch (error) {
    if (error instanceof SealiftError) return undefined;
    throw error;
  }
}
