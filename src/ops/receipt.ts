import { rm } from 'node:fs/promises';
import type { Digest } from '../core/digest.ts';
import { type Fault, SealiftError } from '../core/errors.ts';
import { besidePath, kindOf, writeFileAtomic } from '../io/files.ts';
import type { Item, Target, TargetRun } from '../target/target.ts';
import { refuseInput } from './inputs.ts';

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
    const whole = entries.filter(({ state }) => state === 'present' || state === 'written');
    return { target, items: new Set<Item>(whole.map(({ item }) => item)) };
  });
  for (const item of items) {
    const takers = done.filter(({ target }) => target.accepts(item));
    if (takers.length === 0 || !takers.every((taker) => taker.items.has(item))) continue;
    for (const digest of item.graph.nodes.keys()) there.add(digest);
  }
  return [...there].sort();
}

/** Writes a receipt. @throws FILE_UNREADABLE, DISK_FULL */
export async function writeReceipt(path: string, result: object, blobs: readonly Digest[]): Promise<void> {
  const receipt = { schemaVersion: 1, kind: 'receipt', ...result, blobs };
  await writeFileAtomic(path, `${JSON.stringify(receipt, null, 2)}\n`);
}
