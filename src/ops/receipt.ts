import { rm } from 'node:fs/promises';
import type { Digest } from '../core/digest.ts';
import { type Fault, SealiftError } from '../core/errors.ts';
import { besidePath, kindOf, writeFileAtomic } from '../io/files.ts';
import type { Item, TargetRun } from '../target/target.ts';
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

/** The blobs that every target which takes them has now: a later delta may leave them out. */
export function blobsThere(
  racers: readonly { readonly run?: TargetRun; readonly fault?: Fault }[],
): Digest[] {
  const there = new Set<Digest>();
  const lacking = new Set<Item>();
  for (const { run, fault } of racers) {
    for (const { item, state } of run?.entries ?? []) {
      if (fault !== undefined || (state !== 'present' && state !== 'written')) lacking.add(item);
    }
  }
  for (const { item } of racers.flatMap(({ run }) => run?.entries ?? [])) {
    const graphs =
      item.kind === 'image' ? [item.graph, ...(item.referrers ?? []).map((r) => r.graph)] : [item.graph];
    if (!lacking.has(item))
      for (const { nodes } of graphs) for (const digest of nodes.keys()) there.add(digest);
  }
  return [...there].sort();
}

/** Writes a receipt. @throws FILE_UNREADABLE, DISK_FULL */
export async function writeReceipt(path: string, result: object, blobs: readonly Digest[]): Promise<void> {
  const receipt = { schemaVersion: 1, kind: 'receipt', ...result, blobs };
  await writeFileAtomic(path, `${JSON.stringify(receipt, null, 2)}\n`);
}
