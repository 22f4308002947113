import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { fault, isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readChartArchive } from '../helm/archive.ts';
import { diffTree, hashTree, unpackChart } from '../helm/tree.ts';
import {
  besidePath,
  clearBeside,
  diskError,
  kindOf,
  readFileIfExists,
  syncFolder,
  writeFileIfChanged,
} from '../io/files.ts';
import type { BlobIntake, ContentReader } from '../oci/content.ts';
import { onDisk, type SpaceNeed } from './space.ts';
import {
  type ChartItem,
  type Entry,
  emptyTally,
  failEntry,
  type Item,
  newEntry,
  type Tally,
  type Target,
  type TargetOptions,
  type TargetRun,
} from './target.ts';

export interface ChartTreeOptions {
  /** The folder of unpacked charts, `charts/external` where its users keep it. */
  readonly dir: string;
  /** Replace trees that somebody edited. */
  readonly force: boolean;
  /** The lock that is put beside the trees, and the bundle that it belongs to. */
  readonly lock: { readonly bytes: Buffer; readonly bundle: string };
  /** The bundle name in the text of a lock that Sealift wrote; undefined for any other text. */
  readonly bundleOf: (lockText: Buffer) => string | undefined;
}

type Options = ChartTreeOptions & TargetOptions;

interface TreeEntry extends Entry {
  readonly item: ChartItem;
  readonly path: string;
}

/** The local chart tree as a target: `<dir>/<name>-<version>/` for each chart, and the lock beside them. */
export function chartTreeTarget(options: ChartTreeOptions): Target {
  return {
    kind: 'chart-tree',
    name: `chart tree ${options.dir}`,
    address: options.dir,
    folder: options.dir,
    accepts: (item) => item.kind === 'chart',
    plan: (items, run) => planTrees(items, { ...options, ...run }),
  };
}

async function planTrees(items: readonly Item[], options: Options): Promise<TargetRun> {
  const lockPath = await placeForLock(options);
  const entries: TreeEntry[] = [];
  for (const item of items) {
    if (item.kind !== 'chart') continue;
    const path = join(options.dir, item.name);
    const entry: TreeEntry = { ...newEntry(item, path), path, content: item.tree };
    try {
      await judge(entry, options);
    } catch (error) {
      failEntry(entry, diskError(error, path));
    }
    entries.push(entry);
  }
  return new TreeRun(entries, { ...options, lockPath });
}

/**
 * Where the lock goes: `versions.lock`, or `versions.<name>.lock` when that one belongs to another bundle.
 * @throws TARGET_CONFLICT when Sealift did not write what is there
 */
async function placeForLock(options: ChartTreeOptions): Promise<string> {
  const { bundle } = options.lock;
  for (const name of ['versions.lock', `versions.${bundle}.lock`]) {
    const path = join(options.dir, name);
    const there = await readFileIfExists(path);
    if (there === undefined) return path;
    const owner = options.bundleOf(there);
    if (owner === bundle) return path;
    if (owner === undefined) {
      throw new SealiftError('TARGET_CONFLICT', `${path}: there is a file that Sealift did not write`, {
        hint: 'move it away, or give another folder with --chart-tree',
      });
    }
  }
  throw new SealiftError(
    'TARGET_CONFLICT',
    `${options.dir}: its versions.${bundle}.lock belongs to another bundle`,
  );
}

/** Present, to be written, or in conflict: hand-edited trees are never replaced without force. */
async function judge(entry: TreeEntry, options: Options): Promise<void> {
  const { item, path } = entry;
  const kind = await kindOf(path);
  if (kind === undefined) {
    entry.writeBytes = item.archive.size;
    return;
  }
  let found: string | undefined;
  try {
    found = kind === 'folder' ? (await hashTree(path)).digest : undefined;
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
  }
  entry.added = { names: [], manifests: [] };
  if (found !== undefined) entry.found = found;
  if (found === item.tree) {
    entry.state = 'present';
    entry.presentBytes = item.archive.size;
  } else if (options.force) {
    entry.writeBytes = item.archive.size;
    entry.notes.push(`${path} was changed by hand and is replaced`);
  } else {
    entry.state = 'failed';
    const isAtHand = options.isAbsent?.(item.archive.digest) !== true;
    const edits = isAtHand ? () => describeEdits(entry, options) : () => 'it was changed';
    const what = kind === 'folder' ? await edits() : 'it is not a folder';
    entry.fault = fault('TARGET_CONFLICT', `${path}: is there with other content: ${what}`, {
      hint: 'keep local changes in charts/patches or charts/custom, then load again with --force to replace the tree',
      details: { expected: item.tree, found: found ?? null },
    });
  }
}

async function describeEdits(entry: TreeEntry, options: Options): Promise<string> {
  // Its archive is still to come.
  if (options.passing === true) return 'it was changed by hand, or is of other content';
  const bytes = options.source.open(entry.item.archive, { signal: options.context.signal });
  const { entries } = await readChartArchive(bytes, { what: entry.item.name });
  const { changed, missing, extra } = await diffTree(entry.path, entries);
  const list = (label: string, paths: readonly string[]): string[] =>
    paths.length === 0
      ? []
      : [
          `${label} ${paths.slice(0, 5).join(', ')}${paths.length > 5 ? ` and ${paths.length - 5} more` : ''}`,
        ];
  return [...list('changed', changed), ...list('missing', missing), ...list('extra', extra)].join('; ');
}

class TreeRun implements TargetRun {
  readonly entries: readonly TreeEntry[];
  readonly tally: Tally = emptyTally();
  readonly #options: Options & { readonly lockPath: string };
  /** Where each chart is unpacked; in place by rename once it is whole and checked. */
  readonly #ready = new Map<TreeEntry, string>();

  constructor(entries: readonly TreeEntry[], options: Options & { readonly lockPath: string }) {
    this.entries = entries;
    this.#options = options;
  }

  space(): SpaceNeed {
    const { dir } = this.#options;
    const written = this.entries.filter((e) => e.state === 'write');
    // Unpacked and in whole blocks; only where the disk is nearly full is it worth reading them for that.
    const atMost = written.length * 2 * LIMITS.chartUnpacked;
    return { folder: dir, atMost, exact: () => this.#unpackedSize(written) };
  }

  /**
   * Bytes on the disk; a damaged archive counts nothing: that is told when it is unpacked. What an archive that is still
   * to come unpacks to nobody knows: at least its own size.
   */
  async #unpackedSize(entries: readonly TreeEntry[]): Promise<number> {
    const { source, context, lock, passing } = this.#options;
    let bytes = onDisk(lock.bytes.length);
    if (passing === true) return entries.reduce((sum, { item }) => sum + onDisk(item.archive.size), bytes);
    for (const { item } of entries) {
      const folders = new Set<string>();
      const onFile = (path: string, data: Buffer): void => {
        bytes += onDisk(data.length);
        folders.add(dirname(path));
      };
      try {
        const archive = source.open(item.archive, { signal: context.signal });
        await readChartArchive(archive, { what: item.name, onFile });
      } catch (error) {
        if (isAbort(error) || !(error instanceof SealiftError)) throw error;
      }
      bytes += onDisk(1) * folders.size;
    }
    return bytes;
  }

  async clear(): Promise<void> {
    await clearBeside(this.#options.dir, new Set(this.entries.map(({ path }) => basename(path))));
  }

  /** Entries whose archive is wanted. */
  #wanting(): TreeEntry[] {
    for (const entry of this.entries) if (entry.state === 'present') this.tally.blobsPresent += 1;
    return this.entries.filter((entry) => entry.state === 'write');
  }

  async needs(isAbsent: (digest: Digest) => boolean): Promise<Digest[]> {
    const open = this.entries.filter(({ state }) => state === 'write');
    return open.map(({ item }) => item.archive.digest).filter(isAbsent);
  }

  async writeBlobs(): Promise<void> {
    for (const entry of this.#wanting()) await this.#tryUnpack(entry, this.#options.source);
  }

  async intake(): Promise<BlobIntake> {
    const wanting = this.#wanting();
    return {
      takersOf: (digest) =>
        wanting
          .filter((entry) => entry.item.archive.digest === digest)
          .map((entry) => (blob) => this.#tryUnpack(entry, blob)),
    };
  }

  async #tryUnpack(entry: TreeEntry, source: ContentReader): Promise<void> {
    try {
      await this.#unpack(entry, source);
    } catch (error) {
      await this.#refuseDamaged(entry.item, { error, source });
      failEntry(entry, diskError(error, entry.path));
      await rm(this.#ready.get(entry) ?? '', { recursive: true, force: true });
    }
  }

  /**
   * An archive that cannot be unpacked is a fault of the bundle, not of this folder: the lock was made from one that
   * could. Unpacking stops before the end, where wrong bytes would show, so they are read again for their digest.
   */
  async #refuseDamaged(
    item: ChartItem,
    { error, source }: { readonly error: unknown; readonly source: ContentReader },
  ): Promise<void> {
    if (!(error instanceof SealiftError) || !error.code.startsWith('CHART_')) return;
    const { context } = this.#options;
    for await (const _ of source.open(item.archive, { signal: context.signal }));
    throw new SealiftError('BUNDLE_TREE_MISMATCH', error.message, { side: 'source', cause: error });
  }

  async #unpack(entry: TreeEntry, source: ContentReader): Promise<void> {
    const { context, dir } = this.#options;
    const { item } = entry;
    await mkdir(dir, { recursive: true }).catch((error: unknown) => {
      throw diskError(error, dir);
    });
    const temp = besidePath(entry.path);
    this.#ready.set(entry, temp);
    const bytes = source.open(item.archive, { signal: context.signal });
    const { tree } = await unpackChart(bytes, { dir: temp, what: item.name });
    if (tree !== item.tree) {
      throw new SealiftError(
        'BUNDLE_TREE_MISMATCH',
        `${item.name}: the tree is ${tree}, the lock says ${item.tree}`,
        {
          side: 'source',
          details: { expected: item.tree, found: tree },
        },
      );
    }
    this.tally.blobsWritten += 1;
    this.tally.bytesWritten += item.archive.size;
  }

  async writeManifests(): Promise<void> {}

  async commit(): Promise<void> {
    const { dir, lock, lockPath } = this.#options;
    for (const [entry, temp] of this.#ready) {
      if (entry.state !== 'write') continue;
      try {
        await replaceFolder(temp, entry.path);
        entry.state = 'written';
      } catch (error) {
        failEntry(entry, diskError(error, entry.path));
      }
    }
    await syncFolder(dir);
    if (this.entries.some((e) => e.state === 'written' || e.state === 'present')) {
      await writeFileIfChanged(lockPath, lock.bytes);
    }
  }

  async close(): Promise<void> {
    for (const temp of this.#ready.values()) await rm(temp, { recursive: true, force: true }).catch(() => {});
  }
}

/** Puts `temp` at `path`; what was there goes only after the new one is in place. */
async function replaceFolder(temp: string, path: string): Promise<void> {
  const old = besidePath(path);
  const wasThere = (await kindOf(path)) !== undefined;
  if (wasThere) await rename(path, old);
  try {
    await rename(temp, path);
  } catch (error) {
    if (wasThere) await rename(old, path);
    throw error;
  }
  if (wasThere) await rm(old, { recursive: true, force: true });
}
