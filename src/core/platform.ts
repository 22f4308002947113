import { SealiftError } from './errors.ts';

/** A platform as the OCI image-spec names it (image-index.md, "platform"). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly osVersion?: string;
}

const WORD = /^[a-z0-9][a-z0-9_.-]{0,63}$/;

const ARCH_ALIASES: Readonly<Record<string, readonly [string, string?]>> = {
  x86_64: ['amd64'],
  'x86-64': ['amd64'],
  aarch64: ['arm64'],
  armhf: ['arm', 'v7'],
  armel: ['arm', 'v6'],
  i386: ['386'],
};

/** Brings spellings of one platform together: `aarch64` is `arm64`, `arm64/v8` is `arm64`, bare `arm` is `arm/v7`. */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const [architecture, implied] = ARCH_ALIASES[platform.architecture.toLowerCase()] ?? [
    platform.architecture.toLowerCase(),
  ];
  let variant = platform.variant?.toLowerCase() ?? implied;
  if (architecture === 'arm64' && (variant === 'v8' || variant === '8')) variant = undefined;
  if (architecture === 'amd64' && variant === 'v1') variant = undefined;
  if (architecture === 'arm') variant = variant === undefined ? 'v7' : variant.replace(/^(\d)/, 'v$1');
  return {
    os,
    architecture,
    ...(variant === undefined || variant === '' ? {} : { variant }),
    ...(platform.osVersion === undefined || platform.osVersion === ''
      ? {}
      : { osVersion: platform.osVersion }),
  };
}

/**
 * Reads `os/architecture[/variant]`, normalised.
 * @throws PLATFORM_INVALID
 */
export function parsePlatform(text: string): Platform {
  const [os, architecture, variant, ...rest] = text.split('/');
  const ok =
    os !== undefined &&
    architecture !== undefined &&
    rest.length === 0 &&
    WORD.test(os) &&
    WORD.test(architecture) &&
    (variant === undefined || WORD.test(variant));
  if (!ok) {
    throw new SealiftError('PLATFORM_INVALID', `"${text}" is not a platform`, {
      hint: 'write os/architecture or os/architecture/variant, for example linux/amd64',
    });
  }
  return normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

/** `os/architecture[/variant]`, with the OS version in parentheses after the OS when there is one: `windows(10.0.1)/amd64`. */
export function formatPlatform(platform: Platform): string {
  const p = normalizePlatform(platform);
  const os = p.osVersion === undefined ? p.os : `${p.os}(${p.osVersion})`;
  return [os, p.architecture, ...(p.variant === undefined ? [] : [p.variant])].join('/');
}

/** Whether content for `have` serves someone who asked for `want`. An OS version is only compared when asked for. */
export function platformMatches(want: Platform, have: Platform): boolean {
  const w = normalizePlatform(want);
  const h = normalizePlatform(have);
  return (
    w.os === h.os &&
    w.architecture === h.architecture &&
    w.variant === h.variant &&
    (w.osVersion === undefined || w.osVersion === h.osVersion)
  );
}

/** True for a platform that says nothing, as attestation manifests carry it (`unknown/unknown`). */
export function isUnknownPlatform(platform: Platform | undefined): boolean {
  return platform === undefined || platform.os === 'unknown' || platform.os === '';
}
