import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { type Fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { isImageConfigType, isIndexType, isManifestType } from '../core/media.ts';
import { formatPlatform, isUnknownPlatform, type Platform, platformMatches } from '../core/platform.ts';
import { imageName, type Reference } from '../core/reference.ts';
import { INCLUDES, type Include } from '../core/referrer.ts';
import type { ImageLock } from '../lock/schema.ts';
import { foreignLayersOf, foreignWarning } from '../oci/foreign.ts';
import { embeddedBytes, parseManifest, platformOfConfig } from '../oci/manifest.ts';
import type { ManifestContent } from '../oci/registry.ts';
import { findReferrers } from './referrers.ts';
import type { Registries } from './registries.ts';

/** What a reference means today, in the lock's words. */
export interface ResolvedImage {
  readonly image: Omit<ImageLock, 'ref' | 'usedBy'>;
  /** What is not carried and could have been. */
  readonly warnings: readonly Fault[];
}

interface Leaf {
  readonly descriptor: Descriptor;
  readonly platform: Platform | undefined;
}

/** A manifest that an index names; one that it embeds is not asked for. */
async function childManifest(
  registries: Registries,
  ref: Reference,
  child: Descriptor,
): Promise<ManifestContent> {
  const bytes = embeddedBytes(child);
  return bytes === undefined ? registries.getManifest(ref, child.digest) : { bytes, descriptor: child };
}

async function leavesOf(
  registries: Registries,
  ref: Reference,
  top: ManifestContent,
): Promise<{ readonly leaves: Leaf[]; readonly indexes: Digest[] }> {
  const leaves: Leaf[] = [];
  /** An index that is named often is asked for once. */
  const indexes = new Set<Digest>();
  const walk = async (at: ManifestContent, depth: number): Promise<void> => {
    if (depth > LIMITS.indexDepth) {
      throw new SealiftError(
        'OCI_MANIFEST_INVALID',
        `${imageName(ref)}: indexes are nested deeper than ${LIMITS.indexDepth} levels`,
      );
    }
    const parsed = parseManifest(at.bytes, at.descriptor);
    if (parsed.kind === 'manifest') {
      const config = parsed.config;
      const isImage = config !== undefined && isImageConfigType(config.mediaType) && depth === 0;
      leaves.push({
        descriptor: at.descriptor,
        platform: isImage ? await configPlatform(registries, ref, config) : undefined,
      });
      return;
    }
    for (const child of parsed.manifests) {
      if (isIndexType(child.mediaType)) {
        if (indexes.has(child.digest)) continue;
        indexes.add(child.digest);
        await walk(await childManifest(registries, ref, child), depth + 1);
      } else leaves.push({ descriptor: child, platform: child.platform });
    }
  };
  await walk(top, 0);
  return { leaves, indexes: [...indexes] };
}

async function configPlatform(
  registries: Registries,
  ref: Reference,
  config: Descriptor,
): Promise<Platform | undefined> {
  const embedded = embeddedBytes(config);
  if (embedded !== undefined) return platformOfConfig(embedded, config.digest);
  return platformOfConfig(await registries.readWhole(ref, config, LIMITS.config), config.digest);
}

function missingPlatforms(
  ref: Reference,
  wanted: readonly Platform[],
  leaves: readonly Leaf[],
): SealiftError {
  const has = [
    ...new Set(
      leaves.flatMap((l) =>
        isUnknownPlatform(l.platform) || l.platform === undefined ? [] : [formatPlatform(l.platform)],
      ),
    ),
  ].sort();
  const lacks = wanted.map(formatPlatform).join(', ');
  return new SealiftError(
    'IMAGE_PLATFORM_MISSING',
    `${imageName(ref)}: no ${lacks}; it has ${has.join(', ') || 'no platform at all'}`,
    {
      hint: 'name the platforms that it has with {ref, platforms: […]}, or choose another tag',
      details: { wanted: wanted.map(formatPlatform), has },
    },
  );
}

/** What a wish keeps of the leaves, in the lock's words. */
interface Kept {
  readonly platforms: Readonly<Record<string, Digest>>;
  readonly others: readonly Digest[];
  /** With a Windows platform: where foreign layers are. */
  readonly windows: readonly Descriptor[];
}

function keptOf(leaves: readonly Leaf[], wanted: readonly Platform[] | 'all', root: Digest): Kept {
  const platforms = new Map<string, Digest>();
  const others: Digest[] = [];
  const windows: Descriptor[] = [];
  for (const { descriptor, platform } of leaves) {
    const known = platform !== undefined && !isUnknownPlatform(platform);
    const key = known ? formatPlatform(platform) : '';
    const isWanted = wanted === 'all' || (known && wanted.some((w) => platformMatches(w, platform)));
    if (!isWanted || (isArtifact(leaves) && descriptor.digest === root)) continue;
    if (known && platform.os === 'windows') windows.push(descriptor);
    if (known && !platforms.has(key)) platforms.set(key, descriptor.digest);
    else if (wanted === 'all' && ![...platforms.values()].includes(descriptor.digest))
      others.push(descriptor.digest);
  }
  return {
    platforms: Object.fromEntries([...platforms].sort(([a], [b]) => (a < b ? -1 : 1))),
    others: [...new Set(others)].sort(),
    windows,
  };
}

/** A single manifest without a platform: it serves every wish. */
function isArtifact(leaves: readonly Leaf[]): boolean {
  return leaves.length === 1 && leaves[0]?.platform === undefined;
}

/** A wish about one image. */
export interface ImageWish {
  readonly ref: Reference;
  readonly platforms: readonly Platform[] | 'all';
  /** What shall travel with it. */
  readonly include: readonly Include[];
  /** Carry foreign layers; `found`: where there are any. */
  readonly foreignLayers: boolean | 'found';
  readonly signal: AbortSignal;
}

/**
 * The foreign layers of an image as far as it is worth asking: of the manifest itself, of Windows images, and of
 * everything when they shall be carried. Reading every manifest would double what a lock costs on Docker Hub.
 */
async function foreignOf(
  registries: Registries,
  wish: ImageWish,
  about: { readonly top: ManifestContent; readonly kept: Kept; readonly leaves: readonly Leaf[] },
): Promise<Descriptor[]> {
  const { top, kept, leaves } = about;
  const own = parseManifest(top.bytes, top.descriptor);
  if (own.kind === 'manifest') return [...foreignLayersOf(own)];
  const digests = new Set([...Object.values(kept.platforms), ...kept.others]);
  const all = leaves
    .map((l) => l.descriptor)
    .filter((d) => digests.has(d.digest) && isManifestType(d.mediaType));
  const found = new Map<Digest, Descriptor>();
  for (const child of wish.foreignLayers === 'found' ? all : kept.windows) {
    const { bytes, descriptor } = await childManifest(registries, wish.ref, child);
    for (const layer of foreignLayersOf(parseManifest(bytes, descriptor))) found.set(layer.digest, layer);
  }
  return [...found.values()];
}

/**
 * Resolves a reference against its registry: the digest as published, the manifests of the wanted platforms, and what
 * travels with them. A reference with a digest is asked by digest; nested indexes are walked.
 * @throws IMAGE_PLATFORM_MISSING naming what the image has, CONTENT_NOT_FOUND, AUTH_REQUIRED, AUTH_DENIED …
 */
export async function resolveImage(registries: Registries, wish: ImageWish): Promise<ResolvedImage> {
  const { ref, include, signal } = wish;
  const top = await registries.getManifest(ref, ref.digest ?? ref.tag ?? 'latest');
  const { leaves, indexes } = await leavesOf(registries, ref, top);
  const { digest, mediaType, size } = top.descriptor;
  if (wish.platforms !== 'all' && !isArtifact(leaves)) {
    const lacking = wish.platforms.filter(
      (w) => !leaves.some((l) => l.platform !== undefined && platformMatches(w, l.platform)),
    );
    if (lacking.length > 0) throw missingPlatforms(ref, lacking, leaves);
  }
  const kept = keptOf(leaves, wish.platforms, digest);
  const { platforms, others } = kept;
  const foreign = await foreignOf(registries, wish, { top, kept, leaves });
  const carried = wish.foreignLayers === true || (wish.foreignLayers === 'found' && foreign.length > 0);
  const subjects = [digest, ...indexes, ...Object.values(platforms), ...others];
  const { referrers, warnings } = await findReferrers(registries, { ref, subjects, include, signal });
  return {
    image: {
      digest,
      mediaType,
      size,
      ...(top.recompressed === undefined ? {} : { recompressed: top.recompressed }),
      allPlatforms: wish.platforms === 'all',
      platforms,
      others,
      ...(include.length === INCLUDES.length ? {} : { include }),
      ...(referrers.length === 0 ? {} : { referrers }),
      ...(carried ? { foreignLayers: true } : {}),
    },
    warnings: [
      ...warnings,
      ...(foreign.length > 0 && !carried ? [foreignWarning(imageName(ref), foreign)] : []),
    ],
  };
}
