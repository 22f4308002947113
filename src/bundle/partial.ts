import { readdir, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { KIB } from '../core/limits.ts';
import { freeSpace, kindOf } from '../io/files.ts';
import { hold, holderText, type Release } from '../io/hold.ts';
import { type JournalState, readJournal } from './journal.ts';
import type { BundlePlan } from './plan.ts';
import { type BlobPool, journalPool } from './pool.ts';
import type { Form } from './volumes.ts';

/** What a pack keeps beside the bundle until it is finished. */
export interface Paths {
  readonly out: string;
  readonly partial: string;
  readonly journal: string;
  /** An interrupted pack of another plan, whose blobs are used again. */
  readonly oldPartial: string;
  readonly oldJournal: string;
  /** An older folder, for the moment between two renames. */
  readonly replaced: string;
}

export function pathsOf(out: string): Paths {
  return {
    out,
    partial: `${out}.partial`,
    journal: `${out}.partial.journal`,
    oldPartial: `${out}.partial-old`,
    oldJournal: `${out}.partial-old.journal`,
    replaced: `${out}.partial-replaced`,
  };
}

async function removeAll(...paths: string[]): Promise<void> {
  for (const path of paths) await rm(path, { recursive: true, force: true });
}

async function isThere(path: string): Promise<boolean> {
  return (await kindOf(path)) !== undefined;
}

/** Sets an interrupted pack of another plan aside so that its blobs can be used, and returns what was interrupted of this one. */
export async function settlePartial(
  paths: Paths,
  plan: BundlePlan,
  kind: Form,
): Promise<JournalState | undefined> {
  const { partial, journal, oldPartial, oldJournal } = paths;
  const state = await readJournal(journal);
  const there = await isThere(partial);
  if (there && state !== undefined && state.plan === plan.id && state.kind === kind) return state;
  if (there && state !== undefined && state.done.size > 0) {
    await removeAll(oldPartial, oldJournal);
    await rename(journal, oldJournal);
    await rename(partial, oldPartial);
  } else if (
    there &&
    !(await isThere(journal)) &&
    (await isThere(oldJournal)) &&
    !(await isThere(oldPartial))
  ) {
    // A kill came between the two renames above.
    await rename(partial, oldPartial);
  } else await removeAll(partial, journal);
  return undefined;
}

/** The interrupted pack of another plan that was set aside, as a pool. */
export async function settledPool(paths: Paths): Promise<BlobPool | undefined> {
  const state = await readJournal(paths.oldJournal);
  if (state === undefined || !(await isThere(paths.oldPartial))) return undefined;
  return journalPool(paths.oldPartial, state);
}

/** Bytes that a file, or all files of a folder, take up on the disk; holes take none. */
async function bytesOnDisk(path: string): Promise<number> {
  const kind = await kindOf(path);
  if (kind === undefined) return 0;
  const s = await stat(path);
  if (kind !== 'folder') return s.blocks * 512;
  let sum = 0;
  for (const name of await readdir(path)) sum += await bytesOnDisk(join(path, name));
  return sum;
}

/** Disks give out whole blocks, mostly of this size. Bytes. */
const BLOCK = 4 * KIB;

/** What a bundle takes up on a disk: of a folder each file takes whole blocks. */
function spaceFor({ size, entries }: BundlePlan, kind: string): number {
  if (kind !== 'folder') return size;
  let sum = 0;
  for (let index = 0; index < entries.length; index += 1)
    sum += Math.ceil(entries.sizeAt(index) / BLOCK) * BLOCK;
  return sum;
}

/**
 * Refuses to begin what cannot end: what is there already of this bundle is not needed again.
 * @param options.beside bytes that will be written beside the bundle when it is there
 * @throws DISK_FULL
 */
export async function checkSpace(
  paths: Paths,
  options: { readonly plan: BundlePlan; readonly kind: string; readonly beside: number },
): Promise<void> {
  const folder = dirname(paths.out);
  const free = await freeSpace(folder);
  const all = spaceFor(options.plan, options.kind);
  const need = all - Math.min(all, await bytesOnDisk(paths.partial)) + options.beside;
  refuseTooLittle(folder, { need, free });
}

/** What a pack or a pull says before its first byte. @throws DISK_FULL where more bytes are needed than are free */
export function refuseTooLittle(
  folder: string,
  { need, free }: { readonly need: number; readonly free: number },
): void {
  if (need <= free) return;
  throw new SealiftError(
    'DISK_FULL',
    `${folder}: ${need} bytes are needed, ${free} are free: ${need - free} too few`,
    { hint: 'free some space or write the bundle to another disk with -o', details: { need, free } },
  );
}

/**
 * Keeps a second pack or pull away from the same path while one runs: two would take each other's unfinished file for their own.
 * A kill leaves nothing that blocks.
 * @returns what gives the path free
 * @throws PACK_BUSY that says who is there
 */
export async function holdPath(
  out: string,
  verb: 'pack' | 'pull' | 'merge' | 'sign' = 'pack',
): Promise<Release> {
  const real = join(await realpath(dirname(out)), basename(out));
  const held = await hold(`pack ${real}`, { command: `sealift ${verb}` });
  if ('release' in held) return held.release;
  const { holder } = held;
  throw new SealiftError(
    'PACK_BUSY',
    `${out}: another process is writing this bundle: ${holderText(holder)}`,
    {
      hint: 'wait for it to end, or choose another path with -o',
      ...(holder === 'unknown' ? {} : { details: { ...holder } }),
    },
  );
}

/** Removes what a pack keeps beside a bundle that is finished; nothing while another pack is writing there. */
export async function removePartial(out: string): Promise<void> {
  let release: Release;
  try {
    release = await holdPath(out);
  } catch (error) {
    if (error instanceof SealiftError && error.code === 'PACK_BUSY') return;
    throw error;
  }
  const p = pathsOf(out);
  await removeAll(p.partial, p.journal, p.oldPartial, p.oldJournal, p.replaced);
  await release();
}
