import type { Digest } from '../core/digest.ts';
import { parseWheelName, type WheelName, type WheelRanks } from './tags.ts';

/** A file that an index offers. */
export interface OfferedFile {
  readonly file: string;
  /** Undefined where the index names none that we check. */
  readonly sha256: Digest | undefined;
  readonly yanked?: string;
}

interface Ranked<T> {
  readonly offered: T;
  /** Smaller is better, the first that differs decides. */
  readonly key: readonly [unlisted: number, yanked: number, rank: number, build: number];
  readonly wheel: WheelName;
}

function compareRanked(a: Ranked<unknown>, b: Ranked<unknown>): number {
  for (const [i, n] of a.key.entries()) {
    const order = n - (b.key[i] ?? 0);
    if (order !== 0) return order;
  }
  return a.wheel.build[1] < b.wheel.build[1] ? 1 : -1;
}

/**
 * The wheel that pip installs on a target, of the files of one release: those whose hash a requirement names first, then
 * those that were not taken back, then the best tag, then the highest build number (pip's `CandidateEvaluator`).
 * @param options.allowed hashes that requirements name for it; a file with another one is not taken
 */
export function chooseWheel<T extends OfferedFile>(
  files: readonly T[],
  options: { readonly ranks: WheelRanks; readonly allowed?: ReadonlySet<Digest> | undefined },
): T | undefined {
  const { ranks, allowed } = options;
  const ranked = files.flatMap((offered): Ranked<T>[] => {
    const wheel = parseWheelName(offered.file);
    const rank = wheel === undefined ? undefined : ranks.of(wheel);
    if (wheel === undefined || rank === undefined) return [];
    const { sha256, yanked } = offered;
    // Without a known hash it is read first, and judged then.
    if (allowed !== undefined && sha256 !== undefined && !allowed.has(sha256)) return [];
    const key = [
      allowed !== undefined && sha256 === undefined ? 1 : 0,
      yanked === undefined ? 0 : 1,
      rank,
      -wheel.build[0],
    ] as const;
    return [{ offered, key, wheel }];
  });
  return ranked.sort(compareRanked)[0]?.offered;
}

/** The source archive of a release: a `.tar.gz` before a `.zip`, one that was not taken back before one that was. */
export function chooseSdist<T extends OfferedFile>(
  files: readonly T[],
  allowed: ReadonlySet<Digest> | undefined,
): T | undefined {
  const rank = ({ file, yanked }: OfferedFile): number =>
    (yanked === undefined ? 0 : 2) + (file.endsWith('.tar.gz') ? 0 : 1);
  return files
    .filter(({ file, sha256 }) => {
      if (!file.endsWith('.tar.gz') && !file.endsWith('.zip')) return false;
      return allowed === undefined || sha256 === undefined || allowed.has(sha256);
    })
    .toSorted((a, b) => rank(a) - rank(b))[0];
}
