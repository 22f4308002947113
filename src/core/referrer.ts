import { type Digest, hexOf } from './digest.ts';

/**
 * What may travel with an image: `signatures` are the tags of cosign (`sha256-<hex>.sig`, `.att`, `.sbom`), `referrers`
 * are manifests whose `subject` is the image, found by the referrers API or its fallback tag (registry.md 1.5).
 */
export type Include = 'signatures' | 'referrers';

/** Every kind, in the order in which it is written. */
export const INCLUDES: readonly Include[] = ['signatures', 'referrers'];

const SUFFIXES = ['sig', 'att', 'sbom'] as const;

/** The tag under which a registry without the referrers API lists what refers to a manifest (distribution-spec, "Referrers Tag Schema"). */
export function referrersTag(subject: Digest): string {
  return `sha256-${hexOf(subject)}`;
}

/** The tags under which cosign keeps what it attaches to a manifest: signature, attestations, bill of materials. */
export function attachedTags(subject: Digest): string[] {
  return SUFFIXES.map((suffix) => `${referrersTag(subject)}.${suffix}`);
}

/** The kinds that are asked for, each once and in the fixed order. */
export function sortIncludes(list: readonly Include[]): Include[] {
  return INCLUDES.filter((i) => list.includes(i));
}
