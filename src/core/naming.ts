import { SealiftError } from './errors.ts';
import { isRepository, isTag, type Reference } from './reference.ts';

/** How a source host shows in the name on a target registry. */
export type Naming = 'drop-host' | 'keep-host';

export const NAMINGS: readonly Naming[] = ['drop-host', 'keep-host'];

function join(prefix: string, path: string): string {
  const repository = prefix === '' ? path : `${prefix}/${path}`;
  if (isRepository(repository)) return repository;
  throw new SealiftError('REFERENCE_INVALID', `"${repository.slice(0, 300)}" cannot be a repository name`, {
    hint: 'shorten or change the prefix of the target; names are lower case and at most 255 characters',
  });
}

/**
 * The repository of an image on a target registry. `drop-host` (what kubespray-offline, hauler and zarf do) keeps
 * only the path; `keep-host` puts the host first, its port behind `_` because `:` may not be in a path.
 */
export function imageRepository(
  ref: Reference,
  options: { readonly prefix: string; readonly naming: Naming },
): string {
  const host = ref.host.toLowerCase().replace(/[[\]]/g, '').replaceAll(':', '_');
  return join(options.prefix, options.naming === 'keep-host' ? `${host}/${ref.repository}` : ref.repository);
}

/** `<prefix>/charts/<name>` and the tag that Helm asks for: the version with `+` as `_` (helm.md 1.4). */
export function chartPlace(
  chart: { readonly name: string; readonly version: string },
  prefix: string,
): { readonly repository: string; readonly tag: string } {
  const tag = chart.version.replaceAll('+', '_');
  if (!isTag(tag)) {
    throw new SealiftError('REFERENCE_INVALID', `chart version "${chart.version}" cannot be a tag`);
  }
  return { repository: join(prefix, `charts/${chart.name}`), tag };
}

/** `<prefix>/files/<name>` and the first 12 hex digits of the file's SHA-256. Characters that no repository may hold become `-`. */
export function filePlace(
  file: { readonly name: string; readonly sha256: string },
  prefix: string,
): { readonly repository: string; readonly tag: string } {
  const path = file.name
    .toLowerCase()
    .split('/')
    .map((part) =>
      part
        .replace(/[^a-z0-9._-]+/g, '-')
        .replace(/([._-])[._-]+/g, '$1')
        .replace(/^[._-]+|[._-]+$/g, ''),
    )
    .map((part) => (part === '' ? 'x' : part))
    .join('/');
  return { repository: join(prefix, `files/${path}`), tag: file.sha256.slice(0, 12) };
}
