import { LEGACY_MANYLINUX, type PythonTarget, type WheelPlatform } from '../core/python-target.ts';

/** The tags that a wheel's file name has, taken apart (PEP 425, "Compressed Tag Sets"). */
export interface WheelName {
  /** `cp311-cp311-manylinux_2_17_x86_64`, all that the name stands for. */
  readonly tags: readonly string[];
  /** PEP 427, "File name convention": decides between wheels of equal tags. */
  readonly build: readonly [number: number, rest: string];
}

/** Tag sets of one name: a compressed one multiplies. */
const MAX_TAGS = 1_000;

/** What the file name of a wheel says of where it runs; undefined when it is none. */
export function parseWheelName(fileName: string): WheelName | undefined {
  if (!fileName.endsWith('.whl') || fileName.length > 255) return undefined;
  const parts = fileName.slice(0, -'.whl'.length).split('-');
  if (parts.length !== 5 && parts.length !== 6) return undefined;
  const [pythons, abis, platforms] = parts.slice(-3).map((part) => part.toLowerCase().split('.'));
  if (pythons === undefined || abis === undefined || platforms === undefined) return undefined;
  if (pythons.length * abis.length * platforms.length > MAX_TAGS) return undefined;
  const tags = pythons.flatMap((python) =>
    abis.flatMap((abi) => platforms.map((platform) => `${python}-${abi}-${platform}`)),
  );
  const [, number = '', rest = ''] = /^(\d+)(.*)$/.exec(parts.length === 6 ? (parts[2] ?? '') : '') ?? [];
  return { tags, build: [number === '' ? -1 : Number(number), rest] };
}

/** The platform tags that run on a platform, best first: those of the newest C library (PEP 600, PEP 656). */
export function platformTags({ machine, libc, major, minor }: WheelPlatform): string[] {
  const tags: string[] = [];
  if (libc === 'musl') {
    for (let n = minor; n >= 0; n -= 1) tags.push(`musllinux_${major}_${n}_${machine}`);
  } else {
    const legacy = new Map(Object.entries(LEGACY_MANYLINUX).map(([name, n]) => [n, name]));
    // Older ones were never made: manylinux1 is glibc 2.5, and arm64 came with manylinux2014.
    const oldest = machine === 'x86_64' ? 5 : 17;
    for (let n = minor; n >= oldest; n -= 1) {
      tags.push(`manylinux_${major}_${n}_${machine}`);
      const old = legacy.get(n);
      if (old !== undefined) tags.push(`${old}_${machine}`);
    }
  }
  // Says nothing of its C library. Private indexes have such wheels, and pip takes them.
  return [...tags, `linux_${machine}`];
}

/** Every tag that CPython takes there, best first, as pip has them (`packaging.tags`: `cpython_tags`, `compatible_tags`). */
export function supportedTags({ python, platform }: PythonTarget): string[] {
  const minor = Number(python.slice('3.'.length));
  const platforms = platformTags(platform);
  const own = `cp3${minor}`;
  const on = (tag: string): string[] => platforms.map((p) => `${tag}-${p}`);
  const older = Array.from({ length: Math.max(0, minor - 2) }, (_, i) => `cp3${minor - 1 - i}`);
  const generic = [`py3${minor}`, 'py3', ...Array.from({ length: minor }, (_, i) => `py3${minor - 1 - i}`)];
  return [
    ...on(`${own}-${own}`),
    ...on(`${own}-abi3`),
    ...on(`${own}-none`),
    ...older.flatMap((tag) => on(`${tag}-abi3`)),
    ...generic.flatMap((tag) => on(`${tag}-none`)),
    `${own}-none-any`,
    ...generic.map((tag) => `${tag}-none-any`),
  ];
}

/** Tells how well wheels fit one target. */
export class WheelRanks {
  readonly #ranks: ReadonlyMap<string, number>;

  constructor(target: PythonTarget) {
    this.#ranks = new Map(supportedTags(target).map((tag, rank) => [tag, rank]));
  }

  /** The rank of its best tag, 0 being the best there is; undefined when it does not run there. */
  of(wheel: WheelName): number | undefined {
    let best: number | undefined;
    for (const tag of wheel.tags) {
      const rank = this.#ranks.get(tag);
      if (rank !== undefined && (best === undefined || rank < best)) best = rank;
    }
    return best;
  }
}
