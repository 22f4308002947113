/** A wheel or a source archive, as its file name says (PEP 427, PEP 625). */
export interface Distribution {
  readonly kind: 'wheel' | 'sdist';
  /** The name of its project, normalised. */
  readonly project: string;
  /** As it stands in the file name. */
  readonly version: string;
}

/** A project's name as indexes know it: `Flask_Login` is `flask-login` (PEP 503, "Normalized Names"). */
export function normalizeProject(name: string): string {
  return name.replace(/[-_.]+/g, '-').toLowerCase();
}

const PROJECT = /^(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9])$/;
/** A version as PEP 440 has it, and the forms that it takes for one. */
const VERSION =
  /^v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?$/i;
/** Longest first. */
const SDISTS = ['.tar.gz', '.zip'] as const;

/**
 * What a file's name says it is; undefined when it is neither a wheel nor a source archive. A source archive is known by
 * its name alone, so `etcd-3.5.0.tar.gz` is taken for one, and `helm-3.19.0-linux-amd64.tar.gz` is not.
 * @param fileName the last part of its path
 */
export function parseDistribution(fileName: string): Distribution | undefined {
  if (fileName.length > 255) return undefined;
  if (fileName.endsWith('.whl')) return parseWheel(fileName.slice(0, -'.whl'.length));
  const ending = SDISTS.find((e) => fileName.endsWith(e));
  if (ending === undefined) return undefined;
  const stem = fileName.slice(0, -ending.length);
  const dash = stem.lastIndexOf('-');
  const [name, version] = [stem.slice(0, Math.max(0, dash)), stem.slice(dash + 1)];
  if (!PROJECT.test(name) || !VERSION.test(version)) return undefined;
  return { kind: 'sdist', project: normalizeProject(name), version };
}

/** `name-version[-build]-python-abi-platform` (PEP 427, "File name convention"). */
function parseWheel(stem: string): Distribution | undefined {
  const parts = stem.split('-');
  const [name = '', version = '', build] = parts;
  if (parts.length !== 5 && parts.length !== 6) return undefined;
  if (!PROJECT.test(name) || !VERSION.test(version.replaceAll('_', '-'))) return undefined;
  if (parts.length === 6 && !/^\d/.test(build ?? '')) return undefined;
  if (!parts.slice(-3).every((tag) => /^[A-Za-z0-9_.]+$/.test(tag))) return undefined;
  return { kind: 'wheel', project: normalizeProject(name), version };
}
