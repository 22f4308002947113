import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import type { BlobIntake, BlobTaker, ContentReader, PassingContent } from '../oci/content.ts';
import type { Registry } from '../oci/registry.ts';
import type { BlobWork, BlobWorks } from './registry-blobs.ts';
import type { PlacedEntry } from './registry-plan.ts';

/**
 * What a further repository reads of a blob that passes: itself as long as its beginning is held, then the repository of
 * the same registry that has it already.
 */
export function heldOrThere(
  blob: PassingContent,
  there: { readonly registry: Registry; readonly from: string | undefined },
): ContentReader {
  const { registry, from } = there;
  if (blob.has(0) || from === undefined) return blob;
  return { open: (descriptor, options) => registry.readBlob(from, descriptor, options) };
}

/** A blob of what is about images, and the entries whose repositories get it. */
interface Attached {
  readonly descriptor: Descriptor;
  readonly entries: PlacedEntry[];
}

/** The blobs of signatures and referrers: otherwise they are sent with their manifests. */
function attachedBlobs(entries: readonly PlacedEntry[]): Map<Digest, Attached> {
  const blobs = new Map<Digest, Attached>();
  for (const entry of entries) {
    const referrers = entry.item.kind === 'image' ? (entry.item.referrers ?? []) : [];
    for (const { descriptor, kind } of referrers.flatMap((r) => [...r.graph.nodes.values()])) {
      if (kind !== 'config' && kind !== 'blob') continue;
      const known = blobs.get(descriptor.digest);
      if (known === undefined) blobs.set(descriptor.digest, { descriptor, entries: [entry] });
      else if (!known.entries.includes(entry)) known.entries.push(entry);
    }
  }
  return blobs;
}

/** Takes the blobs of a bundle as they pass: each into every repository that lacks it, one after the other. */
export function registryIntake(
  works: BlobWorks,
  tools: {
    readonly entries: readonly PlacedEntry[];
    readonly registry: Registry;
    readonly write: (work: BlobWork, blob: PassingContent) => Promise<void>;
    readonly upload: (repository: string, descriptor: Descriptor, source: ContentReader) => Promise<void>;
    readonly fail: (entry: PlacedEntry, error: unknown) => Promise<void>;
  },
): BlobIntake {
  const { registry, upload, write, fail } = tools;
  const attached = attachedBlobs(tools.entries);
  const attach = async (about: Attached, work: BlobWork | undefined, blob: PassingContent): Promise<void> => {
    const { descriptor } = about;
    const has = new Set([...(work?.present ?? []), ...(work?.wanted ?? [])]);
    for (const entry of about.entries) {
      const { repository } = entry.place;
      if (has.has(repository) || entry.state !== 'write') continue;
      try {
        if (!(await registry.hasBlob(repository, descriptor.digest))) {
          const [from] = has;
          await upload(repository, descriptor, heldOrThere(blob, { registry, from }));
        }
        has.add(repository);
      } catch (error) {
        await fail(entry, error);
      }
    }
  };
  return {
    takersOf: (digest): readonly BlobTaker[] => {
      const work = works.find(digest);
      const about = attached.get(digest);
      if (about === undefined && (work === undefined || work.wanted.length === 0)) return [];
      return [
        async (blob) => {
          if (work !== undefined) await write(work, blob);
          if (about !== undefined) await attach(about, work, blob);
        },
      ];
    },
  };
}
