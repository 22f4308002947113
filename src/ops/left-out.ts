import type { BundleInfo } from '../bundle/documents.ts';
import { baseName, isRepair, type JointBundle, type Supplier } from '../bundle/joint.ts';
import type { Medium } from '../bundle/medium.ts';
import { isAddress } from '../bundle/names.ts';
import { startSweep } from '../bundle/sweep.ts';
import { countOf } from '../core/count.ts';
import { type Digest, hexOf } from '../core/digest.ts';
import { errorOf, type Fault, fault } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { threadsFor } from '../io/cores.ts';
import type { Target, TargetRun } from '../target/target.ts';
import type { Source } from './load-source.ts';
import type { VerifyResult } from './verify.ts';

/** What became of the blobs that a bundle leaves out, as far as others that were given beside it have them. */
export interface LeftOutReport {
  /** Blobs and bytes that were read and are right. */
  readonly blobs: number;
  readonly bytes: number;
  /** Blobs that none of the others has. */
  readonly absent: readonly Digest[];
  readonly faults: readonly Fault[];
}

/** Blobs of one supplier, hashed. @returns the ones that are wrong there */
async function hashThere(supplier: Supplier, wanted: readonly Digest[], context: Context): Promise<Digest[]> {
  const { medium } = supplier;
  const entries = wanted.flatMap((digest) => medium.entries.findBlob(digest) ?? []);
  const bytes = entries.reduce((sum, { size }) => sum + size, 0);
  // What lies behind an entry is nobody's business here.
  const at = (index: number) => {
    const entry = entries[index];
    return entry === undefined ? undefined : { ...medium.range(entry), padding: 0 };
  };
  const threads = threadsFor(bytes, 'sha256');
  const sweep = startSweep({ length: entries.length, at }, { sha256: true, blake3: false, threads });
  try {
    await sweep.finish({ signal: context.signal, note: () => {} });
    return wanted.filter((digest, index) => sweep.hashesOf(index)?.sha256 !== hexOf(digest));
  } finally {
    await sweep.close();
  }
}

/**
 * Reads each blob that a bundle leaves out where another one that was given beside it has it, and compares its SHA-256. One
 * that is wrong in one of them may be right in the next.
 * @throws ABORTED
 */
export async function checkLeftOut(
  bundle: Pick<JointBundle, 'info' | 'suppliers' | 'medium'>,
  context: Context,
): Promise<LeftOutReport> {
  const { suppliers } = bundle;
  let open: Digest[] = [...(bundle.info.base?.leftOut ?? [])];
  const all = open.length;
  const wrong = new Map<Digest, Supplier>();
  let bytes = 0;
  for (const supplier of suppliers) {
    const here = open.filter((digest) => supplier.has(digest));
    const bad = new Set(await hashThere(supplier, here, context));
    for (const digest of here) {
      if (bad.has(digest)) wrong.set(digest, supplier);
      else bytes += supplier.medium.entries.findBlob(digest)?.size ?? 0;
    }
    const good = new Set(here.filter((digest) => !bad.has(digest)));
    open = open.filter((digest) => !good.has(digest));
  }
  const faults = open.flatMap((digest) => {
    const supplier = wrong.get(digest);
    if (supplier === undefined) return [];
    const entry = supplier.medium.entries.findBlob(digest);
    const message = `${supplier.medium.path}: ${entry?.name ?? digest} at byte ${entry?.offset ?? 0} is damaged, and nothing that was given beside it has it whole`;
    const details = { entry: entry?.name, offset: entry?.offset, size: entry?.size };
    const hint = `copy it again, or ask for what is bad in it: \`sealift verify ${supplier.medium.path} --write-request repair.json\``;
    return [fault('BUNDLE_CHECKSUM_MISMATCH', message, { details, hint })];
  });
  const absent = open.filter((digest) => !wrong.has(digest));
  return { blobs: all - open.length, bytes, absent, faults };
}

/** The delta that a repair repairs, where it is given beside it: what that leaves out the repair does not bring either. */
function repairedDelta({ info, suppliers }: Pick<JointBundle, 'info' | 'suppliers'>): BundleInfo | undefined {
  if (!isRepair(info)) return undefined;
  const same = suppliers.flatMap((s) => (s.info?.lock === info.lock ? [s.info] : []));
  return same.find((other) => other.base !== null && !isRepair(other));
}

/**
 * That others which were given beside a bundle lack what it leaves out. A delta by itself is whole without its base, and so
 * are a repair and the delta that it repairs.
 */
export function absentFaults(
  bundle: Pick<JointBundle, 'info' | 'medium' | 'suppliers'>,
  { absent }: Pick<LeftOutReport, 'absent'>,
): Fault[] {
  const { info, suppliers } = bundle;
  const hasBase = suppliers.some((s) => s.info?.lock !== info.lock);
  const { leftOut } = (hasBase ? undefined : repairedDelta(bundle)?.base) ?? {};
  const lacking = leftOut === undefined ? absent : absent.filter((digest) => leftOut.indexOf(digest) < 0);
  return suppliers.length === 0 || lacking.length === 0 ? [] : [missingBase(bundle, lacking)];
}

/** That blobs lack which the bundle leaves out, and what would supply them. */
export function missingBase(
  bundle: Pick<JointBundle, 'info' | 'suppliers'> & { readonly medium: Pick<Medium, 'path'> },
  missing: readonly Digest[],
  where = 'what was given beside it',
): Fault {
  const { medium, suppliers } = bundle;
  const { of = [] } = (repairedDelta(bundle) ?? bundle.info).base ?? {};
  const names = of.map(baseName).join(' or ');
  const beside = isAddress(medium.path) ? 'copy both here and load them as files' : 'give it beside this one';
  // Where the base is among what is given, it is that which is damaged.
  const isGiven = suppliers.some(({ info }) => of.some(({ lock }) => lock === info?.lock));
  const message = `${medium.path} leaves out ${countOf(missing.length, 'blob')} that ${where} does not have: ${shownOf(missing)}`;
  return fault('BUNDLE_BASE_MISSING', message, {
    hint: isGiven
      ? askForRepair([medium, ...suppliers.map((s) => s.medium)])
      : `they are in ${names}: load that first, or ${beside}`,
    details: { missing, base: of },
  });
}

/** That a bundle which leaves nothing out lacks blobs, with why that is so where it is known. */
export function lackingBlobs(
  { medium, faults }: Pick<JointBundle, 'medium' | 'faults'>,
  missing: readonly Digest[],
): Fault[] {
  const message = `${medium.path} lacks ${countOf(missing.length, 'blob')}: ${shownOf(missing)}`;
  const hint = askForRepair([medium]);
  return [
    ...(medium.files?.faults ?? faults),
    fault('BUNDLE_ENTRY_MISSING', message, { details: { missing }, hint }),
  ];
}

function shownOf(missing: readonly Digest[]): string {
  const more = missing.length > 3 ? ` and ${missing.length - 3} more` : '';
  return `${missing.slice(0, 3).join(', ')}${more}`;
}

/** How one asks for what several bundles together lack. */
export function askForRepair(media: readonly Pick<Medium, 'path'>[]): string {
  const paths = media.map(({ path }) => path).join(' ');
  return `ask for a repair: \`sealift verify ${paths} --write-request repair.json\``;
}

/** What a delta leaves out, in numbers. */
export function leftOutFacts(
  { info }: Pick<JointBundle, 'info'>,
  rest: Pick<LeftOutReport, 'blobs' | 'bytes'>,
): VerifyResult['leftOut'] {
  if (info.base === null) return null;
  const { of, leftOut, bytes } = info.base;
  return { of, blobs: leftOut.size, bytes, checked: { blobs: rest.blobs, bytes: rest.bytes } };
}

/**
 * A delta leaves blobs out: each that a target lacks must be at hand. Told before anything is written, for all targets.
 * @throws BUNDLE_BASE_MISSING
 */
export async function refuseLeftOut(
  racers: readonly { readonly target: Target; readonly run?: TargetRun }[],
  source: Pick<Source, 'path' | 'leftOut'>,
): Promise<void> {
  const { leftOut } = source;
  if (leftOut === undefined) return;
  const faults: Fault[] = [];
  for (const { target, run } of racers) {
    const needed = [...((await run?.needs(leftOut.isAbsent)) ?? [])];
    if (needed.length === 0) continue;
    const found = leftOut.missing(needed);
    faults.push({ ...found, message: `${target.name}: ${found.message}` });
  }
  if (faults.length > 0)
    throw errorOf(faults, `${source.path}: its base is not at hand; nothing was written`);
}
