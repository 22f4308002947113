import type { Digest } from '../../core/digest.ts';
import { type Fault, fault, SealiftError } from '../../core/errors.ts';
import { eachBounded, mapBounded } from '../../io/pool.ts';
import { type Entry, newEntry, type OnConflict, type PackageItem } from '../target.ts';
import type { ListedFile, PythonIndex } from './python-index.ts';

/** Pages and files of an index that are asked for at a time. */
export const ASK_PARALLEL = 8;

export interface PythonEntry extends Entry {
  readonly item: PackageItem;
  readonly fileName: string;
  /** Set when the server has taken it; MD5 of what was sent. */
  sent?: { readonly md5: string | undefined };
}

const OTHER_HINT =
  'find out which one is right; `onConflict: keep` leaves what is there, `onConflict: replace` writes over it';

/** Groups what is given by a key, in order. */
export function byProject<T extends { readonly item: PackageItem }>(entries: readonly T[]): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const entry of entries) {
    const { project } = entry.item;
    const group = groups.get(project);
    if (group === undefined) groups.set(project, [entry]);
    else group.push(entry);
  }
  return groups;
}

/** The entries of what is for an index. @throws TARGET_NAME_COLLISION for different files of one name */
export function pythonEntries(items: readonly PackageItem[], index: PythonIndex): PythonEntry[] {
  const byName = new Map<string, Digest>();
  const twice = new Set<string>();
  const entries = items.map((item) => {
    const fileName = item.name.split('/').at(-1) ?? item.name;
    const { digest } = item.content;
    if ((byName.get(fileName) ?? digest) !== digest) twice.add(fileName);
    byName.set(fileName, digest);
    return { ...newEntry(item, index.urlOf(item, fileName).href), fileName, content: digest };
  });
  if (twice.size === 0) return entries;
  throw new SealiftError(
    'TARGET_NAME_COLLISION',
    `${index.name}: different files of one name: ${[...twice].sort().join(', ')}`,
    { hint: 'load one of them, with --only' },
  );
}

/** What both digests are, where something else is there. */
export function conflictOf(entry: PythonEntry, found: Digest, hint = OTHER_HINT): Fault {
  const { digest } = entry.item.content;
  const message = `${entry.as}: other bytes are there: expected ${digest}, found ${found}`;
  return fault('TARGET_CONFLICT', message, { hint, details: { expected: digest, found } });
}

/** The SHA-256 of a file on an index: as it says, or else as it turns out. */
export async function digestThere(
  file: ListedFile,
  of: { readonly index: PythonIndex; readonly item: PackageItem },
): Promise<Digest> {
  return file.sha256 ?? of.index.digestOf(file, of.item);
}

function judge(entry: PythonEntry, found: Digest, onConflict: OnConflict): void {
  const { content } = entry.item;
  if (found === content.digest) {
    entry.state = 'present';
    entry.presentBytes = content.size;
    return;
  }
  entry.found = found;
  if (onConflict === 'replace') {
    entry.writeBytes = content.size;
    entry.notes.push(`${entry.as} had other bytes (${found}) and is replaced`);
  } else if (onConflict === 'keep') {
    entry.state = 'kept';
    entry.notes.push(`${entry.as} has other bytes (${found}) and stays`);
  } else {
    entry.state = 'failed';
    entry.fault = conflictOf(entry, found);
  }
}

/** Compares what shall be there with what is: one question for each project. */
export async function compareWithIndex(
  entries: readonly PythonEntry[],
  options: {
    readonly index: PythonIndex;
    readonly onConflict: OnConflict;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { index, onConflict, signal } = options;
  const groups = [...byProject(entries)];
  const limits = { limit: ASK_PARALLEL, signal };
  const pages = await mapBounded(groups, limits, ([project]) => index.files(project));
  const found = groups.flatMap(([, group], at) =>
    group.map((entry) => ({ entry, file: pages[at]?.get(entry.fileName) })),
  );
  await eachBounded(found, limits, async ({ entry, file }) => {
    if (file === undefined) entry.writeBytes = entry.item.content.size;
    else judge(entry, await digestThere(file, { index, item: entry.item }), onConflict);
  });
}
