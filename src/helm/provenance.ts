import { type Digest, isDigest } from '../core/digest.ts';
import { LIMITS } from '../core/limits.ts';
import { asMap, asText, fieldOf, parsePlainYaml } from './plain-yaml.ts';

/**
 * What a `.prov` file says about an archive. `unverified`: it names these bytes, but its OpenPGP signature was not
 * checked. `mismatch`: it names other bytes, or not this file name, or cannot be read.
 */
export type ProvenanceState = 'absent' | 'unverified' | 'mismatch';

const BEGIN = '-----BEGIN PGP SIGNED MESSAGE-----';
const SIGNATURE = '-----BEGIN PGP SIGNATURE-----';

/**
 * The `files` of a provenance text: archive file name → digest. Empty when it has none or is too damaged to read.
 * Layout: helm.md 1.5 (clear-signed; Chart.yaml, a line `...`, then `files:`).
 */
export function provenanceFiles(text: string): ReadonlyMap<string, Digest> {
  const none = new Map<string, Digest>();
  if (Buffer.byteLength(text) > LIMITS.provenance) return none;
  const lines = text.split(/\r?\n/);
  const begin = lines.indexOf(BEGIN);
  const end = lines.indexOf(SIGNATURE);
  if (begin < 0 || end < begin) return none;
  const body = lines.slice(begin, end).map((line) => line.replace(/^- /, ''));
  const separator = body.lastIndexOf('...');
  if (separator < 0) return none;
  const bytes = Buffer.from(body.slice(separator + 1).join('\n'));
  let files: unknown;
  try {
    const parsed = asMap(
      parsePlainYaml(bytes, { what: 'provenance', code: 'CHART_INVALID', limit: LIMITS.provenance }),
    );
    files = parsed === undefined ? undefined : fieldOf(parsed, 'files');
  } catch {
    return none;
  }
  const found = new Map<string, Digest>();
  for (const [name, value] of Object.entries(asMap(files) ?? {})) {
    const digest = asText(value)?.trim().toLowerCase() ?? '';
    if (isDigest(digest)) found.set(name, digest);
  }
  return found;
}

/**
 * Whether a provenance text speaks of this archive.
 * @param text undefined when there is no `.prov`
 * @param archive.fileName exactly as published: Helm compares it too
 */
export function provenanceState(
  text: string | undefined,
  archive: { readonly fileName: string; readonly digest: Digest },
): ProvenanceState {
  if (text === undefined) return 'absent';
  return provenanceFiles(text).get(archive.fileName) === archive.digest ? 'unverified' : 'mismatch';
}
