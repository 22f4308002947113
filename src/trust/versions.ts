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

type Part = readonly [rank: number, value: bigint | string];

/** The end of a version comes behind words that mean "before it", and before all other parts. */
const END: Part = [1, ''];

/** Runs of digits and runs of letters; what stands between them says nothing. */
function partsOf(version: string): Part[] {
  const runs =
    version
      .toLowerCase()
      .replace(/^v(?=\d)/, '')
      .match(/\d+|\p{L}+/gu) ?? [];
  return runs.map((run): Part => {
    if (/^\d/.test(run)) return [3, BigInt(run)];
    return [BEFORE.has(run) ? 0 : 2, run];
  });
}

function compareParts([rankA, a]: Part, [rankB, b]: Part): number {
  return rankA - rankB || (a < b ? -1 : a > b ? 1 : 0);
}

/**
 * The order of two versions of one bundle: below 0 where `a` is the lower one, 0 where they are the same. Two versions of
 * Semantic Versioning 2.0.0 have its order (build metadata decides last); all others are compared run by run, numbers as
 * numbers: 2026.9 < 2026.10-rc1 < 2026.10 < 2026.10-hotfix < 2026.10.1.
 */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [semver.parse(a), semver.parse(b)];
  if (left !== null && right !== null) return semver.compareBuild(left, right);
  const [as, bs] = [partsOf(a), partsOf(b)];
  for (let i = 0; i < Math.max(as.length, bs.length); i += 1) {
    const order = compareParts(as[i] ?? END, bs[i] ?? END);
    if (order !== 0) return order;
  }
  return 0;
}
