import { type Fault, fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { collect } from '../io/verify.ts';
import { parseB3Sums } from './documents.ts';
import type { FoundEntry, Medium } from './medium.ts';
import { B3SUMS, type BundlePlan, type PlannedEntry } from './plan.ts';

/**
 * The bytes of a document of a bundle, unverified.
 * @throws BUNDLE_ENTRY_MISSING, CONTENT_TOO_LARGE, FILE_UNREADABLE
 */
export async function readDocument(medium: Medium, name: string): Promise<Buffer> {
  const entry = medium.entries.find((e) => e.name === name);
  if (entry === undefined) {
    throw new SealiftError('BUNDLE_ENTRY_MISSING', `${medium.path}: no ${name}`, {
      hint: 'this is not a bundle of sealift, or its beginning is damaged',
      details: { entry: name },
    });
  }
  return collect(medium.read(entry), { limit: LIMITS.bundleDocument, what: `${medium.path}: ${name}` });
}

/** Entries that the lock does not imply, and those that are there twice. */
function surplus(medium: Medium, plan: BundlePlan): Fault[] {
  const faults: Fault[] = [];
  const planned = new Set(plan.entries.map((e) => e.name));
  const seen = new Set<string>();
  for (const { name, offset } of medium.entries) {
    const details = { entry: name, offset };
    if (seen.has(name)) {
      const message = `${medium.path}: ${name} is there twice, again at byte ${offset}`;
      faults.push(fault('BUNDLE_NOT_CANONICAL', message, { details }));
    } else if (!planned.has(name)) {
      const message = `${medium.path}: ${name} at byte ${offset} is not in the lock`;
      faults.push(fault('BUNDLE_ENTRY_EXTRA', message, { details }));
    }
    seen.add(name);
  }
  return faults;
}

/** What is wrong with one entry that the lock implies. Blobs are not read. */
async function compareEntry(
  medium: Medium,
  planned: PlannedEntry,
  found: FoundEntry | undefined,
): Promise<Fault | undefined> {
  const { name, size, bytes } = planned;
  if (found === undefined) {
    const at = medium.kind === 'tar' ? ` from byte ${planned.offset}` : '';
    return fault('BUNDLE_ENTRY_MISSING', `${medium.path}: ${name} (${size} bytes${at}) is missing`, {
      details: { entry: name, offset: medium.kind === 'tar' ? planned.offset : 0, expected: size },
    });
  }
  const details = { entry: name, offset: found.offset };
  if (found.size !== size) {
    const message = `${medium.path}: ${name}: expected ${size} bytes, found ${found.size}`;
    return fault('BUNDLE_NOT_CANONICAL', message, {
      details: { ...details, expected: size, found: found.size },
    });
  }
  if (bytes === undefined || (await readDocument(medium, name)).equals(bytes)) return undefined;
  const message = `${medium.path}: ${name} at byte ${found.offset} is not what the lock implies`;
  return fault('BUNDLE_CHECKSUM_MISMATCH', message, { details });
}

/** Compares what was found with the plan: names, sizes, the bytes of the documents, and the order. */
export async function compareWithPlan(medium: Medium, plan: BundlePlan): Promise<Fault[]> {
  const faults = surplus(medium, plan);
  const found = new Map(medium.entries.map((e) => [e.name, e]));
  for (const planned of plan.entries) {
    const bad = await compareEntry(medium, planned, found.get(planned.name));
    if (bad !== undefined) faults.push(bad);
  }
  if (medium.kind === 'folder' || faults.length > 0) return faults;
  const at = plan.entries.findIndex((p, i) => medium.entries[i]?.name !== p.name);
  const entry = medium.entries[at];
  if (entry === undefined) return faults;
  const message = `${medium.path}: ${entry.name} at byte ${entry.offset} is out of order`;
  return [fault('BUNDLE_NOT_CANONICAL', message, { details: { entry: entry.name, offset: entry.offset } })];
}

/** BLAKE3 by entry name. B3SUMS must list exactly the entries, in order. */
export async function readB3Sums(
  medium: Medium,
  plan: BundlePlan | undefined,
): Promise<{ readonly hashes: ReadonlyMap<string, string>; readonly faults: readonly Fault[] }> {
  const entry = medium.entries.find((e) => e.name === B3SUMS);
  if (entry === undefined) return { hashes: new Map(), faults: [] };
  const { hashes, faults } = parseB3Sums(await readDocument(medium, B3SUMS));
  const details = { entry: B3SUMS, offset: entry.offset };
  if (faults.length > 0) {
    return { hashes, faults: faults.map((f) => fault(f.code, `${medium.path}: ${f.message}`, { details })) };
  }
  const expected = (plan?.entries ?? medium.entries).map((e) => e.name).filter((n) => n !== B3SUMS);
  const names = [...hashes.keys()];
  if (expected.length === names.length && expected.every((n, i) => n === names[i])) return { hashes, faults };
  const message = `${medium.path}: B3SUMS does not list exactly the entries, in order`;
  return { hashes, faults: [fault('BUNDLE_NOT_CANONICAL', message, { details })] };
}
