import { type Digest, isDigest } from './digest.ts';
import { SealiftError } from './errors.ts';

/** An image reference, normalised by Docker's rules: `nginx` is `docker.io/library/nginx:latest` (registry.md 1.2). */
export interface Reference {
  /** Registry host, with its port where one was written; `docker.io` for Docker Hub. */
  readonly host: string;
  /** Repository path without the host: `library/nginx`. */
  readonly repository: string;
  readonly tag?: string;
  /** When both are there the digest decides and the tag is only a label. */
  readonly digest?: Digest;
}

const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const HOST_NAME =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const MAX_NAME = 255;

/** True for text that may be a repository path on a registry. */
export function isRepository(text: string): boolean {
  return text.length <= MAX_NAME && REPOSITORY.test(text);
}

export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** True for a registry host with optional port, as an address may have it: no port 70000, no `1.2.3.4.5`. */
export function isHost(text: string): boolean {
  return text.length <= MAX_NAME && HOST_NAME.test(text) && URL.canParse(`https://${text}`);
}

function invalid(text: string, why: string, hint: string): SealiftError {
  return new SealiftError('REFERENCE_INVALID', `"${text.slice(0, 300)}" is not an image reference: ${why}`, {
    hint,
  });
}

function splitHost(name: string): readonly [host: string, rest: string] {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isHostPart = first !== '' && (/[.:]/.test(first) || first === 'localhost' || first.startsWith('['));
  if (isHostPart) return [first, name.slice(slash + 1)];
  return ['docker.io', name];
}

function normalizeHub(host: string, rest: string): readonly [host: string, repository: string] {
  const hub = host === 'index.docker.io' || host === 'registry-1.docker.io' ? 'docker.io' : host;
  return [hub, hub === 'docker.io' && rest !== '' && !rest.includes('/') ? `library/${rest}` : rest];
}

/**
 * Reads a reference as Docker does. Without tag and digest the tag is `latest`.
 * @throws REFERENCE_INVALID
 */
export function parseReference(text: string): Reference {
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  const named = at < 0 ? text : text.slice(0, at);
  if (digest !== undefined && !isDigest(digest)) {
    throw invalid(
      text,
      `"${digest.slice(0, 80)}" is not a sha256 digest`,
      'write name@sha256:<64 hex digits>',
    );
  }
  const [hostPart, afterHost] = splitHost(named);
  const colon = afterHost.lastIndexOf(':');
  const tag = colon < 0 ? undefined : afterHost.slice(colon + 1);
  const [host, repository] = normalizeHub(hostPart, colon < 0 ? afterHost : afterHost.slice(0, colon));
  if (!isHost(host)) {
    throw invalid(text, `"${host}" is not a host name`, 'write host[:port]/name:tag');
  }
  if (!REPOSITORY.test(repository)) {
    const lower = /[A-Z]/.test(repository)
      ? 'names are lower case'
      : `"${repository}" is not a repository name`;
    throw invalid(text, lower, 'write [host[:port]/]name[:tag][@digest], lower case');
  }
  if (`${host}/${repository}`.length > MAX_NAME) {
    throw invalid(text, 'the name is longer than 255 characters', 'use a shorter name');
  }
  if (tag !== undefined && !TAG.test(tag)) {
    throw invalid(text, `"${tag}" is not a tag`, 'a tag is up to 128 letters, digits, ".", "_" or "-"');
  }
  const effectiveTag = tag ?? (digest === undefined ? 'latest' : undefined);
  return {
    host,
    repository,
    ...(effectiveTag === undefined ? {} : { tag: effectiveTag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

/** `host/repository[:tag][@digest]`. */
export function formatReference(ref: Reference): string {
  const tag = ref.tag === undefined ? '' : `:${ref.tag}`;
  const digest = ref.digest === undefined ? '' : `@${ref.digest}`;
  return `${ref.host}/${ref.repository}${tag}${digest}`;
}

/** The name by which an image is known everywhere in Sealift: with its tag, or with its digest when it has none. */
export function imageName(ref: Reference): string {
  return ref.tag === undefined ? formatReference(ref) : `${ref.host}/${ref.repository}:${ref.tag}`;
}
