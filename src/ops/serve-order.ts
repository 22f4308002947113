import type { BundleInfo } from '../bundle/documents.ts';
import { buildsOn } from '../bundle/joint.ts';
import { type Medium, openMedium } from '../bundle/medium.ts';
import { readInfo } from '../bundle/reader.ts';
import { placesOf } from '../bundle/volumes.ts';

/** A bundle of which only the structure and `sealift.json` are read. */
export interface GivenBundle {
  readonly medium: Medium;
  readonly info: BundleInfo;
}

/** Whether another of these bundles is a later version that builds on this one. */
export function isSuperseded(given: readonly GivenBundle[], bundle: GivenBundle): boolean {
  const { info } = bundle;
  return given.some((other) => other.info.lock !== info.lock && buildsOn(other.info, info));
}

/**
 * Deltas and repairs before what they build on, all others as they were given: of two that have a blob the newer is asked,
 * because a repair is given when the other one has it damaged.
 */
function inOrder(given: readonly GivenBundle[]): GivenBundle[] {
  const ordered: GivenBundle[] = [];
  for (let left = [...given]; left.length > 0; ) {
    const isTop = (one: GivenBundle): boolean =>
      !left.some((other) => other !== one && buildsOn(other.info, one.info));
    // Two that say of each other that they build on it are no bundles of ours: any order will do.
    const next = left.find(isTop) ?? left[0];
    if (next !== undefined) ordered.push(next);
    left = left.filter((one) => one !== next);
  }
  return ordered;
}

/**
 * Opens what is named, newer ones first. Closes all of them when it fails.
 * @param words paths of bundles, of their volumes, of folders where these lie, or patterns
 * @throws BUNDLE_NOT_FOUND, BUNDLE_TOO_NEW, USAGE, and what is wrong with sealift.json
 */
export async function openGivenBundles(words: readonly string[]): Promise<GivenBundle[]> {
  const given: GivenBundle[] = [];
  const media: Medium[] = [];
  try {
    for (const place of await placesOf(words)) {
      const medium = await openMedium(place);
      media.push(medium);
      given.push({ medium, info: await readInfo(medium) });
    }
    return inOrder(given);
  } catch (error) {
    for (const medium of media) await medium.close();
    throw error;
  }
}
