import { tarHeader } from '../io/tar.ts';

/** The entries before the blobs, in order. */
export const DOCUMENTS: readonly string[] = [
  'oci-layout',
  'index.json',
  'versions.lock',
  'sealift.json',
  'SHA256SUMS',
];
/** The whole of the entry `oci-layout`. */
export const OCI_LAYOUT: Buffer = Buffer.from('{"imageLayoutVersion":"1.0.0"}\n');
/** How every bundle in one file begins, byte for byte. */
export const FIRST_ENTRY: Buffer = Buffer.concat([tarHeader('oci-layout', OCI_LAYOUT.length), OCI_LAYOUT]);
export const B3SUMS = 'B3SUMS';
export const SIGNATURE = 'B3SUMS.minisig';

/** Whether a word of a command line is the address of a bundle on a server, and not a path. */
export function isAddress(word: string): boolean {
  return /^https?:\/\//i.test(word);
}
