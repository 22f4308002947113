import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { isImageConfigType, isIndexType } from '../core/media.ts';
import { formatPlatform, isUnknownPlatform, type Platform, platformMatches } from '../core/platform.ts';
import { imageName, type Reference } from '../core/reference.ts';
import { collect } from '../io/verify.ts';
import { parseManifest, platformOfConfig } from '../oci/manifest.ts';
import type { ManifestContent } from '../oci/registry.ts';
import type { Registries } from './registries.ts';

/** What a reference means today: the published digest and which of its manifests are wanted. */
export interface ResolvedImage {
  readonly digest: Digest;
  readonly mediaType: string;
  /** Bytes of the manifest or index. */
  readonly size: number;
  readonly allPlatforms: boolean;
  /** Platform → manifest digest. Empty for artifacts, which have no platform. */
  readonly platforms: Readonly<Record<string, Digest>>;
  /** Further manifests that are kept because everything is: attestations, second entries of one platform. */
  readonly others: readonly Digest[];
}

interface Leaf {
  readonly descriptor: Descriptor;
  readonly platform: Platform | undefined;
}

async function leavesOf(
  registries: Registries,
  ref: Reference,
  content: { readonly top: ManifestContent; readonly signal: AbortSignal },
): Promise<Leaf[]> {
  const leaves: Leaf[] = [];
  const walk = async (at: ManifestContent, depth: number): Promise<void> => {
    if (depth > LIMITS.indexDepth) {
      throw new SealiftError('OCI_MANIFEST_INVALID', `${imageName(ref)}: indexes are nested too deeply`);
    }
    const parsed = parseManifest(at.bytes, at.descriptor);
    if (parsed.kind === 'manifest') {
      const config = parsed.config;
      const isImage = config !== undefined && isImageConfigType(config.mediaType) && depth === 0;
      leaves.push({
        descriptor: at.descriptor,
        platform: isImage
          ? await configPlatform(registries, ref, { config, signal: content.signal })
          : undefined,
      });
      return;
    }
    for (const child of parsed.manifests) {
      if (isIndexType(child.mediaType))
        await walk(await registries.getManifest(ref, child.digest), depth + 1);
      else leaves.push({ descriptor: child, platform: child.platform });
    }
  };
  await walk(content.top, 0);
  return leaves;
}

async function configPlatform(
  registries: Registries,
  ref: Reference,
  options: { readonly config: Descriptor; readonly signal: AbortSignal },
): Promise<Platform | undefined> {
  const what = `${imageName(ref)} config`;
  const bytes = registries.reader(ref).open(options.config, { signal: options.signal });
  return platformOfConfig(await collect(bytes, { limit: LIMITS.config, what }), options.config.digest);
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

/**
 * Resolves a reference against its registry: the digest as published and the manifests of the wanted platforms.
 * A reference with a digest is asked by digest; nested indexes are walked.
 * @throws IMAGE_PLATFORM_MISSING naming what the image has, CONTENT_NOT_FOUND, AUTH_REQUIRED, AUTH_DENIED …
 */
export async function resolveImage(
  registries: Registries,
  wanted: {
    readonly ref: Reference;
    readonly platforms: readonly Platform[] | 'all';
    readonly signal: AbortSignal;
  },
): Promise<ResolvedImage> {
  const { ref } = wanted;
  const top = await registries.getManifest(ref, ref.digest ?? ref.tag ?? 'latest');
  const leaves = await leavesOf(registries, ref, { top, signal: wanted.signal });
  const published = {
    digest: top.descriptor.digest,
    mediaType: top.descriptor.mediaType,
    size: top.descriptor.size,
  };
  const platforms = new Map<string, Digest>();
  const others: Digest[] = [];
  const isArtifact = leaves.length === 1 && leaves[0]?.platform === undefined;
  for (const { descriptor, platform } of leaves) {
    const known = platform !== undefined && !isUnknownPlatform(platform);
    const key = known ? formatPlatform(platform) : '';
    const isWanted =
      wanted.platforms === 'all' || (known && wanted.platforms.some((w) => platformMatches(w, platform)));
    if (!isWanted || (isArtifact && descriptor.digest === published.digest)) continue;
    if (known && !platforms.has(key)) platforms.set(key, descriptor.digest);
    else if (wanted.platforms === 'all' && ![...platforms.values()].includes(descriptor.digest))
      others.push(descriptor.digest);
  }
  if (wanted.platforms !== 'all' && !isArtifact) {
    const lacking = wanted.platforms.filter(
      (w) => !leaves.some((l) => l.platform !== undefined && platformMatches(w, l.platform)),
    );
    if (lacking.length > 0) throw missingPlatforms(ref, lacking, leaves);
  }
  return {
    ...published,
    allPlatforms: wanted.platforms === 'all',
    platforms: Object.fromEntries([...platforms].sort(([a], [b]) => (a < b ? -1 : 1))),
    others: [...new Set(others)].sort(),
  };
}
