import { isDigest } from '../../core/digest.ts';
import { isAbort, SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { isIndexType, isManifestType } from '../../core/media.ts';
import { isUnknownPlatform, normalizePlatform, type Platform, parsePlatform } from '../../core/platform.ts';
import { mapBounded } from '../../io/pool.ts';
import { collect, verified } from '../../io/verify.ts';
import type { ContainerdClient } from '../../oci/containerd/client.ts';
import type { ImageRecord } from '../../oci/containerd/wire.ts';
import { type ParsedManifest, parseManifest } from '../../oci/manifest.ts';
import type { Held } from './inspect.ts';

/** Manifests that are read at the same time. */
const READING = 8;

/** What an image record lacks of what the machine's own platform needs. */
export interface Lack {
  readonly record: ImageRecord;
  /** Manifests and configs that are not there: kubelet does not see the image. */
  readonly manifests: readonly string[];
  /** Layers that are not there and were never unpacked: it cannot be started. */
  readonly layers: readonly string[];
  /** Layers that are not there, but are unpacked: it runs, and cannot be copied from here. */
  readonly discarded: readonly string[];
  /** Its content cannot be read, or says nothing that makes sense. */
  readonly unreadable: string | undefined;
  /** It has nothing for the platforms of the machine. */
  readonly isForeign: boolean;
}

interface Place {
  readonly content: ReadonlyMap<string, Held>;
  /** `os/architecture[/variant]` of the machine. */
  readonly platforms: readonly string[];
  readonly signal: AbortSignal;
}

type Target = ImageRecord['target'];
type Found = Omit<Lack, 'record'>;

const NOTHING: Found = {
  manifests: [],
  layers: [],
  discarded: [],
  unreadable: undefined,
  isForeign: false,
};

/** Reads a manifest or index of the namespace, verified. @throws as `openRead`, `verified` and `parseManifest` */
export async function readManifestOf(
  client: ContainerdClient,
  target: Target,
  signal: AbortSignal,
): Promise<Buffer> {
  const { digest, size } = target;
  if (!isDigest(digest))
    throw new SealiftError('OCI_MANIFEST_INVALID', `"${digest.slice(0, 90)}" is no digest`);
  const what = `manifest ${digest}`;
  const bytes = verified(client.openRead(digest, { offset: 0, signal }), { digest, size, what });
  return await collect(bytes, { limit: Math.min(size, LIMITS.manifest), what });
}

function lackOfManifest(
  parsed: ParsedManifest & { readonly kind: 'manifest' },
  content: Place['content'],
): Found {
  const { config, layers } = parsed;
  const absent = [...new Set(layers.map((l) => l.digest))].filter((digest) => !content.has(digest));
  const held = config === undefined ? undefined : content.get(config.digest);
  const manifests = config !== undefined && held === undefined ? [config.digest] : [];
  return held?.isUnpacked === true
    ? { ...NOTHING, discarded: absent }
    : { ...NOTHING, manifests, layers: absent };
}

/** The children of an index that the machine would choose from; all that are no attestations where none is for it. */
function choose(
  parsed: ParsedManifest & { readonly kind: 'index' },
  platforms: readonly Platform[],
): { readonly children: readonly Target[]; readonly isForeign: boolean } {
  const images = parsed.manifests.filter((m) => isManifestType(m.mediaType));
  const named = images.filter((m) => m.platform !== undefined && !isUnknownPlatform(m.platform));
  const own = named.filter(
    (m) => m.platform !== undefined && platforms.some((p) => matches(p, m.platform ?? p)),
  );
  if (own.length > 0) return { children: own, isForeign: false };
  // Children without a platform may be anything.
  const free = images.filter((m) => m.platform === undefined);
  return { children: free, isForeign: free.length === 0 };
}

/** Variants are left out: a machine runs images of lower ones. */
function matches(machine: Platform, image: Platform): boolean {
  const own = normalizePlatform(machine);
  const other = normalizePlatform(image);
  return own.os === other.os && own.architecture === other.architecture;
}

async function lackOf(
  client: ContainerdClient,
  target: Target,
  place: Place & { depth: number },
): Promise<Found> {
  const { content, signal, depth } = place;
  if (!content.has(target.digest)) return { ...NOTHING, manifests: [target.digest] };
  try {
    const parsed = parseManifest(await readManifestOf(client, target, signal), target);
    if (parsed.kind === 'manifest') return lackOfManifest(parsed, content);
    const { children, isForeign } = choose(parsed, place.platforms.map(parsePlatform));
    if (depth >= LIMITS.indexDepth) return NOTHING;
    // One that is whole is enough: which of several variants is taken is the machine's choice.
    let first: Found | undefined;
    for (const child of children) {
      const lack = await lackOf(client, child, { ...place, depth: depth + 1 });
      if (lack.manifests.length + lack.layers.length === 0) return lack;
      first ??= lack;
    }
    const nested = parsed.manifests.filter((m) => isIndexType(m.mediaType));
    return first ?? { ...NOTHING, isForeign: isForeign && nested.length === 0 };
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError) || error.code === 'TARGET_UNREACHABLE')
      throw error;
    return { ...NOTHING, unreadable: error.message };
  }
}

/**
 * What each image record lacks for the platforms of the machine; records that lack nothing are left out.
 * @throws TARGET_UNREACHABLE, ABORTED
 */
export async function findLacks(
  client: ContainerdClient,
  records: readonly ImageRecord[],
  place: Place,
): Promise<Lack[]> {
  const byDigest = new Map(records.map((record) => [record.target.digest, record.target]));
  const limits = { limit: READING, signal: place.signal };
  const targets = [...byDigest.values()];
  const lacks = await mapBounded(targets, limits, (target) => lackOf(client, target, { ...place, depth: 0 }));
  const found = new Map(targets.map((target, i) => [target.digest, lacks[i] ?? NOTHING]));
  return records
    .map((record) => ({ record, ...(found.get(record.target.digest) ?? NOTHING) }))
    .filter(
      ({ manifests, layers, discarded, unreadable, isForeign }) =>
        manifests.length + layers.length + discarded.length > 0 || unreadable !== undefined || isForeign,
    );
}
