import type { Digest } from '../core/digest.ts';
import type { Position } from '../core/errors.ts';
import type { PythonLock } from './schema.ts';

/** A file as it is now. */
interface FileNow {
  readonly path: string;
  readonly sha256: Digest;
}

/** The Python packages that the manifest asks for. */
export interface WantedPython {
  /** Those that others include among them. */
  readonly requirements: readonly FileNow[];
  readonly constraints: readonly FileNow[];
  readonly packages: readonly string[];
  readonly pythons: readonly string[];
  readonly platforms: readonly string[];
  readonly indexes: readonly string[];
  /** Whether source archives may be carried. */
  readonly sdists: boolean;
  /** Wheels and source archives on this disk that may be carried. */
  readonly local: readonly FileNow[];
  readonly position?: Position;
}

function listDifference(
  what: string,
  lists: { readonly now: readonly string[]; readonly locked: readonly string[] },
): string[] {
  const [now, then] = [lists.now, lists.locked].map((list) => [...new Set(list)].sort().join(', '));
  return now === then ? [] : [`${what} ${now || 'nothing'}, the lock has ${then || 'nothing'}`];
}

function fileDifferences(kind: string, now: readonly FileNow[], then: readonly FileNow[]): string[] {
  const locked = new Map(then.map((f) => [f.path, f.sha256]));
  const wanted = new Set(now.map((f) => f.path));
  const changed = now.flatMap(({ path, sha256 }) => {
    const was = locked.get(path);
    if (was === sha256) return [];
    return [was === undefined ? `${kind} ${path}, which the lock lacks` : `${path}, which has changed since`];
  });
  const gone = then.filter((f) => !wanted.has(f.path)).map((f) => f.path);
  return [
    ...changed.map((text) => `are asked for by ${text}`),
    ...gone.map((path) => `are no longer asked for by ${path}`),
  ];
}

/** What of the Python packages of a lock is not as the manifest wants it now; empty when all is. */
export function pythonDifferences(wanted: WantedPython, locked: PythonLock): string[] {
  const isSdist = (file: string): boolean => !file.endsWith('.whl');
  const sdist = wanted.sdists ? undefined : locked.files.find(({ file }) => isSdist(file));
  const local = new Map(wanted.local.map((f) => [f.path, f.sha256]));
  const order = (list: readonly string[]): string =>
    list.join(', ') || 'what the resolver is configured with';
  return [
    ...fileDifferences('the requirements file', wanted.requirements, locked.requirements),
    ...fileDifferences('the constraints file', wanted.constraints, locked.constraints),
    ...listDifference('are asked for as', { now: wanted.packages, locked: locked.packages }),
    ...listDifference('are asked for Python', { now: wanted.pythons, locked: locked.pythons }),
    ...listDifference('are asked for on', { now: wanted.platforms, locked: locked.platforms }),
    ...(order(wanted.indexes) === order(locked.indexes)
      ? []
      : [`come from ${order(wanted.indexes)}, the lock has ${order(locked.indexes)}`]),
    ...(sdist === undefined ? [] : [`may not be source archives, the lock has ${sdist.file}`]),
    ...locked.files.flatMap(({ file, sha256, source }) => {
      if (!('path' in source)) return [];
      const now = local.get(source.path);
      if (now === sha256) return [];
      return [`need ${file}: ${source.path} ${now === undefined ? 'is no longer there' : 'has changed'}`];
    }),
  ];
}
