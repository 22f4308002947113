import { SealiftError } from '../core/errors.ts';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1000,
  m: 1000 ** 2,
  g: 1000 ** 3,
  t: 1000 ** 4,
  ki: 1024,
  mi: 1024 ** 2,
  gi: 1024 ** 3,
  ti: 1024 ** 4,
};

/** A number of bytes as people write it: `4294966784`, `64MB` (decimal), `512MiB`, `1.5G`; undefined for anything else. */
export function bytesIn(text: string): number | undefined {
  const [, digits = '', unit = ''] = /^(\d{1,16}(?:\.\d{1,3})?) ?([kmgt]?i?)b?$/i.exec(text.trim()) ?? [];
  const bytes = Math.floor(Number(digits) * (UNITS[unit.toLowerCase()] ?? Number.NaN));
  return digits !== '' && Number.isSafeInteger(bytes) ? bytes : undefined;
}

/**
 * Reads a number of bytes, at least 1.
 * @param flag for the message
 * @throws USAGE
 */
export function parseBytes(text: string, flag: string): number {
  const bytes = bytesIn(text);
  if (bytes !== undefined && bytes >= 1) return bytes;
  throw new SealiftError('USAGE', `${flag}: "${text.slice(0, 40)}" is no number of bytes`, {
    hint: 'write bytes, or a number with a unit: 512MiB (of 1024), 4GB (of 1000)',
  });
}
