import { chmod, lstat, mkdir, open, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { fault, SealiftError } from '../core/errors.ts';
import { besidePath, clearBeside, diskError, errnoOf, kindOf, readRange, syncFolder } from '../io/files.ts';
import { digestStream } from '../io/verify.ts';
import type { BlobIntake, ContentReader } from '../oci/content.ts';
import { onDisk, type SpaceNeed } from './space.ts';
import {
  type Entry,
  emptyTally,
  type FileItem,
  failEntry,
  type Item,
  newEntry,
  type Tally,
  type Target,
  type TargetOptions,
  type TargetRun,
} from './target.ts';

export interface FilesOptions {
  readonly dir: string;
  /** Replace files that have other bytes. */
  readonly force: boolean;
}

type Options = FilesOptions & TargetOptions;

interface FileEntry extends Entry {
  readonly item: FileItem;
  readonly path: string;
  /** The bytes are there, only the mode is not. */
  modeOnly: boolean;
}

/** A folder as a target: each file under its name with its mode. */
export function filesTarget(options: FilesOptions): Target {
  return {
    kind: 'files',
    name: `files ${options.dir}`,
    address: options.dir,
    folder: options.dir,
    accepts: (item) => item.kind === 'file',
    plan: (items, run) => planFiles(items, { ...options, ...run }),
  };
}

async function planFiles(items: readonly Item[], options: Options): Promise<TargetRun> {
  const entries: FileEntry[] = [];
  for (const item of items) {
    if (item.kind !== 'file') continue;
    const path = join(options.dir, item.name);
    const entry: FileEntry = { ...newEntry(item, path), path, modeOnly: false };
    try {
      await judge(entry, options);
    } catch (error) {
      failEntry(entry, diskError(error, path));
    }
    entries.push(entry);
  }
  return new FilesRun(entries, options);
}

/** Whether the same bytes are at a path already. */
async function sameBytes(entry: FileEntry): Promise<boolean> {
  const { size, digest } = entry.item.content;
  if ((await stat(entry.path)).size !== size) return false;
  const handle = await open(entry.path, 'r');
  try {
    return (await digestStream(readRange(handle, { position: 0, length: size }))).digest === digest;
  } finally {
    await handle.close();
  }
}

/** A link inside the folder must not lead out of it. @throws TARGET_CONFLICT */
async function refuseLinkOut(dir: string, path: string): Promise<void> {
  const root = await realpath(dir);
  const parent = await realpath(dirname(path));
  if (parent === root || parent.startsWith(root + sep)) return;
  throw new SealiftError('TARGET_CONFLICT', `${path}: a link leads out of ${dir}`, {
    hint: 'replace the link with a folder, or give another folder with --files',
  });
}

/** What is at a path itself: a link counts as `other`, wherever it leads. */
async function plainKindOf(path: string): Promise<Awaited<ReturnType<typeof kindOf>>> {
  try {
    return (await lstat(path)).isSymbolicLink() ? 'other' : await kindOf(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

async function judge(entry: FileEntry, options: Options): Promise<void> {
  const { item, path } = entry;
  const kind = await plainKindOf(path);
  if (kind !== undefined) {
    await refuseLinkOut(options.dir, path);
    entry.added = { names: [], manifests: [] };
  }
  if (kind === 'file' && (await sameBytes(entry))) {
    entry.presentBytes = item.content.size;
    if (((await stat(path)).mode & 0o777) === item.mode) entry.state = 'present';
    else {
      entry.modeOnly = true;
      entry.notes.push(`${path}: only its mode changes, to ${item.mode.toString(8).padStart(4, '0')}`);
    }
    return;
  }
  if (kind === undefined || (kind === 'file' && options.force)) {
    entry.writeBytes = item.content.size;
    if (kind !== undefined) entry.notes.push(`${path} had other bytes and is replaced`);
    return;
  }
  entry.state = 'failed';
  const what = kind === 'file' ? 'a file with other bytes' : 'something that is not a file';
  entry.fault = fault('TARGET_CONFLICT', `${path}: there is ${what}`, {
    hint: 'move it away, give another folder with --files, or load again with --force to replace files',
  });
}

class FilesRun implements TargetRun {
  readonly entries: readonly FileEntry[];
  readonly tally: Tally = emptyTally();
  readonly #options: Options;
  readonly #ready = new Map<FileEntry, string>();

  constructor(entries: readonly FileEntry[], options: Options) {
    this.entries = entries;
    this.#options = options;
  }

  space(): SpaceNeed {
    const written = this.entries.filter((e) => e.state === 'write' && !e.modeOnly);
    const bytes = written.reduce((sum, e) => sum + onDisk(e.item.content.size), 0);
    return { folder: this.#options.dir, atMost: bytes, exact: async () => bytes };
  }

  async clear(): Promise<void> {
    const folders = new Map<string, Set<string>>();
    for (const { path } of this.entries) {
      const names = folders.get(dirname(path)) ?? new Set();
      folders.set(dirname(path), names.add(basename(path)));
    }
    for (const [folder, names] of folders) {
      const isInside = await refuseLinkOut(this.#options.dir, join(folder, 'x')).then(
        () => true,
        () => false,
      );
      if (isInside) await clearBeside(folder, names);
    }
  }

  /** Entries whose bytes are wanted. */
  #wanting(): FileEntry[] {
    for (const entry of this.entries) if (entry.state === 'present') this.tally.blobsPresent += 1;
    return this.entries.filter((entry) => entry.state === 'write' && !entry.modeOnly);
  }

  async needs(isAbsent: (digest: Digest) => boolean): Promise<Digest[]> {
    const open = this.entries.filter(({ state, modeOnly }) => state === 'write' && !modeOnly);
    return open.map(({ item }) => item.content.digest).filter(isAbsent);
  }

  async writeBlobs(): Promise<void> {
    for (const entry of this.#wanting()) await this.#tryWrite(entry, this.#options.source);
  }

  async intake(): Promise<BlobIntake> {
    const wanting = this.#wanting();
    return {
      takersOf: (digest) =>
        wanting
          .filter((entry) => entry.item.content.digest === digest)
          .map((entry) => (blob) => this.#tryWrite(entry, blob)),
    };
  }

  async #tryWrite(entry: FileEntry, source: ContentReader): Promise<void> {
    try {
      await this.#write(entry, source);
    } catch (error) {
      failEntry(entry, diskError(error, entry.path));
    }
  }

  /** Writes beside the final place. A link in the folder must not lead out of it. */
  async #write(entry: FileEntry, source: ContentReader): Promise<void> {
    const { dir, context } = this.#options;
    const { item, path } = entry;
    await mkdir(dirname(path), { recursive: true });
    await refuseLinkOut(dir, path);
    const temp = besidePath(path);
    this.#ready.set(entry, temp);
    context.emit({ type: 'start', id: path, label: item.name, size: item.content.size });
    const handle = await open(temp, 'wx', 0o600);
    try {
      await writeFile(
        handle,
        counted(source.open(item.content, { signal: context.signal }), { context, id: path }),
      );
      await handle.chmod(item.mode);
      await handle.sync();
    } finally {
      await handle.close();
    }
    context.emit({ type: 'end', id: path, outcome: 'done' });
    this.tally.blobsWritten += 1;
    this.tally.bytesWritten += item.content.size;
  }

  async writeManifests(): Promise<void> {}

  async commit(): Promise<void> {
    for (const entry of this.entries) {
      if (entry.state !== 'write') continue;
      try {
        const temp = this.#ready.get(entry);
        if (temp === undefined && entry.modeOnly) await chmod(entry.path, entry.item.mode);
        else if (temp === undefined) throw new SealiftError('INTERNAL', `${entry.path}: not prepared`);
        else {
          await rename(temp, entry.path);
          await syncFolder(dirname(entry.path));
        }
        entry.state = 'written';
      } catch (error) {
        failEntry(entry, diskError(error, entry.path));
      }
    }
  }

  async close(): Promise<void> {
    for (const temp of this.#ready.values()) await rm(temp, { force: true }).catch(() => {});
  }
}

async function* counted(
  bytes: AsyncIterable<Uint8Array>,
  about: { readonly context: TargetOptions['context']; readonly id: string },
): AsyncGenerator<Uint8Array> {
  for await (const chunk of bytes) {
    yield chunk;
    about.context.emit({ type: 'progress', id: about.id, bytes: chunk.length });
  }
}
