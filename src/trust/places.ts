import { basename, resolve } from 'node:path';

/** The suffix of a signature's file, beside what it signs. */
export const SIGNATURE_SUFFIX = '.minisig';

/**
 * Where the signature of a read-only bundle, or of any other file, lies: beside it, or in the working folder under the same
 * name, because nothing can be written beside a disc.
 * @param path of volumes: without their number
 */
export function signaturePaths(path: string): string[] {
  const beside = `${path}${SIGNATURE_SUFFIX}`;
  return [...new Set([beside, resolve(basename(beside))])];
}
