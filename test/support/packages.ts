/** Wheels and bundles that hold them, made without any index: the lock is written by hand. */
import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { zipSync } from 'fflate';
import type { Lock, PackageLock, PythonLock } from '../../src/lock/schema.ts';
import { formatLock } from '../../src/lock/write.ts';
import { pack } from '../../src/ops/pack.ts';
import { testContext } from './bundles.ts';

export interface MadePackage {
  readonly lock: PackageLock;
  readonly bytes: Buffer;
}

export interface WheelFacts {
  /** Versions of Python that it says it runs with. */
  readonly requiresPython?: string;
  /** What it depends on, as PEP 508 writes it. */
  readonly requires?: readonly string[];
  readonly yanked?: string;
  /** Its `python-abi-platform`; default `py3-none-any`. */
  readonly tag?: string;
}

/** A wheel that pip installs: one module that knows its version. @param name normalised */
export function makeWheel(name: string, version: string, facts: WheelFacts = {}): MadePackage {
  const { requiresPython, requires = [], yanked, tag = 'py3-none-any' } = facts;
  const module = name.replaceAll('-', '_');
  const info = `${module}-${version}.dist-info`;
  const text = (...lines: readonly string[]): Uint8Array => Buffer.from(`${lines.join('\n')}\n`);
  const said = requiresPython === undefined ? [] : [`Requires-Python: ${requiresPython}`];
  const files = {
    [`${module}/__init__.py`]: text(`version = "${version}"`, `tag = "${tag}"`),
    [`${info}/METADATA`]: text(
      'Metadata-Version: 2.1',
      `Name: ${name}`,
      `Version: ${version}`,
      ...said,
      ...requires.map((other) => `Requires-Dist: ${other}`),
    ),
    [`${info}/WHEEL`]: text('Wheel-Version: 1.0', 'Root-Is-Purelib: true', `Tag: ${tag}`),
    [`${info}/RECORD`]: text(`${module}/__init__.py,,`, `${info}/RECORD,,`),
  };
  const bytes = Buffer.from(zipSync(files, { mtime: '2026-01-01' }));
  const file = `${module}-${version}-${tag}.whl`;
  const lock: PackageLock = {
    file,
    name,
    version,
    source: { path: `wheels/${file}` },
    size: bytes.length,
    sha256: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
    ...(requiresPython === undefined ? {} : { requiresPython }),
    ...(yanked === undefined ? {} : { yanked }),
  };
  return { lock, bytes };
}

/**
 * Writes the wheels and a lock of them below a folder, and packs it.
 * @param options.python what else the lock says of them
 * @returns the path of the bundle
 */
export async function packPackages(
  dir: string,
  packages: readonly MadePackage[],
  options: {
    readonly version?: string;
    readonly python?: Partial<PythonLock>;
    readonly files?: Lock['files'];
    readonly since?: readonly string[];
    readonly repair?: string;
    readonly out?: string;
  } = {},
): Promise<string> {
  const { version = '1', python = {}, files = [], since, repair, out = join(dir, 'bundle.tar') } = options;
  for (const { lock, bytes } of packages) {
    const at = join(dir, 'path' in lock.source ? lock.source.path : lock.file);
    await mkdir(dirname(at), { recursive: true });
    await writeFile(at, bytes);
  }
  const pins = new Map(packages.map(({ lock }) => [`${lock.name} ${lock.version}`, lock]));
  const lock: Lock = {
    lockVersion: 1,
    name: 'wheels',
    version,
    images: [],
    charts: [],
    files,
    python: {
      requirements: [],
      constraints: [],
      packages: [],
      pythons: ['3.11'],
      platforms: ['linux/amd64'],
      indexes: [],
      pins: Array.from(pins.values(), ({ name, version: own }) => ({ name, version: own })),
      files: packages.map((made) => made.lock),
      ...python,
    },
  };
  const lockPath = join(dir, `versions-${version}.lock`);
  await writeFile(lockPath, formatLock(lock));
  const more = {
    ...(since === undefined ? {} : { since }),
    ...(repair === undefined ? {} : { repair }),
  };
  await pack({ manifestPath: join(dir, 'no.yaml'), lockPath, out, ...more }, testContext());
  return out;
}
