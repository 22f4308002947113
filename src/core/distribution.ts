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
  /^v?(?:(?<epoch>\d+)!)?(?<release>\d+(?:\.\d+)*)(?:[-_.]?(?<pre>alpha|beta|preview|pre|rc|a|b|c)[-_.]?(?<preN>\d*))?(?:-(?<bare>\d+)|[-_.]?(?<post>post|rev|r)[-_.]?(?<postN>\d*))?(?:[-_.]?(?<dev>dev)[-_.]?(?<devN>\d*))?(?:\+(?<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?$/i;
const PRE: Readonly<Record<string, string>> = { alpha: 'a', beta: 'b', c: 'rc', pre: 'rc', preview: 'rc' };
/** Longer than any that means something; what reads one takes its time. */
const LONGEST = 255;
/** Longest first. */
const SDISTS = ['.tar.gz', '.zip'] as const;

/**
 * What a file's name says it is; undefined when it is neither a wheel nor a source archive. A source archive is known by
 * its name alone, so `etcd-3.5.0.tar.gz` is taken for one, and `helm-3.19.0-linux-amd64.tar.gz` is not.
 * @param fileName the last part of its path
 */
export function parseDistribution(fileName: string): Distribution | undefined {
  if (fileName.length > LONGEST) return undefined;
  if (fileName.endsWith('.whl')) return parseWheel(fileName.slice(0, -'.whl'.length));
  const ending = SDISTS.find((e) => fileName.endsWith(e));
  if (ending === undefined) return undefined;
  const stem = fileName.slice(0, -ending.length);
  const dash = stem.lastIndexOf('-');
  const [name, version] = [stem.slice(0, Math.max(0, dash)), stem.slice(dash + 1)];
  if (!PROJECT.test(name) || !VERSION.test(version)) return undefined;
  return { kind: 'sdist', project: normalizeProject(name), version };
}

/** Whether a text can be the name of a project (PEP 508, "Names"). */
export function isProject(name: string): boolean {
  return name.length <= LONGEST && PROJECT.test(name);
}

/** Whether a text is a version of a Python project (PEP 440, its normalisations included). */
export function isPythonVersion(text: string): boolean {
  return text.length <= LONGEST && VERSION.test(text);
}

const digits = (text: string | undefined): string => (text ?? '').replace(/^0+(?=\d)/, '') || '0';

/**
 * A version in the one spelling that all equal ones share, without zeros at the end of its release: `1.0-RC.1` and
 * `v1rc1` are `1rc1` (PEP 440, "Normalization", "Version matching"). Of anything else the text itself.
 */
export function versionKey(text: string): string {
  const parts = text.length > LONGEST ? undefined : VERSION.exec(text)?.groups;
  if (parts === undefined) return text;
  const { epoch, release = '', preN, bare, postN, devN, local } = parts;
  const numbers = release.split('.').map(digits);
  while (numbers.length > 1 && numbers.at(-1) === '0') numbers.pop();
  const pre = parts.pre?.toLowerCase();
  return [
    digits(epoch) === '0' ? '' : `${digits(epoch)}!`,
    numbers.join('.'),
    pre === undefined ? '' : `${PRE[pre] ?? pre}${digits(preN)}`,
    bare === undefined && parts.post === undefined ? '' : `.post${digits(bare ?? postN)}`,
    parts.dev === undefined ? '' : `.dev${digits(devN)}`,
    local === undefined ? '' : `+${localKey(local)}`,
  ].join('');
}

function localKey(local: string): string {
  return local
    .toLowerCase()
    .split(/[-_.]/)
    .map((part) => (/^\d+$/.test(part) ? digits(part) : part))
    .join('.');
}

/**
 * Whether a file's name says that it is of a project and of a version of it. Knowing both it also understands the names of
 * source archives that `parseDistribution` cannot split, such as `pytz-2024-1.tar.gz`.
 * @param of.name normalised
 */
export function isFileOf(fileName: string, of: { readonly name: string; readonly version: string }): boolean {
  const found = parseDistribution(fileName);
  const key = versionKey(of.version);
  const isOf = (name: string, version: string): boolean =>
    normalizeProject(name) === of.name && versionKey(version) === key;
  if (found !== undefined && isOf(found.project, found.version.replaceAll('_', '-'))) return true;
  const ending = SDISTS.find((e) => fileName.endsWith(e));
  if (ending === undefined || fileName.length > LONGEST) return false;
  const parts = fileName.slice(0, -ending.length).split('-');
  return parts.some((_, at) => at > 0 && isOf(parts.slice(0, at).join('-'), parts.slice(at).join('-')));
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
