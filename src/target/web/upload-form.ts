import { createHash } from 'node:crypto';
import { hexOf } from '../../core/digest.ts';
import { KIB } from '../../core/limits.ts';
import { type Form, type FormField, fieldLength, multipartForm } from '../../io/multipart.ts';
import type { PackageMetadata } from '../../python/metadata.ts';
import type { PackageItem } from '../target.ts';

/** What a form carries. */
export interface UploadSource {
  readonly fileName: string;
  /** Known before the file is sent; undefined where it says nothing of itself. */
  readonly metadata: PackageMetadata | undefined;
  /** Its bytes, from the start. Called anew for each try. */
  readonly open: () => AsyncIterable<Uint8Array>;
  /** Where the metadata is known only when the file has passed: asked then. */
  readonly late?: () => Promise<PackageMetadata | undefined>;
}

/** A form, and the MD5 of the bytes that it sent last: older servers know no other hash (registry.md 2.7). */
export interface UploadForm extends Form {
  readonly md5: () => string | undefined;
}

/** Room behind the file for what it says of itself; a longer description is left out. */
const LATE_ROOM = 256 * KIB;

/** Said once, in front. */
const IDENTITY = new Set(['name', 'version']);

function fieldsOf(metadata: PackageMetadata | undefined, item: PackageItem): FormField[] {
  const fields = (metadata?.fields ?? [])
    .filter(([name]) => !IDENTITY.has(name))
    .map(([name, value]) => ({ name, value }));
  const has = (name: string): boolean => fields.some((field) => field.name === name);
  if (!has('metadata_version')) fields.unshift({ name: 'metadata_version', value: '2.1' });
  if (!has('requires_python') && item.requiresPython !== undefined) {
    fields.push({ name: 'requires_python', value: item.requiresPython });
  }
  // The longest one last: it alone is left out where there is too little room.
  return fields.sort((a, b) => Number(a.name === 'description') - Number(b.name === 'description'));
}

/** For whom a wheel is: its Python tag (PEP 425); an sdist is for all. */
function pythonOf(fileName: string): { readonly filetype: string; readonly pyversion: string } {
  if (!fileName.endsWith('.whl')) return { filetype: 'sdist', pyversion: 'source' };
  return { filetype: 'bdist_wheel', pyversion: fileName.split('-').at(-3) ?? 'py3' };
}

/**
 * The upload form of PyPI, Nexus and devpi (registry.md 2.7). Nexus checks the MD5, no server checks the SHA-256. Both
 * take fields behind the file, too: so the MD5 needs no reading ahead, and the metadata of a wheel that passes, which has
 * it at its end, needs no disk.
 */
export function uploadForm(item: PackageItem, source: UploadSource): UploadForm {
  const { fileName, late } = source;
  const { digest, size } = item.content;
  const { filetype, pyversion } = pythonOf(fileName);
  // A file cannot hold its own digest, so this is nowhere in it.
  const boundary = `sealift-${hexOf(digest).slice(0, 48)}`;
  let md5: string | undefined;
  const hashed = async function* (): AsyncGenerator<Uint8Array> {
    const hash = createHash('md5');
    for await (const chunk of source.open()) {
      hash.update(chunk);
      yield chunk;
    }
    md5 = hash.digest('hex');
  };
  const md5Field = (): FormField => ({ name: 'md5_digest', value: md5 ?? '' });
  const md5Room = fieldLength({ name: 'md5_digest', value: '0'.repeat(32) }, boundary);
  const form = multipartForm({
    boundary,
    fields: [
      { name: ':action', value: 'file_upload' },
      { name: 'protocol_version', value: '1' },
      { name: 'name', value: item.project },
      { name: 'version', value: item.version },
      { name: 'filetype', value: filetype },
      { name: 'pyversion', value: pyversion },
      { name: 'sha256_digest', value: hexOf(digest) },
      ...(late === undefined ? fieldsOf(source.metadata, item) : []),
    ],
    file: { name: 'content', fileName, contentType: 'application/octet-stream', size, open: hashed },
    late: {
      room: md5Room + (late === undefined ? 0 : LATE_ROOM),
      fields: async () => [md5Field(), ...(late === undefined ? [] : fieldsOf(await late(), item))],
    },
  });
  return { ...form, md5: () => md5 };
}
