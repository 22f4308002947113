import { SealiftError } from '../core/errors.ts';

/** What registries answer to a manifest whose blobs they do not find. */
export const LOST_BLOB = new Set(['MANIFEST_BLOB_UNKNOWN', 'BLOB_UNKNOWN']);
/** What registries answer to an index whose children they lack (registry.md 1.6). */
export const SPARSE_REFUSED = new Set([...LOST_BLOB, 'MANIFEST_UNKNOWN', 'MANIFEST_INVALID']);

/** Whether an error is one of these refusals. */
export function isRefusal(error: unknown, codes: ReadonlySet<string>): boolean {
  if (!(error instanceof SealiftError)) return false;
  const { status, serverCode } = error.details ?? {};
  return (status === 400 || status === 404) && typeof serverCode === 'string' && codes.has(serverCode);
}
