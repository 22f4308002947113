import semver from 'semver';

/** Words behind a version that come before it: 2026.10-rc1 is lower than 2026.10. */
const BEFORE: ReadonlySet<string> = new Set([
  'a',
  'alpha',
  'b',
  'beta',
  'dev',
  'pre',
  'preview',
  'rc',
  'snapshot',
]);

/** What may stand at one place of a version, from the lowest to the highest. */
const RANK = {
  /** Here the pre-release of Semantic Versioning begins. */
  pre: 0,
  wordBefore: 1,
  end: 2,
  /** Here its build metadata begins. */
  build: 3,
  word: 4,
  number: 5,
  /** An identifier of a pre-release or of build metadata that is no number. */
  name: 6,
} as const;

type Part = readonly [rank: number, text: string];

const END: Part = [RANK.end, ''];

/** Without zeros before it, so that the longer one is the larger one, however many digits there are. */
function numberPart(digits: string): Part {
  return [RANK.number, digits.replace(/^0+(?=\d)/, '')];
}

function identifiers(list: readonly (string | number)[], rank: number): Part[] {
  if (list.length === 0) return [];
  const parts = list.map((one): Part => {
    const text = String(one);
    return /^\d+$/.test(text) ? numberPart(text) : [RANK.name, text];
  });
  return [[rank, ''], ...parts];
}

/** Of Semantic Versioning: numbers, pre-release, build metadata. Of all others: runs of digits and runs of letters. */
function partsOf(version: string): Part[] {
  const parsed = semver.parse(version);
  if (parsed !== null) {
    const { major, minor, patch, prerelease, build } = parsed;
    const numbers = [major, minor, patch].map((n) => numberPart(String(n)));
    return [...numbers, ...identifiers(prerelease, RANK.pre), ...identifiers(build, RANK.build)];
  }
  const plain = version.toLowerCase().replace(/^v(?=\d)/, '');
  return (plain.match(/\d+|\p{L}+/gu) ?? []).map((run): Part => {
    if (/^\d/.test(run)) return numberPart(run);
    return [BEFORE.has(run) ? RANK.wordBefore : RANK.word, run];
  });
}

function compareParts([rankA, a]: Part, [rankB, b]: Part): number {
  const byLength = rankA === RANK.number ? a.length - b.length : 0;
  return rankA - rankB || byLength || (a < b ? -1 : a > b ? 1 : 0);
}

/**
 * The order of two versions of one bundle: below 0 where `a` is the lower one, 0 where they are the same. Versions of
 * Semantic Versioning 2.0.0 have its order (build metadata decides last); others are compared run by run, numbers as
 * numbers: 2026.9 < 2026.10-rc1 < 2026.10 < 2026.10-hotfix < 2026.10.1. It is one order of all versions, of both kinds: no way
 * up leads back to an old one.
 */
export function compareVersions(a: string, b: string): number {
  const [as, bs] = [partsOf(a), partsOf(b)];
  for (let i = 0; i < Math.max(as.length, bs.length); i += 1) {
    const order = compareParts(as[i] ?? END, bs[i] ?? END);
    if (order !== 0) return order;
  }
  return 0;
}
