import type { Lock } from './schema.ts';

/** How many things of each kind a lock, or what was made of it, has. */
export interface Counts {
  readonly images: number;
  readonly charts: number;
  readonly files: number;
  /** Files of Python packages. */
  readonly packages: number;
}

/** How many things a lock names. */
export function countsOf({ images, charts, files, python }: Lock): Counts {
  return {
    images: images.length,
    charts: charts.length,
    files: files.length,
    packages: python?.files.length ?? 0,
  };
}
