import { type ErrorCode, type Fault, fault } from '../core/errors.ts';

/** The rules for paths inside a chart archive (helm.md 1.2 point 4), made stricter where Helm would clean up silently. */

const MAX_PATH = 4096;
const MAX_SEGMENTS = 64;

/**
 * Characters that no path of a chart may have. U+FFFD stands for bytes that are no text when a folder is read, so a tree with
 * a file of that name could never be compared.
 */
const ODD = /[\0-\x1f\x7f\u2028\u2029\ufffd]/;
const ODD_WHY = 'has control characters or the replacement character';

/** Whether a path in a folder, with `/` between its parts, could not be one of a chart's archive. */
export function isOddPath(path: string): boolean {
  return ODD.test(path) || path.includes('\\');
}

function quoted(name: string): string {
  return JSON.stringify(name.slice(0, 200));
}

/** Sorts as `LC_ALL=C sort` does: by the bytes of UTF-8. */
export function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

type Split =
  | { readonly root: string; readonly path: string }
  | { readonly code: ErrorCode; readonly why: string };

/** Parts a name into the archive's base folder and the path below it ('' for the base folder itself). */
function splitName(name: string): Split {
  const traversal = (why: string): Split => ({ code: 'CHART_ARCHIVE_TRAVERSAL', why });
  if (Buffer.byteLength(name) > MAX_PATH)
    return { code: 'CHART_ARCHIVE_INVALID', why: `is longer than ${MAX_PATH} bytes` };
  if (ODD.test(name)) return { code: 'CHART_ARCHIVE_INVALID', why: ODD_WHY };
  const windows = name.includes('\\');
  if (windows && name.includes('/')) return traversal('has both kinds of slash');
  const segments = name.split(windows ? '\\' : '/');
  if (segments[0] === '') return traversal('is an absolute path');
  if (segments.includes('..')) return traversal('leads out of its folder');
  const root = segments[0] ?? '';
  const below = segments.slice(1).filter((s) => s !== '' && s !== '.');
  if (/^[a-zA-Z]:$/.test(root) || /^[a-zA-Z]:$/.test(below[0] ?? '')) return traversal('has a drive letter');
  if (below[0]?.startsWith('..') === true) return traversal('starts with "..", which Helm refuses');
  if (below.length > MAX_SEGMENTS)
    return { code: 'CHART_ARCHIVE_INVALID', why: `has more than ${MAX_SEGMENTS} folders in each other` };
  return { root, path: below.join('/') };
}

/** Remembers the paths of one archive and judges each new one. */
export interface PathRegister {
  /** The clean path below the base folder, or undefined when there is nothing to keep (a folder, or a fault). */
  add(name: string, kind: 'file' | 'folder'): string | undefined;
  readonly faults: Fault[];
  readonly warnings: Fault[];
}

/** Warns about paths that are one file on disks that ignore case. */
function caseRegister(what: string, warnings: Fault[]): (path: string) => void {
  const folded = new Map<string, string>();
  return (path) => {
    const key = path.normalize('NFC').toLowerCase();
    const other = folded.get(key);
    if (other === undefined) folded.set(key, path);
    else if (other !== path) {
      const message = `${what}: ${quoted(other)} and ${quoted(path)} are one file on disks that ignore case`;
      warnings.push(fault('CHART_ARCHIVE_INVALID', message));
    }
  };
}

/** @param what the archive, for messages */
export function pathRegister(what: string): PathRegister {
  const kinds = new Map<string, 'file' | 'folder'>();
  const faults: Fault[] = [];
  const warnings: Fault[] = [];
  const noteCase = caseRegister(what, warnings);
  let root: string | undefined;

  const refuse = (code: ErrorCode, name: string, why: string): undefined => {
    faults.push(fault(code, `${what}: ${quoted(name)} ${why}`));
    return undefined;
  };
  /** False when one of the folders above is a file. */
  const addFolders = (path: string): boolean => {
    for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) {
      const folder = path.slice(0, slash);
      if (kinds.get(folder) === 'file') return false;
      if (!kinds.has(folder)) {
        kinds.set(folder, 'folder');
        noteCase(folder);
      }
    }
    return true;
  };
  const add = (name: string, kind: 'file' | 'folder'): string | undefined => {
    const split = splitName(name);
    if ('code' in split) return refuse(split.code, name, split.why);
    const { path } = split;
    if (kind === 'file' && path === '')
      return refuse('CHART_ARCHIVE_ROOTS', name, "lies outside the chart's folder");
    if (kind === 'file' && /[/\\]$/.test(name)) {
      return refuse('CHART_ARCHIVE_INVALID', name, 'is a file with the name of a folder');
    }
    root ??= split.root;
    if (split.root !== root)
      return refuse('CHART_ARCHIVE_ROOTS', name, `is not in the base folder ${quoted(root)}`);
    if (path === '') return undefined;
    const before = kinds.get(path);
    if (!addFolders(path) || (before !== undefined && (kind === 'file' || before === 'file'))) {
      const why = before === 'file' && kind === 'file' ? 'is there twice' : 'is both a file and a folder';
      return refuse('CHART_ARCHIVE_INVALID', name, why);
    }
    if (before === undefined) noteCase(path);
    kinds.set(path, kind);
    return kind === 'file' ? path : undefined;
  };
  return { faults, warnings, add };
}
