import { SealiftError } from '../core/errors.ts';
import { GIB, KIB, MIB } from '../core/limits.ts';
import { bytesIn } from './byte-size.ts';

/** Media by name. FAT32 ends one byte below 4 GiB; a DVD+R has 4 700 372 992 bytes, of which its file system needs some. */
const MEDIA: Readonly<Record<string, number>> = { fat32: 4 * GIB - 512, dvd: 4_480 * MIB };

const LEAST = 64 * KIB;

/**
 * What `--volume-size` says, in bytes: `4GB`, `64MiB`, `fat32`, `dvd`.
 * @throws USAGE
 */
export function parseVolumeSize(text: string): number {
  const named = MEDIA[text.toLowerCase()];
  if (named !== undefined) return named;
  const bytes = bytesIn(text);
  if (bytes !== undefined && bytes >= LEAST) return bytes;
  throw new SealiftError('USAGE', `--volume-size ${text}: not a size of at least ${LEAST} bytes`, {
    hint: 'for example 4GB (4 000 000 000 bytes), 64MiB, fat32 or dvd',
  });
}

/** What to know about volumes that not every medium takes; undefined where there is nothing to say. */
export function largeVolumes(bytes: number): string | undefined {
  if (bytes < 4 * GIB) return undefined;
  return `volumes of ${bytes} bytes do not fit on FAT32, nor on a disc with a plain ISO 9660 file system: use exFAT, ext4 or UDF, or --volume-size fat32`;
}
