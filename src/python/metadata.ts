import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

/** What a wheel or a source archive says of itself (core metadata: METADATA, PKG-INFO). */
export interface PackageMetadata {
  /** As it is written there. */
  readonly name: string;
  readonly version: string;
  /** `metadata_version`, `requires_dist` and so on as upload forms name them, in their order, repeated where it is. */
  readonly fields: readonly (readonly [name: string, value: string])[];
}

/** Every field of core metadata up to 2.5, and what forms call it. */
const FORM_NAMES: Readonly<Record<string, string>> = {
  'metadata-version': 'metadata_version',
  name: 'name',
  version: 'version',
  dynamic: 'dynamic',
  platform: 'platform',
  'supported-platform': 'supported_platform',
  summary: 'summary',
  'description-content-type': 'description_content_type',
  keywords: 'keywords',
  'home-page': 'home_page',
  'download-url': 'download_url',
  author: 'author',
  'author-email': 'author_email',
  maintainer: 'maintainer',
  'maintainer-email': 'maintainer_email',
  license: 'license',
  'license-expression': 'license_expression',
  'license-file': 'license_file',
  classifier: 'classifiers',
  'requires-dist': 'requires_dist',
  'requires-python': 'requires_python',
  'requires-external': 'requires_external',
  'project-url': 'project_urls',
  'provides-extra': 'provides_extra',
  'provides-dist': 'provides_dist',
  'obsoletes-dist': 'obsoletes_dist',
  'import-name': 'import_names',
  'import-namespace': 'import_namespaces',
  requires: 'requires',
  provides: 'provides',
  obsoletes: 'obsoletes',
};

/** Fields that may be there once only; a second one could be read as the first by others. */
const ONCE = new Set(['metadata_version', 'name', 'version', 'requires_python']);

/** A package that is not what its name says, or cannot be read. @param what its file name */
export function invalidPackage(what: string, why: string, cause?: unknown): SealiftError {
  return new SealiftError('PACKAGE_INVALID', `${what}: ${why}`, {
    hint: 'pip would not take it either: ask its publisher, or lock another version',
    ...(cause === undefined ? {} : { cause }),
  });
}

function headLines(head: string): string[] {
  const lines: string[] = [];
  for (const line of head.split('\n')) {
    const text = line.endsWith('\r') ? line.slice(0, -1) : line;
    const last = lines.length - 1;
    if (/^[ \t]/.test(text) && last >= 0) lines[last] += `\n${text.slice(1)}`;
    else if (text !== '') lines.push(text);
  }
  return lines;
}

/** A long text in a header is indented by eight columns, or by seven and a bar. */
function unfold(value: string): string {
  return value
    .split('\n')
    .map((line, at) => (at === 0 ? line : line.replace(/^(?: {6}\|| {7})/, '')))
    .join('\n')
    .trim();
}

/**
 * Reads the headers and the text behind them (core metadata: an RFC 822 message in UTF-8). Headers that nobody knows are
 * left out.
 * @param what the file's name, for messages
 * @throws PACKAGE_INVALID
 */
export function parseMetadata(bytes: Buffer, what: string): PackageMetadata {
  const text = bytes.toString('utf8').replace(/^\uFEFF/, '');
  const gap = /\r?\n\r?\n/.exec(text);
  const head = gap === null ? text : text.slice(0, gap.index);
  const body = gap === null ? '' : text.slice(gap.index + gap[0].length);
  const fields: [string, string][] = [];
  const seen = new Map<string, string>();
  for (const line of headLines(head)) {
    const colon = line.indexOf(':');
    const name = FORM_NAMES[line.slice(0, Math.max(0, colon)).trim().toLowerCase()];
    const isText = /^description[ \t]*:/i.test(line);
    if (name === undefined && !isText) continue;
    const value = unfold(line.slice(colon + 1));
    if (value === '' || value === 'UNKNOWN') continue;
    const form = name ?? 'description';
    if (ONCE.has(form) && seen.has(form)) throw invalidPackage(what, `its metadata has ${form} twice`);
    seen.set(form, value);
    fields.push([form, value]);
    if (fields.length > LIMITS.packageFields) {
      throw invalidPackage(what, `its metadata has more than ${LIMITS.packageFields} fields`);
    }
  }
  if (body.trim() !== '' && !seen.has('description')) fields.push(['description', body]);
  const name = seen.get('name');
  const version = seen.get('version');
  if (name === undefined || version === undefined) {
    throw invalidPackage(what, `its metadata has no ${name === undefined ? 'name' : 'version'}`);
  }
  return { name, version, fields };
}
