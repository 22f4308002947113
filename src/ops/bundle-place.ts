import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { isHost, isRepository, isTag } from '../core/reference.ts';
import type { HostConfig } from '../oci/registry.ts';

/** Where a bundle is in a registry. */
export interface BundlePlace {
  readonly host: string;
  readonly repository: string;
  /** A tag, or a digest when there is no tag. */
  readonly tag?: string;
  readonly digest?: Digest;
  readonly config: HostConfig;
}

const FORM = 'oci://HOST[:PORT]/REPOSITORY:TAG';

function unreadable(text: string, why: string): SealiftError {
  return new SealiftError('USAGE', `"${text.slice(0, 300)}" is no place of a bundle: ${why}`, {
    hint: `write ${FORM}, for example oci://registry.local:5000/bundles/astrago:2026.11`,
  });
}

/**
 * Reads `oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]`. `http://` instead means plain HTTP, `https://` TLS; with `oci://`
 * loopback hosts are plain and all others are not. The first part always is the host.
 * @throws USAGE, also for a user name or password inside: those come from docker's configuration
 */
export function parseBundlePlace(text: string): BundlePlace {
  const [, scheme, rest] = /^(oci|https?):\/\/(.+)$/.exec(text) ?? [];
  if (scheme === undefined || rest === undefined) throw unreadable(text, 'it does not begin with oci://');
  const slash = rest.indexOf('/');
  const host = slash < 0 ? rest : rest.slice(0, slash);
  if (host.includes('@')) throw unreadable('…', 'no user name or password in the address');
  if (!isHost(host)) throw unreadable(text, `"${host.slice(0, 100)}" is not a host`);
  const path = slash < 0 ? '' : rest.slice(slash + 1);
  const [, repository = '', mark, name = ''] = /^([^:@]*)(?:([:@])(.*))?$/.exec(path) ?? [];
  if (!isRepository(repository)) throw unreadable(text, `"${repository}" is not a name of a repository`);
  const config = scheme === 'oci' ? {} : { plainHttp: scheme === 'http' };
  if (mark === undefined) return { host, repository, config };
  if (mark === ':' && isTag(name)) return { host, repository, tag: name, config };
  if (mark === '@' && isDigest(name)) return { host, repository, digest: name, config };
  throw unreadable(text, `"${name.slice(0, 100)}" is not a ${mark === ':' ? 'tag' : 'sha256 digest'}`);
}

/** The place as it is written on a command line. */
export function formatBundlePlace({ host, repository, tag, digest, config }: BundlePlace): string {
  const scheme = config.plainHttp === undefined ? 'oci' : config.plainHttp ? 'http' : 'https';
  const name = tag === undefined ? (digest === undefined ? '' : `@${digest}`) : `:${tag}`;
  return `${scheme}://${host}/${repository}${name}`;
}
