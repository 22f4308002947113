import { basename, dirname, join, resolve } from 'node:path';

/** The suffix of a signature's file, beside what it signs. */
export const SIGNATURE_SUFFIX = '.minisig';

/**
 * Where the signature of a read-only bundle, or of any other file, lies: beside it, or in the working folder under the same
 * name, because nothing can be written beside a disc.
 * @param path of volumes: without their number
 * @param volumes their paths: they may lie in several folders, and the signature beside any of them
 */
export function signaturePaths(path: string, volumes: readonly string[] = []): string[] {
  const name = `${basename(path)}${SIGNATURE_SUFFIX}`;
  const beside = volumes.map((volume) => join(dirname(volume), name));
  return [...new Set([`${path}${SIGNATURE_SUFFIX}`, ...beside, resolve(name)])];
}
