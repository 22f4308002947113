import { SealiftError } from './errors.ts';

/** What wheels are chosen for: a version of CPython on a platform. */
export interface PythonTarget {
  /** `3.11` */
  readonly python: string;
  readonly platform: WheelPlatform;
}

/** A Linux with its C library. */
export interface WheelPlatform {
  /** As it stands in the lock: `linux/amd64`, `manylinux_2_17_x86_64`. */
  readonly name: string;
  /** As wheels and `platform.machine()` name it. */
  readonly machine: Machine;
  readonly libc: 'glibc' | 'musl';
  /** The newest version of the C library that a wheel may ask for. */
  readonly major: number;
  readonly minor: number;
}

export type Machine = 'x86_64' | 'aarch64';

/** glibc of a plain `linux/amd64`: that of RHEL 8 and its kin, the oldest that projects still build wheels for. */
const DEFAULT_GLIBC = [2, 28] as const;

const PLAIN: Readonly<Record<string, Machine>> = {
  'linux/amd64': 'x86_64',
  'linux/x86_64': 'x86_64',
  'linux/arm64': 'aarch64',
  'linux/aarch64': 'aarch64',
  'linux/arm64/v8': 'aarch64',
};

/** PEP 513, 571 and 599 as PEP 600 names them. */
export const LEGACY_MANYLINUX: Readonly<Record<string, number>> = {
  manylinux1: 5,
  manylinux2010: 12,
  manylinux2014: 17,
};

const MACHINES: readonly string[] = ['x86_64', 'aarch64'] satisfies readonly Machine[];

function isMachine(text: string): text is Machine {
  return MACHINES.includes(text);
}

/**
 * Reads `linux/amd64`, `linux/arm64` (glibc 2.28), or the platform tag of a wheel, which says the C library:
 * `manylinux_2_17_x86_64`, `manylinux2014_aarch64`, `musllinux_1_2_x86_64` (PEP 600, PEP 656).
 * @throws PLATFORM_INVALID
 */
export function parseWheelPlatform(text: string): WheelPlatform {
  const plain = Object.hasOwn(PLAIN, text) ? PLAIN[text] : undefined;
  if (plain !== undefined) {
    const name = plain === 'x86_64' ? 'linux/amd64' : 'linux/arm64';
    return { name, machine: plain, libc: 'glibc', major: DEFAULT_GLIBC[0], minor: DEFAULT_GLIBC[1] };
  }
  const tag = /^(?:(manylinux|musllinux)_(\d{1,2})_(\d{1,3})|(manylinux(?:1|2010|2014)))_([a-z0-9_]+)$/.exec(
    text,
  );
  const [, family, majorText = '2', minorText = '', legacy = '', machine = ''] = tag ?? [];
  const minor = Object.hasOwn(LEGACY_MANYLINUX, legacy) ? LEGACY_MANYLINUX[legacy] : Number(minorText);
  const major = Number(majorText);
  const libc = family === 'musllinux' ? 'musl' : 'glibc';
  if (tag === null || minor === undefined || !isMachine(machine) || major !== (libc === 'musl' ? 1 : 2)) {
    throw new SealiftError('PLATFORM_INVALID', `"${text.slice(0, 100)}" is not a platform of wheels`, {
      hint: 'write linux/amd64 or linux/arm64 (glibc 2.28), or the C library too: manylinux_2_17_x86_64, musllinux_1_2_aarch64',
    });
  }
  const name = `${libc === 'musl' ? 'musllinux' : 'manylinux'}_${major}_${minor}_${machine}`;
  return { name, machine, libc, major, minor };
}

/** Whether a text is a version of CPython as targets have it: `3.8` and later, without a patch version. */
export function isTargetPython(text: string): boolean {
  const minor = /^3\.(0|[1-9]\d?)$/.exec(text)?.[1];
  return minor !== undefined && Number(minor) >= 8;
}
