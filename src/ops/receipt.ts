import { rm } from 'node:fs/promises';
import type { Digest } from '../core/digest.ts';
import { type Fault, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { besidePath, kindOf, readFileLimited, writeFileAtomic } from '../io/files.ts';
import type { Addition, Item, Target, TargetRun } from '../target/target.ts';
import { refuseInput } from './inputs.ts';
import type { LoadedEntry, LoadedTarget, LoadResult } from './load.ts';
import { isSameBundle, parseReceipt, type Receipt, type ReceiptTarget } from './receipt-read.ts';

/** The receipt is written last: a place where it cannot be is told before anything is loaded. */
export async function refuseUnwritable(path: string, bundles: readonly string[]): Promise<void> {
  const kind = await kindOf(path);
  if (kind !== undefined && kind !== 'file') {
    throw new SealiftError('USAGE', `--receipt: ${path} is a folder`, {
      hint: 'name a new file for the receipt',
    });
  }
  await refuseInput({ path, inputs: bundles, what: '--receipt' });
  const probe = besidePath(path);
  await writeFileAtomic(probe, '');
  await rm(probe, { force: true });
}

/**
 * The blobs that every target which takes them has now: a later delta may leave them out. What travels with images is not
 * among them, because a target may have refused it.
 * @param items what was to be loaded
 */
export function blobsThere(
  items: readonly Item[],
  racers: readonly {
    readonly target: Pick<Target, 'accepts'>;
    readonly run?: TargetRun;
    readonly fault?: Fault;
  }[],
): Digest[] {
  const there = new Set<Digest>();
  const done = racers.map(({ target, run, fault }) => {
    const entries = fault === undefined ? (run?.entries ?? []) : [];
    const items = new Set<Item>(entries.map(({ item }) => item));
    // An item may be several files there: a chart and its provenance.
    for (const { item, state } of entries) if (state !== 'present' && state !== 'written') items.delete(item);
    return { target, items };
  });
  for (const item of items) {
    const takers = done.filter(({ target }) => target.accepts(item));
    if (takers.length === 0 || !takers.every((taker) => taker.items.has(item))) continue;
    for (const digest of item.graph.nodes.keys()) there.add(digest);
  }
  return [...there].sort();
}

/** @param bundle of this load: what a receipt of another says is not this load's to take back */
async function earlierAt(path: string, bundle: LoadResult['bundle']): Promise<Receipt | undefined> {
  if ((await kindOf(path)) !== 'file') return undefined;
  const bytes = await readFileLimited(path, { limit: LIMITS.bundleDocument, missing: 'FILE_NOT_FOUND' });
  const found = parseReceipt(bytes);
  return 'receipt' in found && isSameBundle(found.receipt.bundle, bundle) ? found.receipt : undefined;
}

const union = <T>(a: readonly T[], b: readonly T[]): T[] => [...new Set([...a, ...b])];

/** What both added. What was put there and is another's now is found by its digest when it is taken back. */
function withEarlier(entry: LoadedEntry, before: Addition | null | undefined): LoadedEntry {
  if (before == null) return entry;
  const { added } = entry;
  if (added === null) return { ...entry, added: before };
  const names = union(before.names, added.names);
  return { ...entry, added: { names, manifests: union(before.manifests, added.manifests) } };
}

/** A target with what earlier loads added to it, also of items that this load left out. */
function targetWith(target: LoadedTarget, before: ReceiptTarget | undefined): object {
  if (before === undefined) return target;
  const open = new Map(before.entries.filter(({ added }) => added != null).map((e) => [e.as, e]));
  const entries: object[] = target.entries.map((entry) => {
    const known = open.get(entry.as);
    open.delete(entry.as);
    return withEarlier(entry, known?.added);
  });
  return { ...target, made: target.made ?? before.made ?? null, entries: [...entries, ...open.values()] };
}

/**
 * The receipt of one load. It is written before anything becomes visible, with what shall be, and at the end with what is:
 * so that what a killed load put somewhere can be taken back. A load that goes on keeps what the one before it added.
 */
export class ReceiptFile {
  readonly #path: string;
  #earlier: { readonly receipt: Receipt | undefined } | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** @throws FILE_UNREADABLE, DISK_FULL */
  async write(result: LoadResult, blobs: readonly Digest[]): Promise<void> {
    this.#earlier ??= { receipt: await earlierAt(this.#path, result.bundle) };
    const { receipt: earlier } = this.#earlier;
    const open = new Map(earlier?.targets.map((target) => [target.name, target]));
    const targets: object[] = result.targets.map((target) => {
      const before = open.get(target.name);
      open.delete(target.name);
      return targetWith(target, before);
    });
    targets.push(...open.values());
    // Loads in between count on what the first of them added.
    const since = earlier === undefined ? {} : { since: earlier.since ?? earlier.start };
    const receipt = { schemaVersion: 1, kind: 'receipt', ...result, ...since, targets, blobs };
    await writeFileAtomic(this.#path, `${JSON.stringify(receipt, null, 2)}\n`);
  }
}
