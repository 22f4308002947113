import { readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { countOf } from '../core/count.ts';
import type { Digest } from '../core/digest.ts';
import { type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { kindOf, readFileLimited, writeFileAtomic } from '../io/files.ts';
import type { HttpClient } from '../io/http.ts';
import type { AddedItem, Removal } from '../target/removal.ts';
import { holdTargets } from './holds.ts';
import {
  parseReceipt,
  type Receipt,
  type ReceiptEntry,
  type ReceiptTarget,
  readReceipt,
} from './receipt-read.ts';
import { withHttp } from './session.ts';
import type { SiteTools } from './site-server.ts';
import { siteAccess } from './unload-site.ts';
import { type AccessOf, removerOf } from './unload-targets.ts';

export interface UnloadOptions {
  readonly receiptPath: string;
  /** Receipts of later loads in other folders; those beside `receiptPath` are found. */
  readonly later?: readonly string[];
  /** Names of targets in the receipt; default all of them. */
  readonly targets?: readonly string[];
  /** Ask only: nothing is removed, and the receipt stays as it is. */
  readonly dryRun?: boolean;
  /** The site's file, which says how its servers are reached; default `site.yaml` in the working folder. */
  readonly sitePath?: string;
  /** Asks a person for a login of the site; absent where nobody can be asked. */
  readonly askLogin?: SiteTools['ask'];
}

/** One target of an unload. */
export interface UnloadedTarget {
  readonly kind: ReceiptTarget['kind'];
  readonly name: string;
  /** Why nothing at all could be done there. */
  readonly fault: Fault | null;
  readonly items: readonly Removal[];
}

export interface UnloadResult {
  readonly bundle: Receipt['bundle'];
  /** When the load began. */
  readonly loaded: string;
  readonly dryRun: boolean;
  /** Receipts of later loads that were looked at. */
  readonly later: readonly string[];
  readonly targets: readonly UnloadedTarget[];
  /** Items and targets that failed. */
  readonly failed: number;
}

/** What later loads found, or put, on the same targets: by target and name, the receipt that says so; and its content. */
class LaterLoads {
  readonly paths: string[] = [];
  readonly #users = new Map<string, string>();
  readonly #content = new Map<string, Set<Digest>>();

  add(path: string, receipt: Receipt): void {
    this.paths.push(path);
    for (const target of receipt.targets) {
      const content = this.#content.get(target.name) ?? new Set();
      this.#content.set(target.name, content);
      for (const { as, state, digest, content: own = digest } of target.entries) {
        if (state !== 'present' && state !== 'written' && state !== 'kept') continue;
        this.#users.set(`${target.name}\n${as}`, path);
        content.add(own);
      }
    }
  }

  /** Content that later loads count on there, under whatever name. */
  contentOn(target: ReceiptTarget): ReadonlySet<Digest> {
    return this.#content.get(target.name) ?? new Set();
  }

  userOf(target: ReceiptTarget, entry: Pick<ReceiptEntry, 'as'>): string | undefined {
    return this.#users.get(`${target.name}\n${entry.as}`);
  }
}

/** The receipts of later loads: those that are named, and those beside the one that is taken back. */
async function laterThan(receipt: Receipt, options: UnloadOptions): Promise<LaterLoads> {
  const own = resolve(options.receiptPath);
  const loads = new LaterLoads();
  const isLater = (other: Receipt): boolean => other.start > (receipt.since ?? receipt.start);
  for (const path of options.later ?? []) {
    const other = await readReceipt(resolve(path));
    if (resolve(path) !== own) loads.add(path, other);
  }
  const known = new Set([own, ...loads.paths.map((path) => resolve(path))]);
  const names = (await readdir(dirname(own))).filter((name) => name.endsWith('.json'));
  for (const name of names.sort().slice(0, LIMITS.receiptsBeside)) {
    const path = join(dirname(own), name);
    if (known.has(path) || (await kindOf(path)) !== 'file') continue;
    const bytes = await readFileLimited(path, { limit: LIMITS.bundleDocument, missing: 'FILE_NOT_FOUND' });
    const found = parseReceipt(bytes);
    if ('receipt' in found && isLater(found.receipt)) loads.add(path, found.receipt);
  }
  return loads;
}

function addedIn({ entries }: ReceiptTarget): AddedItem[] {
  return entries.flatMap(({ kind, name, as, digest, content = digest, added }) =>
    added == null ? [] : [{ kind, name, as, content, added }],
  );
}

async function unloadTarget(
  target: ReceiptTarget,
  run: {
    readonly receipt: Receipt;
    readonly later: LaterLoads;
    readonly options: UnloadOptions;
    readonly http: HttpClient;
    readonly context: Context;
    readonly accessOf: AccessOf;
  },
): Promise<UnloadedTarget> {
  const { later, options, context, http, receipt, accessOf } = run;
  const { kind, name } = target;
  const kept: Removal[] = [];
  const open: AddedItem[] = [];
  for (const item of addedIn(target)) {
    const user = later.userOf(target, item);
    if (user === undefined) open.push(item);
    else kept.push({ item, state: 'kept', notes: [`a later load counts on it: ${user}`] });
  }
  try {
    const remove = await removerOf(target, { http, context, accessOf });
    const dryRun = options.dryRun === true;
    const about = { bundle: receipt.bundle, isAll: kept.length === 0, counted: later.contentOn(target) };
    const removed = open.length === 0 ? [] : await remove(open, { context, dryRun, ...about });
    return { kind, name, fault: null, items: [...removed, ...kept] };
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    return { kind, name, fault: faultOf(error), items: kept };
  }
}

/** The receipt without what was taken back: done again, nothing more is; and nobody counts on it any more. */
function receiptAfter(
  receipt: Receipt,
  done: { readonly targets: readonly UnloadedTarget[]; readonly at: string },
): object {
  const gone = new Set<string>();
  for (const target of done.targets) {
    for (const { item, state } of target.items) {
      if (state === 'removed' || state === 'gone') gone.add(`${target.name}\n${item.as}`);
    }
  }
  const targets = receipt.targets.map((target) => {
    const entries = target.entries.filter(({ as }) => !gone.has(`${target.name}\n${as}`));
    return { ...target, made: entries.length === 0 ? null : (target.made ?? null), entries };
  });
  // While anything of the bundle is there, its version counts.
  const isEmpty = targets.every(({ entries }) => entries.length === 0);
  return isEmpty ? { ...receipt, targets, unloaded: done.at, blobs: [] } : { ...receipt, targets, blobs: [] };
}

/** @throws USAGE for a name that the receipt does not have */
function chosen(receipt: Receipt, names: readonly string[] | undefined): readonly ReceiptTarget[] {
  if (names === undefined) return receipt.targets;
  const unknown = names.filter((name) => !receipt.targets.some((target) => target.name === name));
  if (unknown.length === 0) return receipt.targets.filter(({ name }) => names.includes(name));
  throw new SealiftError('USAGE', `the receipt has no target ${unknown.join(', ')}`, {
    hint: `it has: ${receipt.targets.map(({ name }) => name).join('; ')}`,
  });
}

/**
 * Takes back what one load added, by its receipt, and only that: not what was there before it, what is something else by
 * now, or what a later load counts on.
 * @throws FILE_NOT_FOUND, USAGE for what is no receipt, TARGET_BUSY, ABORTED
 */
export function unload(options: UnloadOptions, context: Context): Promise<UnloadResult> {
  return withHttp(context, async (http) => {
    const receiptPath = resolve(options.receiptPath);
    const receipt = await readReceipt(receiptPath);
    const targets = chosen(receipt, options.targets);
    const later = await laterThan(receipt, options);
    const { sitePath, askLogin: ask } = options;
    const asking = ask === undefined ? {} : { ask };
    const accessOf = await siteAccess(sitePath === undefined ? {} : { sitePath }, {
      http,
      context,
      ...asking,
    });
    if (later.paths.length === 0) tellNoLater(context);
    const release =
      options.dryRun === true ? async () => {} : await holdTargets(targets.map(heldOf), { receiptPath });
    try {
      const done: UnloadedTarget[] = [];
      for (const target of targets) {
        const detail = `${target.name}: ${countOf(addedIn(target).length, 'item')}`;
        context.emit({ type: 'phase', name: 'unload', detail });
        done.push(await unloadTarget(target, { receipt, later, options, http, context, accessOf }));
      }
      if (options.dryRun !== true) {
        const at = new Date(context.now()).toISOString();
        const text = JSON.stringify(receiptAfter(receipt, { targets: done, at }), null, 2);
        await writeFileAtomic(receiptPath, `${text}\n`);
      }
      return resultOf(receipt, { options, later, done });
    } finally {
      await release();
    }
  });
}

function heldOf({ kind, name, address }: ReceiptTarget): Parameters<typeof holdTargets>[0][number] {
  const isFolder = (kind === 'chart-tree' || kind === 'files') && address != null;
  return isFolder ? { kind, name, folder: address } : { kind, name };
}

function tellNoLater(context: Context): void {
  const message = 'no receipt of a later load is known: what such a load counts on is not seen';
  const hint = 'name receipts that lie in other folders with --later';
  context.emit({ type: 'warning', fault: fault('USAGE', message, { hint }) });
}

function resultOf(
  receipt: Receipt,
  run: { readonly options: UnloadOptions; readonly later: LaterLoads; readonly done: UnloadedTarget[] },
): UnloadResult {
  const items = run.done.flatMap((target) => target.items);
  const failed = items.filter(({ state }) => state === 'failed').length;
  return {
    bundle: receipt.bundle,
    loaded: receipt.start,
    dryRun: run.options.dryRun === true,
    later: run.later.paths,
    targets: run.done,
    failed: failed + run.done.filter((target) => target.fault !== null).length,
  };
}
