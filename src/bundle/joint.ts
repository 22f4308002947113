import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { isAbort, SealiftError } from '../core/errors.ts';
import { digestOf } from '../io/verify.ts';
import type { ContentReader } from '../oci/content.ts';
import { readDocument } from './compare.ts';
import type { BaseBundle } from './contents.ts';
import type { BundleInfo } from './documents.ts';
import { type Medium, openMedium } from './medium.ts';
import { type Bundle, contentOf, type OpenOptions, openBundle, readInfo } from './reader.ts';
import { type Place, pathOf } from './volumes.ts';

/** A bundle that is given beside another one, for the blobs that it has. Nothing else of it counts. */
export interface Supplier extends ContentReader {
  readonly medium: Medium;
  /** What it says about itself; undefined where that cannot be read: then it may still have blobs. */
  readonly info: BundleInfo | undefined;
  has(digest: Digest): boolean;
}

/** A bundle, and others that supply what it leaves out: a delta with its base, a repair with what it repairs. */
export interface JointBundle extends Bundle {
  readonly suppliers: readonly Supplier[];
}

/** A bundle of which only the structure and `sealift.json` are read. */
interface Peeked {
  readonly place: Place;
  readonly medium: Medium;
  readonly info: BundleInfo | undefined;
  /** Why nothing is known of it. */
  readonly error?: SealiftError;
}

async function peek(place: Place): Promise<Peeked> {
  const medium = await openMedium(place);
  try {
    return { place, medium, info: await readInfo(medium) };
  } catch (error) {
    const isDamage = error instanceof SealiftError && !isAbort(error) && error.code !== 'BUNDLE_TOO_NEW';
    if (isDamage) return { place, medium, info: undefined, error };
    await medium.close();
    throw error;
  }
}

/** Whether a bundle repairs another one: it has the lock of what it builds on. */
export function isRepair({ base, lock }: BundleInfo): boolean {
  return base?.of.some((b) => b.lock === lock) === true;
}

/** Whether `upper` builds on `lower`. Two repairs of one bundle do not build on each other. */
export function buildsOn(upper: BundleInfo, lower: BundleInfo): boolean {
  if (upper.base === null || (upper.lock === lower.lock && isRepair(lower))) return false;
  return upper.base.of.some(({ lock }) => lock === lower.lock);
}

/** The SHA-256 of the lock of one that does not say what it is; undefined where that cannot be read either. */
async function lockOf({ medium }: Peeked): Promise<Digest | undefined> {
  try {
    return digestOf(await readDocument(medium, 'versions.lock'));
  } catch (error) {
    if (!(error instanceof SealiftError) || isAbort(error)) throw error;
    return undefined;
  }
}

/** Whether one that does not say what it is is what a known one builds on, or has something that this leaves out. */
async function isBelow(unknown: Peeked, known: readonly BundleInfo[]): Promise<boolean> {
  const lock = await lockOf(unknown);
  const { entries } = unknown.medium;
  return known.some(({ base }) => {
    if (base === null) return false;
    if (base.of.some((one) => one.lock === lock)) return true;
    for (const digest of base.leftOut) if (entries.indexOfBlob(digest) >= 0) return true;
    return false;
  });
}

/**
 * One that does not say what it is may be what another one builds on, and then it may still have blobs. Otherwise it may be
 * the very one that is meant, and what is meant must not be guessed.
 * @throws what is wrong with it
 */
async function refuseUnknown(all: readonly Peeked[]): Promise<void> {
  const known = all.flatMap(({ info }) => info ?? []);
  if (known.length === 0) return;
  for (const one of all) if (one.error !== undefined && !(await isBelow(one, known))) throw one.error;
}

/**
 * The one that is meant among bundles that belong together: on which none of the others builds. Of several with one lock
 * it is a repair, whose documents are known to be whole, or the first.
 * @throws USAGE where they do not belong together
 */
function meantOf(all: readonly Peeked[]): Peeked {
  const known = all.filter((p) => p.info !== undefined);
  const tops = known.filter(
    ({ info }) =>
      info !== undefined &&
      !known.some((o) => o.info !== undefined && o.info !== info && buildsOn(o.info, info)),
  );
  const first = tops.find((p) => p.info?.base !== null) ?? tops[0] ?? all[0];
  if (first === undefined) throw new SealiftError('USAGE', 'no bundle is given');
  const stranger = tops.find((p) => p.info?.lock !== first.info?.lock);
  if (stranger === undefined) return first;
  throw new SealiftError(
    'USAGE',
    `${pathOf(first.place)} and ${pathOf(stranger.place)} do not belong together: neither is made for the other`,
    {
      hint: `give one bundle, and beside it only what it builds on, or a repair of it${[first, stranger].map(wants).join('')}`,
    },
  );
}

/** What a delta builds on, as a part of a sentence; '' for any other bundle. */
function wants({ place, info }: Peeked): string {
  const names = (info?.base?.of ?? []).map(baseName).join(' or ');
  return names === '' ? '' : `; ${pathOf(place)} builds on ${names}`;
}

/** How a bundle that a delta builds on is called. */
export function baseName({ name, version, lock }: BaseBundle): string {
  const called = [name, version].filter((t) => t !== null).join(' ');
  return called === '' ? `the bundle with lock ${lock}` : `${called} (lock ${lock.slice(0, 19)}…)`;
}

/** Repairs and deltas have little, and what they have is good: they are asked before whole bundles, which may be damaged. */
function inOrder(suppliers: readonly Supplier[]): Supplier[] {
  const rank = ({ info }: Supplier): number => (info !== undefined && info.base !== null ? 0 : 1);
  return suppliers.toSorted((a, b) => rank(a) - rank(b));
}

/** Bundles that belong together, of which only the structure and `sealift.json` are read. */
export interface Given {
  /** Of the one that is meant. */
  readonly medium: Medium;
  /** What it says about itself; undefined where nobody had to know, or where it cannot be read. */
  readonly info: BundleInfo | undefined;
  readonly suppliers: readonly Supplier[];
}

/**
 * Opens the structure of one bundle, or of several that are used as one. Their order does not count.
 * @throws BUNDLE_NOT_FOUND, BUNDLE_TOO_NEW, USAGE where they do not belong together
 */
export async function openGiven(places: readonly Place[]): Promise<Given> {
  const [only] = places;
  if (only !== undefined && places.length === 1) {
    return { medium: await openMedium(only), info: undefined, suppliers: [] };
  }
  const all: Peeked[] = [];
  try {
    for (const place of places) all.push(await peek(place));
    await refuseUnknown(all);
    const main = meantOf(all);
    const others = all.filter((p) => p !== main);
    const suppliers = others.map(({ medium, info }) => ({ ...contentOf(medium), medium, info }));
    return { medium: main.medium, info: main.info, suppliers: inOrder(suppliers) };
  } catch (error) {
    for (const { medium } of all) await medium.close();
    throw error;
  }
}

/** Closes what `openGiven` opened; not what `openJoint` made of it. */
export async function closeGiven({ medium, suppliers }: Given): Promise<void> {
  await medium.close();
  for (const supplier of suppliers) await supplier.medium.close();
}

/**
 * Opens the one that is meant as `openBundle` does; the others only supply blobs by digest, verified by their SHA-256.
 * Closes all of them when it fails.
 * @throws what `openBundle` throws for the one that is meant
 */
export async function openJoint(given: Given, options: Omit<OpenOptions, 'medium'>): Promise<JointBundle> {
  const { medium, suppliers } = given;
  try {
    return joined(await openBundle(medium.path, { ...options, medium }), suppliers);
  } catch (error) {
    await closeGiven(given);
    throw error;
  }
}

/**
 * The one that has a blob whole. Where several have it all but the last are read once before: what is passed on cannot be
 * taken back, and it is damaged bundles that are given beside each other.
 * @throws ABORTED
 */
async function wholeIn(
  those: readonly ContentReader[],
  descriptor: Descriptor,
  signal: AbortSignal,
): Promise<ContentReader | undefined> {
  for (const one of those.slice(0, -1)) {
    try {
      for await (const _ of one.open(descriptor, { signal }));
      return one;
    } catch (error) {
      if (!(error instanceof SealiftError) || isAbort(error)) throw error;
    }
  }
  return those.at(-1);
}

function joined(bundle: Bundle, suppliers: readonly Supplier[]): JointBundle {
  const all = [bundle, ...suppliers];
  const open: ContentReader['open'] = async function* (descriptor, how) {
    const those = all.filter((one) => one.has(descriptor.digest));
    const whole = await wholeIn(those, descriptor, how.signal);
    yield* (whole ?? bundle).open(descriptor, how);
  };
  return {
    ...bundle,
    suppliers,
    has: (digest) => all.some((one) => one.has(digest)),
    open,
    close: async () => {
      await bundle.close();
      for (const { medium } of suppliers) await medium.close();
    },
  };
}
