import { posix } from 'node:path';
import type { Position } from '../core/errors.ts';
import { parseWheelPlatform } from '../core/python-target.ts';
import type { Reading } from './entries.ts';
import { pythonObject } from './python-schema.ts';

/** `python` of a manifest. */
export interface ManifestPython {
  /** Files, relative to the manifest, with `/`. */
  readonly requirements: readonly string[];
  readonly constraints: readonly string[];
  readonly packages: readonly string[];
  /** Where each of `packages` stands. */
  readonly packagePositions: readonly Position[];
  /** `3.11` */
  readonly pythons: readonly string[];
  /** As `parseWheelPlatform` names them. */
  readonly platforms: readonly string[];
  /** Empty: what the resolver is configured with. */
  readonly indexes: readonly string[];
  readonly sdists: boolean;
  /** Undefined: uv where it is there, else pip. */
  readonly resolver?: 'uv' | 'pip';
  readonly position: Position;
}

function unique<T>(items: readonly T[]): T[] {
  return [...new Set(items)];
}

/** `python` of a manifest, undefined where there is none or it has a fault, which the whole shape reports. */
export function readPython(reading: Reading): ManifestPython | undefined {
  const parsed = pythonObject.safeParse(reading.root.python);
  if (!parsed.success) return undefined;
  const { requirements, constraints, packages, pythons, platforms, indexes, sdists, resolver } = parsed.data;
  const paths = (list: readonly string[] | null | undefined): string[] =>
    unique((list ?? []).map((path) => posix.normalize(path)));
  const asked = packages ?? [];
  return {
    requirements: paths(requirements),
    constraints: paths(constraints),
    packages: asked,
    packagePositions: asked.map((_, i) => reading.yaml.positionOf(['python', 'packages', i])),
    pythons: unique(pythons),
    platforms: unique((platforms ?? ['linux/amd64']).map((name) => parseWheelPlatform(name).name)),
    indexes: unique((indexes ?? []).map((url) => url.replace(/\/+$/, ''))),
    sdists: sdists ?? false,
    ...(resolver === undefined ? {} : { resolver }),
    position: reading.yaml.positionOf(['python'], 'key'),
  };
}
