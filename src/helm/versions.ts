import { SemVer } from 'semver';

/**
 * Versions and version ranges as Helm 3.19 reads them (Masterminds/semver 3.4). They differ from npm's: `1.2` means
 * `~1.2`, a comma is an AND, `~1` ends at 2, and a pre-release matches only when its AND group names a pre-release.
 */

const PART = '(\\d+|[xX*])';
const SUFFIX = '(?:-([0-9A-Za-z.-]+))?(?:\\+([0-9A-Za-z.-]+))?';
const RANGE_VERSION = `v?${PART}(?:\\.${PART})?(?:\\.${PART})?${SUFFIX}`;
const OPERATOR = '(=|!=|>=|=>|<=|=<|>|<|~>|~|\\^)?';
const VERSION = new RegExp(`^v?(\\d+)(?:\\.(\\d+))?(?:\\.(\\d+))?${SUFFIX}$`);
const TERM = new RegExp(`^${OPERATOR}\\s*${RANGE_VERSION}$`);
const HYPHEN = new RegExp(`(${RANGE_VERSION})\\s+-\\s+(${RANGE_VERSION})`, 'g');
const HYPHEN_SECOND = 7;
const MAX_CONSTRAINT = 1024;

/** A version, loosely: `v4.9.0` and `1.2` are versions. Undefined when Helm would refuse it. */
export function parseVersion(text: string): SemVer | undefined {
  const m = VERSION.exec(text);
  if (m === null) return undefined;
  const [, major = '0', minor = '0', patch = '0', pre, build] = m;
  const numbers = [major, minor, patch].map((n) => n.replace(/^0+(?=\d)/, ''));
  return semverOf(
    `${numbers.join('.')}${pre === undefined ? '' : `-${pre}`}${build === undefined ? '' : `+${build}`}`,
  );
}

function semverOf(text: string): SemVer | undefined {
  try {
    return new SemVer(text);
  } catch {
    return undefined;
  }
}

/** Highest first; texts that are no versions last, by text. Equal versions keep a fixed order by text. */
export function compareVersionsDown(a: string, b: string): number {
  const va = parseVersion(a);
  const vb = parseVersion(b);
  if (va === undefined || vb === undefined) {
    if (va === undefined && vb === undefined) return a < b ? -1 : a > b ? 1 : 0;
    return va === undefined ? 1 : -1;
  }
  return vb.compare(va) || vb.compareBuild(va) || (a < b ? -1 : a > b ? 1 : 0);
}

type Test = (version: SemVer) => boolean;

interface Term {
  readonly test: Test;
  readonly namesPrerelease: boolean;
}

/** The lowest version, pre-releases included, that is past every version with these numbers. */
function past(major: number, minor?: number, patch?: number): SemVer | undefined {
  if (minor === undefined) return semverOf(`${major + 1}.0.0-0`);
  if (patch === undefined) return semverOf(`${major}.${minor + 1}.0-0`);
  return semverOf(`${major}.${minor}.${patch + 1}-0`);
}

function between(low: SemVer, high: SemVer | undefined): Test {
  return (v) => v.compare(low) >= 0 && (high === undefined || v.compare(high) < 0);
}

function caretEnd(low: SemVer, minor: number | undefined, patch: number | undefined): SemVer | undefined {
  if (low.major > 0 || minor === undefined) return past(low.major);
  return minor > 0 || patch === undefined ? past(0, minor) : past(0, 0, patch);
}

function numberOf(part: string | undefined): number | undefined {
  return part === undefined || /^[xX*]$/.test(part) ? undefined : Number(part);
}

function parseTerm(text: string): Term | undefined {
  const m = TERM.exec(text);
  if (m === null) return undefined;
  const [, operator = '', majorText, minorText, patchText, pre] = m;
  const major = numberOf(majorText);
  const minor = major === undefined ? undefined : numberOf(minorText);
  const patch = minor === undefined ? undefined : numberOf(patchText);
  const low = semverOf(`${major ?? 0}.${minor ?? 0}.${patch ?? 0}${pre === undefined ? '' : `-${pre}`}`);
  if (low === undefined) return undefined;
  const end = major === undefined ? undefined : past(major, minor);
  const test = testOf(operator, { low, end, major, minor, patch });
  return { test, namesPrerelease: pre !== undefined };
}

interface Bounds {
  readonly low: SemVer;
  /** First version past everything that the written parts cover; undefined for `*`. */
  readonly end: SemVer | undefined;
  readonly major: number | undefined;
  readonly minor: number | undefined;
  readonly patch: number | undefined;
}

function testOf(operator: string, bounds: Bounds): Test {
  const { low, end, major, minor, patch } = bounds;
  const exact = patch !== undefined;
  const any = between(low, undefined);
  switch (operator) {
    case '!=':
      return exact ? (v) => v.compare(low) !== 0 : (v) => !between(low, end)(v);
    case '>':
      return exact || end === undefined ? (v) => v.compare(low) > 0 : between(end, undefined);
    case '<':
      return (v) => v.compare(low) < 0;
    case '>=':
    case '=>':
      return any;
    case '<=':
    case '=<':
      return exact ? (v) => v.compare(low) <= 0 : (v) => end === undefined || v.compare(end) < 0;
    case '^':
      return major === undefined ? any : between(low, caretEnd(low, minor, patch));
    case '~':
    case '~>':
      // ~1.2.3 ends where ~1.2 ends; ~0.0.0 is documented as "any".
      if (major === undefined || (exact && major + (minor ?? 0) + patch === 0)) return any;
      return between(low, past(major, minor));
    default:
      return exact ? (v) => v.compare(low) === 0 : between(low, end);
  }
}

function parseGroup(text: string): ((version: SemVer) => boolean) | undefined {
  // An operator may stand apart from its version; two terms are parted by a comma or by space.
  const joined = text.replace(/([=!<>~^])\s+(?=[v\dxX*])/g, '$1').trim();
  const pieces = joined.split(/\s*,\s*|\s+/);
  const terms: Term[] = [];
  for (const piece of pieces) {
    const term = parseTerm(piece);
    if (term === undefined) return undefined;
    terms.push(term);
  }
  const prereleases = terms.some((t) => t.namesPrerelease);
  return (v) => (prereleases || v.prerelease.length === 0) && terms.every((t) => t.test(v));
}

/** A test for a range as Helm writes it in `dependencies[].version`; undefined when it is not a range; nor is ''. */
export function parseConstraint(text: string): ((version: string) => boolean) | undefined {
  if (text.length > MAX_CONSTRAINT) return undefined;
  const spelled = text.replace(HYPHEN, (...groups: string[]) => `>=${groups[1]}, <=${groups[HYPHEN_SECOND]}`);
  const groups: ((version: SemVer) => boolean)[] = [];
  for (const part of spelled.split('||')) {
    const group = parseGroup(part);
    if (group === undefined) return undefined;
    groups.push(group);
  }
  return (version) => {
    const parsed = parseVersion(version);
    return parsed !== undefined && groups.some((g) => g(parsed));
  };
}
